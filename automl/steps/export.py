"""The step `export`, and the ONNX bytes of a run: from weights to a file that agrees with them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automl.data.splits import Part
from automl.domain.documents import JsonValue
from automl.domain.events import Event, VersionReserved
from automl.domain.layout import MODEL_FILE, SAMPLES_FILE
from automl.domain.study import Run, Study
from automl.errors import ParityError, SearchError
from automl.machine.cores import available_cores
from automl.morphism.architecture import Architecture
from automl.publishing.manifest import ExportRecord, Parity, parse_record
from automl.publishing.parity import check_parity
from automl.publishing.registry import Registry
from automl.publishing.verify import build_samples
from automl.runs.context import StepContext
from automl.runs.continuation import FittedNetwork, fitted_network
from automl.runs.trial_files import load_tensors_of
from automl.steps.call import StepCall
from automl.tracks.image.classifier import OnnxClassifier
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.training.inference import predict_probabilities
from automl.training.module import Normalization

_PARITY_ROWS = 256
_SAMPLE_ROWS = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that passed the parity gate.

    Attributes:
        onnx: its bytes.
        parity: how far it is from the network.
        samples: raw images and the network's probabilities for them, as `samples.npz`.
    """

    onnx: bytes
    parity: Parity
    samples: bytes


def export(context: StepContext) -> int:
    """Write the run's `model.onnx` under a version of its own, and return the version.

    Raises:
        ParityError: the file disagrees with the network on raw validation images; the version then
            never exists.
    """
    run = context.opened_run()
    network = fitted_network(context, run)
    registry = Registry(context.store, context.spec.name)
    version = registry.claim_version(context.run)

    def reserve(study: Study) -> Sequence[Event]:
        if context.run_in(study).version is not None:
            return ()
        return (VersionReserved(at=context.clock.now(), run=context.run, version=version),)

    context.record.commit(reserve)
    if registry.exists(version):
        return version
    exported = build(context, run, network, version)
    files = {MODEL_FILE: exported.onnx, SAMPLES_FILE: exported.samples}
    for name, data in files.items():
        registry.put_file(version, name, data)
    record = ExportRecord(
        parity=exported.parity,
        files={name: registry.describe(version, name) for name in files},
    )
    context.store.put(_record_key(context), record.to_bytes())
    return version


def export_record(context: StepContext) -> ExportRecord:
    """Return what the run's export left for the manifest.

    Raises:
        NotFoundError: it has not come to its end.
        DamagedDataError: it is not what was written.
    """
    key = _record_key(context)
    return parse_record(ExportRecord, context.store.get(key).data, key)


def _record_key(context: StepContext) -> str:
    return context.keys.run(context.run).export


def build(context: StepContext, run: Run, network: FittedNetwork, version: int) -> Exported:
    """Return the exported file of a network, with the normalisation that it was trained with.

    Args:
        context: the step's context, its record up to date.
        run: the run, whose snapshot has the preprocessing and the rows to compare on.
        network: the network.
        version: goes into the file's metadata; 0 for a file that is not published.

    Raises:
        ParityError: the file disagrees with the network on raw validation images.
    """
    candidate = context.record.study.trials[network.trial].candidate
    assert candidate is not None
    snapshot = ImageSnapshot.open(context.store, context.spec.name, run.snapshot)
    envelope = snapshot.envelope
    architecture = Architecture.from_genotype(candidate.genotype)
    weights, normalization = load_tensors_of(context, network.weights), network.normalization
    onnx = build_onnx(
        architecture,
        weights,
        normalization.mean,
        normalization.std,
        preprocess=snapshot.preprocess,
        labels=envelope.classes,
        metadata={
            "study": context.spec.name,
            "version": str(version),
            "snapshot": run.snapshot,
        },
    )
    held_out = (Part.SELECTION, Part.CALIBRATION)
    rows = [row.pixels for row in itertools.islice(snapshot.files(*held_out), _PARITY_ROWS)]
    images, _ = snapshot.tensors(*held_out)
    reference = predict_probabilities(
        architecture, weights, normalization, images[: len(rows)], available_cores()
    )
    parity = check_parity(reference, OnnxClassifier(onnx, available_cores()), rows)
    log.info(
        "parity on %d rows: largest difference %.2e, %d labels differ",
        parity.rows,
        parity.max_abs_diff,
        parity.label_mismatches,
    )
    if not parity.ok:
        raise ParityError(
            f"The exported file and the network differ by up to {parity.max_abs_diff:.2e} on "
            f"{parity.rows} validation images, and {parity.label_mismatches} labels differ.",
            "nothing was published; see docs/runbook.md",
        )
    samples = build_samples(rows[:_SAMPLE_ROWS], np.asarray(reference[:_SAMPLE_ROWS]))
    return Exported(onnx, parity, samples)


def incumbent_onnx(context: StepContext) -> bytes:
    """Return the exported file of the run's winner with the weights of its trial.

    Raises:
        SearchError: no winner has been chosen.
    """
    run = context.opened_run()
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    key = context.record.study.trials[run.winner].measurement.weights
    assert key is not None
    envelope = ImageEnvelope.read(context.store, context.spec.name, run.snapshot)
    normalization = Normalization(envelope.mean, envelope.std)
    return build(context, run, FittedNetwork(run.winner, key, normalization), 0).onnx


def fitted_onnx(context: StepContext) -> bytes:
    """Return the exported file of the run's winner with the weights of its final fit.

    Raises:
        SearchError: there was no final fit.
    """
    run = context.opened_run()
    return build(context, run, fitted_network(context, run), 0).onnx


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the number of the version that the file is kept under."""
    return {"version": export(context)}
