from __future__ import annotations

import json

from automl.domain.trial import Measurement
from automl.runs.worker_report import WorkerReport


def test_the_best_trial_is_the_one_of_least_loss() -> None:
    report = WorkerReport()
    for number, (score, loss) in enumerate([(2.0, 2.0), (1.0, 1.0), (3.0, 3.0)]):
        report.begin(number)
        report.note(Measurement(score=score, loss=loss))
    report.note(Measurement())

    assert report.to_json() == {
        "state": "search_ended", "trials": [0, 1, 2], "best": 1.0,
        "label": "trials 0, 1, 2 · best 1.0000",
    }  # fmt: skip


def test_a_slice_without_a_score_has_no_best_trial() -> None:
    report = WorkerReport("slice_ended", left_s=12.34)
    report.note(Measurement())

    assert report.to_json()["best"] is None
    assert report.to_json()["label"] == "trials none"
    assert report.to_json()["left_s"] == 12.3


def test_the_result_of_many_trials_stays_below_one_kilobyte() -> None:
    report = WorkerReport(left_s=86_399.123)
    for number in range(100_000, 105_000):
        report.begin(number)

    assert report.to_json()["trials"] == list(range(104_936, 105_000))
    assert len(json.dumps(report.to_json())) <= 1024
