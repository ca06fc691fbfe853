"""Planning of a final fit: from fresh weights or not, and for how many epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.events import FitSource
from automl.domain.specification import SearchSection
from automl.machine.cores import threads_of_final_fit, threads_of_trial
from automl.tracks.image.pretrained import frozen_in
from automl.tracks.image.rows import LabelledRows
from automl.tracks.image.spending import FULL_BUDGET, MOST_EPOCHS
from automl.tracks.track import Ancestor, Refit
from automl.training.device import choose_device
from automl.training.replicas import most_copies

_ENOUGH_EPOCHS = 20  # for fresh weights to overtake those that were trained in several parts
_COPIES_GAIN = 1.4  # in speed, by copies of the network that trials have no threads for
_CONTINUED_SHARE = 3  # continuing takes a third of the epochs that a fresh fit takes
_MARGIN_S = 3.0  # from the end that a fit is sized to until it is stopped, so that it is judged
_LEAST_BUDGET_S = 1.0  # what a fit without any time left is sized to; it is stopped at once


@dataclass(frozen=True, slots=True)
class RefitPlan:
    """Plan of a final fit.

    Attributes:
        is_fresh: whether it starts from fresh weights; else it continues the incumbent's.
        epochs: of the fit.
        left_s: seconds that are left for it.
        note: why it is not what the study asks for, or "".
    """

    is_fresh: bool
    epochs: int
    left_s: float
    note: str = ""

    @property
    def source(self) -> FitSource:
        """Making of the fitted weights."""
        return FitSource.RETRAINED if self.is_fresh else FitSource.CONTINUED

    def seconds(self, used_s: float) -> float:
        """Return what the fit is sized to; all its attempts share one budget.

        Args:
            used_s: seconds that the attempts before took.
        """
        return used_s + max(self.left_s - _MARGIN_S, _LEAST_BUDGET_S)


def plan_refit(job: Refit, search: SearchSection, rows: LabelledRows) -> RefitPlan:
    """Return the plan of a final fit.

    Args:
        job: the final fit.
        search: how the run searched.
        rows: the snapshot's rows.
    """
    epochs = fresh_epochs(job.lineage)
    continued = max(1, epochs // _CONTINUED_SHARE)
    if job.is_continued or not job.wants_fresh:
        return RefitPlan(False, continued, job.left_s)  # noqa: FBT003 - a field
    time_for = _epochs_within(job, search, rows)
    needed = least_fresh_epochs(job.lineage)
    if time_for >= needed:
        return RefitPlan(True, epochs, job.left_s)  # noqa: FBT003 - a field
    note = (
        f"the winner's weights were continued: final_fit.time_limit of {job.limit_s:g} s is "
        f"enough for about {time_for:.1f} of the {needed} epochs that fresh weights need"
    )
    return RefitPlan(False, max(epochs, needed), job.left_s, note)  # noqa: FBT003 - a field


def fresh_epochs(lineage: Sequence[Ancestor]) -> int:
    """Return for how many epochs fresh weights of a trial's architecture are fitted.

    Those that led to its best weights, ancestors included: inherited weights need few epochs, fresh
    ones need what the whole lineage did. At most as many as a few trials take, but never fewer than
    the lineage's first trial needed. Epochs are counted, not steps: the selection rows, which come
    on top, make an epoch longer and are seen as often as the others.

    Args:
        lineage: the trial, its parent, and so on up to the seed.
    """
    needed = [(trial.measurement.best_epoch or 0) + 1 for trial in lineage]
    return max(needed[-1], min(sum(needed), MOST_EPOCHS))


def least_fresh_epochs(lineage: Sequence[Ancestor]) -> int:
    """Return for how many epochs a fit of fresh weights must have time; with less, it continues.

    All that the lineage had are enough, but for pretrained networks: those overfit within a few
    epochs, and yet another cycle from their best ones makes them better than a first one anew does.
    """
    if frozen_in(lineage) is not None:
        return _ENOUGH_EPOCHS
    return min(fresh_epochs(lineage), _ENOUGH_EPOCHS)


def _epochs_within(job: Refit, search: SearchSection, rows: LabelledRows) -> float:
    """Return about how many epochs of the fit its time limit is enough for.

    As in the search, but with more rows, and perhaps by more copies of the network. Infinitely many
    if the trial was not timed.
    """
    measured = job.lineage[0].measurement
    if not measured.seconds or not measured.epochs:
        return math.inf
    more = 1 + len(rows.selection) / len(rows.train)
    copies = [
        most_copies(choose_device(), threads, FULL_BUDGET.batch_size)
        for threads in (threads_of_final_fit(search), threads_of_trial(search))
    ]
    gain = _COPIES_GAIN if copies[0] > copies[1] else 1.0
    return job.limit_s / (measured.seconds / measured.epochs * more) * gain
