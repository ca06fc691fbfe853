"""The data gate between two runs of a study: what stops, what is recorded, and how it goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from typer.testing import CliRunner

from automl.cli import app
from automl.data.profile import Bins, Distribution, Profile, Scale
from automl.data.snapshot import Envelope, write_envelope
from automl.domain.data_change import ChangeKind
from automl.domain.events import DataAccepted, DataChanged, Event
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, DataError, DataGateError
from automl.machine.process import run_step
from automl.runs import opening
from automl.runs.admission import admit
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps.prepare import prepare
from tests import digits
from tests.homes import use_home
from tests.opened_runs import FORM, OWN, context_of, spec_with

Rows: TypeAlias = tuple[np.ndarray, np.ndarray]  # images and labels
BINS = Bins(scale=Scale.LINEAR, size=4.0)
STOP = {"gate": {"on_change": "stop"}}
ACCEPT = ("data", "accept", "digits", "--why", "the camera is new")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def night(home: Path, run: str, on_change: str = "stop", origin: str = "cli") -> StepContext:
    return context_of(home, run, spec_with(data={"gate": {"on_change": on_change}}), origin)


def snapshot(
    context: StepContext, name: str, light: float = 80.0, *, has_profile: bool = True
) -> Envelope:
    """Store a snapshot of 300 rows in two classes whose images have this brightness."""
    spread = Distribution.of(np.random.default_rng(0).normal(light, 9, 300), BINS)
    digests, labels = [str(k) for k in range(300)], ["a", "b"] * 150
    profile = Profile.of(300, digests, labels, {"brightness": spread})
    envelope = Envelope(
        id=name, dataset="digits", counts={"train": 300}, shards=(), source="rows.npz",
        profile=profile if has_profile else None,
    )  # fmt: skip
    return write_envelope(context.store, envelope)


def opened(context: StepContext, envelope: Envelope) -> None:
    """Admit a snapshot and have a run on it."""
    admit(context, envelope)
    with RunLease(context):
        opening.open_run(context, envelope.id)
        opening.fail_run(context, "a test")


def events(context: StepContext) -> list[Event]:
    return [event for _, event in context.record.log.read()]


def of_data(context: StepContext) -> list[DataChanged | DataAccepted]:
    return [e for e in events(context) if isinstance(e, DataChanged | DataAccepted)]


def automl(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


# --- stopping ---


def test_a_suspicious_change_stops_the_run_before_it_is_opened(home: Path) -> None:
    opened(night(home, "one"), snapshot(night(home, "one"), "bright"))
    context = night(home, "two")

    with pytest.raises(DataGateError) as caught:
        admit(context, snapshot(context, "black", 0.0))

    error = caught.value
    assert (error.exit_code, error.retryable) == (3, False)
    assert "The data of study digits have changed suspiciously" in error.message
    assert 'automl data accept digits --why "..."' in error.hint
    assert [problem.path for problem in error.problems] == ["statistic"]
    assert "brightness" in error.problems[0].message
    study = context.record.refresh()
    assert (study.run("two"), study.open_run) == (None, None)
    with RunLease(night(home, "three")):  # nothing holds the study
        pass


def test_a_stop_is_in_the_log_once_however_often_it_is_tried(home: Path) -> None:
    opened(night(home, "one"), snapshot(night(home, "one"), "bright"))
    context = night(home, "two")
    black = snapshot(context, "black", 0.0)

    for _ in range(3):
        with pytest.raises(DataGateError):
            admit(context, black)

    (event,) = of_data(context)
    assert isinstance(event, DataChanged)
    assert (event.run, event.snapshot, event.before) == ("two", "black", "bright")
    assert event.stopped
    assert [c.kind for c in event.changes if c.is_suspicious] == [ChangeKind.STATISTIC]


@pytest.mark.parametrize("on_change", ["warn", "stop"])
def test_what_has_hardly_changed_passes_and_is_recorded_with_the_run(
    home: Path, on_change: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened(night(home, "one"), snapshot(night(home, "one"), "bright"))
    context = night(home, "two", on_change)
    same = snapshot(context, "same")
    assert same.profile is not None
    grown = same.profile.model_copy(
        update={"rows": 310, "rows_listed": 310, "rows_per_label": {"a": 160, "b": 150}}
    )

    opened(context, same.model_copy(update={"profile": grown}))

    changes = context.record.refresh().runs[-1].changes
    assert [change.kind for change in changes] == [ChangeKind.CLASS_ROWS, ChangeKind.ROWS]
    assert changes[0].message == "rows per class, before → now: 'a' 150 → 160"
    assert not any(change.is_suspicious for change in changes)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_warning_is_logged_and_recorded_and_the_run_goes_on(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(night(home, "one"), snapshot(night(home, "one"), "bright"))
    context = night(home, "two", "warn")

    opened(context, snapshot(context, "black", 0.0))

    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text.partition(" is ")[0] for text in warnings] == ["data: brightness"]
    (event,) = of_data(context)
    assert isinstance(event, DataChanged)
    assert not event.stopped
    assert context.record.refresh().runs[-1].changes == event.changes


def test_a_first_and_an_unchanged_snapshot_leave_no_trace(home: Path) -> None:
    context = night(home, "one")
    bright = snapshot(context, "bright")
    opened(context, bright)

    admit(night(home, "two"), bright)

    assert of_data(context) == []


def test_a_run_that_is_open_already_keeps_its_snapshot(home: Path) -> None:
    context = night(home, "one")
    opened(context, snapshot(context, "bright"))

    admit(context, snapshot(context, "black", 0.0))

    assert of_data(context) == []


def test_the_gate_of_a_study_of_another_writes_nothing(home: Path) -> None:
    first = night(home, "one", origin=OWN)
    opened(first, snapshot(first, "bright"))

    with pytest.raises(ConfigError, match="belongs to another"):
        admit(night(home, "two", origin=FORM), snapshot(first, "black", 0.0))

    assert of_data(first) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("gone", "snapshot bright, which it was opened on, is gone"),
        ("damaged", "manifest.json describes no snapshot"),
        ("old", "snapshot bright has no profile"),
    ],
)
def test_what_cannot_be_compared_passes_with_a_warning(
    home: Path, caplog: pytest.LogCaptureFixture, how: str, words: str
) -> None:
    first = night(home, "one")
    bright = snapshot(first, "bright", has_profile=how != "old")
    opened(first, bright)
    if how != "old":
        first.store.delete(bright.keys.envelope)
    if how == "damaged":
        first.store.put(bright.keys.envelope, b"{")
    context = night(home, "two")

    admit(context, snapshot(context, "black", 0.0))

    assert words in caplog.records[-1].getMessage()
    (event,) = of_data(context)
    assert isinstance(event, DataChanged)
    assert [c.kind for c in event.changes] == [ChangeKind.NOT_COMPARED]


# --- accepting ---


def stopped(home: Path) -> tuple[StepContext, Envelope]:
    """Have a run, and one that the gate has stopped; return the latter and its snapshot."""
    first, context = night(home, "one"), night(home, "two")
    opened(first, snapshot(first, "bright"))
    black = snapshot(context, "black", 0.0)
    with pytest.raises(DataGateError):
        admit(context, black)
    return context, black


def test_accepted_data_pass_and_the_log_says_who_accepted_them_and_why(home: Path) -> None:
    context, black = stopped(home)

    code, document = automl(*ACCEPT)

    assert code == 0
    accepted = of_data(context)[-1]
    assert isinstance(accepted, DataAccepted)
    assert (accepted.snapshot, accepted.why) == ("black", "the camera is new")
    (change,) = document.pop("changes")
    assert change["kind"] == "statistic"
    assert document == {
        "schema": 1, "study": "digits", "snapshot": "black", "before": "bright",
        "by": accepted.by, "why": "the camera is new", "changed": True,
    }  # fmt: skip
    for run in ("two", "three"):  # the same task again, or the next night
        admit(night(home, run), black)
    opened(night(home, "four"), black)
    assert context.record.refresh().runs[-1].changes != ()


def test_a_snapshot_other_than_the_accepted_one_is_judged_against_that_of_the_last_run(
    home: Path,
) -> None:
    context, _ = stopped(home)
    automl(*ACCEPT)

    admit(night(home, "three"), snapshot(context, "bright again"))
    with pytest.raises(DataGateError):
        admit(night(home, "four"), snapshot(context, "black again", 0.0))


def test_an_acceptance_does_not_outlive_the_next_run(home: Path) -> None:
    context, black = stopped(home)
    automl(*ACCEPT)
    opened(night(home, "three"), snapshot(context, "bright again"))

    with pytest.raises(DataGateError):
        admit(night(home, "four"), black)


def test_accepting_twice_writes_once(home: Path) -> None:
    context, black = stopped(home)

    answers = [automl(*ACCEPT)[1]["changed"]]
    admit(night(home, "three"), black)
    answers.append(automl(*ACCEPT)[1]["changed"])

    assert answers == [True, False]
    assert sum(isinstance(event, DataAccepted) for event in events(context)) == 1
    shown = CliRunner().invoke(app, ACCEPT).stdout.splitlines()
    assert shown[0].startswith("snapshot black of digits is accepted already, by ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("letters", "--why", "so"), "There is no study 'letters'"),
        (("digits", "--why", "so"), "The data gate of study digits has stopped nothing"),
        (("digits", "--why", " "), "--why is empty"),
    ],
)
def test_what_cannot_be_accepted_is_said(
    home: Path, arguments: tuple[str, ...], words: str
) -> None:
    first = night(home, "one", "warn")
    opened(first, snapshot(first, "bright"))
    opened(night(home, "two", "warn"), snapshot(first, "black", 0.0))

    code, document = automl("data", "accept", *arguments)

    assert code == 2
    assert words in document["error"]["message"]
    assert not any(isinstance(event, DataAccepted) for event in events(first))


def test_an_acceptance_needs_a_reason(home: Path) -> None:
    done = CliRunner().invoke(app, ["data", "accept", "digits"])

    assert done.exit_code == 2
    assert "--why" in done.output


# --- real images, and a real process ---


def test_a_source_of_copies_of_one_image_is_called_that(home: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((60, 8, 8), np.uint8), y=np.arange(60) % 2)
    spec = spec_with(data={"source": str(tmp_path / "rows.npz"), **STOP})

    with pytest.raises(DataError, match=r"60 rows of .* have 1 different images, which leave"):
        prepare(context_of(home, "one", spec, "cli"), lambda *_: None)


def with_baseline(home: Path, feed: Path) -> tuple[StudySpec, Rows]:
    """Have a run on 300 digits in a feed; return a study that stops at changes, and its rows."""
    x, y = (rows[:300] for rows in digits.digits())
    np.savez(feed, x=x, y=y)
    spec = spec_with(data={"source": str(feed), **STOP})
    first = context_of(home, "one", spec, "cli")
    opened(first, prepare(first, lambda *_: None))
    return spec, (x, y)


def shifted(x: np.ndarray, y: np.ndarray) -> Rows:
    """Return the rows, a fifth of which have another's label."""
    return x, np.where(np.arange(len(y)) % 5 == 0, 3, y)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda x, y: (x[y != 3], y[y != 3]), "vanished_classes", "'3' (29 rows)"),
        (shifted, "class_shares", "'3' 9.7% →"),
        (lambda x, y: (x[::2], y[::2]), "rows", "150 rows, before 300"),
    ],
    ids=["a class gone", "a label shift", "half of the rows"],
)
def test_the_step_is_stopped_by_a_feed_that_has_changed(
    home: Path, tmp_path: Path, change: Callable[..., Rows], kind: str, words: str
) -> None:
    spec, rows = with_baseline(home, tmp_path / "rows.npz")
    x, y = change(*rows)
    np.savez(tmp_path / "rows.npz", x=x, y=y)

    with pytest.raises(DataGateError) as caught:
        prepare(context_of(home, "two", spec, "cli"), lambda *_: None)

    messages = {problem.path: problem.message for problem in caught.value.problems}
    assert words in messages[kind]


def test_black_images_alone_are_refused_before_the_gate_compares(
    home: Path, tmp_path: Path
) -> None:
    spec, (x, y) = with_baseline(home, tmp_path / "rows.npz")
    np.savez(tmp_path / "rows.npz", x=np.zeros_like(x), y=y)
    context = context_of(home, "two", spec, "cli")

    with pytest.raises(DataError, match="have 1 different images") as caught:
        prepare(context, lambda *_: None)

    assert (caught.value.exit_code, caught.value.retryable) == (2, False)
    assert of_data(context) == []  # there is no snapshot that a person could accept


def test_the_step_stops_with_code_3_for_images_that_have_lost_their_light(
    home: Path, tmp_path: Path
) -> None:
    x, y = digits.digits()
    np.savez(tmp_path / "rows.npz", x=x[:300], y=y[:300])
    spec = spec_with(data={"source": str(tmp_path / "rows.npz"), **STOP})
    first = context_of(home, "one", spec, "cli")
    envelope = prepare(first, lambda *_: None)
    opened(first, envelope)
    assert envelope.profile is not None
    assert envelope.profile.rows_per_label == {str(k): int((y[:300] == k).sum()) for k in range(10)}
    brightness = envelope.profile.statistics["brightness"]
    assert brightness.mean == pytest.approx(x[:300].mean(), rel=0.01)
    np.savez(tmp_path / "rows.npz", x=x[:300] // 64, y=y[:300])
    payload = {"spec": spec.model_dump(mode="json", by_alias=True), "run": "two", "origin": "cli"}

    ended = run_step(
        "prepare", payload, env=os.environ, timeout_s=600, on_line=print, stop=lambda: False
    )

    assert ended.failure is not None
    assert (ended.failure.type, ended.failure.retryable) == ("DataGateError", False)
    assert {problem.path for problem in ended.failure.problems} == {"statistic"}
    assert first.record.refresh().run("two") is None
