from __future__ import annotations

from pathlib import Path

import pytest

from automl.domain.events import FittedMember, RunState, SearchEnd
from automl.domain.facts import Origin, OriginKind
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.study import replay
from automl.domain.trial import Outcome
from automl.errors import ConfigError
from automl.runs.replay import replay_document
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord

# as the first version of the platform wrote it: without `space` and `checkpoint`
GOLDEN = open_home(Settings(str(Path(__file__).parent / "golden" / "study-log-1")))
RUNGS = open_home(Settings(str(Path(__file__).parent / "golden" / "study-log-1-rungs")))

OWNERS = open_home(Settings(str(Path(__file__).parent / "golden" / "study-log-1-owners")))


def test_a_log_of_schema_1_still_replays() -> None:
    study = StudyRecord(GOLDEN.study_log("digits")).refresh()

    (run,) = study.runs
    assert (run.name, run.state, run.search_end) == (
        "one", RunState.SUCCEEDED, SearchEnd.MAX_TRIALS,
    )  # fmt: skip
    assert (run.winner, run.version, run.published, run.promoted) == (3, 1, True, True)
    assert run.space is None
    assert run.final_fit is not None
    assert run.final_fit.members == (FittedMember(trial=3, model="w"),)
    assert study.version == 16
    assert [trial.outcome for trial in study.trials] == [Outcome.COMPLETED] * 5
    assert [trial.based_on for trial in study.trials] == [1, 3, 5, 8, 11]
    assert violations(GOLDEN.study_log("digits").read()) == []


def test_a_log_with_rungs_still_replays() -> None:
    events = RUNGS.study_log("digits").read()
    first, second = replay(events).trials

    assert violations(events) == []
    assert [(r.rung, r.epochs, r.planned, r.recorded_in) for r in first.rungs] == [
        (1, 3, 10, 3), (2, 10, 10, 4),
    ]  # fmt: skip
    assert [(r.score, r.error, r.log_loss) for r in second.rungs] == [(0.5, 0.02, 1.4)]
    assert (second.attempt, second.outcome) == (2, Outcome.PRUNED)
    assert first.measurement.log_loss == 0.1
    assert not second.can_win


def test_a_log_with_owners_and_a_run_opened_again_still_replays() -> None:
    events = OWNERS.study_log("digits").read()
    first, second = replay(events).runs

    assert violations(events) == []
    owners = [replay(row for row in events if row[0] <= n).owner for n in (0, 14, 15)]
    assert owners == [
        Origin(OriginKind.AIRFLOW, "automl_search", "ann"),
        Origin(OriginKind.AIRFLOW, "automl_digits"),
        Origin(OriginKind.AIRFLOW, "automl_search"),
    ]
    assert (first.state, first.version, first.promoted) == (RunState.SUCCEEDED, 1, True)
    assert (second.state, second.cause) == (RunState.ABANDONED, f"{first.name} took over")
    assert first.reopened_at is not None
    assert first.reopened_at.hour == 10
    assert (first.opened_at.hour, first.deadline.hour, first.outcomes) == (1, 7, 2)


def test_the_proposals_of_another_version_of_the_search_are_not_judged() -> None:
    with pytest.raises(ConfigError, match="Run one was searched by version 1 of the search; this"):
        replay_document(GOLDEN, "digits")
