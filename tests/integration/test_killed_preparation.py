"""Preparations and Dask workers that are killed at random moments: what comes next is the same.

`test_incremental_preparation` stops before and after every single write; here the kernel kills real
processes. A moment is a number of stored objects or of rows that are done, not a time, so that none
comes too late on a busy machine.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import distributed
import numpy as np
import psutil
import pytest

from automl.data.cluster import remote_client
from automl.data.dask import Runner, Workers, open_workers
from automl.data.files import OnProgress
from automl.domain.facts import Origin
from automl.domain.settings import Settings
from automl.domain.sources import Sources
from automl.machine.process import StepResult, bound_to_parent, run_step
from automl.runs.context import StepContext
from automl.runs.preparation import dataset_request
from automl.steps.study_file import study_spec
from automl.storage.sources import open_source
from automl.tracks.image import reading
from automl.tracks.image.decode import encode_png
from automl.tracks.track import track_of
from tests.dask_cluster import scheduler, start_worker, workers
from tests.local import here, unseen
from tests.small_chunks import CHUNK_ROWS, KEPT_ROWS

ROWS = 64
STEP = "tests.small_chunks"
ENDS_S = 10.0  # for what a killed step leaves running
MOMENTS = [0, 1, *(pytest.param(moment, marks=pytest.mark.soak) for moment in range(2, 10))]


@contextmanager
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK_ROWS", CHUNK_ROWS)
        patch.setattr(reading, "KEPT_ROWS", KEPT_ROWS)
        yield


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_chunks():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for number in range(ROWS):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 12, 3), dtype=np.uint8)
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        (place / f"{number:03d}.png").write_bytes(encode_png(pixels))
    return folder


@dataclass(frozen=True)
class Study:
    """A study with a home of its own."""

    source: Path
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def context(self) -> StepContext:
        data = {"source": str(self.source), "image_size": 16}
        document = {"name": "killed", "task": "image_classification", "data": data}
        return StepContext.open(Settings(str(self.home)), study_spec(document), "one", "test")

    def prepared_by(self, runner: Runner) -> str:
        """Prepare as the step does, with other workers; return the snapshot's id."""
        context = self.context
        sources = Sources.of(context.settings, Origin.of(context.origin))
        request = dataset_request(context, partial(open_source, sources=sources))
        return track_of(context.spec.task).prepare(request, context.store, runner).id

    def stored(self) -> dict[str, bytes]:
        """Return all that is stored of the dataset, but for the report beside a snapshot."""
        store = self.context.store
        keys = (entry.key for entry in store.list("datasets/"))
        return {key: store.get(key).data for key in keys if not key.endswith("/report.html")}

    def stored_objects(self) -> int:
        """Return how many objects there are, while they are written."""
        return sum(len(files) for _, _, files in os.walk(self.home / "datasets"))


@dataclass(frozen=True)
class Whole:
    """Outcome of an undisturbed preparation: the snapshot's id, and all that is stored."""

    snapshot: str
    stored: dict[str, bytes]


@pytest.fixture
def study(source: Path, tmp_path: Path) -> Study:
    return Study(source, tmp_path)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    undisturbed = Study(source, tmp_path_factory.mktemp("undisturbed"))
    with small_chunks():
        snapshot = undisturbed.prepared_by(here())
    return Whole(snapshot, undisturbed.stored())


# --- the step ---


@dataclass
class Killer:
    """Kills a step once so many objects are stored; with 0 once it starts workers.

    Attributes:
        study: whose step it is.
        objects: that many.
        killed: the processes of the step, once it is killed.
    """

    study: Study
    objects: int
    killed: list[psutil.Process] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _watch(self) -> None:
        step: psutil.Process | None = None
        while not self._is_over.wait(0.003):
            step = step or self._step()
            if step is not None and self._is_time(step):
                step.suspend()  # so that it starts nothing that is not seen
                self.killed = [step, *step.children(recursive=True)]
                step.kill()
                return

    def _step(self) -> psutil.Process | None:
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if STEP in child.cmdline():
                    return child
        return None

    def _is_time(self, step: psutil.Process) -> bool:
        has_workers = self.objects == 0 and bool(step.children())
        return has_workers or self.study.stored_objects() >= max(1, self.objects)


def run(study: Study, objects: int | None = None) -> tuple[StepResult, list[psutil.Process]]:
    """Run the step, and kill it once so many objects are stored; return what was killed, too."""
    context, temporary = study.context, study.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    killer = Killer(study, objects or 0)
    with nullcontext() if objects is None else killer.watching():
        ended = run_step(
            "prepare",
            {"spec": context.spec.model_dump(mode="json", by_alias=True), "run": "one",
             "origin": "test"},
            env={**os.environ, "AUTOML_HOME": str(study.home), "TMPDIR": str(temporary)},
            timeout_s=300, on_line=lambda _: None, stop=lambda: False, module=STEP,
        )  # fmt: skip
    return ended, killer.killed


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_step_is_gone_and_the_next_one_ends_with_the_same_bytes(
    study: Study, whole: Whole, moment: int
) -> None:
    objects = random.Random(moment).randrange(len(whole.stored) - 2)  # noqa: S311 - a choice

    ended, killed = run(study, objects)

    assert ended.signal == signal.SIGKILL, f"it ended before {objects} were stored: {ended}"
    assert len(whole.stored) > study.stored_objects() >= objects
    _, alive = psutil.wait_procs(killed, ENDS_S)
    assert alive == []
    again, _ = run(study)
    assert again.failure is None
    assert again.result["snapshot"] == whole.snapshot
    assert study.stored() == whole.stored
    assert {path.name for path in (study.folder / "tmp").iterdir()} <= {".ses"}  # ONNX Runtime's
    left = {path.parent for path in study.home.rglob("*") if path.is_file()}
    hidden = {path.name for path in left if study.home / "datasets" not in path.parents}
    assert hidden <= {".locks", ".tmp"}  # what is in the latter is removed after a day


# --- workers ---


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Address of a cluster of two workers, and what kills one and starts another in its place."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder) as (_, address), workers(address, folder) as processes:

        def replace_one() -> None:
            processes[-2].kill()
            processes.append(start_worker(address, folder))

        with remote_client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, replace_one


def at(moments: list[int], act: Callable[[], None]) -> tuple[OnProgress, list[int]]:
    """Return what acts once so many rows are done, and the moments that are to come."""
    waiting = sorted(moments)

    def on_progress(done: int, total: int, what: str) -> None:
        while what == "reading rows" and waiting and done >= waiting[0]:
            waiting.pop(0)
            act()

    return on_progress, waiting


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_of_a_cluster_that_is_killed_changes_nothing(
    study: Study, whole: Whole, cluster: tuple[str, Callable[[], None]], moment: int
) -> None:
    address, replace_one = cluster
    rows = random.Random(moment).randrange(ROWS - 2 * CHUNK_ROWS)  # noqa: S311 - a choice
    on_progress, waiting = at([rows], replace_one)

    with remote_client(address) as client:
        client.wait_for_workers(2, timeout=60)
        snapshot = study.prepared_by(Workers(client, on_progress))

    assert waiting == []
    assert snapshot == whole.snapshot
    assert study.stored() == whole.stored


@pytest.mark.parametrize(
    "moment", [0, *(pytest.param(moment, marks=pytest.mark.soak) for moment in range(1, 5))]
)
def test_local_workers_that_are_killed_one_after_the_other_change_nothing(
    study: Study, whole: Whole, moment: int
) -> None:
    rng = random.Random(moment)  # noqa: S311 - a choice
    rows = [rng.randrange(1, ROWS - 2 * CHUNK_ROWS) for _ in range(2)]
    others = psutil.Process().children()

    def kill_one() -> None:
        own = [child for child in psutil.Process().children() if child not in others]
        living = [child for child in own if child.status() != psutil.STATUS_ZOMBIE]
        assert len(living) > 1
        rng.choice(living).kill()

    on_progress, waiting = at(rows, kill_one)

    with open_workers(3, on_progress, bound_to_parent) as runner:
        snapshot = study.prepared_by(runner)

    assert waiting == []
    assert snapshot == whole.snapshot
    assert study.stored() == whole.stored


@contextmanager
def in_threads(count: int) -> Iterator[Runner]:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=count, processes=False, dashboard_address="127.0.0.1:0"
        ) as threads,
        distributed.Client(threads, set_as_default=False) as client,
    ):
        yield Workers(client, unseen)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_any_number_of_workers_gives_the_same(
    study: Study, whole: Whole, kind: str, count: int
) -> None:
    opened = in_threads(count) if kind == "threads" else open_workers(count, unseen)
    with opened as runner:
        snapshot = study.prepared_by(runner)

    assert snapshot == whole.snapshot
    assert study.stored() == whole.stored
