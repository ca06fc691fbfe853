"""The folder of study files: ids of DAGs, what broken files keep, and files that are gone."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from automl_airflow.dag_record import FOLDER, remember
from automl_airflow.study_files import StudyFile, owner_of, read_study_files
from hypothesis import given
from hypothesis import strategies as st

from automl.errors import ConfigError
from automl.steps.study_file import load_study_file

WHOLE = "task: image_classification\ndata: {source: /data/x.csv}\n"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ids(folder: Path) -> dict[str, str]:
    return {file.path.name: file.dag_id for file in read_study_files(folder)}


def test_whole_files_come_before_broken_ones_and_then_paths_decide(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: leaves\n")
    (tmp_path / "b.yaml").write_text(f"name: leaves\n{WHOLE}")
    (tmp_path / "c.yaml").write_text(f"name: leaves\n{WHOLE}")
    (tmp_path / "d.yaml").write_text("name: roots\n")
    (tmp_path / "e.yaml").write_text("name: roots\n")

    assert ids(tmp_path) == {
        "a.yaml": "automl_a", "b.yaml": "automl_leaves", "c.yaml": "automl_c",
        "d.yaml": "automl_roots", "e.yaml": "automl_e",
    }  # fmt: skip


@pytest.mark.parametrize("stem", ["search", "maintenance", "batch_predict", "predict_x"])
def test_ids_of_the_platform_are_not_given_away(stem: str, tmp_path: Path) -> None:
    (tmp_path / f"{stem}.yaml").write_text("nonsense")

    assert re.fullmatch(rf"automl_file\.{stem}\.[0-9a-f]{{8}}", ids(tmp_path)[f"{stem}.yaml"])


def test_an_id_that_a_name_has_goes_to_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("nonsense")
    (tmp_path / "b.yaml").write_text("name: a\n")
    (tmp_path / "a.yml").write_text("nonsense")

    found = ids(tmp_path)
    assert found["b.yaml"] == "automl_a"
    assert len(set(found.values())) == 3


names = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: name not in {".", ".."})


@given(st.sets(names, min_size=1, max_size=6))
def test_ids_are_legal_distinct_and_the_same_without_the_others(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("studies")
    for name in names:
        (folder / f"{name}.yaml").write_text("nonsense")
    found = ids(folder)

    assert all(re.fullmatch(r"[\w.-]{1,250}", dag_id, re.ASCII) for dag_id in found.values())
    assert len({dag_id.casefold() for dag_id in found.values()}) == len(names)
    for name in names:
        alone = tmp_path_factory.mktemp("alone")
        (alone / f"{name}.yaml").write_text("nonsense")
        if sum(other.casefold() == name.casefold() for other in names) == 1:
            assert ids(alone)[f"{name}.yaml"] == found[f"{name}.yaml"]


def test_a_name_of_250_letters_is_cut(tmp_path: Path) -> None:
    (tmp_path / f"{'x' * 250}.yaml").write_text("nonsense")

    (dag_id,) = ids(tmp_path).values()
    assert len(dag_id) < 250


def test_the_name_of_a_broken_study_stays_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: leaves\ntask: [\n")
    (tmp_path / "roots.yaml").write_text("nonsense")

    assert owner_of("leaves", tmp_path) == tmp_path / "a.yaml"
    assert owner_of("roots", tmp_path) == tmp_path / "roots.yaml"
    assert owner_of("stems", tmp_path) is None


@pytest.mark.parametrize(
    ("text", "name", "schedule", "timezone"),
    [
        ("name: a\nschedule: 5 5 * * *\ntimezone: Europe/Rome\n", "a", "5 5 * * *", "Europe/Rome"),
        ("name: a\nschedule: null\n", "a", None, "UTC"),
        ("name: a\nschedule: 0 0 30 2 *\ntimezone: Mars\n", "a", "0 1 * * *", "UTC"),
        ("name: 'a' # b\nschedule: \"5 5 * * *\"\ntask: [\n", "a", "5 5 * * *", "UTC"),
        ("name: a # b\nschedule: ~\ntimezone: Europe/Rome\ntask: [\n", "a", None, "Europe/Rome"),
        ("task: [\nname : a\n", "a", "0 1 * * *", "UTC"),
        ("name: 2024-13-45\n", "2024-13-45", "0 1 * * *", "UTC"),
        ("name: search\n", None, "0 1 * * *", "UTC"),
        ("name: A b\ntask: [\n", None, "0 1 * * *", "UTC"),
        ("data: {name: a}\n", None, "0 1 * * *", "UTC"),
        ("{{{", None, "0 1 * * *", "UTC"),
    ],
)
def test_a_broken_file_keeps_what_is_valid_by_itself(
    text: str, name: str | None, schedule: str | None, timezone: str, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(text)

    (file,) = read_study_files(tmp_path)
    assert (file.name, file.schedule, file.timezone) == (name, schedule, timezone)
    assert file.problems


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: 2024-13-45\n", "is a date in YAML"),
        (b"search: {seed: 0x_}\n", "cannot be read as int"),
        (b"data: {source: ~nobody/x}\n", "another user's home"),
        (b"\xff\xfename\n", "It is not UTF-8"),
        (b"x" * (2**20 + 1), "It is larger than 1048576 bytes"),
        (b"", "holds no mapping"),
        (b"- a\n", "holds no mapping"),
        (b"\x00" * 100, "not valid YAML"),
    ],
)
def test_whatever_is_in_a_file_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_study_file(path)
    assert words in str(caught.value)


SCALARS = ["0x_", "2024-13-45", "~", "{}", "[]", "'x'", "~nobody/x", "1:2", ".inf", "*a", "!!x y"]
LINES = st.builds(
    "{}: {}".format,
    st.sampled_from(["name", "task", "data", "search", "schedule", "timezone", "x", "<<", "1"]),
    st.sampled_from(SCALARS) | st.text(st.characters(codec="utf-8"), max_size=20),
)


@given(st.binary(max_size=300) | st.lists(LINES, max_size=6).map("\n".join).map(str.encode))
def test_any_bytes_are_a_study_or_have_problems(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "x.yaml").write_bytes(content)

    (file,) = read_study_files(folder)
    assert (file.spec is None) == bool(file.problems)
    assert re.fullmatch(r"automl_[\w.-]{1,243}", file.dag_id, re.ASCII)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "device", "nothing"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        path.symlink_to("nowhere" if kind == "link" else "/dev/zero")

    with pytest.raises(ConfigError, match=r"It is no regular file|It cannot be read: No such"):
        load_study_file(path)


def test_problems_of_the_text_and_of_the_specification_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nsearch: {seed: 0x_, workers: 0}\ndata: {source: a, source: b}\n")

    with pytest.raises(ConfigError, match="has 4 problems") as caught:
        load_study_file(path)
    assert {problem.path for problem in caught.value.problems} == {
        "search.seed", "data.source", "task", "search.workers",
    }  # fmt: skip


def test_a_folder_that_is_not_there_has_no_studies(tmp_path: Path) -> None:
    assert read_study_files(tmp_path / "nowhere") == []


class TestGoneFiles:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
        self.folder = tmp_path / "studies"
        self.folder.mkdir()

    def gone(self, at: datetime = NOW) -> dict[str, StudyFile]:
        found = remember(read_study_files(self.folder), self.folder, at)
        return {file.dag_id: file for file in found if "gone" in str(file.problems)}

    def write(self, text: str = "") -> Path:
        path = self.folder / "a.yaml"
        path.write_text(f"name: leaves\n{WHOLE}search: {{time_limit: 5h}}\n{text}")
        return path

    def test_a_deleted_file_keeps_its_dag_until_its_run_can_be_over(self) -> None:
        path = self.write("final_fit: {time_limit: 2h}\n")
        assert self.gone() == {}

        path.unlink()
        file = self.gone()["automl_leaves"]
        assert (file.schedule, file.path) == (None, path)
        assert "the study file is gone" in str(file.problems[0])
        assert "automl_leaves" in self.gone(NOW + timedelta(hours=5 + 2 + 24, seconds=-1))
        assert self.gone(NOW + timedelta(hours=5 + 2 + 24)) == {}
        assert self.gone() == {}

    def test_a_file_that_comes_back_is_not_gone(self) -> None:
        self.write().unlink()
        self.write()
        self.gone()
        (self.folder / "a.yaml").unlink()
        assert self.gone()
        self.write()
        assert self.gone(NOW + timedelta(days=9)) == {}

    def test_a_new_name_in_a_file_leaves_the_dag_of_the_old_one(self) -> None:
        path = self.write()
        self.gone()
        path.write_text(path.read_text().replace("leaves", "roots"))

        assert self.gone().keys() == {"automl_leaves"}
        assert ids(self.folder) == {"a.yaml": "automl_roots"}

    def test_a_file_that_broke_before_it_went_stays_as_long(self) -> None:
        path = self.write("final_fit: {time_limit: 100h}\n")
        self.gone()
        path.write_text("name: leaves\n")
        self.gone()
        path.unlink()
        self.gone()

        assert self.gone(NOW + timedelta(hours=100)).keys() == {"automl_leaves"}

    def test_the_pool_of_a_study_without_gpus_is_remembered(self) -> None:
        path = self.write("").parent / "b.yaml"
        path.write_text(f"name: roots\n{WHOLE}search: {{resources: {{gpus: 0}}}}\n")
        for text in ("name: roots\n", "name: roots\ntask: [", None):
            self.gone()
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
            found = remember(read_study_files(self.folder), self.folder, NOW)
            assert {f.dag_id: f.on_cpu for f in found} == {
                "automl_leaves": False, "automl_roots": True,
            }  # fmt: skip

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"dags": {"a": {"file": 1}}}', "\x00"])
    def test_a_damaged_record_is_begun_anew(self, content: str, tmp_path: Path) -> None:
        self.write()
        self.gone()
        (record,) = (tmp_path / "airflow" / FOLDER).iterdir()
        assert not FOLDER.isidentifier()  # it must hide no package
        record.write_text(content)

        assert self.gone() == {}
        assert "automl_leaves" in record.read_text()

    def test_a_home_that_cannot_be_written_loses_no_dag(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "airflow").write_text("no folder")
        self.write()

        assert self.gone() == {}
        assert "cannot be written" in caplog.text
