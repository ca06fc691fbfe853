"""The benchmark of strategies with real training, on a small part of what it does."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from automl.domain.study import Study
from automl.domain.trial import Outcome
from benchmarks import strategies, trained
from benchmarks.calibration import read_history, record
from benchmarks.strategies import Estimate, Task, best_after, plans, report, run_missing
from benchmarks.trained import Plan, prepare_home, run_search

PLAN = Plan("digits", "random", inherits=True, seed=0, trials=5, epochs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("searches")
    prepare_home(PLAN, path)
    return path


def scores(study: Study) -> list[float | None]:
    return [trial.measurement.score for trial in study.trials]


def test_trials_are_equally_long_and_a_finished_search_is_read_again(folder: Path) -> None:
    study, accuracy = run_search(PLAN, folder)
    again, same = run_search(PLAN, folder)

    assert [trial.outcome for trial in study.trials] == [Outcome.COMPLETED] * PLAN.trials
    assert [trial.measurement.epochs for trial in study.trials] == [PLAN.epochs] * PLAN.trials
    assert accuracy is not None
    assert 0 < accuracy <= 1
    assert (again, same) == (study, accuracy)


def test_without_inheritance_the_same_candidates_start_anew(folder: Path) -> None:
    # seeds, and then children of seeds: the proposals of random search do not follow the scores
    heirs, _ = run_search(PLAN, folder)
    orphans, _ = run_search(replace(PLAN, inherits=False), folder)

    pairs = list(zip(heirs.trials, orphans.trials, strict=True))
    assert all(heir.candidate == orphan.candidate for heir, orphan in pairs)
    with_parents = [n for n, t in enumerate(heirs.trials) if t.candidate and t.candidate.parent]
    assert with_parents
    assert [scores(heirs)[n] for n in range(3)] == [scores(orphans)[n] for n in range(3)]
    for n in with_parents:
        heir, orphan = scores(heirs)[n], scores(orphans)[n]
        assert heir is not None
        assert orphan is not None
        assert heir > orphan


def test_a_trial_stops_at_its_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "TRIAL_LIMIT_S", 0.0)

    study, accuracy = run_search(replace(PLAN, trials=1), folder)

    assert study.trials[0].outcome is Outcome.TIMED_OUT
    assert accuracy is None


def test_a_recorded_study_names_no_place_of_this_machine(folder: Path, tmp_path: Path) -> None:
    path = record(replace(PLAN, trials=1, seed=0), tmp_path, folder)

    study = read_history(path)
    assert study.runs[0].spec["data"]["source"] == PLAN.dataset
    assert str(folder) not in repr(study)
    assert scores(study) == scores(run_search(replace(PLAN, trials=1), folder)[0])


def row(plan: Plan, scores: list[float | None], tested: float) -> dict[str, Any]:
    return {
        "plan": asdict(plan), "version": 1, "scores": scores, "test_accuracy": tested,
        "seconds": 20.0, "epochs": 20, "others": 1,
    }  # fmt: skip


def test_finished_searches_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, trials=3)
    first = run_missing([plan], tmp_path, processes=1)
    with (tmp_path / "strategies.jsonl").open("a") as file:
        file.write('{"plan": {"dataset"')  # a killed run's last line
    monkeypatch.setattr(strategies, "prepare_home", None)  # any further search would need it

    assert run_missing([plan], tmp_path, processes=1) == first
    assert len(first[0]["scores"]) == 3


def test_the_table_has_means_and_paired_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "TASKS", {"digits": Task(seeds=2, trials=4, epochs=1)})
    rows = []
    for plan in plans(["digits"]):
        best = {"bayesian": 0.9, "evolution": 0.8, "random": 0.7}[plan.strategy] + plan.seed / 50
        rows.append(row(plan, [None, 0.5, best, 0.1], tested=best - 0.2))

    lines = report("digits", rows)

    cells = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in lines[2:]}
    assert cells["| bayesian"][1:4] == ["0.00 ± 0.00", "50.00 ± 0.00", "91.00 ± 1.00"]
    assert cells["| bayesian"][4] == "20.00 ± 0.00"
    assert cells["| bayesian"][5:7] == ["71.00 ± 1.00", "20.00 ± 0.00"]
    assert cells["| random"][4].strip() == ""
    assert "| bayesian-from-scratch" in cells


def test_the_best_is_found_among_those_with_a_score() -> None:
    assert best_after(row(PLAN, [None, 0.2, 0.1], 0.0), 1) == 0
    assert best_after(row(PLAN, [None, 0.2, 0.1], 0.0), 3) == 0.2
    assert str(Estimate.of([0.5, 0.7])) == "60.00 ± 10.00"
