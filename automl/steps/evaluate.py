"""The step `evaluate`: the exported file is measured on the sealed rows and published."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automl import __version__
from automl.data.snapshot import Envelope
from automl.doctor.data_issues import Audited
from automl.doctor.data_report import keep_report
from automl.domain.documents import JsonValue
from automl.domain.events import Event, TestOpened, VersionPublished
from automl.domain.layout import MODEL_FILE, REPORT_FILE
from automl.domain.study import Run, Study
from automl.domain.training import CurvePoint
from automl.domain.trial import Trial
from automl.errors import DamagedDataError, SearchError
from automl.machine.cores import available_cores
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Column, Parity, VersionFacts
from automl.publishing.measure import Latency, measure_latency, predict_rows
from automl.publishing.registry import Registry
from automl.publishing.report import ReportContent, build_report
from automl.runs.context import StepContext
from automl.runs.continuation import final_fit_of, fitted_members
from automl.runs.curves import read_curve
from automl.runs.training import lineage_of
from automl.scoring.interval import Interval
from automl.steps.call import StepCall
from automl.steps.export import export_record
from automl.tracks.track import Dataset, Table, Track, Use, track_of
from automl.views.comparison import compare_strategies
from automl.views.leaderboard import trial_rows
from automl.views.provenance import lineage_summary, weights_summary
from automl.views.trial import portrait_of

_LEADERS = 20  # trials of the leaderboard that a report shows

log = logging.getLogger(__name__)


def evaluate(context: StepContext) -> dict[str, Any]:
    """Measure the exported file on the sealed test rows and publish the version.

    The report of the data tells from now on what trials predict, and of the rows that are open.

    Returns:
        The version and its metrics.
    """
    run = context.opened_run()
    registry = Registry(context.store, context.spec.name)
    version = version_of(run)
    if not registry.exists(version):
        _publish(context, run, registry, version)

    def note(study: Study) -> Sequence[Event]:
        if context.run_in(study).published:
            return ()
        return (VersionPublished(at=context.clock.now(), run=context.run, version=version),)

    study = context.record.commit(note)
    audited = Audited(context.spec.name, run.snapshot, context.spec.task)
    keep_report(context.home, study, audited)
    metrics = registry.manifest(version).metrics
    return {"version": version, "metrics": {n: m.model_dump() for n, m in metrics.items()}}


def version_of(run: Run) -> int:
    """Return the version that the run's export has reserved."""
    if run.version is None:
        raise SearchError(f"Run {run.name} has no version yet.", "run the step export first")
    return run.version


def _publish(context: StepContext, run: Run, registry: Registry, version: int) -> None:
    """Open the sealed rows, measure the file on them, and write report and manifest."""
    track = track_of(context.spec.task)
    dataset = track.open(context.store, context.spec.name, run.snapshot)
    exported = export_record(context)
    registry.require_stored(version, exported.files)
    study = _open_test(context, dataset, version)
    measured = _measure(track, dataset, registry.read(version, MODEL_FILE))
    facts = _facts(context, study, dataset, measured, exported.parity)
    report = _report(context, study, dataset, measured, facts)
    registry.write(version, {REPORT_FILE: report}, facts, exported.files)


def _open_test(context: StepContext, dataset: Dataset, version: int) -> Study:
    """Record that the sealed rows are read, unless it is, and return the study."""
    sealed = {*dataset.parts(Use.GATE), *dataset.parts(Use.REPORT)}
    rows = sum(dataset.envelope.counts[part] for part in sealed)

    def open_test(study: Study) -> Sequence[Event]:
        if context.run_in(study).test_opened:
            return ()
        return (TestOpened(at=context.clock.now(), run=context.run, version=version, rows=rows),)

    return context.record.commit(open_test)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Measurements of a file.

    Attributes:
        metrics: on the report rows.
        tables: what else its predictions for them come to.
        latency: milliseconds per call.
    """

    metrics: Mapping[str, Interval]
    tables: Sequence[Table]
    latency: Latency


def _measure(track: Track, dataset: Dataset, onnx: bytes) -> _Measured:
    model = OnnxModel(onnx, available_cores())
    outputs, truth = predict_rows(model, dataset.raw(Use.REPORT), dataset.labels)
    return _Measured(
        metrics=track.scores.metrics(outputs, truth),
        tables=track.scores.tables(outputs, truth),
        latency=measure_latency(onnx, dataset.example()),
    )


def _facts(
    context: StepContext, study: Study, dataset: Dataset, measured: _Measured, parity: Parity
) -> VersionFacts:
    run = context.run_in(study)
    file = dataset.file_facts(fitted_members(context, run))
    decides_too = set(dataset.parts(Use.GATE)) & set(dataset.parts(Use.REPORT))
    return VersionFacts(
        run=context.run,
        trial=final_fit_of(run).members[0].trial,
        snapshot=run.snapshot,
        task=context.spec.task,
        objective=context.spec.search.objective.value,
        labels=file.labels,
        columns=tuple(Column(name=name, dtype=dtype) for name, dtype in file.columns),
        input=file.input,
        metrics=measured.metrics,
        selected_on=bool(decides_too),
        decisions=study.decisions,
        parity=parity,
        latency_ms=measured.latency,
        parameters=file.parameters,
        made_by=_made_by(context),
    )


def _report(
    context: StepContext,
    study: Study,
    dataset: Dataset,
    measured: _Measured,
    facts: VersionFacts,
) -> bytes:
    run, trial = context.run_in(study), study.trials[facts.trial]
    portrait = portrait_of(study, trial)
    points, curve_note = _curve(context, trial)
    remarks = track_of(context.spec.task).remarks(
        lineage_of(study, trial), run.space, context.spec.search
    )
    notes = (*remarks.notes, _quarantine_note(dataset.envelope), curve_note)
    content = ReportContent(
        title=f"{context.spec.name}, version {version_of(run)}",
        summary={
            "run": context.run,
            "trial": trial.number,
            **remarks.summary,
            "snapshot": run.snapshot,
            **({} if facts.parameters is None else {"parameters": facts.parameters}),
            "weights": weights_summary(run),
            "lineage": lineage_summary(study, run),
        },
        metrics=facts.metrics,
        tables=measured.tables,
        curve=points,
        portrait="" if portrait is None else portrait.summary,
        leaderboard=[row.to_json() for row in trial_rows(study, run)[:_LEADERS]],
        strategies=[row.to_json() for row in compare_strategies(study.comparable(run))],
        notes=[note for note in notes if note],
    )
    return build_report(content)


def _curve(context: StepContext, trial: Trial) -> tuple[list[CurvePoint], str]:
    """Return the trial's learning curve, and why it is missing if it cannot be read.

    A damaged curve does not stand in the way of a version: only the report shows it.
    """
    try:
        return read_curve(context.store, context.spec.name, trial), ""
    except DamagedDataError as error:
        log.warning("the report has no learning curve: %s", error)
        return [], f"The learning curve is missing: {error.message}"


def _quarantine_note(envelope: Envelope) -> str:
    rows = envelope.quarantined
    return f"{len(rows)} rows were left out, the first is {rows[0].path}." if rows else ""


def _made_by(context: StepContext) -> dict[str, str]:
    libraries = ("torch", "onnx", "onnxruntime", "pillow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {"automl": __version__, "at": context.clock.now().isoformat(), **versions}


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the version and its metrics."""
    return evaluate(context)
