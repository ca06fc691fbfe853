"""Trespassers: whatever a study names, a run reads only what its installation allows.

Each is refused twice: by `check`, and by the step that would read, which may be called without it.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from automl_airflow.child import child_environment

from automl.domain.facts import Origin
from automl.domain.settings import Settings
from automl.domain.sources import Sources, place_of
from automl.errors import AutoMLError, ConfigError, DataError, NotFoundError
from automl.machine.process import run_step
from automl.runs.context import StepContext
from automl.steps.check import check
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.open import open_store
from automl.storage.sources import SourceFolder, open_source
from automl.tracks.image.decode import encode_png
from automl.tracks.image.passes import RowChunk
from automl.tracks.image.sources import SourceLocation, list_source
from tests.numeric.track import read_csv

AIRFLOW, CLI = "airflow:automl_search:eve", "cli"
HIDDEN = "s3cr3t"


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))


def write_classes(folder: Path, rows: int = 12) -> Path:
    """Write a folder with the class folders `cat` and `dog`, and return it."""
    for number in range(rows):
        place = folder / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(picture(number))
    return folder


class Town:
    """A worker's disk: data that studies may read, others that they may not, and the home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.allowed = write_classes(folder / "data" / "pets").parent
        self.other = write_classes(folder / "data-secret" / "pets").parent
        self.home.mkdir()

    def context(
        self, source: str | Path, origin: str = AIRFLOW, sources: str | None = None, **data: Any
    ) -> StepContext:
        allowed = str(self.allowed) if sources is None else sources
        environment = {"AUTOML_HOME": str(self.home), "AUTOML_SOURCES": allowed}
        document = {
            "name": "pets",
            "task": "image_classification",
            "data": {"source": str(source), **data},
        }
        spec = study_spec(document)
        return StepContext.open(Settings.from_environment(environment), spec, "r", origin)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def prepared(context: StepContext) -> int:
    """Return how many rows a context's data have; they are prepared."""
    return sum(prepare(context, lambda *_: None).counts.values())


def refused(context: StepContext, why: str, step_why: str | None = None) -> str:
    """Return what `check` says; it and the step that reads refuse for a reason."""
    with pytest.raises(AutoMLError, match=why) as caught:
        check(context)
    with pytest.raises(AutoMLError, match=step_why or why) as again:
        prepare(context, lambda *_: None)
    assert isinstance(caught.value, ConfigError)
    assert again.value.exit_code == 2
    assert not list(context.store.list("datasets/"))
    return str(caught.value)


def test_what_is_allowed_is_read(town: Town) -> None:
    context = town.context(town.allowed / "pets")

    check(context)
    assert prepared(context) == 12


def test_one_folder_or_one_file_can_be_all_that_is_allowed(town: Town) -> None:
    assert prepared(town.context(town.allowed / "pets", sources=f"{town.allowed}/pets")) == 12

    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(rows := town.folder / "rows.npz", x=images, y=np.arange(12) % 2)
    assert prepared(town.context(rows, sources=str(rows))) == 12

    (table := town.folder / "rows.csv").write_text("path,label\ndata/pets/cat/1.png,cat\n")
    with pytest.raises(DataError, match="outside the places"):  # nor are its neighbours
        prepared(town.context(table, sources=str(table)))


def test_under_airflow_sources_must_be_set(town: Town) -> None:
    for unset in ("", " , "):
        said = refused(town.context(town.allowed / "pets", sources=unset), "AUTOML_SOURCES is not")
        assert "set AUTOML_SOURCES to the places" in said

    assert prepared(town.context(town.allowed / "pets", CLI, sources="")) == 12


def test_prefixes_under_airflow_are_absolute_and_of_a_known_kind(town: Town) -> None:
    for prefix in ("data", "~/data", "http://host/data", "s3://"):
        context = town.context(town.allowed / "pets", sources=prefix)
        with pytest.raises(ConfigError, match="AUTOML_SOURCES"):
            check(context)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("origin", [AIRFLOW, CLI])
def test_a_neighbour_whose_name_begins_alike_is_not_read(
    town: Town, slash: str, origin: str
) -> None:
    context = town.context(town.other / "pets", origin, sources=f"{town.allowed}{slash}")
    assert "data-secret" in refused(context, "outside the places")

    assert prepared(town.context(f"{town.allowed}/pets{slash}", origin)) == 12


@pytest.mark.parametrize(
    "spelled",
    ["{}/../data-secret/pets", "file://{}/../data-secret/pets", "file://{}/..%2Fdata-secret/pets",
     "{}//..//data-secret/pets"],
)  # fmt: skip
def test_no_spelling_leads_out(town: Town, spelled: str) -> None:
    refused(town.context(spelled.format(town.allowed)), "outside the places")


@pytest.mark.parametrize("spelled", ["file://{}/pets", "file://localhost{}/pets/", "/{}/./pets"])
def test_other_spellings_of_what_is_allowed_are_read(town: Town, spelled: str) -> None:
    assert prepared(town.context(spelled.format(town.allowed))) == 12


def test_a_users_folder_is_meant_by_a_tilde(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(town.other))
    refused(town.context("~/pets"), "outside the places")

    monkeypatch.setenv("HOME", str(town.allowed))
    assert prepared(town.context("~/pets")) == 12


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "S3", "gs"])
def test_addresses_that_cannot_be_read_are_refused_without_their_login(
    town: Town, scheme: str
) -> None:
    context = town.context(f"{scheme}://eve:{HIDDEN}@host/x.csv", CLI, sources="")

    assert HIDDEN not in refused(context, f"cannot be read from {scheme}://")


def test_all_problems_are_told_at_once(town: Town) -> None:
    context = town.context("http://x", images=str(town.other))

    with pytest.raises(ConfigError) as caught:
        check(context)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["data.source", "data.images"]


def test_the_root_is_no_dataset(town: Town) -> None:
    refused(town.context("/", CLI, sources=""), "no dataset")
    refused(town.context("/", sources="/"), "no dataset")


@pytest.mark.parametrize("origin", [AIRFLOW, CLI])
def test_the_home_is_never_a_source(town: Town, origin: str) -> None:
    samples = write_classes(town.home / "models" / "theirs")
    (town.folder / "by-link").symlink_to(samples)
    everything = str(town.folder)

    for source in (samples, town.home, town.folder / "by-link"):
        refused(town.context(source, origin, sources=everything), "in AUTOML_HOME, which is never")
    refused(town.context(town.folder, origin, sources=everything), "holds AUTOML_HOME")


def test_a_home_beside_a_manifest_is_not_listed(town: Town) -> None:
    write_classes(town.home / "models" / "theirs")
    lines = [f"data/pets/{'cat' if n % 2 else 'dog'}/{n}.png,{'ab'[n % 2]}" for n in range(12)]
    theirs = "home/models/theirs/cat/1.png"
    (town.folder / "train.csv").write_text("\n".join(["path,label", *lines, f"{theirs},a"]))
    source, key = open_source(str(town.folder / "train.csv"), Sources(place_of(str(town.home))))

    rows = list_source(SourceLocation(source, key)).rows

    assert [row.problem for row in rows] == [""] * 12 + ["there is no such file"]


@pytest.mark.parametrize("origin", [AIRFLOW, CLI])
def test_a_source_that_is_a_link_is_judged_by_where_it_leads(town: Town, origin: str) -> None:
    (town.allowed / "more").symlink_to(town.other / "pets")
    said = refused(town.context(town.allowed / "more", origin), "outside the places")
    assert "data-secret" not in said

    (town.allowed / "same").symlink_to(town.allowed / "pets")
    assert prepared(town.context(town.allowed / "same", origin)) == 12


@pytest.mark.parametrize("target", ["data-secret/pets/cat", "home", "data-secret/pets/cat/1.png"])
def test_a_link_among_class_folders_is_judged_by_where_it_leads(town: Town, target: str) -> None:
    (town.home / "x.png").write_bytes(picture(1))
    is_file = target.endswith(".png")
    link = town.allowed / "pets" / ("cat/1000.png" if is_file else "lynx")
    link.symlink_to(town.folder / target)

    said = refused(
        town.context(town.allowed / "pets"),
        f"{link.relative_to(town.allowed / 'pets')} is, or leads",
        "1 files or folders of",
    )
    assert "data-secret" not in said


def test_links_inside_of_what_is_allowed_are_followed(town: Town) -> None:
    write_classes(town.allowed / "elsewhere", 6)
    (town.allowed / "pets" / "lynx").symlink_to(town.allowed / "elsewhere" / "cat")
    (town.allowed / "pets" / "cat" / "1000.png").symlink_to(town.allowed / "elsewhere/dog/0.png")
    (town.allowed / "pets" / ".hidden").symlink_to("/etc")

    context = town.context(town.allowed / "pets")
    check(context)

    assert prepared(context) == 16


def test_links_in_a_circle_are_refused(town: Town) -> None:
    (town.allowed / "pets" / "cat" / "again").symlink_to(town.allowed / "pets")

    refused(town.context(town.allowed / "pets"), "leads back", "1 files or folders")


def test_folders_of_links_that_multiply_are_refused(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl.storage.sources.MOST_LINKS", 100)
    folders = [town.allowed / f"level{number}" for number in range(12)]
    for folder in folders:
        folder.mkdir()
    for above, below in pairwise(folders):
        for name in ("a", "b"):
            (above / name).symlink_to(below)

    refused(town.context(folders[0]), "More than 100 links")


@pytest.mark.parametrize("step", ["check", "prepare"])
@pytest.mark.parametrize(
    ("source", "sources", "why"),
    [("{}/data-secret/pets", "{}/data", "outside the places"),
     ("{}/home", "{}", "in AUTOML_HOME"), ("{}/data/pets", "", "AUTOML_SOURCES is not set")],
)  # fmt: skip
def test_the_process_of_a_step_refuses_too(
    town: Town, step: str, source: str, sources: str, why: str
) -> None:
    """It knows what may be read from the variables that Airflow's side lets through."""
    worker = {
        **os.environ,
        "AUTOML_HOME": str(town.home),
        "AUTOML_SOURCES": sources.format(town.folder),
    }
    spec = town.context(source.format(town.folder)).spec

    result = run_step(
        step,
        {"spec": spec.model_dump(mode="json", by_alias=True), "run": "r", "origin": AIRFLOW},
        env=child_environment(worker),
        timeout_s=120,
        on_line=lambda line: None,
        stop=lambda: False,
    )

    assert result.failure is not None
    assert (result.failure.type, result.failure.retryable) == ("ConfigError", False)
    assert why in str(result.failure)


def test_a_row_that_leaves_the_folder_of_images_is_left_out(town: Town) -> None:
    lines = [f"pets/{'cat' if n % 2 else 'dog'}/{n}.png,{'ab'[n % 2]}" for n in range(12)]
    lines.append("../data-secret/pets/cat/1.png,a")
    (town.allowed / "train.csv").write_text("\n".join(["path,label", *lines]))

    snapshot = prepare(
        town.context(town.allowed / "train.csv", max_bad_fraction=0.1), lambda *_: None
    )

    (row,) = snapshot.quarantined
    assert row.reason == "the path leaves the folder of images"


def test_a_row_of_a_manifest_that_is_a_link_out_is_refused(town: Town) -> None:
    (town.allowed / "pets" / "cat" / "1000.png").symlink_to(town.other / "pets" / "cat" / "1.png")
    (town.allowed / "unrelated").symlink_to("/etc")
    lines = ["path,label", "pets/cat/1000.png,cat", "pets/dog/0.png,dog"]
    (town.allowed / "train.csv").write_text("\n".join(lines))

    with pytest.raises(DataError, match=r"pets/cat/1000\.png: it is, or leads, outside"):
        prepare(town.context(town.allowed / "train.csv"), lambda *_: None)


def test_a_link_that_is_replaced_after_the_listing_is_refused(town: Town) -> None:
    context = town.context(town.allowed / "pets")
    sources = Sources.of(context.settings, Origin.of(context.origin))
    store, key = open_source(context.spec.data.source, sources)
    listing = list_source(SourceLocation(store, key))
    victim = town.allowed / "pets" / "cat" / "1.png"
    victim.unlink()
    victim.symlink_to(town.other / "pets" / "cat" / "1.png")
    (town.allowed / "pets" / "dog").rename(town.folder / "gone")
    (town.allowed / "pets" / "dog").symlink_to(town.other / "pets" / "dog")

    for index, row in enumerate(listing.rows):
        if row.label == "dog" or row.path == "cat/1.png":
            with pytest.raises(ConfigError, match="outside the places"):
                list(RowChunk.of(listing, [index]).read())
    with pytest.raises(ConfigError, match="outside the places"):
        list(store.list("pets/dog/"))


def test_a_link_that_is_replaced_all_the_time_never_leads_out(town: Town) -> None:
    """Its folder is replaced too, while both are read and listed."""
    secret = b"secret" * 1000
    (town.other / "pets" / "cat" / "1.png").write_bytes(secret)
    (town.other / "pets" / "cat" / "theirs.png").write_bytes(secret)
    store = SourceFolder(town.allowed, Sources(str(town.home), (str(town.allowed),)))
    pets, over = town.allowed / "pets", threading.Event()
    (town.folder / "link").symlink_to(town.other / "pets" / "cat")

    def replace_all() -> None:
        while not over.is_set():
            (pets / "cat").rename(town.folder / "real")
            (town.folder / "link").rename(pets / "cat")
            (pets / "cat").rename(town.folder / "link")
            (town.folder / "real").rename(pets / "cat")

    seen: Counter[str] = Counter()
    thread = threading.Thread(target=replace_all)
    thread.start()
    try:
        while min(seen["read"], seen["refused"], seen["listed"]) < 100:
            try:
                assert store.get("pets/cat/1.png").data == picture(1)
                seen["read"] += 1
                entries = [entry for entry in store.list("pets/") if not entry.problem]
                assert not any("theirs" in entry.key for entry in entries)
                seen["listed"] += 1
            except ConfigError:
                seen["refused"] += 1
            except NotFoundError:
                continue
    finally:
        over.set()
        thread.join()


def read_whole(chunk: RowChunk) -> int:
    """Read all rows of a chunk."""
    return len(list(chunk.read()))


def test_processes_of_a_dask_cluster_obey_too(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's rights to read come with its task, not from the worker's environment."""
    context = town.context(town.allowed / "pets")
    sources = Sources.of(context.settings, Origin.of(context.origin))
    store, key = open_source(context.spec.data.source, sources)
    chunk = RowChunk.of(list_source(SourceLocation(store, key)), [0])
    victim = town.allowed / "pets" / chunk.rows[0].path
    victim.unlink()
    victim.symlink_to(town.other / "pets" / "cat" / "1.png")

    monkeypatch.delenv("AUTOML_SOURCES", raising=False)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        pytest.raises(ConfigError, match="outside the places"),
    ):
        client.submit(read_whole, chunk).result()
    assert pickle.loads(pickle.dumps(store)) == store  # noqa: S301 - its own


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _device])
def test_pipes_and_devices_are_never_opened(town: Town, make: Callable[[Path], None]) -> None:
    make(town.allowed / "pets" / "cat" / "1001.png")
    make(town.allowed / "rows.npz")
    sources = f"{town.allowed},/dev"

    refused(town.context(town.allowed / "rows.npz", sources=sources), "neither a file nor a folder")
    context = town.context(town.allowed / "pets", sources=sources, max_bad_fraction=0.1)
    (row,) = prepare(context, lambda *_: None).quarantined
    assert (row.path, row.reason) == ("cat/1001.png", "it is neither a file nor a folder")
    store = SourceFolder(town.allowed, Sources(str(town.home)))
    with pytest.raises(DataError, match="neither a file nor a folder"):
        store.get("pets/cat/1001.png")


@pytest.mark.parametrize("label", [None, "image"])
def test_the_header_of_a_table_is_not_told(town: Town, label: str | None) -> None:
    (town.allowed / "passwords.csv").write_text(f"root,{HIDDEN}\nadmin,{HIDDEN}2\n")
    context = town.context(town.allowed / "passwords.csv", label=label)

    with pytest.raises(DataError, match="has 2 columns, but no") as caught:
        prepare(context, lambda *_: None)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("text", [f"root,{HIDDEN}\n1,2\n", f"a,label\n{HIDDEN},1\n", "a\n\xff"])
def test_another_track_tells_no_content_either(text: str) -> None:
    with pytest.raises(DataError, match="No table of numbers") as caught:
        read_csv(text.encode("latin-1"), "label")
    assert HIDDEN not in str(caught.value)


def test_buckets_are_held_apart(s3_store_uri: str) -> None:
    bucket = open_store(s3_store_uri)
    for number in range(12):
        name = f"{'cat' if number % 2 else 'dog'}/{number}.png"
        for folder in ("a", "ab", "home/models/theirs"):
            bucket.put(f"{folder}/{name}", picture(number))

    def context(source: str, sources: str, home: str = f"{s3_store_uri}/home") -> StepContext:
        environment = {"AUTOML_HOME": home, "AUTOML_SOURCES": sources}
        document = {
            "name": "pets", "task": "image_classification", "data": {"source": source},
        }  # fmt: skip
        settings = Settings.from_environment(environment)
        return StepContext.open(settings, study_spec(document), "r", AIRFLOW)

    for slash in ("", "/"):
        allowed = f"{s3_store_uri}/a{slash}"
        refused(context(f"{s3_store_uri}/ab", allowed), "outside the places")
        refused(context(f"{s3_store_uri}/a/../ab", allowed), "is not plain")
    everything = s3_store_uri.rpartition("/")[0]
    refused(context(f"{s3_store_uri}/home/models/theirs", everything), "in AUTOML_HOME")
    refused(context(s3_store_uri, everything), "holds AUTOML_HOME")
    refused(context(everything, everything), "holds AUTOML_HOME")
    store, _ = open_source(
        f"{s3_store_uri}/a", Sources("/home", (f"{s3_store_uri}/a",), is_closed=True)
    )
    base = s3_store_uri.removeprefix(everything).strip("/")
    with pytest.raises(ConfigError, match="outside the places"):
        store.get(f"{base}/ab/cat/1.png")
    assert {bool(entry.problem) for entry in store.list(f"{base}/ab/")} == {True}
    assert prepared(context(f"{s3_store_uri}/a/", f"{s3_store_uri}/a/")) == 12
