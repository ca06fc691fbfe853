"""`final_fit.from`: a published version goes on with new data, through the real steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automl.data.splits import Part
from automl.domain.events import RunState, SearchEnd
from automl.errors import SearchError
from automl.morphism.architecture import Architecture
from automl.onnx.model import OnnxModel
from automl.runs.continuation import fitted_members
from automl.steps.dispatch import run_named_step
from automl.tracks.image.members import normalization_of, weights_of
from automl.tracks.image.snapshot import ImageSnapshot
from automl.training.inference import predict_probabilities
from automl.training.module import Normalization
from tests.continuing import (
    WEIGHTS,
    Place,
    context_of,
    manifest_rows,
    open_run,
    runs,
    write_study,
)


@pytest.fixture(scope="module")
def continued(first: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same after a run that continued version 1 with all images."""
    place = first.copy(tmp_path_factory.mktemp("continued"))
    study = write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    document = place.automl("run", str(study))
    assert (document["version"], document["state"]) == (2, "succeeded")
    assert document["winner"]["trial"] == runs(place)[0].winner
    return place


# --- what it comes to ---


def test_the_version_is_continued_without_a_search(continued: Place) -> None:
    old, new = runs(continued)

    assert new.snapshot != old.snapshot
    assert (new.search_end, new.outcomes, new.state) == (
        SearchEnd.CONTINUED, 0, RunState.SUCCEEDED,
    )  # fmt: skip
    assert {trial.run for trial in continued.study.trials} == {old.name}
    assert old.final_fit is not None
    assert new.final_fit is not None
    assert new.winner == new.final_fit.members[0].trial == old.final_fit.members[0].trial
    assert (new.final_fit.source, new.final_fit.note) == ("continued", "")
    assert continued.versions == [1, 2]


def test_the_weights_keep_the_normalisation_that_they_were_trained_with(continued: Place) -> None:
    context, (old, new) = context_of(continued), runs(continued)
    snapshots = [ImageSnapshot.open(context.store, "digits", run.snapshot) for run in (old, new)]
    means = [np.array(snapshot.envelope.mean) for snapshot in snapshots]
    (before,), (member,) = (fitted_members(context, run) for run in (old, new))

    assert member.details == before.details
    assert tuple(member.details["mean"]) == snapshots[0].envelope.mean
    assert np.abs(means[1] - means[0]).min() > 20

    assert new.winner is not None
    assert member.candidate == continued.study.trials[new.winner].candidate
    rows = [row.pixels for row in snapshots[1].files(Part.REPORT)]
    published = OnnxModel((continued.home / "models/digits/2/model.onnx").read_bytes())
    probabilities = published.predict({"image": np.stack(rows)}).values
    images, _ = snapshots[1].tensors(Part.REPORT)
    weights = weights_of(member)
    own, other = (
        predict_probabilities(
            Architecture.from_genotype(member.candidate.genotype), weights, normalization, images, 1
        )
        for normalization in (
            Normalization(*normalization_of(member, snapshots[1].envelope)),
            Normalization(snapshots[1].envelope.mean, snapshots[1].envelope.std),
        )
    )
    np.testing.assert_allclose(probabilities, own, atol=1e-4)
    assert np.abs(probabilities - other).max() > 0.01


def test_the_new_version_verifies_and_the_log_replays(continued: Place) -> None:
    verified = continued.automl("verify", "digits@2")
    replayed = continued.automl("replay", "digits")

    assert verified["ok"]
    assert verified["parity"]["ok"]
    assert verified["parity"]["max_abs_diff"] < 1e-4
    assert (replayed["ok"], replayed["trials"]) == (True, len(continued.study.trials))


def test_report_and_commands_say_how_the_weights_were_made(continued: Place) -> None:
    old, new = runs(continued)
    assert old.final_fit is not None
    assert new.final_fit is not None
    winner = new.winner
    assert winner is not None
    summary = f"continued from version 1 for {new.final_fit.epochs} epochs"

    models = continued.automl("models", "digits")["versions"]
    shown = continued.automl("show", "digits", str(winner))
    report = (continued.home / "models/digits/2/report.html").read_text()

    assert [version["weights"]["continues"] for version in models] == [None, 1]
    assert models[1]["weights"] == {
        "source": "continued", "trial": winner, "continues": 1, "epochs": new.final_fit.epochs,
        "note": "", "summary": summary,
    }  # fmt: skip
    assert [version["version"] for version in shown["versions"]] == [1, 2]
    assert shown["versions"][1]["summary"] == summary
    assert summary in report
    assert f"version 1 ← trial {winner}" in report


def test_a_continued_version_can_be_continued(continued: Place, tmp_path: Path) -> None:
    place = continued.copy(tmp_path)
    study = write_study(place.source, manifest_rows(place), final_fit={"from": 2})

    assert place.automl("run", str(study))["version"] == 3

    context, (first, _, third) = context_of(place), runs(place)
    (fitted_first,), (fitted_last,) = (fitted_members(context, run) for run in (first, third))
    assert fitted_first.details == fitted_last.details
    report = (place.home / "models/digits/3/report.html").read_text()
    assert f"version 2 ← version 1 ← trial {third.winner}" in report


# --- through the steps of a DAG ---


def test_the_steps_find_nothing_to_search_and_can_be_called_again(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    payload = open_run(place)
    before = place.study.version

    for _ in range(2):
        assert run_named_step("open_run", payload) == [0]
        assert run_named_step("run_worker", payload) == {
            "state": "search_ended", "trials": [], "best": None, "label": "trials none",
        }  # fmt: skip
    assert place.study.version == before
    winners = [run_named_step("choose", payload) for _ in range(2)]
    assert winners[0] == winners[1]
    assert place.study.version == before + 1


def test_what_the_run_was_opened_with_counts_whatever_becomes_of_the_file(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    payload = open_run(place)
    write_study(place.source, manifest_rows(place))

    run_named_step("choose", payload)
    assert run_named_step("run_worker", payload) == {
        "state": "search_ended", "trials": [], "best": None, "label": "trials none",
    }  # fmt: skip

    assert runs(place)[-1].winner == runs(place)[0].winner


def test_weights_that_go_after_the_opening_are_named(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    payload = open_run(place)
    run_named_step("choose", payload)
    (place.home / WEIGHTS.format(runs(place)[0].name)).unlink()

    with pytest.raises(SearchError, match="The weights of version 1 of study digits are gone"):
        run_named_step("final_fit", payload)
