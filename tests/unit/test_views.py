"""Documents that people look at, and their JSON forms."""

from __future__ import annotations

from datetime import timedelta

import pytest

from automl.domain.events import (
    FinalFitFinished,
    FitSource,
    FittedMember,
    RunClosed,
    RunOpened,
    RunReopened,
    RunState,
    StudyGiven,
    VersionPublished,
    VersionReserved,
)
from automl.domain.layout import MODEL_FILE
from automl.domain.training import CurvePoint
from automl.errors import ConfigError, DamagedDataError
from automl.publishing.registry import Registry
from automl.runs.curves import curve_to_bytes
from automl.scoring.interval import Interval
from automl.storage.home import Home, ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.views.curve import show_curve
from automl.views.leaderboard import rank_trials
from automl.views.library import Library
from automl.views.lineage import trace_lineage
from automl.views.models import list_models
from automl.views.search import standing
from automl.views.studies import StudyRow, UnreadableStudy, list_studies
from automl.views.trial import show_trial
from tests.shown import AT, STUDY, append, finish, write_study
from tests.versions import NOW, facts, publish

CURVE = f"studies/{STUDY}/trials/1/1/curve.jsonl"


@pytest.fixture
def home() -> Home:
    home = ObjectHome(MemoryObjectStore())
    write_study(home)
    return home


@pytest.fixture
def library(home: Home) -> Library:
    return Library(home)


def test_the_leaderboard_ranks_scores_and_lists_the_others_after_them(
    home: Home, library: Library
) -> None:
    finish(home, 1, 0.75)

    board = rank_trials(library, STUDY)

    assert [(row.trial, row.rank, row.score) for row in board.trials] == [
        (1, 1, 0.75), (0, None, None), (2, None, None),
    ]  # fmt: skip
    assert board.to_json() | {"trials": ...} == {
        "schema": 1, "study": STUDY, "run": "a", "trials": ...,
        "strategies": [
            {"strategy": "random", "trials": 1, "best": 0.75, "drawn": 1, "expected_best": 0.75}
        ],
    }  # fmt: skip
    assert board.to_json()["trials"][0] == {
        "trial": 1, "rank": 1, "outcome": "completed", "score": 0.75, "error": 0.01,
        "parameters": 5, "macs": 7, "latency_ms": 0.5, "seconds": 3.0, "strategy": "random",
        "parent": 0, "rung": 2, "cause": "", "attempts": 2,
    }  # fmt: skip


def test_every_document_begins_with_its_schema(home: Home, library: Library) -> None:
    documents = [
        list_studies(library), rank_trials(library, STUDY), show_trial(library, STUDY, 0),
        trace_lineage(library, STUDY, 0), show_curve(library, STUDY, 0),
        list_models(library, STUDY),
    ]  # fmt: skip

    assert [next(iter(one.to_json().items())) for one in documents] == [("schema", 1)] * 6


def test_a_study_is_a_row(home: Home, library: Library) -> None:
    finish(home, 1, 0.75)
    registry = Registry(home.store, STUDY)
    registry.promote(publish(registry, "a"), "a", "Better.", NOW)

    assert list_studies(library).to_json() == {
        "schema": 1,
        "studies": [
            {
                "study": STUDY, "runs": 1, "trials": 3, "state": "open", "last_run": "a",
                "opened_at": AT.isoformat(), "best_score": 0.75, "champion": 1, "owner": None,
            }
        ],
    }  # fmt: skip


def test_the_owner_of_a_study_is_shown(home: Home, library: Library) -> None:
    append(home, StudyGiven(at=AT, owner="airflow:automl_search:ann", by="a"))

    (row,) = list_studies(library).studies
    assert isinstance(row, StudyRow)
    assert row.owner == show_trial(library, STUDY, 0).owner == "airflow:automl_search:ann"


def test_the_state_of_a_study_is_that_of_a_run_that_was_opened_again(
    home: Home, library: Library
) -> None:
    closed = RunClosed(at=AT, run="a", state=RunState.FAILED)
    later = RunOpened(
        at=AT, run="b", deadline=AT, snapshot="s", spec_hash="h", generation_key="k",
        spec={"task": "image_classification"}, origin="cli",
    )  # fmt: skip
    append(home, closed, later, RunClosed(at=AT, run="b", state=RunState.SUCCEEDED))
    assert list_studies(library).to_json()["studies"][0]["last_run"] == "b"

    append(home, RunReopened(at=AT, run="a"))

    row = list_studies(library).to_json()["studies"][0]
    assert (row["runs"], row["last_run"], row["state"]) == (2, "a", "open")


def test_a_damaged_study_does_not_hide_the_others(home: Home, library: Library) -> None:
    home.store.put("studies/broken/log/000000000000.json", b"{")
    home.store.put("studies/newer/log/000000000000.json", b'{"schema": 9}')

    broken, digits, newer = list_studies(library).studies

    assert isinstance(digits, StudyRow)
    assert isinstance(broken, UnreadableStudy)
    assert "is not a version of a study log" in broken.error
    assert broken.to_json() == {"study": "broken", "error": broken.error}
    assert isinstance(newer, UnreadableStudy)
    assert "upgrade this worker" in newer.error


def test_a_seed_is_shown_layer_by_layer(library: Library) -> None:
    shown = show_trial(library, STUDY, 0).to_json()

    assert shown["architecture"].startswith("16 px: conv3x3-24 ")
    assert len(shown["layers"].splitlines()) == len(shown["genotype"]["nodes"]) + 2
    assert shown["difference"] is None


def test_a_child_is_shown_against_its_parent(library: Library) -> None:
    shown = show_trial(library, STUDY, 1)

    assert shown.difference is not None
    first, *changes = shown.difference.splitlines()
    assert first.startswith("parameters ")
    assert changes
    assert {change[0] for change in changes} <= {"+", "-", "~"}
    assert shown.moves
    assert shown.lineage == (0,)


def test_a_trial_without_a_candidate_has_nothing_to_show_of_it(library: Library) -> None:
    shown = show_trial(library, STUDY, 2)

    assert (shown.genotype, shown.architecture, shown.layers, shown.difference) == (None,) * 4
    assert (shown.state, shown.strategy, shown.lineage) == ("opened", "", ())


def test_the_form_of_a_trial_is_that_of_its_row_and_more(home: Home, library: Library) -> None:
    finish(home, 1, 0.75)
    row = rank_trials(library, STUDY).to_json()["trials"][0]

    shown = show_trial(library, STUDY, 1).to_json()

    assert list(shown) == [
        "schema", "study", *row, "owner", "run", "state", "lineage", "moves", "hyperparameters",
        "genotype", "architecture", "layers", "difference", "resumed_at", "best_epoch", "versions",
        "rungs", "curve",
    ]  # fmt: skip
    assert {key: shown[key] for key in row} == row


def test_rungs_are_shown(library: Library) -> None:
    rows = {row.trial: row.rung for row in rank_trials(library, STUDY).trials}
    shown = show_trial(library, STUDY, 1)

    assert rows == {0: 0, 1: 2, 2: 0}
    assert shown.rung == 2
    assert shown.to_json()["rungs"][0] == {
        "rung": 1, "epochs": 3, "planned": 30, "loss": -0.5, "score": 0.5, "error": 0.02,
        "log_loss": 1.5, "share": 0.1, "resolution": 8,
    }  # fmt: skip
    assert show_trial(library, STUDY, 0).rungs == ()


def test_an_unknown_trial_is_refused(library: Library) -> None:
    for look in (show_trial, trace_lineage, show_curve):
        for number in (3, -1):
            with pytest.raises(ConfigError, match=f"has no trial {number}") as caught:
                look(library, STUDY, number)
            assert caught.value.hint == "trials are 0 to 2"


def test_a_lineage_leads_back_to_the_seed(home: Home, library: Library) -> None:
    finish(home, 1, 0.75)

    found = trace_lineage(library, STUDY, 1)

    assert [(one.trial, one.outcome, one.score, bool(one.moves)) for one in found.ancestors] == [
        (1, "completed", 0.75, True), (0, None, None, False),
    ]  # fmt: skip


def test_a_curve_has_a_point_per_epoch(home: Home, library: Library) -> None:
    assert show_curve(library, STUDY, 1).curve == ()
    points = [CurvePoint(n, (n + 1) / 2, 0.75, train_loss=1.0 / (n + 1)) for n in range(2)]
    home.store.put(CURVE, curve_to_bytes(points))

    shown = show_curve(library, STUDY, 1)

    assert (shown.trial, shown.attempt) == (1, 1)
    assert [(point["epoch"], point["train_loss"]) for point in shown.curve] == [(0, 1.0), (1, 0.5)]
    assert show_trial(library, STUDY, 1).curve == shown.curve


def test_a_damaged_curve_is_refused(home: Home, library: Library) -> None:
    home.store.put(CURVE, b"not a curve")

    with pytest.raises(DamagedDataError, match=CURVE):
        show_curve(library, STUDY, 1)


def test_versions_tell_how_they_were_made_and_who_promoted_them(
    home: Home, library: Library
) -> None:
    registry = Registry(home.store, STUDY)
    version = publish(registry, "a")
    append(
        home,
        FinalFitFinished(
            at=AT,
            run="a",
            members=(FittedMember(trial=1, model="w"),),
            source=FitSource.RETRAINED,
            epochs=30,
            note="in time",
        ),
        VersionReserved(at=AT, run="a", version=version),
        VersionPublished(at=AT, run="a", version=version),
    )
    registry.promote(version, "anna", "Better.", NOW)
    weights = {
        "source": "retrained", "trial": 1, "continues": None, "epochs": 30, "note": "in time",
        "summary": "retrained for 30 epochs (in time)",
    }  # fmt: skip

    assert list_models(library, STUDY).to_json() == {
        "schema": 1,
        "study": STUDY,
        "champion": 1,
        "versions": [
            {
                "version": 1, "published_at": NOW.isoformat(), "promoted": True,
                "objective": "accuracy", "weights": weights,
                "metrics": {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}},
                "onnx": f"memory:/models/{STUDY}/1/{MODEL_FILE}",
            }
        ],
        "promotions": [
            {
                "promotion": 1, "when": NOW.isoformat(), "from": None, "to": 1, "who": "anna",
                "why": "Better.",
            }
        ],
    }  # fmt: skip
    (made,) = show_trial(library, STUDY, 1).versions
    assert made.to_json() == {**weights, "version": 1}


def test_a_version_may_be_of_any_objective(home: Home, library: Library) -> None:
    metrics = {name: Interval(value=2.0, low=1.5, high=2.5, n=80) for name in ("rmse", "mae")}
    registry = Registry(home.store, STUDY)
    told = facts("a").model_copy(update={"objective": "rmse", "metrics": metrics})
    registry.write(registry.claim_version("a"), {MODEL_FILE: b"file"}, told)

    (row,) = list_models(library, STUDY).versions

    assert (row.objective, row.promoted, row.weights) == ("rmse", False, None)
    assert row.metrics == metrics


def test_a_search_is_told_at_a_glance(home: Home, library: Library) -> None:
    finish(home, 1, 0.75)
    study = library.study(STUDY)

    found = standing(study, "a", AT + timedelta(minutes=59))

    assert found is not None
    assert (found.left_s, found.outcomes) == (60.0, 1)
    assert [(row.rank, row.trial, row.score) for row in found.best] == [(1, 1, 0.75)]
    assert standing(study, "b", AT) is None
    late = standing(study, "a", AT + timedelta(hours=2))
    assert late is not None
    assert late.left_s == 0.0
