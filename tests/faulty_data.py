"""A study whose data have known faults, with trials that predict the right classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typer.testing import CliRunner

from automl.cli import app
from automl.data.splits import Part
from automl.domain.candidate import Candidate
from automl.domain.events import RunState, TrialClaimed, TrialFinished, TrialOpened, TrialProposed
from automl.domain.settings import Settings
from automl.domain.trial import Measurement, Outcome
from automl.runs.context import StepContext
from automl.runs.opening import close_run, open_run
from automl.runs.run_lease import RunLease
from automl.runs.trial_files import predictions_to_bytes
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.tracks.image.audit import audited_rows
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.image.space import NetworkMorphismSpace
from automl.tracks.track import Predictions
from tests.digits import digits
from tests.opened_runs import append
from tests.shown import AT

ROWS, CLASSES = 240, 3
FLIPPED = range(100, 124)
COPY, DARK = 50, 60  # a copy of row 40 with another label; a black row


@dataclass(frozen=True)
class Study:
    """A study whose data have known faults.

    Attributes:
        context: of its open run.
        snapshot: what that searches on.
        truth: index of the right class of each row of the source.
        folder: of the source.
    """

    context: StepContext
    snapshot: ImageSnapshot
    truth: NDArray[np.int64]
    folder: Path

    def copy(self, folder: Path) -> Study:
        """Return a copy of the study in a folder, which may be changed; its source stays."""
        shutil.copytree(self.home, folder / "home")
        context = StepContext.open(
            Settings(str(folder / "home")), self.context.spec, self.context.run, "cli"
        )
        context.record.refresh()
        snapshot = ImageSnapshot.open(context.store, "digits", self.snapshot.envelope.id)
        return replace(self, context=context, snapshot=snapshot, folder=folder)

    @property
    def home(self) -> str:
        return self.context.settings.home

    def row(self, path: str) -> int:
        return int(path.removeprefix("x[").removesuffix("]"))

    def finish_trial(self, number: int, sureness: float = 0.8) -> str:
        """Complete a trial that predicts the right class of held-out rows; return its folder."""
        keys = self.context.keys.trial(number, 1)
        parts = (self._predicted(part, sureness) for part in (Part.SELECTION, Part.CALIBRATION))
        self.context.store.put(keys.validation, predictions_to_bytes(*parts))
        candidate: Candidate = NetworkMorphismSpace(8, CLASSES).seeds()[0]
        measured = Measurement(score=0.9, loss=-0.9, weights=keys.weights)
        run = self.context.run
        append(
            self.context,
            TrialOpened(at=AT, n=number, run=run, worker="w"),
            TrialProposed(at=AT, n=number, candidate=candidate, based_on=0, strategy="random"),
            TrialClaimed(at=AT, n=number, attempt=1, run=run, worker="w"),
            TrialFinished(
                at=AT, n=number, attempt=1, run=run, outcome=Outcome.COMPLETED, measurement=measured
            ),
        )
        return keys.folder

    def next_run(self, run: str) -> Study:
        """Close the run, and open another one on the same data."""
        with RunLease(self.context):
            close_run(self.context, RunState.SUCCEEDED, "")
        return Study(*opened(self.folder, run), self.truth, self.folder)

    def cross_fit(self, run: str, sureness: float) -> str:
        """Store that a run has predicted the right classes of training rows; return the key."""
        rows = audited_rows(self.context.store, "digits", self.snapshot.envelope.id, ())
        places = np.flatnonzero(rows.parts == Part.TRAIN).tolist()
        right = [self.truth[self.row(rows.paths[place])] for place in places]
        values = np.eye(CLASSES)[right] * sureness + (1 - sureness) / CLASSES
        digests = [rows.digests[place] for place in places]
        found = Predictions(digests, values.astype(np.float32), rows.labels[places])
        key = self.context.keys.run(run).cross_fit
        self.context.store.put(key, predictions_to_bytes(found))
        return key

    def _predicted(self, part: Part, sureness: float) -> Predictions:
        rows = list(self.snapshot.files(part))
        right = [self.truth[self.row(row.path)] for row in rows]
        values = np.eye(CLASSES)[right] * sureness + (1 - sureness) / CLASSES
        labels = np.array([row.label for row in rows], np.int64)
        return Predictions([row.digest for row in rows], values.astype(np.float32), labels)

    def issues(self, *options: str) -> Any:
        return self.document("issues", "digits", *options)

    def document(self, *arguments: str) -> Any:
        """Return what a command `automl data` prints as JSON."""
        done = CliRunner().invoke(app, ["data", *arguments, "--home", self.home, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


def prepared(folder: Path, run: str, **data: str) -> tuple[StepContext, ImageSnapshot]:
    spec = study_spec(
        {
            "name": "digits",
            "task": "image_classification",
            "data": {"source": str(folder / "rows.npz"), **data},
            "search": {"time_limit": "60s"},
        }
    )
    context = StepContext.open(Settings(str(folder / "home")), spec, run, "cli")
    envelope = prepare(context, lambda *_: None)
    return context, ImageSnapshot.open(context.store, "digits", envelope.id)


def faulty_study(folder: Path) -> Study:
    """Return a study in a folder, with an open run and no trials."""
    x, y = digits(CLASSES)
    x, truth = x[:ROWS].copy(), y[:ROWS].astype(np.int64)
    labels = truth.copy()
    labels[list(FLIPPED)] = (truth[list(FLIPPED)] + 1) % CLASSES
    x[COPY], truth[COPY] = x[40], truth[40]
    labels[COPY] = (truth[40] + 1) % CLASSES
    x[DARK] = 0
    np.savez(folder / "rows.npz", allow_pickle=False, x=x, y=labels)
    return Study(*opened(folder, "one"), truth, folder)


def opened(folder: Path, run: str) -> tuple[StepContext, ImageSnapshot]:
    """Prepare the rows in a folder, and open a run on them."""
    context, snapshot = prepared(folder, run)
    with RunLease(context):
        open_run(context, snapshot.envelope.id)
    return context, snapshot
