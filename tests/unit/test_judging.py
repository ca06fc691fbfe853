"""What the judge of a training writes and decides, on a study in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RungReached,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.settings import Settings
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Measurement, Outcome, RungResult, Trial
from automl.errors import LeaseLostError
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.curves import curve_to_bytes
from automl.runs.judging import Judge
from automl.search.pruning import Judging
from automl.steps.study_file import study_spec
from automl.storage.home import ObjectHome
from automl.storage.leases import KeepAlive
from automl.storage.memory import MemoryObjectStore
from automl.training.problem import standard_error

FULL, ROWS, SIZE = 30, 100, 32
JUDGING = Judging(unjudged=frozenset({"weight_decay", "augmentation", "dropout"}))
GENES = {"learning_rate": 0.1, "weight_decay": 5e-4, "augmentation": 0.5, "dropout": 0.0}
SPEC = study_spec({"name": "tiny", "task": "image_classification", "data": {"source": "/rows.npz"}})


@pytest.fixture
def context() -> StepContext:
    home = ObjectHome(MemoryObjectStore())
    context = StepContext.open(Settings("/"), SPEC, "one", "test", home)
    opening.open_run(context, "snapshot")
    return context


def tell(context: StepContext, *events: Event) -> None:
    context.record.commit(lambda _: events)


def taken(
    context: StepContext, parent: int | None = None, genes: dict[str, float] | None = None
) -> Trial:
    """Return a new trial that has been claimed."""
    now, n = context.clock.now(), len(context.record.refresh().trials)
    candidate = Candidate(genotype=str(n), hyperparameters=genes or GENES, parent=parent)
    tell(
        context,
        TrialOpened(at=now, n=n, run="one", worker="w"),
        TrialProposed(at=now, n=n, candidate=candidate, based_on=0, strategy="random"),
    )
    return claimed(context, n)


def claimed(context: StepContext, n: int) -> Trial:
    """Return the trial after the claim of its next attempt."""
    attempt = context.record.refresh().trials[n].attempt + 1
    tell(
        context,
        TrialClaimed(at=context.clock.now(), n=n, attempt=attempt, run="one", worker="w"),
    )
    return context.record.study.trials[n]


def judge_of(context: StepContext, trial: Trial) -> Judge:
    return Judge(context, trial, FULL, JUDGING, alive(context, trial))


def alive(context: StepContext, trial: Trial) -> KeepAlive:
    lease = context.leases.acquire(f"{trial.number}-{trial.attempt}", "w")
    assert lease is not None
    return lease.keep_alive()


def epoch(number: int, score: float, loss: float | None = None, planned: int = FULL) -> CurvePoint:
    return CurvePoint(
        epoch=number,
        share=(number + 1) / planned,
        score=score,
        error=standard_error(score, ROWS),
        log_loss=1 - score if loss is None else loss,
        details={"resolution": SIZE},
    )


def train(
    judge: Judge, scores: Sequence[float], first: int = 0, planned: int = FULL
) -> list[StopReason | None]:
    places = enumerate(scores, start=first)
    return [judge.on_point(epoch(n, score, planned=planned)) for n, score in places]


def rungs_in(context: StepContext) -> list[RungReached]:
    return [event for _, event in context.record.log.read() if isinstance(event, RungReached)]


def with_rivals(context: StepContext) -> None:
    for _ in range(4):
        train(judge_of(context, taken(context)), [0.9] * 3)


def test_each_rung_is_recorded_once_with_the_best_epoch_so_far(context: StepContext) -> None:
    trial = taken(context)

    reasons = train(judge_of(context, trial), [0.1, 0.5, 0.4, *[0.3] * 6, 0.6])

    assert reasons == [None] * 10
    found = context.record.refresh().trials[0].rungs
    assert [(r.rung, r.epochs, r.planned, r.score) for r in found] == [
        (1, 3, FULL, 0.5), (2, 10, FULL, 0.6),
    ]  # fmt: skip
    assert found[0] == RungResult(
        1, 3, FULL, -0.5, 0.5, standard_error(0.5, ROWS), 0.5, found[0].recorded_in, 32, 0.1
    )
    assert len(rungs_in(context)) == 2


def test_who_is_behind_at_a_rung_ends_there(context: StepContext) -> None:
    with_rivals(context)
    judge = judge_of(context, taken(context))

    assert train(judge, [0.1, 0.2, 0.3]) == [None, None, StopReason.PRUNED]
    assert judge.cause.startswith("rung 1 (3 epochs): score 0.3000 ± 0.0458, the best third of 5")


def test_a_verdict_that_a_kill_has_made_undone_is_reached_again(context: StepContext) -> None:
    with_rivals(context)
    trial = taken(context)
    before = judge_of(context, trial)
    curve = [epoch(n, 0.3) for n in range(3)]
    for one in curve:
        before.on_point(one)
    for _ in range(9):  # of whom it would be among the best third
        train(judge_of(context, taken(context)), [0.2] * 3)

    after = judge_of(context, claimed(context, trial.number))
    after.resume(curve)

    assert after.stop_reason() is StopReason.PRUNED
    assert after.cause == before.cause
    assert len([event for event in rungs_in(context) if event.n == trial.number]) == 1


def test_a_resumed_attempt_does_not_contradict_the_one_before(context: StepContext) -> None:
    trial = taken(context)
    train(judge_of(context, trial), [0.1, 0.2, 0.3])  # killed before its checkpoint

    again = judge_of(context, claimed(context, 0))
    again.resume([epoch(0, 0.1), epoch(1, 0.2)])
    train(again, [0.7], first=2)

    assert [event.score for event in rungs_in(context)] == [0.3]
    assert context.record.refresh().trials[0].rungs[0].score == 0.3


def test_a_rung_that_a_kill_left_out_is_recorded_on_resumption(context: StepContext) -> None:
    judge = judge_of(context, claimed(context, taken(context).number))

    judge.resume([epoch(n, 0.5) for n in range(3)])

    assert [(event.rung, event.attempt) for event in rungs_in(context)] == [(1, 2)]


def test_a_curve_is_judged_after_a_third_of_the_training_on_whole_images(
    context: StepContext,
) -> None:
    best = taken(context)
    tell(
        context,
        TrialFinished(
            at=context.clock.now(), n=best.number, attempt=1, run="one",
            outcome=Outcome.COMPLETED,
            measurement=Measurement(score=0.9, loss=-0.9, log_loss=0.1, weights="w"),
        ),
    )  # fmt: skip
    curve = [epoch(n, 0.5, loss=1.0) for n in range(FULL)]
    small = [replace(one, is_full=False) for one in curve[:10]]

    def ends_after(epochs: Sequence[CurvePoint]) -> int:
        judge = judge_of(context, taken(context))
        return next(n for n, one in enumerate(epochs, start=1) if judge.on_point(one))

    assert ends_after(curve) == 10
    assert ends_after([*small, *curve[10:]]) == 20


def test_an_attempt_that_was_fenced_off_records_nothing(context: StepContext) -> None:
    judge = judge_of(context, taken(context))
    claimed(context, 0)

    assert train(judge, [0.1, 0.2, 0.3]) == [None] * 3
    assert rungs_in(context) == []


def test_who_has_lost_the_lease_records_nothing(context: StepContext) -> None:
    trial = taken(context)
    lease = context.leases.acquire("0", "w")
    assert lease is not None
    judge = Judge(context, trial, FULL, JUDGING, lease.keep_alive())
    lease.lost.set()

    with pytest.raises(LeaseLostError):
        train(judge, [0.1, 0.2, 0.3])
    assert rungs_in(context) == []


def test_without_selection_rows_nothing_is_judged(context: StepContext) -> None:
    judge = judge_of(context, taken(context))

    for number in range(FULL):
        assert judge.on_point(CurvePoint(number, 0.5, None)) is None
    assert rungs_in(context) == []


def parent_with(context: StepContext, losses: Sequence[float]) -> Trial:
    """Return a trial whose curve is stored."""
    trial = taken(context)
    curve = [epoch(n, 0.5, loss) for n, loss in enumerate(losses)]
    context.store.put(curve_key(trial), curve_to_bytes(curve))
    return trial


def curve_key(trial: Trial) -> str:
    return f"studies/tiny/trials/{trial.number}/{trial.attempt}/curve.jsonl"


FALLING = [1.0 - 0.03 * n for n in range(30)]


def test_a_child_is_planned_by_its_parents_curve(context: StepContext) -> None:
    parent = parent_with(context, FALLING)
    judge = judge_of(context, taken(context, parent.number))
    first = epoch(0, 0.5, FALLING[20])

    assert judge.replan(first) == 11  # 1 + 9, rounded up
    judge.on_point(first)
    train(judge, [0.6] * 10, first=1, planned=11)
    assert [(e.rung, e.epochs, e.planned) for e in rungs_in(context)] == [(1, 4, 11), (2, 11, 11)]


def test_what_was_planned_for_an_attempt_before_stays(context: StepContext) -> None:
    parent = parent_with(context, FALLING)
    trial = taken(context, parent.number)
    before = judge_of(context, trial)
    for number in range(4):
        before.on_point(epoch(number, 0.5, FALLING[20], planned=11))

    after = judge_of(context, claimed(context, trial.number))

    assert after.replan(epoch(0, 0.5, FALLING[0])) == 11


def test_a_training_that_time_cuts_short_reaches_its_rungs_by_its_share(
    context: StepContext,
) -> None:
    trial = taken(context)
    judge = judge_of(context, trial)

    for number in range(5):  # of which each is a fifth of what there is time for
        judge.on_point(epoch(number, 0.5, planned=5))

    assert [(e.rung, e.epochs, e.planned) for e in rungs_in(context)] == [
        (1, 1, FULL), (2, 2, FULL), (3, 5, FULL),
    ]  # fmt: skip


def test_a_fresh_trial_trains_in_full(context: StepContext) -> None:
    assert judge_of(context, taken(context)).replan(epoch(0, 0.5)) is None


def test_a_child_with_other_regularisation_trains_in_full(context: StepContext) -> None:
    parent = parent_with(context, FALLING)
    changed = judge_of(context, taken(context, parent.number, {**GENES, "weight_decay": 1e-3}))
    faster = judge_of(context, taken(context, parent.number, {**GENES, "learning_rate": 0.2}))
    first = epoch(0, 0.5, FALLING[20])

    assert changed.replan(first) is None
    assert faster.replan(first) == 11


def test_a_child_of_another_snapshot_trains_in_full(context: StepContext) -> None:
    parent = parent_with(context, FALLING)
    later = StepContext.open(Settings("/"), SPEC, "two", "test", context.home)
    opening.open_run(later, "another")

    assert judge_of(later, _of_run(later, parent)).replan(epoch(0, 0.5, FALLING[20])) is None


def _of_run(context: StepContext, parent: Trial) -> Trial:
    now, n = context.clock.now(), len(context.record.refresh().trials)
    candidate = Candidate(genotype="x", hyperparameters=GENES, parent=parent.number)
    tell(
        context,
        TrialOpened(at=now, n=n, run="two", worker="w"),
        TrialProposed(at=now, n=n, candidate=candidate, based_on=0, strategy="random"),
        TrialClaimed(at=now, n=n, attempt=1, run="two", worker="w"),
    )
    return context.record.study.trials[n]


def test_without_its_parents_curve_a_child_trains_in_full(
    context: StepContext, caplog: pytest.LogCaptureFixture
) -> None:
    parent = parent_with(context, FALLING)
    first = epoch(0, 0.5, FALLING[20])
    context.store.put(curve_key(parent), b"{}")

    assert judge_of(context, taken(context, parent.number)).replan(first) is None
    assert f"trial 1 trains in full: {curve_key(parent)} is no learning curve" in caplog.text
    context.store.delete(curve_key(parent))
    assert judge_of(context, taken(context, parent.number)).replan(first) is None
