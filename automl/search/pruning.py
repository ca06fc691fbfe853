"""Judging trials before they are done: successive halving, learning curves, lengths of trainings.

Everything here is a function of a study and of learning curves; nothing is stopped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from automl.domain.study import Study
from automl.domain.trial import RungResult, Trial

ETA = 3  # one trial in so many goes on from a rung
LEAST_EPOCHS = 3  # of the first rung, and of any training
_LENGTH_RATIO = math.sqrt(2)  # of one planned length to the next
_MORE_EPOCHS = 2  # that a child trains after its first one, at least
_JUDGED_SHARE = 1 / ETA  # of a training, before which its curve says nothing
_ROUNDING = 1e-6  # epochs, or shares of a training
_ANNEALING = 0.1  # share of the loss that falls with the learning rate, at most
_TOLERANCE = 0.5  # standard errors of a score; scores on the same rows differ by less
_SLOPES_SINCE = (1 / 3, 1 / 2)  # shares of the curve so far, over whose rest a slope is measured


@dataclass(frozen=True, slots=True)
class Rungs:
    """Rungs of a training, at which it competes with others.

    Attributes:
        shares: of the training that is done at rung 1 and those after it, rising up to 1.
    """

    shares: tuple[float, ...]

    def passed(self, share: float) -> int | None:
        """Return the highest rung, from 1, that a training has passed; None before the first.

        Args:
            share: of the training, 0 to 1; a training that is sized to its time may pass several
                rungs with one epoch.
        """
        return sum(rung <= share + _ROUNDING for rung in self.shares) or None


def halving_rungs(epochs: int) -> Rungs:
    """Return the rungs of a training of so many epochs, 1 or more: its thirds, and so on down."""
    found, part = [epochs], epochs / ETA
    while round(part) >= LEAST_EPOCHS:
        found.append(round(part))
        part /= ETA
    return Rungs(tuple(rung / epochs for rung in reversed(found)))


@dataclass(frozen=True, slots=True)
class Judging:
    """Rules by which trials of a search space are judged before they are done.

    Attributes:
        rungs: gives the rungs of a training that is planned for so many rounds.
        unjudged: names of hyperparameters whose effect a short training does not show, as those
            that regularise.
    """

    rungs: Callable[[int], Rungs] = halving_rungs
    unjudged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JudgedPoint:
    """Point of a learning curve that a trial is judged by.

    Attributes:
        loss: what is minimised.
        log_loss: on the rows that judge (nats per example); None where there is none.
        share: of the training that was done by then, above 0 to 1. It is more than the part of the
            planned epochs where there is no time for all of them.
        is_full: whether it was measured at the training's full fidelity.
    """

    loss: float
    log_loss: float | None
    share: float
    is_full: bool = True


def lengths(full: int) -> tuple[int, ...]:
    """Return the numbers of epochs that a training may be planned for, rising up to `full`.

    There are few of them, since trials of one length only compete with each other.
    """
    found, length = {full}, float(full)
    while length > LEAST_EPOCHS:
        length = max(length / _LENGTH_RATIO, LEAST_EPOCHS)
        found.add(math.ceil(length - 1e-9))
    return tuple(sorted(found))


def planned_epochs(parent: Sequence[float], first: float, full: int) -> int:
    """Return for how many epochs a child trains that begins with its parent's weights.

    After its first epoch it needs those that its parent needed from the same loss to its own best,
    rounded up to one of `lengths`. A child that is worse than its parent ever was has lost what it
    inherited and trains in full.

    Args:
        parent: the parent's log loss after each of its epochs, at least one.
        first: the child's log loss after its first epoch.
        full: epochs of a training that inherits nothing.
    """
    if first > max(parent):
        return full
    best = min(range(len(parent)), key=lambda epoch: parent[epoch])
    level = next(epoch for epoch, loss in enumerate(parent) if loss <= first or epoch == best)
    needed = 1 + max(_MORE_EPOCHS, best - level)
    return next((length for length in lengths(full) if length >= needed), full)


def changes_unjudged(study: Study, trial: Trial, unjudged: Collection[str]) -> bool:
    """Return whether a trial tries other values of some hyperparameters than its parent has.

    Args:
        study: the study.
        trial: one of its trials, which has a candidate.
        unjudged: names of hyperparameters whose effect a short training does not show.
    """
    assert trial.candidate is not None
    if trial.candidate.parent is None:
        return False
    parent = study.trials[trial.candidate.parent].candidate
    assert parent is not None
    own = trial.candidate.hyperparameters
    return any(own.get(gene) != parent.hyperparameters.get(gene) for gene in unjudged)


def verdict(
    study: Study, number: int, curve: Sequence[JudgedPoint], planned: int, judging: Judging
) -> str | None:
    """Return why a trial ends after the last epoch of its curve; None if it goes on.

    Args:
        study: the study, with the trial's result if the epoch has reached a rung.
        number: the trial.
        curve: its epochs so far, at least one.
        planned: epochs that it is to train in all, if time allows.
        judging: the rules.
    """
    rung = judging.rungs(planned).passed(curve[-1].share)
    reason = None if rung is None else rung_verdict(study, number, rung, judging)
    best = incumbent(study, number)
    if reason is None and best is not None:
        reason = curve_verdict(curve, best)
    return reason


def rung_verdict(study: Study, number: int, rung: int, judging: Judging) -> str | None:
    """Return why a trial ends at a rung that it has reached; None if it goes on.

    It follows from the log's prefix up to the rung's event: asked again later, the answer is the
    same.

    Args:
        study: the study at any time after that.
        number: the trial.
        rung: the rung.
        judging: the rules.
    """
    trial = study.trials[number]
    own = _result(trial, rung)
    if own is None or not _competes(study, trial, judging.unjudged):
        return None
    if own.rung >= len(judging.rungs(own.planned).shares):
        return None
    results = (_result(rival, rung) for rival in _rivals(study, trial, judging.unjudged))
    return halving_verdict(
        own,
        [
            result
            for result in results
            if result is not None
            and (result.planned, result.resolution) == (own.planned, own.resolution)
            and result.recorded_in < own.recorded_in
        ],
    )


def halving_verdict(own: RungResult, rivals: Sequence[RungResult]) -> str | None:
    """Return why a trial is not among the best third at its rung; None if it is, or may be.

    The stopping variant of asynchronous successive halving (Li et al., arXiv:1810.05934), which
    waits for nobody. A trial within half its standard error of the worst of the best third goes on,
    and so does everyone while there is no third.

    Args:
        own: what the trial has at the rung.
        rivals: what comparable trials had there before it.
    """
    ranked = sorted([own, *rivals], key=lambda result: result.loss)
    if len(ranked) < ETA:
        return None
    cut = ranked[len(ranked) // ETA - 1]
    if own.loss - _TOLERANCE * own.error <= cut.loss:
        return None
    return (
        f"rung {own.rung} ({own.epochs} epochs): score {own.score:.4f} ± {own.error:.4f}, the "
        f"best third of {len(ranked)} trials has {cut.score:.4f} or better"
    )


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The trial that would win now.

    Attributes:
        number: its number.
        loss: what is minimised.
        log_loss: on the selection rows (nats per example).
    """

    number: int
    loss: float
    log_loss: float


def incumbent(study: Study, number: int) -> Incumbent | None:
    """Return the best of the trials that compare with one and could win; None if there is none.

    Args:
        study: the study.
        number: the trial that is to be compared.
    """
    able = [
        Incumbent(one.number, one.loss, one.measurement.log_loss)
        for one in _alike(study, study.trials[number])
        if one.can_win and one.loss is not None and one.measurement.log_loss is not None
    ]
    return min(able, key=lambda one: (one.loss, one.number), default=None)


def curve_verdict(curve: Sequence[JudgedPoint], best: Incumbent) -> str | None:
    """Return why a curve cannot reach the incumbent any more; None if it may.

    It must not have been better so far, and its log loss, if all goes well from here on, must stay
    above the incumbent's (in the spirit of Domhan et al., IJCAI 2015). Epochs of a lower fidelity
    say nothing of that: where full ones follow, the loss jumps and falls again. So a third of the
    training must have been done since. A curve without a log loss is not judged.

    Args:
        curve: the trial's epochs so far.
        best: the incumbent.
    """
    done, last = len(curve), curve[-1]
    planned = round(done / last.share)
    before = max((point.share for point in curve if not point.is_full), default=0)
    if done >= planned or done < LEAST_EPOCHS or last.share - before < _JUDGED_SHARE - _ROUNDING:
        return None
    if last.log_loss is None or min(point.loss for point in curve) < best.loss:
        return None
    least = least_log_loss([point for point in curve if point.share > before])
    if least <= best.log_loss:
        return None
    return (
        f"after {done} of {planned} epochs: the log loss of {last.log_loss:.4f} will hardly "
        f"fall below {least:.4f}, trial {best.number} has {best.log_loss:.4f}"
    )


def least_log_loss(curve: Sequence[JudgedPoint]) -> float:
    """Return the log loss that a curve may come down to at best.

    A power law towards zero, with no asymptote to hold it up and the steepest slope that the curve
    has had lately, over its last two thirds or its second half. Under a one-cycle learning rate the
    loss falls most at the end, where the rate does; averaged weights show most of that before, and
    the rest of the training may take away another share of the loss, in proportion to its length:
    as much as it took from any of the curves that `make bench-pruning` replays.

    Args:
        curve: the epochs so far of full fidelity, one or more, all with a log loss.
    """
    points = [(point.share, point.log_loss) for point in curve if point.log_loss is not None]
    last_share, last_loss = points[-1]
    slope = 0.0
    for part in _SLOPES_SINCE:
        first = next(point for point in points if point[0] >= part * last_share - _ROUNDING)
        if first[0] < last_share:
            fall = math.log(first[1] / last_loss)
            slope = max(slope, fall / math.log(last_share / first[0]))
    lowest = min(loss for _, loss in points)
    return lowest * float(last_share**slope) * (1 - _ANNEALING * (1 - last_share))


def _result(trial: Trial, rung: int) -> RungResult | None:
    return next((result for result in trial.rungs if result.rung == rung), None)


def _rivals(study: Study, trial: Trial, unjudged: Collection[str]) -> list[Trial]:
    """Return the trials that compete with one at its rungs.

    Early on, a child shows the weights it has inherited and not what it will come to, so that fresh
    trials compete among themselves, and children too. What a change of regularisation costs early
    on says nothing: a trial that changes it competes with none, and fresh trials compete with those
    of equal regularisation. A trial that repeats one of another snapshot starts from its end.
    """
    return [
        rival
        for rival in _alike(study, trial)
        if rival.number != trial.number
        and _start(rival, unjudged) == _start(trial, unjudged)
        and _competes(study, rival, unjudged)
    ]


def _competes(study: Study, trial: Trial, unjudged: Collection[str]) -> bool:
    """Return whether a trial's early results say how good it is beside others'."""
    return trial.repeats is None and not changes_unjudged(study, trial, unjudged)


def _start(trial: Trial, unjudged: Collection[str]) -> tuple[tuple[str, float | None], ...] | None:
    """Return what a trial's early results depend on: None for inherited weights."""
    candidate = trial.candidate
    assert candidate is not None
    if candidate.parent is not None:
        return None
    return tuple((gene, candidate.hyperparameters.get(gene)) for gene in sorted(unjudged))


def _alike(study: Study, trial: Trial) -> list[Trial]:
    """Return the trials with a candidate that compare with one and had the same limits.

    An earlier run with wider limits has better networks than a narrower one can find.
    """
    limits = {run.name: run.limits for run in study.runs}
    return [
        one
        for one in study.trials
        if one.candidate is not None
        and one.generation == trial.generation
        and one.snapshot == trial.snapshot
        and limits[one.run] == limits[trial.run]
    ]
