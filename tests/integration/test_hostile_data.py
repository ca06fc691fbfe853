"""Files as buckets and folders of years hold them: each is named with its reason, none is fatal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from automl.data.files import FileEntry, FileStore, StoredFile
from automl.data.findings import Finding, FindingKind
from automl.data.ledger import Page
from automl.domain.settings import Settings
from automl.domain.sources import Sources
from automl.errors import DataError, StorageAccessError
from automl.runs.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.storage.sources import SourceFolder
from automl.tracks.image.passes import ReadTask, read_rows
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.sources import SourceLocation, list_source
from automl.tracks.image.tables import FurtherColumn
from tests.hostile_images import picture
from tests.local import here, reading

GOOD = 40  # images of each class
FEW = 0.9  # of the rows may be bad


@pytest.fixture
def home(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


def write_classes(folder: Path) -> None:
    for number in range(2 * GOOD):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[number % 2] / f"{number:03d}.png").write_bytes(picture(100 + number))


def request(folder: Path) -> ImageRequest:
    store = SourceFolder(folder, Sources(str(folder / "home")))
    return ImageRequest("hostile", store, "in", max_bad_fraction=FEW)


def prepared(asked: ImageRequest, home: FileObjectStore) -> ImageEnvelope:
    return prepare_images(asked, home, here())


def test_a_class_whose_name_is_not_utf_8_is_left_out(tmp_path: Path, home: FileObjectStore) -> None:
    write_classes(tmp_path / "in")
    (tmp_path / "in" / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9") / "0.png").write_bytes(picture(3))

    snapshot = prepared(request(tmp_path), home)

    assert snapshot.classes == ("a", "b")
    (row,) = snapshot.quarantined
    assert row.path == r"caf\xe9/0.png"


def test_labels_of_arrays_that_cannot_be_written_are_left_out(
    tmp_path: Path, home: FileObjectStore
) -> None:
    labels = np.asarray([*("ab" * GOOD), "lone \ud800"])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", x=images, y=labels)

    snapshot = prepared(replace(request(tmp_path), source_key="in.npz"), home)

    (row,) = snapshot.quarantined
    assert row.reason == "the label is no Unicode text"


@dataclass(frozen=True)
class Denying:
    """A store that lets some of its files be read by nobody."""

    store: FileStore
    denied: tuple[str, ...]

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str) -> StoredFile:
        if key.endswith(self.denied):
            raise StorageAccessError(f"{key} cannot be accessed: Permission denied.")
        return self.store.get(key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        return self.store.list(prefix, start_after)


def from_store(folder: Path, store: FileStore) -> ReadTask:
    """Return the task to read the ten rows of both classes from a store."""
    listing = replace(list_source(request(folder).location), store=store)
    return reading(listing, range(10))


def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path / "in")
    store = request(tmp_path).source

    found = read_rows(from_store(tmp_path, Denying(store, ("000.png", "004.png"))))

    assert list(found.problems) == [0, 2]
    told = "the file may not be read: in/a/000.png cannot be accessed"
    assert found.problems[0].startswith(told)
    assert len(Page.from_bytes(found.page, "page").contents) == 8


def test_a_store_that_lets_nothing_be_read_any_more_is_no_bad_row(tmp_path: Path) -> None:
    write_classes(tmp_path / "in")
    store = request(tmp_path).source

    with pytest.raises(StorageAccessError, match="Permission denied"):
        read_rows(from_store(tmp_path, Denying(store, (".png",))))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["a/000.png,a,more"], "the row has 3 values for 2 columns"),
        (["a/000.png"], "the row has 1 values for 2 columns"),
        (["gone.png,a"], "there is no such file"),
        (["/etc/passwd,a"], "the path leaves the folder of images"),
        (["a/000.png, "], "the row has no label"),
        ([",a"], "the row has no path"),
    ],
)
def test_a_bad_line_of_a_manifest_is_named_with_its_reason(
    tmp_path: Path, lines: list[str], reason: str
) -> None:
    write_classes(tmp_path / "in")
    good = [f"{'ab'[n % 2]}/{n:03d}.png,{'ab'[n % 2]}" for n in range(2 * GOOD)]
    (tmp_path / "in" / "train.csv").write_text("\n".join(["path,label", *good, "", *lines]))

    listing = list_source(SourceLocation(request(tmp_path).source, "in/train.csv"))

    assert len(listing.rows) == 2 * GOOD + 1
    assert [row.problem for row in listing.rows if row.problem] == [reason]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'label,path\na,x/1.png\n"b, c"," x/2.png "\n7,3.png\n'),
        ("t.TSV", "label\tpath\na\tx/1.png\nb, c\tx/2.png\n\n7\t3.png\n"),
        (
            "t.jsonl",
            '{"label": "a", "path": "x/1.png", "more": {"z": [1]}}\r\n'
            '{"path": "x/2.png", "label": "b, c"}\n\n{"path": "3.png", "label": 7}',
        ),
    ],
)
def test_manifests_of_all_forms_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")

    rows = list_source(SourceLocation(FileObjectStore(tmp_path), name)).rows

    assert [(row.path, row.label) for row in rows] == [
        ("x/1.png", "a"), ("x/2.png", "b, c"), ("3.png", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "day,label,path\n 7 ,a,1.png\n0.5,b,2.png\n,a,3.png\nx"),
        ("t.tsv", "label\tday\tpath\na\t7\t1.png\nb\t0.5\t2.png\na\t\t3.png\nx"),
        (
            "t.jsonl",
            '{"label": "a", "path": "1.png", "day": 7}\n{"label": "b", "path": "2.png", "day": 0.5}'
            '\n{"label": "a", "path": "3.png"}\n{"label": "b", "path": "4.png", "day": [1]}',
        ),
    ],
)
def test_a_further_column_is_read_where_it_is_asked_for(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    for number in range(1, 5):
        (tmp_path / f"{number}.png").write_bytes(b"")
    place = SourceLocation(FileObjectStore(tmp_path), name)

    rows = list_source(replace(place, further=FurtherColumn("day", "data.time"))).rows

    assert [(row.path, row.label, row.value, row.problem) for row in rows[:3]] == [
        ("1.png", "a", "7", ""),
        ("2.png", "b", "0.5", ""),
        ("3.png", "a", "", "the row has no value in the column 'day'"),
    ]
    assert rows[3].problem in {
        "the row has 1 values for 3 columns", "'day' of line 4 is no text or number",
    }  # fmt: skip
    assert {row.value for row in list_source(place).rows} == {""}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"path": "1.png", "label": true}', "'label' of line 2 is no text or number"),
        ('{"path": ["1.png"], "label": 0.5}', "'path' and 'label' of line 2 is no text or number"),
        ('{"label": "a"}', "the row has no path"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"path": "0.png", "label": "a"}\n' + line)

    rows = list_source(SourceLocation(FileObjectStore(tmp_path), "t.jsonl")).rows

    assert rows[1].problem == problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": "0.png", "label": "a"}\n{"path": ', r"line 2: Expecting value"),
        ('{"path": "0.png", "label": "a", "label": "b"}', "line 1: a key is there twice"),
        ('["0.png", "a"]', "line 1 is no object"),
        ("[" * 100_000, "line 1: .*recursion"),
        ('{"file": "0.png", "label": "a"}', "no 'File Name' or 'path'"),
        ("", "has 0 columns"),
    ],
)
def test_json_lines_that_are_none_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)

    with pytest.raises(DataError, match=words):
        list_source(SourceLocation(FileObjectStore(tmp_path), "t.jsonl"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('path,label\n1.png,a\n2.png,"b\n3.png,a\n4.png,b\n', "begins in line 3.*quotes in pairs"),
        ('path,label\n1.png,a\n2.png,"b"c\n', "begins in line 3"),
        ("path,label,label\n1.png,a,b\n", "the column 'label' twice"),
        ("path\n1.png\n", "no 'Label' or 'label'"),
        ("", "has 0 columns"),
        ("path;label\n1.png;a\n2.png;b\n", "has 1 columns, but no 'Label' or 'label'"),
        ("path,label\n1.png,a\n2.png,b\n".encode("utf-16"), "is not UTF-8 text: byte 0"),
        ("path,label\n1.png,\xe4\n".encode("latin-1"), "is not UTF-8 text: byte 17"),
    ],
)
def test_a_manifest_that_cannot_be_taken_at_its_word_is_refused(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    write_classes(tmp_path / "in")
    data = text.encode() if isinstance(text, str) else text
    (tmp_path / "in" / "train.csv").write_bytes(data)

    with pytest.raises(DataError, match=words):
        list_source(SourceLocation(request(tmp_path).source, "in/train.csv"))


def test_a_manifest_of_windows_and_its_paths_are_understood(tmp_path: Path) -> None:
    write_classes(tmp_path / "in")
    lines = ["path,label", "a/000.png,a", "../in/a/002.png,a", "./b/001.png,b", "x/../b/003.png,b"]
    data = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()
    (tmp_path / "in" / "train.csv").write_bytes(data)

    rows = list_source(SourceLocation(request(tmp_path).source, "in/train.csv")).rows

    leaves = "the path leaves the folder of images"
    assert [row.problem for row in rows] == ["", leaves, "", leaves]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((3, 6, 6), np.uint8), np.eye(3, dtype=np.int64), r"y of .* is int64 \[3, 3\]"),
        (np.zeros((3, 6, 6, 2), np.uint8), np.arange(3), r"x of .* is uint8 \[3, 6, 6, 2\]"),
        (np.zeros((3, 65_536, 1), np.uint8), np.arange(3), "sides of over 65,535 pixels"),
        (np.zeros((3, 6, 6), np.float32), np.arange(3), r"x of .* is float32 \[3, 6, 6\]"),
        (np.zeros((3, 6, 6), np.uint8), np.array([b"caf\xe9"] * 3), "y of .* is not UTF-8 text"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, words: str
) -> None:
    np.savez(tmp_path / "in.npz", x=images, y=labels)

    with pytest.raises(DataError, match=words):
        list_source(SourceLocation(request(tmp_path).source, "in.npz"))


@pytest.mark.parametrize("content", ["array", "rest"])
def test_what_is_called_npz_and_is_none_is_refused(tmp_path: Path, content: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 6, 6), np.uint8))
    np.savez(tmp_path / "whole.npz", x=np.zeros((3, 6, 6), np.uint8), y=np.arange(3))
    whole = (tmp_path / "whole.npz").read_bytes()
    data = (tmp_path / "x.npy").read_bytes() if content == "array" else whole[: len(whole) // 2]
    (tmp_path / "in.npz").write_bytes(data)

    with pytest.raises(DataError, match=r"in\.npz is no whole \.npz file.*save it again"):
        list_source(SourceLocation(request(tmp_path).source, "in.npz"))


def test_a_thousand_classes_are_prepared(tmp_path: Path, home: FileObjectStore) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", x=images, y=np.arange(3000) % 1000)

    snapshot = prepared(replace(request(tmp_path), source_key="in.npz"), home)

    assert len(snapshot.classes) == 1000
    assert sum(snapshot.counts.values()) == 3000


def test_two_images_are_too_few_and_all_classes_are_named(
    tmp_path: Path, home: FileObjectStore
) -> None:
    put(tmp_path / "in", "a/0.png", "b/1.png")

    with pytest.raises(DataError) as caught:
        prepared(request(tmp_path), home)

    assert {problem.path for problem in caught.value.problems} == {"a", "b"}
    assert list(home.list("")) == []


def put(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))


def found(folder: Path) -> dict[FindingKind, list[Finding]]:
    listing = list_source(SourceLocation(request(folder).source, "in"))
    return {kind: [f for f in listing.findings if f.kind is kind] for kind in FindingKind}


def test_every_file_that_is_no_row_is_counted(tmp_path: Path) -> None:
    write_classes(tmp_path / "in")
    put(tmp_path / "in", "readme.txt", "a/notes.TXT", "a/raw.cr2", "a/LICENSE", "a/.DS_Store",
        "top.png", "b/" + os.fsdecode(b"\xff.doc"))  # fmt: skip

    told = {f.message: f.examples for f in found(tmp_path)[FindingKind.IGNORED_FILES]}

    assert told == {
        "2 files are no rows (.txt)": ("a/notes.TXT", "readme.txt"),
        "1 files are no rows (.cr2)": ("a/raw.cr2",),
        "1 files are no rows (.doc)": (r"b/\xff.doc",),
        "1 files are no rows (no suffix)": ("a/LICENSE",),
        "1 files are no rows (hidden files)": ("a/.DS_Store",),
        "1 files are no rows (images outside of class folders)": ("top.png",),
    }


def test_the_folder_of_an_archive_is_looked_through(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"set-main/data/{'ab'[n % 2]}/{n}.png" for n in range(6)))
    put(tmp_path / "in", "set-main/README.md")

    listing = list_source(SourceLocation(request(tmp_path).source, "in"))

    assert {row.label for row in listing.rows} == {"a", "b"}
    names = [f.examples for f in found(tmp_path)[FindingKind.WRAPPER_FOLDER]]
    assert names == [("set-main",), ("set-main/data",)]


def test_files_below_class_folders_belong_to_their_class(tmp_path: Path) -> None:
    put(tmp_path / "in", "a/0.png", "a/2020/1.png", "a/2020/may/2.png", "b/3.png")

    listing = list_source(SourceLocation(request(tmp_path).source, "in"))

    assert [row.label for row in listing.rows] == ["a", "a", "a", "b"]
    (nested,) = found(tmp_path)[FindingKind.NESTED_FILES]
    assert nested.examples == ("a/2020/1.png", "a/2020/may/2.png")


def test_means_of_transport_are_classes(tmp_path: Path) -> None:
    put(tmp_path / "in", "train/0.png", "car/1.png", "test/2.png")

    assert not any(found(tmp_path).values())


def test_labels_that_look_alike_are_told(tmp_path: Path, home: FileObjectStore) -> None:
    labels = ["Cat", "cat", "CAT ", "caf\u00e9", "cafe\u0301", "dog"]
    put(tmp_path / "in", *(f"{n}.png" for n in range(60)))
    lines = [f"{n}.png,{labels[n % 6]}" for n in range(59)]
    (tmp_path / "in" / "train.csv").write_text("\n".join(["path,label", *lines]))

    snapshot = prepared(replace(request(tmp_path), source_key="in/train.csv"), home)

    told = {f.kind: f.examples for f in snapshot.findings}
    alike = [f.examples for f in snapshot.findings if f.kind is FindingKind.SIMILAR_LABELS]
    assert alike == [("CAT", "Cat", "cat"), ("cafe\u0301", "caf\u00e9")]
    assert told[FindingKind.IGNORED_FILES] == ("in/59.png",)


@pytest.mark.parametrize("bad", [20, 3000])
def test_a_message_lists_few_problems_and_says_where_all_are(tmp_path: Path, bad: int) -> None:
    write_classes(tmp_path / "in")
    lines = ["path,label", *(f"gone-{number}.png,a" for number in range(bad))]
    (tmp_path / "in" / "train.csv").write_text("\n".join(lines))
    spec = study_spec(
        {
            "name": "gone",
            "task": "image_classification",
            "data": {"source": str(tmp_path / "in" / "train.csv")},
        }
    )
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")

    with pytest.raises(DataError) as caught:
        prepare(context, lambda *_: None)

    assert len(str(caught.value)) < 3000
    assert len(caught.value.problems) == min(bad, 21)
    stored = [entry.key for entry in context.store.list("")]
    if bad == 20:
        assert stored == []
        return
    assert stored == ["studies/gone/runs/one/problems.csv"]
    assert f"and 2,980 more: all are in {context.store.uri}/{stored[0]}" in str(caught.value)
    table = context.store.get(stored[0]).data.decode().splitlines()
    assert (len(table), table[3000]) == (3001, "gone-2999.png,there is no such file")
