"""Runs of estimators: on rows at hand, without sealed test rows; nothing is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from automl.domain.events import RunState
from automl.domain.facts import OriginKind
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, StorageError
from automl.machine.cores import available_cores
from automl.onnx.model import OnnxModel
from automl.runs.context import StepContext
from automl.runs.opening import close_run
from automl.runs.run_lease import RunLease
from automl.scoring.interval import Interval
from automl.steps import check, choose, export, local_run, prepare
from automl.steps.local_run import Progress
from automl.steps.open_run import open_search
from automl.storage.durable import write_file
from automl.tracks.cards import card_of, load
from automl.tracks.track import Outputs, Truth, Values, track_of


@dataclass(frozen=True, slots=True)
class EstimatorRun:
    """A run whose search is over; it stays open for a final fit.

    Attributes:
        context: the context of its steps.
        trial: number of the winner.
        onnx: the file of the winner, as its trial or its final fit has left it.
    """

    context: StepContext
    trial: int
    onnx: bytes

    @property
    def study(self) -> str:
        """Name of the study."""
        return self.context.spec.name


def search(settings: Settings, spec: StudySpec, progress: Progress) -> EstimatorRun:
    """Prepare the rows and search until the time limit.

    Raises:
        AutoMLError: as the failing step raises it; the run is then closed as failed.
    """
    context = StepContext.open(settings, spec, local_run.new_run_name(), OriginKind.PYTHON)
    progress.step("prepare")
    check.check(context)
    snapshot = prepare.prepare(context, progress.items)
    with RunLease(context) as lease:
        workers = open_search(context, snapshot.id)
        try:
            local_run.search(context, workers, progress)
            trial = choose.choose(context).trial
        except BaseException as error:
            close_run(context, RunState.FAILED, str(error) or "interrupted")
            raise
    lease.release()  # the run stays open for a final fit, but another may take over
    return EstimatorRun(context, trial, export.incumbent_onnx(context))


def final_fit(run: EstimatorRun, progress: Progress, *, retrain: bool) -> EstimatorRun:
    """Fit the winner on training and selection rows together, and close the run.

    Args:
        run: the run, which is open.
        progress: shows how it gets on.
        retrain: start from fresh weights; False continues from the winner's.

    Raises:
        AutoMLError: as the step raises it.
    """
    before = run.context
    section = before.spec.final_fit.model_copy(update={"retrain": retrain})
    spec = before.spec.model_copy(update={"final_fit": section})
    context = StepContext.open(before.settings, spec, before.run, before.origin)
    with RunLease(context):
        progress.step("final_fit")
        local_run.final_fit(context, progress)
        close_run(context, RunState.SUCCEEDED, "")
    return replace(run, context=context, onnx=export.fitted_onnx(context))


def open_file(onnx: bytes) -> OnnxModel:
    """Return a file that predicts on the CPU."""
    return OnnxModel(onnx, available_cores())


def score(
    run: EstimatorRun, values: Values, labels: tuple[str, ...], truth: NDArray[Any]
) -> Mapping[str, Interval]:
    """Return the metrics of the run's track with 95 % intervals.

    Args:
        run: the run.
        values: what its file computes for some rows.
        labels: the classes in the order of the columns; empty for values.
        truth: columns of the rows' true classes, or their values.
    """
    scores = track_of(run.context.spec.task).scores
    return scores.metrics(Outputs(values, labels), Truth(truth, labels))


def save_file(onnx: bytes, path: str | Path) -> Path:
    """Write a file, which appears whole or not at all; return its path.

    Raises:
        StorageError: it cannot be written there.
    """
    target = Path(path)
    try:
        write_file(target, onnx)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written: {error.strerror}.", "choose another place"
        ) from error
    return target


def read_rows(task: str, *sources: str | Path) -> tuple[Any, Any]:
    """Return rows and labels of a data set as arrays, as the task's track reads them.

    Args:
        task: the task.
        sources: what its reader asks for, such as a table and a folder.

    Raises:
        ConfigError: no installed track reads data sets of the task into arrays.
        DataError: a row cannot be read; all such rows are listed.
    """
    reader = card_of(task).reader
    if not reader:
        raise ConfigError(f"Data sets for task {task!r} cannot be read into arrays.")
    rows: tuple[Any, Any] = load(reader)(*sources)
    return rows
