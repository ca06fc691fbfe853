"""A trial that is behind ends at a rung, with real training and a real log."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

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
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.training import StopReason
from automl.domain.trial import Measurement, Outcome, Trial
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.curves import curve_to_bytes, read_curve
from automl.runs.training import TrialTrainer, TrialTraining
from automl.runs.trial_files import load_model
from automl.runs.trials import Claim, TrialSource
from automl.runs.worker import work_on
from automl.search.pruning import halving_rungs, planned_epochs
from automl.search.space import origin
from automl.steps import prepare
from automl.tracks.image.space import NetworkMorphismSpace
from automl.tracks.image.spending import MOST_EPOCHS
from tests.digits import study_of_digits

FIRST = round(
    halving_rungs(MOST_EPOCHS).shares[0] * MOST_EPOCHS
)  # epochs of the first rung of so few rows


def begun(folder: Path) -> TrialTrainer:
    """Return the trainer of a new run in `folder`."""
    spec = study_of_digits(folder, 300, search={"workers": 1}, final_fit={})
    context = StepContext.open(Settings(str(folder / "home")), spec, "one", "test")
    snapshot = prepare.prepare(context, lambda done, total, what: None)
    opening.open_run(context, snapshot.id)
    return TrialTrainer.load(context, context.opened_run())


@pytest.fixture
def trainer(tmp_path: Path) -> TrialTrainer:
    """Of a run that has no trials yet."""
    return begun(tmp_path)


@pytest.fixture(scope="module")
def with_parent(tmp_path_factory: pytest.TempPathFactory) -> TrialTrainer:
    """Of a run whose first trial is trained; for `parented` alone."""
    trainer = begun(tmp_path_factory.mktemp("parent"))
    work_on(trainer.context, trainer, taken(trainer), TrialTraining("one/0", never))
    return trainer


@pytest.fixture
def parented(with_parent: TrialTrainer, tmp_path: Path) -> TrialTrainer:
    """Of a copy of a run whose first trial is trained."""
    first = with_parent.context
    home = shutil.copytree(first.settings.home, tmp_path / "home")
    context = StepContext.open(Settings(str(home)), first.spec, first.run, "test")
    return TrialTrainer.load(context, context.opened_run())


@pytest.fixture
def surpassed(trainer: TrialTrainer) -> TrialTrainer:
    """Of a run in which four trials have reached their first rung with a perfect score."""
    context = trainer.context
    for n in range(4):
        tell(context, TrialOpened(at=context.clock.now(), n=n, run="one", worker="w"))
        tell(context, *rival(context, n))
    return trainer


def tell(context: StepContext, *events: Event) -> None:
    context.record.commit(lambda _: events)


def rival(context: StepContext, n: int) -> list[Event]:
    """Return how an opened trial fares that is good at once, regularised as the first seed."""
    at, version = context.clock.now(), context.record.study.version
    seed = NetworkMorphismSpace(8, 10).seeds()[0]
    genes = {**seed.hyperparameters, "learning_rate": 0.2 + n / 100}
    candidate = Candidate(genotype=seed.genotype, hyperparameters=genes)
    measured = Measurement(score=1.0, error=0.0, loss=-1.0, log_loss=0.05)
    return [
        TrialProposed(at=at, n=n, candidate=candidate, based_on=version, strategy="random"),
        TrialClaimed(at=at, n=n, attempt=1, run="one", worker="w"),
        RungReached(
            at=at, n=n, attempt=1, run="one", rung=1, epochs=FIRST, planned=MOST_EPOCHS, loss=-1.0,
            score=1.0, error=0.0, log_loss=0.05, resolution=8,
        ),
        TrialFinished(
            at=at, n=n, attempt=1, run="one", outcome=Outcome.COMPLETED, measurement=measured
        ),
    ]  # fmt: skip


def taken(trainer: TrialTrainer) -> Claim:
    space = NetworkMorphismSpace(8, 10)
    claim = TrialSource(trainer.context, "one/0", lambda *_: space).take()
    assert claim is not None
    return claim


def never() -> StopReason | None:
    return None


def test_a_trial_that_is_behind_ends_at_its_rung_with_what_it_has(surpassed: TrialTrainer) -> None:
    trainer, context, claim = surpassed, surpassed.context, taken(surpassed)

    trial = work_on(context, trainer, claim, TrialTraining("one/0", never))

    assert (trial.number, trial.outcome, trial.can_win) == (4, Outcome.PRUNED, False)
    assert trial.cause.startswith(f"rung 1 ({FIRST} epochs): score 0.")
    assert trial.cause.endswith("the best third of 5 trials has 1.0000 or better")
    (rung,) = trial.rungs
    measured = trial.measurement
    assert (rung.epochs, rung.planned) == (measured.epochs, trainer.fitter.rounds)
    assert (rung.epochs, rung.planned, rung.resolution) == (FIRST, MOST_EPOCHS, 8)
    assert (rung.score, rung.loss) == (measured.score, measured.loss)
    assert rung.error == pytest.approx(measured.error)
    assert rung.log_loss == measured.log_loss
    assert load_model(context, trial)
    assert len(read_curve(context.store, "digits", trial)) == FIRST
    assert violations(context.record.log.read()) == []


def test_a_trial_killed_after_its_verdict_trains_no_more(
    surpassed: TrialTrainer,
) -> None:
    trainer, context, claim = surpassed, surpassed.context, taken(surpassed)
    with claim.lease.keep_alive() as alive:  # the process dies before it records the outcome
        result = trainer.train(claim.trial, TrialTraining("one/0", never), alive)
    claim.lease.release()

    trial = work_on(context, trainer, taken(trainer), TrialTraining("one/0", never))

    assert (trial.attempt, trial.outcome, trial.cause) == (2, Outcome.PRUNED, result.cause)
    assert (trial.measurement.epochs, trial.measurement.resumed_at) == (FIRST, FIRST)
    assert len(trial.rungs) == 1


def child_of(trainer: TrialTrainer, parent: Trial) -> Trial:
    """Return the trained trial 1, whose network is its parent's."""
    context, version = trainer.context, trainer.context.record.study.version
    candidate = origin(parent)
    genes = {**candidate.hyperparameters, "learning_rate": 0.05}
    tell(
        context,
        TrialOpened(at=context.clock.now(), n=1, run="one", worker="w"),
        TrialProposed(
            at=context.clock.now(), n=1, based_on=version, strategy="random",
            candidate=candidate.model_copy(update={"hyperparameters": genes}),
        ),
    )  # fmt: skip
    return work_on(context, trainer, taken(trainer), TrialTraining("one/0", never))


def test_a_child_of_a_training_that_was_short_of_time_goes_on_in_full(
    parented: TrialTrainer,
) -> None:
    context = parented.context
    (parent,) = context.record.refresh().trials
    curve = read_curve(context.store, "digits", parent)
    cut = [*curve[:5], replace(curve[5], share=1.0)]
    key = context.keys.trial(parent.number, parent.attempt).curve
    context.store.put(key, curve_to_bytes(cut))

    child = child_of(parented, parent)

    assert {result.planned for result in child.rungs} == {parented.fitter.rounds}


def test_a_child_trains_as_long_as_its_parents_curve_says(parented: TrialTrainer) -> None:
    context = parented.context
    (parent,) = context.record.refresh().trials

    child = child_of(parented, parent)

    losses = [
        [point.log_loss or 0.0 for point in read_curve(context.store, "digits", trial)]
        for trial in (parent, child)
    ]
    planned = planned_epochs(losses[0], losses[1][0], parented.fitter.rounds)
    assert (parent.outcome, child.outcome) == (Outcome.COMPLETED, Outcome.COMPLETED)
    assert child.measurement.epochs == planned < parented.fitter.rounds
    assert {result.planned for result in child.rungs} == {planned}
    assert child.rungs[-1].epochs == planned
