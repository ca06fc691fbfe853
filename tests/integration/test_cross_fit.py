"""The cross-fit of a winner: what it predicts, and how little it may take."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.data.halves import second_half
from automl.data.splits import Part
from automl.doctor.data_issues import audit_data
from automl.domain.events import FinalFitFinished
from automl.domain.settings import Settings
from automl.errors import NotFoundError, OutOfMemoryError, StorageError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext, StoreClock
from automl.runs.out_of_sample import read_predictions
from automl.runs.training import TrialTrainer
from automl.runs.worker import run_worker
from automl.steps import choose, final_fit, prepare
from automl.steps.open_run import open_search
from automl.steps.study_file import study_spec
from automl.tracks.image import cross_fit, fitter
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.track import Predictions
from automl.training.checkpoint import Checkpoint
from automl.training.examples import Examples
from automl.training.inference import probabilities_of
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights
from automl.training.trainer import fit
from tests.digits import write_digits

ROWS, CLASSES = 240, 3
SEARCH_S, FINAL_S = 300, 600
KEY = "studies/digits/runs/one/cross-fit.npz"

Start = Checkpoint | InitialWeights | None


class Stopped(StoreClock):
    """A clock that shows one time."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the time."""
        return self._now


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with a final fit, but without what followed on it, and its study."""
    folder = tmp_path_factory.mktemp("fitted")
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": str(write_digits(folder / "rows.npz", ROWS, CLASSES))},
        "search": {
            "time_limit": f"{SEARCH_S}s", "max_trials": 1, "workers": 1, "resources": {"cpus": 1},
        },
        "final_fit": {"time_limit": f"{FINAL_S}s", "retrain": False},
    }  # fmt: skip
    home = folder / "home"
    context = StepContext.open(Settings(str(home)), study_spec(document), "one", "test")
    open_search(context, prepare.prepare(context, lambda *_: None).id)
    run_worker(context, 0, StopSignal())
    choose.choose(context)
    context.store.put(KEY, b"")
    final_fit.final_fit(context, StopSignal())
    context.store.delete(KEY)
    return home, document


Opened = Callable[..., StepContext]


@pytest.fixture
def opened(fitted: tuple[Path, dict[str, Any]], tmp_path: Path) -> Opened:
    """A function that opens the run in a copy of the home, some seconds after its final fit."""
    home = Path(shutil.copytree(fitted[0], tmp_path / "home"))

    def opened(after_s: float = 0.0, **final: str) -> StepContext:
        spec = study_spec({**fitted[1], "final_fit": {**fitted[1]["final_fit"], **final}})
        context = StepContext.open(Settings(str(home)), spec, "one", "test")
        return replace(context, clock=Stopped(recorded(context).at + timedelta(seconds=after_s)))

    return opened


class Seen:
    """Rows that were learnt from and predicted, fit by fit; fits and predictions are real.

    Attributes:
        problems: the fits.
        starts: what each began with.
        predicted: the images that were predicted after each.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.problems: list[FitProblem] = []
        self.starts: list[Start] = []
        self.predicted: list[list[bytes]] = []

        def noting_fit(problem: FitProblem, start: Start, hooks: FitHooks) -> FitResult:
            self.problems.append(problem)
            self.starts.append(start)
            self.predicted.append([])
            return fit(problem, start, hooks)

        def noting(module: Any, images: np.ndarray) -> np.ndarray:
            self.predicted[-1] += [image.tobytes() for image in images]
            return probabilities_of(module, images)

        monkeypatch.setattr(cross_fit, "fit", noting_fit)
        monkeypatch.setattr(cross_fit, "probabilities_of", noting)

    @property
    def seconds(self) -> list[float | None]:
        """Seconds that the fits were sized to."""
        return [problem.budget.seconds for problem in self.problems]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def images_of(examples: Examples) -> list[bytes]:
    return [image.tobytes() for image in examples.images]


def called(context: StepContext, stop: StopSignal | None = None) -> final_fit.FinalFit:
    return final_fit.final_fit(context, stop or StopSignal())


def recorded(context: StepContext) -> FinalFitFinished:
    """Return what the log has of the final fit."""
    (run,) = context.record.refresh().runs
    assert run.final_fit is not None
    return run.final_fit


def assert_it_stands(opened: Opened) -> None:
    """Fail unless the step, called again, tells of the final fit that the log has, and keeps it."""
    before = recorded(opened())

    assert called(opened()).source == before.source
    assert recorded(opened()) == before


def stored(context: StepContext) -> list[Predictions]:
    return read_predictions(context.store, KEY, CLASSES)


def is_stored(context: StepContext) -> bool:
    return any(context.store.list(KEY))


# --- what it predicts ---


def test_each_half_of_the_training_rows_is_predicted_by_a_fit_on_the_other(
    opened: Opened, seen: Seen
) -> None:
    context = opened()
    snapshot = ImageSnapshot.open(context.store, "digits", context.record.study.runs[0].snapshot)
    images, labels = snapshot.tensors(Part.TRAIN)

    called(context)

    learnt = [images_of(problem.train) for problem in seen.problems]
    assert len(learnt) == len(seen.predicted) == 2
    for one, other in zip(learnt, seen.predicted, strict=True):
        assert not {*one} & {*other}
        assert sorted(one + other) == sorted(image.tobytes() for image in images)
    (found,) = stored(context)
    assert list(found.keys) == snapshot.digests(Part.TRAIN)
    np.testing.assert_array_equal(found.truth, labels)
    np.testing.assert_allclose(found.values.sum(axis=1), 1, rtol=1e-5)
    assert (found.values.argmax(axis=1) == labels).mean() > 0.5


def test_rows_of_a_class_that_one_half_alone_has_are_not_judged(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven(digests: Sequence[str], labels: Sequence[int]) -> np.ndarray:
        halves = second_half(digests, labels)
        halves[np.equal(labels, 0)] = True
        return halves

    monkeypatch.setattr(cross_fit, "second_half", uneven)

    context = opened()
    called(context)

    (found,) = stored(context)
    assert {*found.truth.tolist()} == {1, 2}
    assert len(found.keys) == len(found.values) == len(found.truth)


def test_fits_start_from_nothing_that_has_learnt_from_the_rows(opened: Opened, seen: Seen) -> None:
    called(opened())

    assert seen.starts == [None, None]
    assert not any(problem.is_warm for problem in seen.problems)


def test_each_fit_has_at_most_the_epochs_that_led_to_the_winners_weights(
    opened: Opened, seen: Seen
) -> None:
    context = opened()
    (trial,) = context.record.study.trials
    best = trial.measurement.best_epoch
    assert best is not None

    called(context)

    assert [problem.budget.epochs for problem in seen.problems] == [best + 1] * 2


# --- how often ---


def test_a_step_that_is_called_again_does_not_repeat_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = opened()
    first = called(context)
    before, log = context.store.get(KEY), context.record.refresh().version

    def unwanted(*_: object) -> TrialTrainer:
        raise AssertionError("the snapshot is read again")

    monkeypatch.setattr(TrialTrainer, "load", unwanted)

    assert called(opened()) == first
    assert context.store.get(KEY) == before
    assert context.record.refresh().version == log  # and no event tells of it


class StoppedLater(StopSignal):
    """A stop that is asked for before the k-th question after it.

    Args:
        question: k, from 0.
    """

    def __init__(self, question: int) -> None:
        super().__init__()
        self._left = question

    def is_set(self) -> bool:
        """Return whether a stop was asked for."""
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("question", [0, 7])
def test_a_stop_ends_it_at_the_next_step_and_it_is_made_by_the_next_call(
    opened: Opened, seen: Seen, question: int
) -> None:
    with pytest.raises(StorageError, match="cross-fit was asked to stop") as caught:
        called(opened(), StoppedLater(question))

    assert caught.value.retryable
    assert len(seen.problems) == 1
    assert seen.predicted == [[]]
    assert not is_stored(opened())
    called(opened(1))
    assert is_stored(opened())


def test_a_stop_among_the_predictions_ends_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopSignal()

    def stopping(module: Any, images: np.ndarray) -> np.ndarray:
        stop.set()
        return probabilities_of(module, images)

    monkeypatch.setattr(cross_fit, "probabilities_of", stopping)

    with pytest.raises(StorageError, match="cross-fit was asked to stop"):
        called(opened(), stop)
    assert not is_stored(opened())


# --- how long ---


def test_both_fits_share_a_tenth_of_the_searchs_time_limit(opened: Opened, seen: Seen) -> None:
    called(opened())

    first, second = seen.seconds
    assert first == pytest.approx(0.8 * SEARCH_S / 10 / 2, abs=2)
    assert second is not None
    assert second <= 0.8 * SEARCH_S / 10


def test_attempts_share_the_time(opened: Opened, seen: Seen) -> None:
    called(opened(SEARCH_S / 20))

    assert seen.seconds[0] == pytest.approx(0.8 * SEARCH_S / 20 / 2, abs=2)


def test_it_takes_no_more_than_the_final_fit_has_left(opened: Opened, seen: Seen) -> None:
    context = opened()
    (run,) = context.record.study.runs
    assert run.final_fit is not None
    assert run.chosen_at is not None
    taken_s = (run.final_fit.at - run.chosen_at).total_seconds()

    called(opened(time_limit=f"{round(taken_s) + 9}s"))

    left_s = round(taken_s) + 9 - taken_s
    assert seen.seconds[0] == pytest.approx(0.8 * left_s / 2, abs=2)


@pytest.mark.parametrize("after_s", [SEARCH_S / 10, SEARCH_S])
def test_without_time_nothing_is_read_or_stored(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    monkeypatch.delattr(TrialTrainer, "load")

    called(opened(after_s))

    assert not is_stored(opened())


def test_with_less_time_than_for_an_epoch_of_each_half_nothing_is_fitted_and_the_audit_says_so(
    opened: Opened, seen: Seen
) -> None:
    context = opened()
    for path in sorted(Path(context.settings.home, "studies/digits/log").glob("*.json")):
        version = json.loads(path.read_text())
        for event in version["events"]:
            if event["type"] == "trial_finished":
                event["measurement"]["seconds"] = 25.0 * event["measurement"]["epochs"]
        path.write_text(json.dumps(version))

    called(opened())

    assert not seen.problems
    assert not is_stored(context)
    note, *_ = audit_data(context.settings, "digits").notes
    assert "no run on this snapshot had the time to fit its winner on each half" in note


def test_a_deadline_among_the_steps_leaves_nothing(opened: Opened, seen: Seen) -> None:
    context = opened()
    (run,) = context.record.study.runs
    assert run.final_fit is not None

    class LateSoon(Stopped):
        """A clock that jumps to the end after some questions."""

        left = 6

        def now(self) -> datetime:
            self.left -= 1
            return self._now + timedelta(seconds=0 if self.left > 0 else SEARCH_S)

    called(replace(context, clock=LateSoon(run.final_fit.at)))

    assert len(seen.problems) == 1
    assert not is_stored(context)


# --- trouble ---


def test_without_memory_there_is_none_and_the_final_fit_stands(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: object) -> FitResult:
        raise OutOfMemoryError("cuda lacks memory for it.", "search smaller networks")

    monkeypatch.setattr(cross_fit, "fit", without_memory)

    assert_it_stands(opened)
    assert not is_stored(opened())


def test_a_lost_file_that_nothing_else_needs_costs_the_predictions_alone(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> None:
        raise NotFoundError("There is no pretrained/ab.safetensors.", "restore it")

    monkeypatch.setattr(fitter, "fresh_weights", lost)

    assert_it_stands(opened)
    assert not is_stored(opened())
    assert "labels not audited: There is no pretrained/ab.safetensors." in caplog.text


def test_a_home_that_cannot_be_reached_is_tried_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise StorageError("The home cannot be reached.", "try again")

    monkeypatch.setattr(fitter, "fresh_weights", unreachable)

    with pytest.raises(StorageError, match="cannot be reached"):
        called(opened())
