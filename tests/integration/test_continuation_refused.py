"""Versions that `final_fit.from` cannot continue: opening the run says why and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automl.domain.events import SearchEnd
from automl.errors import ConfigError
from automl.runs.continuation import fitted_members
from automl.steps.dispatch import run_named_step
from automl.tracks.image.snapshot import ImageSnapshot
from tests.continuing import (
    OLD_ROWS,
    WEIGHTS,
    Place,
    context_of,
    manifest_rows,
    open_run,
    runs,
    write_study,
)


def refusal(place: Place) -> list[str]:
    """Return the problems with which opening the run is refused; nothing of it is written then."""
    before = place.study
    with pytest.raises(ConfigError, match="of study digits cannot be continued") as caught:
        open_run(place)
    assert {problem.path for problem in caught.value.problems} == {"final_fit.from"}
    assert (place.study.runs, place.study.trials) == (before.runs, before.trials)
    return [problem.message for problem in caught.value.problems]


def edit_fit(place: Place, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the event of the log that tells of the final fit."""
    for path in sorted((place.home / "studies/digits/log").glob("*.json")):
        version = json.loads(path.read_text())
        for event in version["events"]:
            if event["type"] == "final_fit_finished":
                edit(event)
        path.write_text(json.dumps(version))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_version_that_does_not_exist_is_refused(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 7})

    assert refusal(place) == ["there is no version 7; published versions: 1"]


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "manifest.json"])
def test_a_damaged_version_is_refused(place: Place, name: str) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    path = place.home / "models/digits/1" / name
    path.write_bytes(path.read_bytes()[:-40])

    (message,) = refusal(place)
    assert name in message


def test_damaged_weights_are_refused(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    key = WEIGHTS.format(runs(place)[0].name)
    flip(place.home / key)

    (message,) = refusal(place)
    assert message.startswith(f"{key} holds no weights: ")


def test_weights_that_are_gone_are_refused(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    (place.home / WEIGHTS.format(runs(place)[0].name)).unlink()

    (message,) = refusal(place)
    assert message.startswith("The weights of version 1 of study digits are gone: ")


def test_other_classes_and_another_image_size_are_refused_at_once(place: Place) -> None:
    rows = [(path, "one" if label == "1" else label) for path, label in manifest_rows(place)]
    write_study(place.source, rows, data={"image_size": 16}, final_fit={"from": 1})

    assert refusal(place) == [
        "its classes are not the dataset's: missing now 1; new one",
        "its images are 8 px wide, the dataset's 16 px; data.image_size: 8 makes them equal",
    ]


def test_images_that_become_squares_in_another_way_are_refused(place: Place) -> None:
    write_study(
        place.source, manifest_rows(place), data={"resize": "letterbox"}, final_fit={"from": 1}
    )

    assert refusal(place) == [
        "its images are resized by stretch, the dataset's by letterbox; "
        "data.resize: stretch makes them equal"
    ]


def test_another_task_is_refused(place: Place) -> None:
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})
    path = place.home / "models/digits/1/manifest.json"
    path.write_text(path.read_text().replace('"image_classification"', '"tabular_regression"'))

    assert refusal(place) == ["its task is tabular_regression, the study's is image_classification"]


def test_a_network_beyond_the_limits_is_refused(place: Place) -> None:
    sizes = {
        trial.measurement.network.parameters or 0: trial.number
        for trial in place.study.trials
        if trial.measurement.network is not None
    }
    assert len(sizes) > 1
    limit = max(sizes) - 1

    def of_the_largest(event: dict[str, Any]) -> None:
        event["members"][0]["trial"] = sizes[max(sizes)]

    edit_fit(place, of_the_largest)
    limits = {"limits": {"parameters": limit}}
    write_study(place.source, manifest_rows(place), search=limits, final_fit={"from": 1})

    assert refusal(place) == ["its network is beyond search.limits (parameters)"]


def test_rows_that_the_version_was_trained_on_are_never_held_out(place: Place) -> None:
    write_study(place.source, manifest_rows(place), seed=1, final_fit={"from": 1})

    (message,) = refusal(place)
    assert message.startswith("rows that it was trained on may be held out now: since run ")
    assert message.endswith(" have changed (label, split, fractions or seed)")


def another_generation(place: Place) -> None:
    """Open a run with another seed, and end it."""
    write_study(place.source, manifest_rows(place), seed=1)
    context = context_of(place)
    payload = {"study_file": str(place.source / "study.yaml"), "run": "between", "origin": "test"}
    prepared = run_named_step("prepare", payload)
    assert isinstance(prepared, dict)
    run_named_step("open_run", payload | {"snapshot": prepared["snapshot"]})
    run_named_step("fail_run", payload | {"cause": "ended"})
    assert len(context.record.refresh().generation_keys) == 2


def test_a_version_of_an_earlier_generation_is_continued_if_no_row_has_moved(place: Place) -> None:
    another_generation(place)
    old = manifest_rows(place)[:OLD_ROWS]
    write_study(place.source, old, final_fit={"from": 1})  # the same rows get the same thresholds

    open_run(place)

    assert place.study.runs[-1].generation == 2
    assert place.study.runs[-1].search_end is SearchEnd.CONTINUED


def test_a_version_of_an_earlier_generation_is_refused_if_rows_may_have_moved(
    place: Place,
) -> None:
    another_generation(place)
    write_study(place.source, manifest_rows(place), final_fit={"from": 1})

    (message,) = refusal(place)
    assert "and with it the thresholds of the split" in message


# --- older logs ---


def test_a_fit_that_does_not_name_its_normalisation_had_its_snapshots(place: Place) -> None:
    def forget(event: dict[str, Any]) -> None:
        (member,) = event["members"]
        member["details"] = {}

    edit_fit(place, forget)
    context, (run,) = context_of(place), runs(place)
    assert run.final_fit is not None
    assert run.final_fit.members[0].details == {}

    manifest = ImageSnapshot.open(context.store, "digits", run.snapshot).envelope
    (member,) = fitted_members(context, run)
    assert member.details == {"mean": list(manifest.mean), "std": list(manifest.std)}
