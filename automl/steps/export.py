"""The step `export`, and the ONNX bytes of a run: a file that agrees with what was fitted."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.documents import JsonValue
from automl.domain.events import Event, VersionReserved
from automl.domain.layout import MODEL_FILE, SAMPLES_FILE
from automl.domain.study import Run, Study
from automl.errors import ParityError, SearchError
from automl.machine.cores import available_cores
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import ExportRecord, Parity, parse_record
from automl.publishing.parity import check_parity
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.runs.continuation import final_fit_of, fitted_members, trial_member
from automl.steps.call import StepCall
from automl.tracks.track import Member, Use, track_of

_PARITY_ROWS = 256
_SAMPLE_ROWS = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that passed the parity gate.

    Attributes:
        onnx: its bytes.
        parity: how far it is from what its members compute.
        samples: raw rows and what the members compute for them, in the track's format.
    """

    onnx: bytes
    parity: Parity
    samples: bytes


def export(context: StepContext) -> int:
    """Write the run's `model.onnx` under a version of its own, and return the version.

    Raises:
        ParityError: the file disagrees with what was fitted on raw held-out rows; the version then
            never exists.
    """
    run = context.opened_run()
    final_fit_of(run)
    registry = Registry(context.store, context.spec.name)
    version = registry.claim_version(context.run)

    def reserve(study: Study) -> Sequence[Event]:
        if context.run_in(study).version is not None:
            return ()
        return (VersionReserved(at=context.clock.now(), run=context.run, version=version),)

    context.record.commit(reserve)
    if registry.exists(version):
        return version
    exported = build(context, run, fitted_members(context, run), version)
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


def build(context: StepContext, run: Run, members: Sequence[Member], version: int) -> Exported:
    """Return the exported file of fitted candidates.

    Args:
        context: the step's context, its record up to date.
        run: the run, whose snapshot has the rows to compare on.
        members: what the file blends.
        version: goes into the file's metadata; 0 for a file that is not published.

    Raises:
        ParityError: the file disagrees with the members on raw held-out rows.
    """
    track = track_of(context.spec.task)
    dataset = track.open(context.store, context.spec.name, run.snapshot)
    properties = {
        "study": context.spec.name,
        "version": str(version),
        "snapshot": run.snapshot,
    }
    onnx = dataset.emit(members, properties)
    feeds = [row.feed for row in itertools.islice(dataset.raw(Use.HELD_OUT), _PARITY_ROWS)]
    reference = dataset.reference(members, len(feeds))
    parity = check_parity(reference, OnnxModel(onnx, available_cores()), feeds, track.tolerance)
    log.info(
        "parity on %d rows: largest difference %.2e, %d labels differ",
        parity.rows,
        parity.max_abs_diff,
        parity.label_mismatches,
    )
    if not parity.ok:
        raise ParityError(
            f"The exported file and what was fitted differ by up to {parity.max_abs_diff:.2e} on "
            f"{parity.rows} held-out rows, and {parity.label_mismatches} labels differ.",
            "nothing was published; see docs/runbook.md",
        )
    samples = track.samples.pack(feeds[:_SAMPLE_ROWS], reference[:_SAMPLE_ROWS])
    return Exported(onnx, parity, samples)


def incumbent_onnx(context: StepContext) -> bytes:
    """Return the exported file of the run's winner with the model of its trial.

    Raises:
        SearchError: no winner has been chosen.
    """
    run = context.opened_run()
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    trial = context.record.study.trials[run.winner]
    return build(context, run, [trial_member(context, run, trial)], 0).onnx


def fitted_onnx(context: StepContext) -> bytes:
    """Return the exported file of the run's winner with the model of its final fit.

    Raises:
        SearchError: there was no final fit.
    """
    run = context.opened_run()
    return build(context, run, fitted_members(context, run), 0).onnx


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the number of the version that the file is kept under."""
    return {"version": export(context)}
