"""Learning curves of candidates that were trained to their planned ends, kept for replays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.objective import Objective
from automl.domain.study import Run
from automl.domain.trial import Outcome, Trial
from automl.runs.context import StepContext
from automl.runs.curves import read_curve
from automl.runs.judging import judged_points
from automl.runs.proposals import search_space
from automl.runs.run_lease import RunLease
from automl.runs.training import Length
from automl.search.memory_model import MemoryBound
from automl.search.pruning import JudgedPoint
from automl.search.space import Description, SearchSpace
from automl.steps.supervision import give_back
from automl.tracks.image.spending import FULL_BUDGET
from benchmarks.json_lines import read_lines
from benchmarks.trained import Plan, open_study, prepare_home, search, with_budget

CURVES = Path(__file__).parent / "data" / "curves"
_FRESH_SHARE = 0.4  # of the candidates after the seeds
_LONGEST_CHAIN = 4


@dataclass(frozen=True, slots=True)
class Recorded:
    """A candidate and its whole curve.

    Attributes:
        parent: place of its parent among the recorded ones, before its own; None for a fresh one.
        genes: its training genes.
        macs: multiply-adds of one image; an epoch's work is in proportion.
        rows: selection rows that it was scored on.
        curve: its epochs; as many as were planned.
    """

    parent: int | None
    genes: dict[str, float]
    macs: int
    rows: int
    curve: tuple[JudgedPoint, ...]

    @property
    def planned(self) -> int:
        """Epochs of its training."""
        return len(self.curve)

    def best(self, epochs: int) -> JudgedPoint:
        """Return what it has after so many epochs: the one with the lowest log loss."""
        return min(self.curve[:epochs], key=log_loss_of)

    def stale(self, epochs: int) -> int:
        """Return after how many of its first epochs it has not been better than before."""
        return epochs - 1 - self.curve.index(self.best(epochs))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document: of each epoch log loss and score."""
        return {
            "parent": self.parent,
            "genes": self.genes,
            "macs": self.macs,
            "rows": self.rows,
            "curve": [[round(log_loss_of(p), 6), round(-p.loss, 6)] for p in self.curve],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recorded:
        """Return what `to_json` wrote; images below 48 px are whole in all epochs."""
        planned = len(document["curve"])
        curve = tuple(
            JudgedPoint(-score, log_loss, epoch / planned)
            for epoch, (log_loss, score) in enumerate(document["curve"], start=1)
        )
        return cls(
            parent=document["parent"],
            genes=document["genes"],
            macs=document["macs"],
            rows=document["rows"],
            curve=curve,
        )


def log_loss_of(point: JudgedPoint) -> float:
    """Return the log loss of a recorded point, which all have."""
    assert point.log_loss is not None
    return point.log_loss


@dataclass(frozen=True, slots=True)
class MixedSpace:
    """Networks as a search meets them: fresh ones up to a few moves from a seed, and children.

    Attributes:
        inner: draws the moves.
    """

    inner: SearchSpace

    def seeds(self) -> Sequence[Candidate]:
        """Return the seeds."""
        return self.inner.seeds()

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return a fresh network, or a child of any parent."""
        if parents and rng.random() >= _FRESH_SHARE:
            return self.inner.sample(parents, rng)
        seeds = self.seeds()
        candidate = seeds[int(rng.integers(len(seeds)))]
        for _ in range(int(rng.integers(1, _LONGEST_CHAIN + 1))):
            candidate = self.inner.mutate(candidate, rng)
        return candidate

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a random neighbour."""
        return self.inner.mutate(candidate, rng)

    def contains(self, candidate: Candidate) -> bool:
        """Return whether a candidate is in the space."""
        return self.inner.contains(candidate)

    def describe(self, candidate: Candidate) -> Description:
        """Return what a surrogate may learn from."""
        return self.inner.describe(candidate)


def read_curves(path: Path) -> list[Recorded]:
    """Return the recorded candidates of a file; none if it does not exist."""
    return [Recorded.from_json(document) for document in read_lines(path)]


def record(plan: Plan, path: Path, folder: Path) -> None:
    """Train candidates and write a line for each; a recording that was interrupted goes on.

    Candidates that got no whole curve, such as those that diverged, are left out.

    Args:
        plan: how many candidates of which dataset, for how many epochs.
        path: the file.
        folder: where the study's home is.
    """
    context, trials, rows = _train(plan, folder, Length.PLANNED, patience=0)
    completed = [trial for trial in trials if trial.outcome is Outcome.COMPLETED]
    places = {trial.number: place for place, trial in enumerate(completed)}
    lines = [
        json.dumps(_recorded(context, trial, places, rows).to_json()) + "\n" for trial in completed
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def train_judged(plan: Plan, folder: Path) -> Sequence[Trial]:
    """Train candidates as a study does, which stops those that are behind, and return the trials.

    Args:
        plan: how many candidates of which dataset, for how many epochs.
        folder: where the study's home is; one of its own.
    """
    return _train(plan, folder, Length.JUDGED, FULL_BUDGET.patience)[1]


def _train(
    plan: Plan, folder: Path, length: Length, patience: int
) -> tuple[StepContext, Sequence[Trial], int]:
    """Return the study, its trials, and the number of its selection rows."""
    prepare_home(plan, folder)
    context, run, trainer = open_study(plan, folder)
    trainer, fitter = with_budget(trainer, patience=patience)
    trainer = replace(trainer, length=length)
    with RunLease(context):
        give_back(context, 0)
        search(context, trainer, _mixed, trial_limit_s=math.inf)
    trials = context.record.refresh().comparable(run)
    return context, trials, len(fitter.rows.selection)


def _mixed(run: Run, memory: MemoryBound | None) -> SearchSpace:
    return MixedSpace(search_space(run, memory))


def _recorded(context: StepContext, trial: Trial, places: Mapping[int, int], rows: int) -> Recorded:
    candidate, network = trial.candidate, trial.measurement.network
    assert candidate is not None
    assert network is not None
    assert network.macs is not None
    curve = read_curve(context.store, context.spec.name, trial)
    points = judged_points(curve, Objective.ACCURACY)
    assert points is not None
    return Recorded(
        parent=None if candidate.parent is None else places[candidate.parent],
        genes=candidate.hyperparameters,
        macs=network.macs,
        rows=rows,
        curve=tuple(points),
    )
