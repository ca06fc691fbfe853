"""The step `evaluate`: the exported file is measured on the sealed rows and published."""

from __future__ import annotations

import importlib.metadata
import logging
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from automl import __version__
from automl.data.splits import Part
from automl.domain.documents import JsonValue
from automl.domain.events import Event, TestOpened, VersionPublished
from automl.domain.layout import MODEL_FILE, REPORT_FILE
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import DamagedDataError, SearchError
from automl.machine.cores import available_cores
from automl.morphism.architecture import Architecture
from automl.publishing.manifest import InputFormat, VersionFacts
from automl.publishing.registry import Registry
from automl.publishing.report import ReportContent, build_report
from automl.runs.context import StepContext
from automl.scoring.metrics import classification_metrics, confusion_matrix
from automl.steps.call import StepCall
from automl.steps.export import export_record
from automl.tracks.image.classifier import OnnxClassifier
from automl.tracks.image.pretrained import seed_of, without_pretrained
from automl.tracks.image.snapshot import ImageSnapshot
from automl.views.comparison import compare_strategies
from automl.views.curve import curve_points
from automl.views.leaderboard import trial_rows
from automl.views.provenance import lineage_summary, weights_summary

_ONE_TEST_SET_BELOW = 1000  # fewer test rows serve as gate and report at once
_LATENCY_RUNS = 30
_LATENCY_THREADS = 1
DECODING = (
    "8-bit RGB after EXIF orientation; alpha over white; 16-bit divided by 257; no colour profile"
)

log = logging.getLogger(__name__)


def evaluate(context: StepContext) -> dict[str, Any]:
    """Measure the exported file on the sealed test rows and publish the version.

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

    context.record.commit(note)
    metrics = registry.manifest(version).metrics
    return {"version": version, "metrics": {n: m.model_dump() for n, m in metrics.items()}}


def version_of(run: Run) -> int:
    """Return the version that the run's export has reserved."""
    if run.version is None:
        raise SearchError(f"Run {run.name} has no version yet.", "run the step export first")
    return run.version


def _publish(context: StepContext, run: Run, registry: Registry, version: int) -> None:
    """Open the sealed rows, measure the file on them, and write report and manifest."""
    snapshot = ImageSnapshot.open(context.store, context.spec.name, run.snapshot)
    parts, selected_on = report_parts(snapshot)

    def open_test(study: Study) -> Sequence[Event]:
        if context.run_in(study).test_opened:
            return ()
        rows = sum(snapshot.envelope.counts[part] for part in (Part.GATE, Part.REPORT))
        return (TestOpened(at=context.clock.now(), run=context.run, version=version, rows=rows),)

    exported = export_record(context)
    registry.require_stored(version, exported.files)
    study = context.record.commit(open_test)
    classifier = OnnxClassifier(registry.read(version, MODEL_FILE), available_cores())
    probabilities, labels = predict_rows(classifier, snapshot, parts)
    final_fit = run.final_fit
    assert final_fit is not None
    trial = study.trials[final_fit.members[0].trial]
    assert trial.candidate is not None
    architecture = Architecture.from_genotype(trial.candidate.genotype)
    facts = VersionFacts(
        run=context.run,
        trial=trial.number,
        snapshot=run.snapshot,
        task=context.spec.task,
        objective=context.spec.search.objective.value,
        labels=classifier.labels,
        input=InputFormat(
            decode=DECODING,
            resize=context.spec.data.resize.value,
            size=snapshot.envelope.image_size,
        ),
        metrics=classification_metrics(probabilities, labels),
        selected_on=selected_on,
        decisions=study.decisions,
        parity=exported.parity,
        latency_ms=_latency(registry.read(version, MODEL_FILE), snapshot.envelope.image_size),
        parameters=architecture.parameters,
        made_by=_made_by(context),
    )
    epochs, curve_note = _curve(context, trial)
    report = build_report(
        ReportContent(
            title=f"{context.spec.name}, version {version}",
            summary={
                "run": context.run,
                "trial": trial.number,
                "seed": seed_of(study, trial),
                "snapshot": run.snapshot,
                "parameters": architecture.parameters,
                "weights": weights_summary(run),
                "lineage": lineage_summary(study, run),
            },
            metrics=facts.metrics,
            labels=classifier.labels,
            confusion=confusion_matrix(
                probabilities.argmax(axis=1), labels, len(classifier.labels)
            ),
            leaderboard=[row.to_json() for row in trial_rows(study, run)[:20]],
            strategies=[row.to_json() for row in compare_strategies(study.comparable(run))],
            architecture=architecture.summary(),
            curve=epochs,
            notes=[
                note
                for note in (without_pretrained(run), _quarantine_note(snapshot), curve_note)
                if note
            ],
        )
    )
    registry.write(version, {REPORT_FILE: report}, facts, exported.files)


def _curve(context: StepContext, trial: Trial) -> tuple[Sequence[dict[str, Any]], str]:
    """Return the trial's learning curve, and why it is missing if it cannot be read.

    A damaged curve does not stand in the way of a version: only the report shows it.
    """
    try:
        return curve_points(context.store, context.spec.name, trial), ""
    except DamagedDataError as error:
        log.warning("the report has no learning curve: %s", error)
        return (), f"The learning curve is missing: {error.message}"


def _quarantine_note(snapshot: ImageSnapshot) -> str:
    rows = snapshot.envelope.quarantined
    return f"{len(rows)} rows were left out, the first is {rows[0].path}." if rows else ""


def report_parts(snapshot: ImageSnapshot) -> tuple[tuple[Part, ...], bool]:
    """Return the parts that give the metrics, and whether they also decide about promotion."""
    counts = snapshot.envelope.counts
    if counts[Part.GATE] + counts[Part.REPORT] < _ONE_TEST_SET_BELOW:
        return (Part.GATE, Part.REPORT), True
    return (Part.REPORT,), False


def predict_rows(
    classifier: OnnxClassifier, snapshot: ImageSnapshot, parts: tuple[Part, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and labels of the raw rows; columns in the order of the snapshot."""
    found, labels = [], []
    for row in snapshot.files(*parts):
        found.append(classifier.predict(row.pixels[None])[1][0])
        labels.append(row.label)
    return np.stack(found), np.asarray(labels, np.int64)


def _latency(onnx: bytes, size: int) -> dict[str, dict[str, float] | int]:
    """Return milliseconds per call, p50 and p95, for batches of 1 and 32 on one thread."""
    classifier = OnnxClassifier(onnx, _LATENCY_THREADS)
    measured: dict[str, dict[str, float] | int] = {"threads": _LATENCY_THREADS}
    for batch in (1, 32):
        pixels = np.zeros((batch, size, size, 3), np.uint8)
        times = []
        for _ in range(_LATENCY_RUNS):
            start_s = time.perf_counter()
            classifier.predict(pixels)
            times.append(1000 * (time.perf_counter() - start_s))
        cuts = statistics.quantiles(times, n=20)
        measured[str(batch)] = {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}
    return measured


def _made_by(context: StepContext) -> dict[str, str]:
    libraries = ("torch", "onnx", "onnxruntime", "pillow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {"automl": __version__, "at": context.clock.now().isoformat(), **versions}


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the version and its metrics."""
    return evaluate(context)
