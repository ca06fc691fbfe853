"""The steps `export`, `evaluate` and `promote`: from weights to a champion."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from automl.data.snapshot import Part, RawRow, Snapshot
from automl.domain.events import (
    Event,
    RunState,
    TestOpened,
    VersionPublished,
    VersionReserved,
)
from automl.domain.study import Run, Study
from automl.errors import ParityError, SearchError
from automl.export.metrics import classification_metrics
from automl.export.onnx_graph import build_onnx
from automl.export.parity import check_parity
from automl.export.promotion import Decision, decide_promotion
from automl.export.registry import Registry
from automl.export.report import build_report
from automl.export.runtime import OnnxClassifier
from automl.export.verify import build_samples
from automl.morphism.architecture import Architecture
from automl.steps.context import StepContext
from automl.steps.final_fit import published_weights
from automl.steps.prepare import close_run
from automl.steps.queries import curve, ranked
from automl.steps.training import threads_per_worker
from automl.training.inference import predict_probabilities
from automl.training.trainer import Normalization

_PARITY_ROWS = 256
_SAMPLE_ROWS = 16
_BATCH_ROWS = 64
_ONE_TEST_SET_BELOW = 1000

log = logging.getLogger(__name__)


def export(context: StepContext) -> int:
    """Write the run's `model.onnx` under a version of its own, and return the version.

    Raises:
        ParityError: the file disagrees with the network on raw validation images; the version then
            never exists.
    """
    run = context.opened_run()
    registry = Registry(context.store, context.spec.name)
    version = registry.claim_version(context.run)
    _commit_once(context, lambda r: r.version is None, VersionReserved(
        at=context.clock.now(), run=context.run, version=version
    ))  # fmt: skip
    if registry.exists(version):
        return version
    snapshot = Snapshot.open(context.store, context.spec.name, run.snapshot)
    architecture, weights, normalization = _network(context, run, snapshot)
    data = build_onnx(
        architecture,
        weights,
        mean=normalization.mean,
        std=normalization.std,
        preprocess=snapshot.preprocess,
        labels=snapshot.manifest.classes,
        metadata={
            "study": context.spec.name,
            "version": str(version),
            "snapshot": run.snapshot,
        },
    )
    rows = list(
        itertools.islice(snapshot.raw_rows(Part.SELECTION, Part.CALIBRATION), _PARITY_ROWS)
    )
    images, _ = snapshot.tensors(Part.SELECTION, Part.CALIBRATION)
    reference = predict_probabilities(
        architecture, weights, normalization, images[: len(rows)], threads_per_worker(1)
    )
    classifier = OnnxClassifier(data, threads_per_worker(1))
    parity = check_parity(reference, classifier, [row.pixels for row in rows])
    log.info(
        "parity on %d rows: largest difference %.2e, %d labels differ",
        parity.rows, parity.max_abs_diff, parity.label_mismatches,
    )  # fmt: skip
    if not parity.ok:
        raise ParityError(
            f"The exported file and the network differ by up to {parity.max_abs_diff:.2e} on "
            f"{parity.rows} validation images, and {parity.label_mismatches} labels differ.",
            "nothing was published; see docs/runbook.md",
        )
    registry.put_file(version, "model.onnx", data)
    samples = [row.pixels for row in rows[:_SAMPLE_ROWS]]
    registry.put_file(version, "samples.npz", build_samples(samples, reference[:_SAMPLE_ROWS]))
    registry.put_file(version, "parity.json", parity.model_dump_json().encode())
    return version


def _network(
    context: StepContext, run: Run, snapshot: Snapshot
) -> tuple[Architecture, dict[str, np.ndarray], Normalization]:
    if run.final_fit is None:
        raise SearchError(f"Run {run.name} has no final fit yet.", "run the step final_fit first")
    candidate = context.record.study.trials[run.final_fit.trial].candidate
    assert candidate is not None
    manifest = snapshot.manifest
    return (
        Architecture.from_genotype(candidate.genotype),
        published_weights(context, run.final_fit.weights),
        Normalization(tuple(manifest.mean), tuple(manifest.std)),
    )
