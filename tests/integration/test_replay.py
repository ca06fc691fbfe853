"""`automl replay` on the log that three real workers wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from automl.domain.settings import Settings
from automl.domain.trial import Trial
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from tests.commands import automl, python
from tests.digits import write_digits

ROWS = 90
REDERIVE = """
import json, sys
from automl.domain.settings import Settings
from automl.runs.proposals import search_space
from automl.runs.replay import rederive
from automl.storage.open import open_home

events = open_home(Settings(sys.argv[1])).study_log("digits").read()
found = rederive(events, search_space)
print(json.dumps({p.recorded.n: p.derived.candidate.model_dump(mode="json") for p in found}))
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study that three workers have searched together."""
    folder = tmp_path_factory.mktemp("replay")
    write_digits(folder / "rows.npz", ROWS, classes=3)
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"time_limit": "120s", "max_trials": 6, "workers": 3},
        "final_fit": {"time_limit": "5s"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    done = automl("run", str(folder / "study.yaml"), "--home", str(folder / "home"))
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.fixture
def home(searched: Path, tmp_path: Path) -> Path:
    """A copy whose log may be changed."""
    return Path(shutil.copytree(searched, tmp_path / "home"))


def proposed(home: Path) -> list[Trial]:
    study = StudyRecord(open_home(Settings(str(home))).study_log("digits")).refresh()
    return [trial for trial in study.trials if trial.candidate is not None]


def edit_events(home: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the stored events of the study, in place."""
    log = home / "studies" / "digits" / "log"
    shutil.rmtree(log / "segments", ignore_errors=True)
    for path in sorted(log.glob("*.json")):
        version = json.loads(path.read_text())
        for event in version["events"]:
            edit(event)
        path.write_text(json.dumps(version))


def test_all_proposals_of_three_workers_are_derived_again(searched: Path) -> None:
    done = automl("replay", "digits", "--home", str(searched), "--json")

    assert done.returncode == 0, done.stderr
    trials = proposed(searched)
    assert len({trial.worker for trial in trials}) > 1
    assert any(trial.candidate and trial.candidate.parent is not None for trial in trials)
    assert json.loads(done.stdout) == {
        "schema": 1, "study": "digits", "ok": True, "trials": len(trials), "different": [],
    }  # fmt: skip


def test_a_log_without_candidates_gives_them_back_in_another_process(
    searched: Path, home: Path
) -> None:
    def strip(event: dict[str, Any]) -> None:
        if event["type"] == "trial_proposed":
            event["candidate"] = {"genotype": "", "hyperparameters": {}}

    edit_events(home, strip)
    shutil.rmtree(home / "datasets")
    done = python("-c", REDERIVE, str(home))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        str(trial.number): trial.candidate.model_dump(mode="json")
        for trial in proposed(searched)
        if trial.candidate is not None
    }


@pytest.mark.parametrize(
    "field",
    [
        "hyperparameters",
        pytest.param("genotype", marks=pytest.mark.soak),
        pytest.param("parent", marks=pytest.mark.soak),
    ],
)
def test_an_altered_candidate_is_named_with_its_field(home: Path, field: str) -> None:
    trials = proposed(home)
    children = [t for t in trials if t.candidate and t.candidate.parent is not None]
    number, other = children[0].number, trials[0].candidate
    assert other is not None

    def alter(event: dict[str, Any]) -> None:
        if event["type"] == "trial_proposed" and event["n"] == number:
            candidate = event["candidate"]
            if field == "hyperparameters":
                candidate[field]["learning_rate"] *= 1.5
            else:
                candidate[field] = None if field == "parent" else other.genotype

    edit_events(home, alter)
    done = automl("replay", "digits", "--home", str(home), "--json")

    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert (document["ok"], document["trials"]) == (False, len(trials))
    assert document["different"] == [{"trial": number, "field": field}]
    assert done.stderr == f"error: proposals of digits differ: trials {number}\n"


def test_a_log_of_another_version_of_the_search_is_refused(home: Path) -> None:
    def forget(event: dict[str, Any]) -> None:
        event.pop("space", None)

    edit_events(home, forget)
    done = automl("replay", "digits", "--home", str(home))

    assert done.returncode == 2
    assert "was searched by version 1 of the search" in done.stderr
    assert "replay it with the release that ran it" in done.stderr
