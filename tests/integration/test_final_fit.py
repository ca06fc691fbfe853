"""The final fit: which rows it sees, what it must not be worse than, and how it ends."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.data.splits import PARTS, Part
from automl.domain.facts import OriginKind
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import NotFoundError, OutOfMemoryError, StorageError
from automl.machine.signals import StopSignal
from automl.morphism.architecture import Architecture
from automl.runs.context import StepContext, StoreClock
from automl.runs.training import lineage_of
from automl.runs.worker import run_worker
from automl.steps import choose, final_fit, prepare
from automl.steps.open_run import open_search
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.tracks.image import fitter
from automl.tracks.image.index import RowIndex
from automl.tracks.image.refit import fresh_epochs
from automl.tracks.image.snapshot import ImageEnvelope
from automl.training.checkpoint import Checkpoint
from automl.training.initialization import initial_weights
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights
from automl.training.results import weights_to_bytes
from automl.training.trainer import fit
from tests.digits import write_digits

ROWS = 200
LIMIT_S = 600
RUN = "studies/digits/runs/one"
Edit = Callable[[dict[str, Any]], None]


def spec_of(source: Path, **final: object) -> StudySpec:
    return study_spec(
        {
            "name": "digits",
            "task": "image_classification",
            "data": {"source": str(source)},
            "search": {"time_limit": "5m", "max_trials": 1, "workers": 1},
            "final_fit": {"time_limit": f"{LIMIT_S}s", **final},
        }
    )


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home whose run has a winner, and the source of its rows."""
    folder = tmp_path_factory.mktemp("chosen")
    source = write_digits(folder / "rows.npz", ROWS, classes=4)
    context = StepContext.open(Settings(str(folder / "home")), spec_of(source), "one", "test")
    open_search(context, prepare.prepare(context, lambda *_: None).id)
    run_worker(context, 0, StopSignal())
    choose.choose(context)
    context.store.put(context.keys.run("one").cross_fit, b"")  # what follows on the fit is made
    return folder / "home", source


@pytest.fixture
def home(chosen: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(chosen[0], tmp_path / "home"))


OpenHome = Callable[..., StepContext]


@pytest.fixture(scope="module")
def open_home(chosen: tuple[Path, Path]) -> OpenHome:
    """A function that opens the run in a home."""

    def open_home(home: Path, **final: object) -> StepContext:
        return StepContext.open(Settings(str(home)), spec_of(chosen[1], **final), "one", "test")

    return open_home


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit that nothing has disturbed, with what it has stored."""

    result: final_fit.FinalFit
    stored: bytes
    trained: bytes


Undisturbed = Callable[..., Fitted]


@pytest.fixture(scope="module")
def undisturbed(
    chosen: tuple[Path, Path], open_home: OpenHome, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """A function that fits once with `retrain`, once without."""

    @functools.cache
    def undisturbed(*, retrain: bool) -> Fitted:
        home = Path(shutil.copytree(chosen[0], tmp_path_factory.mktemp("undisturbed") / "home"))
        result = fitted(open_home(home, retrain=retrain))
        return Fitted(result, stored(home), trained(home))

    return undisturbed


def fitted(context: StepContext) -> final_fit.FinalFit:
    return final_fit.final_fit(context, StopSignal())


def stored(home: Path) -> bytes:
    return (home / RUN / "weights.safetensors").read_bytes()


def trained(home: Path) -> bytes:
    """Return what the fit came to, whichever weights are published."""
    return weights_to_bytes(last_checkpoint(home).best_weights)


def last_checkpoint(home: Path) -> Checkpoint:
    return Checkpoint.from_bytes((home / RUN / "final-fit.safetensors").read_bytes())


def edit_events(home: Path, kind: str, edit: Edit) -> None:
    """Change the log's events of one kind."""
    for path in sorted((home / "studies/digits/log").glob("*.json")):
        version = json.loads(path.read_text())
        for event in version["events"]:
            if event["type"] == kind:
                edit(event)
        path.write_text(json.dumps(version))


def relabel(home: Path, part: str) -> None:
    """Give all rows of a part of the snapshot the label 0."""
    (path,) = home.glob("datasets/digits/*/manifest.json")
    manifest = ImageEnvelope.from_bytes(path.read_bytes(), str(path))
    assert manifest.index is not None
    store = FileObjectStore(home)
    index = RowIndex.read(store, manifest.index)
    labels = np.where(index.parts == PARTS.index(Part(part)), 0, index.labels)
    stored = replace(index, labels=labels).stored(store, manifest.keys)
    path.write_bytes(manifest.model_copy(update={"index": stored}).to_bytes())


def scramble_incumbent(context: StepContext, home: Path) -> bytes:
    """Replace the winner's weights with random ones, which are worse than any that are trained."""
    (trial,) = context.record.refresh().trials
    assert trial.candidate is not None
    assert trial.measurement.weights is not None
    architecture = Architecture.from_genotype(trial.candidate.genotype)
    data = weights_to_bytes(initial_weights(architecture, (7,)))
    (home / trial.measurement.weights).write_bytes(data)
    return data


# --- the rows it sees ---


@pytest.mark.parametrize("retrain", [True, False])
@pytest.mark.parametrize(
    ("part", "is_seen"), [("calibration", False), ("selection", True), ("gate", False)]
)
def test_labels_count_only_where_the_fit_may_see_them(
    home: Path,
    open_home: OpenHome,
    undisturbed: Undisturbed,
    part: str,
    *,
    is_seen: bool,
    retrain: bool,
) -> None:
    relabel(home, part)

    fitted(open_home(home, retrain=retrain))

    assert (trained(home) != undisturbed(retrain=retrain).trained) == is_seen


# --- the paired comparison, with real predictions ---


def test_a_fit_that_is_better_is_published(home: Path, open_home: OpenHome) -> None:
    context = open_home(home)
    incumbent = scramble_incumbent(context, home)

    done = fitted(context)

    assert (done.source, done.note) == ("retrained", "")
    assert stored(home) == trained(home) != incumbent
    (run,) = context.record.refresh().runs
    (trial,) = context.record.study.trials
    assert done.epochs == fresh_epochs(lineage_of(context.record.study, trial))
    assert run.final_fit is not None
    manifest = next(home.glob("datasets/digits/*/manifest.json"))
    snapshot = ImageEnvelope.from_bytes(manifest.read_bytes(), "")
    (member,) = run.final_fit.members
    assert member.details == {"mean": list(snapshot.mean), "std": list(snapshot.std)}


def test_a_fit_that_is_worse_gives_way_to_the_incumbent(home: Path, open_home: OpenHome) -> None:
    def after_one_epoch(event: dict[str, Any]) -> None:
        event["measurement"]["best_epoch"] = 0  # so that the fit from fresh weights has one

    edit_events(home, "trial_finished", after_one_epoch)
    context = open_home(home)
    (trial,) = context.record.refresh().trials
    assert trial.measurement.weights is not None
    incumbent = (home / trial.measurement.weights).read_bytes()

    done = fitted(context)

    assert done.source == "incumbent"
    assert done.note.startswith("its loss on the calibration rows is worse by ")
    assert done.epochs == trial.measurement.epochs
    assert stored(home) == incumbent != trained(home)


def test_continuing_from_the_winner_takes_a_third_of_the_epochs(
    home: Path, open_home: OpenHome
) -> None:
    context = open_home(home, retrain=False)
    scramble_incumbent(context, home)
    (trial,) = context.record.study.trials

    done = fitted(context)

    assert (done.source, done.note) == ("continued", "")
    assert done.epochs == fresh_epochs(lineage_of(context.record.study, trial)) // 3


@pytest.mark.parametrize(("epoch_s", "is_rushed"), [(15, False), (100, True)])
def test_who_has_time_for_few_epochs_continues_instead_of_beginning_anew(
    home: Path, open_home: OpenHome, epoch_s: int, *, is_rushed: bool
) -> None:
    def slow(event: dict[str, Any]) -> None:
        measured = event["measurement"]
        measured["seconds"] = float(epoch_s * measured["epochs"])

    edit_events(home, "trial_finished", slow)
    context = open_home(home)
    scramble_incumbent(context, home)
    (trial,) = context.record.study.trials
    planned = fresh_epochs(lineage_of(context.record.study, trial))
    assert LIMIT_S / 100 < planned < LIMIT_S / 15 / 1.3

    done = fitted(context)

    assert done.source == ("continued" if is_rushed else "retrained")
    assert done.epochs == planned
    expected = f"the winner's weights were continued: final_fit.time_limit of {LIMIT_S} s is "
    assert done.note[: len(expected)] == (expected if is_rushed else "")


def test_time_for_twenty_epochs_is_enough_for_fresh_weights_whatever_their_lineage_had(
    home: Path, open_home: OpenHome
) -> None:
    def long(event: dict[str, Any]) -> None:
        measured = event["measurement"]
        measured |= {"best_epoch": 39, "epochs": 40, "seconds": 40 * LIMIT_S / 28}

    edit_events(home, "trial_finished", long)
    context = open_home(home)
    scramble_incumbent(context, home)

    done = fitted(context)

    assert (done.source, done.epochs, done.note) == ("retrained", 40, "")


# --- trouble ---


def test_a_fit_that_diverges_gives_way_with_the_reason(home: Path, open_home: OpenHome) -> None:
    def too_fast(event: dict[str, Any]) -> None:
        event["candidate"]["hyperparameters"]["learning_rate"] = 1e30

    edit_events(home, "trial_proposed", too_fast)

    done = fitted(open_home(home))

    assert done.source == "incumbent"
    assert done.note.startswith("the fit failed: The training loss is ")


def test_a_fit_without_memory_gives_way_with_the_reason(
    home: Path, open_home: OpenHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: object) -> FitResult:
        raise OutOfMemoryError("cuda lacks memory for it.", "search smaller networks")

    monkeypatch.setattr(fitter, "fit", without_memory)

    done = fitted(open_home(home))

    assert done.source == "incumbent"
    assert done.note == ("the fit failed: cuda lacks memory for it. Hint: search smaller networks")


def test_weights_of_the_winner_that_are_gone_are_named(home: Path, open_home: OpenHome) -> None:
    context = open_home(home)
    (trial,) = context.record.refresh().trials
    assert trial.measurement.weights is not None
    (home / trial.measurement.weights).unlink()

    with pytest.raises(NotFoundError, match="The weights of trial 0 are gone") as caught:
        fitted(context)
    assert not caught.value.retryable


# --- time ---


class Ticking(StoreClock):
    """A clock that goes on by a fixed time whenever it is asked.

    Args:
        start: what it shows first.
        tick_s: by how much.
    """

    def __init__(self, start: datetime, tick_s: float) -> None:
        self._next, self._tick_s = start, tick_s

    def now(self) -> datetime:
        """Return a later time than before."""
        shown, self._next = self._next, self._next + timedelta(seconds=self._tick_s)
        return shown


def ticking(context: StepContext, after_s: float, tick_s: float) -> StepContext:
    """Return the context with a clock that starts some time after the choice of the winner."""
    (run,) = context.record.refresh().runs
    assert run.chosen_at is not None
    return replace(context, clock=Ticking(run.chosen_at + timedelta(seconds=after_s), tick_s))


def test_what_the_time_limit_cuts_short_is_kept_if_it_is_good(
    home: Path, open_home: OpenHome
) -> None:
    context = open_home(home)
    scramble_incumbent(context, home)

    done = fitted(ticking(context, 0, LIMIT_S / 30))  # about ten epochs of three steps

    planned = fresh_epochs(lineage_of(context.record.study, context.record.study.trials[0]))
    assert done.source == "retrained"
    assert 0 < done.epochs < planned
    assert done.note == (
        f"{done.epochs} of {planned} epochs fit into final_fit.time_limit of {LIMIT_S} s"
    )


def test_a_fit_without_any_time_gives_way_to_the_incumbent(home: Path, open_home: OpenHome) -> None:
    done = fitted(ticking(open_home(home), LIMIT_S + 1, 0))

    assert done.source == "incumbent"
    assert done.note.startswith("0 of ")
    assert done.note.endswith(f" epochs fit into final_fit.time_limit of {LIMIT_S} s")


def test_an_estimators_fit_has_its_time_however_late_it_is_called(
    home: Path, open_home: OpenHome
) -> None:
    def of_estimator(event: dict[str, Any]) -> None:
        event["origin"] = OriginKind.PYTHON

    edit_events(home, "run_opened", of_estimator)
    context = open_home(home)
    scramble_incumbent(context, home)

    done = fitted(ticking(context, LIMIT_S + 1, 0))

    assert (done.source, done.note) == ("retrained", "")


def test_the_fit_is_sized_to_the_time_that_is_left(
    home: Path, open_home: OpenHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []

    def noting(
        problem: FitProblem, start: Checkpoint | InitialWeights | None, hooks: FitHooks
    ) -> FitResult:
        budgets.append(problem.budget.seconds)
        return fit(problem, start, hooks)

    monkeypatch.setattr(fitter, "fit", noting)
    context = open_home(home)
    with pytest.raises(StorageError, match="was asked to stop"):
        final_fit.final_fit(ticking(context, 0, 0), DyingSignal(5, dies=False))
    used_s = last_checkpoint(home).seconds
    fitted(ticking(context, LIMIT_S / 4, 0))

    assert used_s > 0
    assert budgets == [LIMIT_S - 3, used_s + LIMIT_S * 3 / 4 - 3]


# --- deaths ---


class Death(BaseException):
    """The process is gone."""


class DyingSignal(StopSignal):
    """A stop signal at whose k-th question the process dies, or is asked to stop.

    Args:
        question: k, from 0.
        dies: whether it dies without a word.
    """

    def __init__(self, question: int, *, dies: bool) -> None:
        super().__init__()
        self._left, self._dies = question, dies

    def is_set(self) -> bool:
        """Return whether a stop was asked for."""
        self._left -= 1
        if self._left < 0 and self._dies:
            raise Death
        return self._left < 0


@pytest.mark.parametrize(
    ("retrain", "dies"),
    [
        (True, True),
        (False, False),
        pytest.param(True, False, marks=pytest.mark.soak),
        pytest.param(False, True, marks=pytest.mark.soak),
    ],
)
def test_a_fit_that_ends_at_every_fifth_step_gives_the_same_bytes(
    home: Path, open_home: OpenHome, undisturbed: Undisturbed, *, retrain: bool, dies: bool
) -> None:
    expected = undisturbed(retrain=retrain)
    expected_end = Death if dies else StorageError

    ends = 0
    while True:
        context = open_home(home, retrain=retrain)
        try:
            done = final_fit.final_fit(context, DyingSignal(5, dies=dies))
            break
        except expected_end:
            ends += 1

    assert ends > 1
    assert Fitted(done, stored(home), trained(home)) == expected
