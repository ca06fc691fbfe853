"""Trainings as values: a job, the hooks of its run, and the outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from automl.domain.candidate import Candidate
from automl.domain.events import FitSource
from automl.domain.facts import SpaceFacts
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Device, Measurement
from automl.errors import DamagedDataError
from automl.search.budget import TimeBudget
from automl.tracks.track.values import (
    Checkpoint,
    Member,
    Predictions,
)

Decoded = TypeVar("Decoded")

log = logging.getLogger(__name__)


class StudyFiles(Protocol):
    """Files that a track keeps with a study, such as weights that its seeds start from."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file; the same name always has the same bytes."""

    def get(self, name: str) -> bytes:
        """Return a file's bytes; raise NotFoundError without one."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A trial on the way from a candidate back to its seed, the candidate's own included.

    Attributes:
        number: of the trial.
        candidate: what it evaluated.
        facts: what the run that opened it recorded of its search space, or None.
        measurement: what it measured.
    """

    number: int
    candidate: Candidate
    facts: SpaceFacts | None
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Job:
    """One training of a trial.

    Attributes:
        lineage: the trial, its parent, and so on up to the seed.
        seed: decides everything that is random.
        parent: gives the parent's model; None for a candidate without a parent.
        checkpoints: stored by the attempts before, the one to go on from first; the others are for
            the case that it is damaged.
        budget: how long the training may take.
    """

    lineage: tuple[Ancestor, ...]
    seed: tuple[int, ...]
    parent: Callable[[], bytes] | None
    checkpoints: Iterable[Checkpoint]
    budget: TimeBudget

    @property
    def candidate(self) -> Candidate:
        """Candidate that is evaluated."""
        return self.lineage[0].candidate


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of a trial's training.

    Attributes:
        stopped: why it was stopped; None if it ended by itself.
        cause: what went wrong, or "".
        measurement: what was measured; the key of the model and the device are not its to fill in.
        model: the bytes to keep; None if it came to nothing.
        judged: the predictions that the score is of.
        calibration: those on rows that only final fits are compared on.
    """

    stopped: StopReason | None
    cause: str
    measurement: Measurement
    model: bytes | None = None
    judged: Predictions | None = None
    calibration: Predictions | None = None


@dataclass(frozen=True, slots=True)
class Refit:
    """A final fit.

    Attributes:
        lineage: the trial that is fitted, its parent, and so on up to the seed.
        incumbent: the model that is published unless the fit is as good.
        is_continued: whether the run continues a published version.
        wants_fresh: whether the study asks for fresh weights.
        seed: decides everything that is random.
        checkpoints: stored by the attempts before, newest first.
        limit_s: seconds that the study gives the fit.
        left_s: seconds of them that are left.
    """

    lineage: tuple[Ancestor, ...]
    incumbent: Member
    is_continued: bool
    wants_fresh: bool
    seed: tuple[int, ...]
    checkpoints: Iterable[Checkpoint]
    limit_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Refitted:
    """Result of a final fit.

    Attributes:
        member: the fitted candidate; None if the fit came to nothing.
        source: how its model was made.
        epochs: how many led to it.
        note: why it is not what the study asked for, or "".
        stopped: why the fit was stopped; None if it ended by itself.
    """

    member: Member | None
    source: FitSource
    epochs: int
    note: str = ""
    stopped: StopReason | None = None


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Two fits of a winner, each on one half of the training rows.

    Attributes:
        lineage: the trial that is fitted, its parent, and so on up to the seed.
        seed: decides everything that is random.
        left_s: seconds for both fits and what they predict.
    """

    lineage: tuple[Ancestor, ...]
    seed: tuple[int, ...]
    left_s: float


class Hooks(Protocol):
    """Hooks by which the outside takes part in a training."""

    def stop(self) -> StopReason | None:
        """Return why the training must end now, or None; asked often."""

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        """Take in the rounds of the attempts before; called once, before the first step."""

    def reached(self, point: CurvePoint) -> StopReason | None:
        """Take in a complete round, and return why the training ends after it, or None."""

    def plan(self, first: CurvePoint) -> int | None:
        """Return for how many rounds to train in all, given the first; None for all of them."""

    def save(self, position: int, checkpoint: bytes) -> None:
        """Store what is needed to go on from a position, a number that grows."""


class Fitter(Protocol):
    """Fits candidates on one snapshot, one after the other."""

    @property
    def device(self) -> Device:
        """Device of this process, and the memory that one training may take there."""

    @property
    def rounds(self) -> int:
        """Rounds of a training that is neither stopped nor shortened."""

    def fit(self, job: Job, hooks: Hooks) -> Fitted:
        """Train and judge a trial's candidate until it is done or the outside stops it."""

    def refit(self, job: Refit, hooks: Hooks) -> Refitted:
        """Fit a winner on training and judging rows."""

    def losses(self, member: Member) -> NDArray[np.float64]:
        """Return the loss of a model on each row that only final fits are compared on [n]."""

    def cross_fit(self, job: CrossFit, hooks: Hooks) -> Predictions | None:
        """Predict the rows that trials learn from, by fits that did not learn from them.

        The candidate is fitted on either half of these rows and predicts the other one. It starts
        from nothing that has learnt from any of them, as the winner's own model has.

        Returns:
            What is predicted for all of them; None if the outside stopped it, if there is less time
            than for a round of each fit, or if a fit came to nothing.
        """


def first_whole(
    checkpoints: Iterable[Checkpoint], decode: Callable[[bytes], Decoded]
) -> Decoded | None:
    """Return the first checkpoint that can be read, None if there is none.

    Args:
        checkpoints: the one to go on from first.
        decode: reads one, or raises DamagedDataError.
    """
    tried = 0
    for key, data in checkpoints:
        tried += 1
        try:
            return decode(data)
        except DamagedDataError as error:
            log.warning("%s is damaged, trying the one before: %s", key, error)
    if tried:
        log.warning("there is no checkpoint that can be read: the training starts anew")
    return None
