"""The pretrained seed of a study, from the opening of a run to the weights of its trials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import TrialOpened, TrialProposed
from automl.domain.facts import SpaceFacts
from automl.domain.settings import Settings
from automl.domain.study import Run
from automl.domain.trial import Trial
from automl.errors import OutOfMemoryError, TrainingError
from automl.morphism.architecture import Architecture
from automl.morphism.moves import GROWING, Limits, Move, apply_move, random_move
from automl.morphism.pretrained import lite0, normalised_for
from automl.morphism.seeds import seed_architectures
from automl.runs.context import StepContext
from automl.runs.proposals import search_space
from automl.runs.training import StudyFolder, TrialTrainer, TrialTraining, lineage_of
from automl.runs.trials import TrialSource
from automl.steps.open_run import open_search
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.tracks.image.fitter import ImageFitter
from automl.tracks.image.pretrained import seed_of, without_pretrained
from automl.tracks.image.pretrained_weights import fresh_weights, pretrained_weights
from automl.tracks.image.refit import least_fresh_epochs
from automl.tracks.track import Ancestor
from automl.training.backbone import lite0_state
from automl.training.module import Normalization
from automl.training.problem import FitProblem
from automl.training.results import weights_from_bytes

SIZE, CLASSES = 24, 2
PLAIN = Normalization((0.0,) * 3, (1.0,) * 3)


def open_context(
    folder: Path,
    size: int = SIZE,
    limits: Mapping[str, Any] | None = None,
    time_limit: str = "10m",
) -> StepContext:
    """A run that is open on random images."""
    rows = folder / "rows.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), dtype=np.uint8)
    np.savez(rows, allow_pickle=False, x=pixels, y=np.arange(40) % CLASSES)
    spec = study_spec(
        {
            "name": "noise",
            "task": "image_classification",
            "data": {"source": str(rows), "image_size": size},
            "search": {"time_limit": time_limit, "workers": 1, "limits": dict(limits or {})},
        }
    )
    context = StepContext.open(Settings(str(folder / "home")), spec, "one", "test")
    open_search(context, prepare(context, lambda done, total, what: None).id)
    return context


def run_of(context: StepContext) -> Run:
    return context.opened_run()


def family_of(context: StepContext, trial: Trial) -> tuple[Ancestor, ...]:
    """The trial and its ancestors, as the track sees them."""
    return lineage_of(context.record.study, trial)


def reason_of(run: Run) -> str:
    """Why the run had no pretrained seed."""
    return without_pretrained(run.space, run.limits)


def facts_of(context: StepContext) -> Mapping[str, int | str]:
    space = run_of(context).space
    assert space is not None
    return space.recorded


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> StepContext:
    return open_context(tmp_path_factory.mktemp("opened"))


@pytest.fixture(scope="module")
def stored(opened: StepContext) -> dict[str, np.ndarray]:
    """The weights that the home has."""
    key = opened.keys.file(f"pretrained/{facts_of(opened)['pretrained']}.safetensors")
    return weights_from_bytes(opened.store.get(key).data, key)


def test_the_log_names_the_weights_by_their_content(opened: StepContext) -> None:
    digest = facts_of(opened)["pretrained"]
    folder = Path(opened.store.uri) / "studies/noise/pretrained"

    (file,) = folder.iterdir()

    assert file.name == f"{digest}.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    assert reason_of(run_of(opened)) == ""


def test_a_worker_without_the_package_has_the_same_seeds(
    opened: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = search_space(run_of(opened)).seeds()
    monkeypatch.setattr("automl.training.backbone.LITE0_PACKAGE", "no-such-package")
    assert lite0_state() is None

    again = search_space(run_of(opened))

    assert again.seeds() == seeds
    assert seeds[0].genotype == lite0(SIZE, CLASSES).architecture.genotype()
    assert len(seeds) == 4


def propose(context: StepContext, candidate: Candidate) -> Trial:
    """The next trial, with this candidate."""
    number = len(context.record.refresh().trials)
    now = context.clock.now()
    opening = TrialOpened(at=now, n=number, run=context.run, worker="one/0")
    context.record.commit(lambda study: [opening])
    proposal = TrialProposed(
        at=now, n=number, candidate=candidate, based_on=0, strategy="test", repeats=None
    )
    return context.record.commit(lambda study: [proposal]).trials[number]


def descend(context: StepContext, trial: Trial, rng: np.random.Generator) -> Trial:
    """A child of a trial, two growing moves away."""
    assert trial.candidate is not None
    architecture, moves = Architecture.from_genotype(trial.candidate.genotype), []
    for kind in rng.choice(len(GROWING), 2, replace=False):
        drawn = random_move(architecture, Limits(), rng, (GROWING[kind],))
        assert drawn is not None
        moves.append(drawn[0].to_json())
        architecture = drawn[1]
    return propose(
        context,
        Candidate(
            genotype=architecture.genotype(),
            hyperparameters=trial.candidate.hyperparameters,
            parent=trial.number,
            moves=tuple(moves),
        ),
    )


def same(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def test_trials_of_the_seed_start_pretrained_whatever_their_genes(
    opened: StepContext, stored: dict[str, np.ndarray]
) -> None:
    seed = search_space(run_of(opened)).seeds()[0]
    varied = seed.model_copy(update={"hyperparameters": {**seed.hyperparameters, "dropout": 0.5}})
    images = Normalization((100.0, 110.0, 120.0), (50.0, 60.0, 70.0))

    starts = [
        pretrained_weights(
            StudyFolder(opened), family_of(opened, propose(opened, candidate))[0], images
        )
        for candidate in (seed, varied)
    ]

    for start in starts:
        assert start is not None
        assert start.fit_head
        assert same(start.weights, normalised_for(stored, images.mean, images.std))


def test_other_seeds_start_fresh(opened: StepContext) -> None:
    for seed in search_space(run_of(opened)).seeds()[1:]:
        family, files = family_of(opened, propose(opened, seed)), StudyFolder(opened)
        assert pretrained_weights(files, family[0], PLAIN) is None
        assert fresh_weights(files, family, PLAIN) is None


def test_fresh_weights_of_a_descendant_are_the_pretrained_ones_moved(
    opened: StepContext, stored: dict[str, np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    trials = [propose(opened, search_space(run_of(opened)).seeds()[0])]
    for _ in range(2):
        trials.append(descend(opened, trials[-1], rng))
    assert trials[2].candidate is not None

    expected: dict[str, np.ndarray] = dict(stored)
    architecture = lite0(SIZE, CLASSES).architecture
    for trial in trials[1:]:
        assert trial.candidate is not None
        for document in trial.candidate.moves:
            architecture, weight_map = apply_move(architecture, Move.from_json(document))
            expected = weight_map(expected)

    start = fresh_weights(StudyFolder(opened), family_of(opened, trials[2]), PLAIN)

    assert architecture.genotype() == trials[2].candidate.genotype
    assert start is not None
    assert start.fit_head
    assert same(start.weights, expected)
    name = f"EfficientNet-Lite0, pretrained (trial {trials[0].number})"
    assert seed_of(family_of(opened, trials[2])) == name


def test_a_final_fit_of_pretrained_networks_begins_anew_only_with_time_for_twenty_epochs(
    opened: StepContext,
) -> None:
    pretrained, other, *_ = search_space(run_of(opened)).seeds()
    trial = propose(opened, pretrained)
    child = descend(opened, trial, np.random.default_rng(2))
    fresh = propose(opened, other)

    least = [least_fresh_epochs(family_of(opened, one)) for one in (trial, child, fresh)]

    assert least == [20, 20, 1]  # nothing is measured: a lineage of one epoch


def test_moves_that_lead_elsewhere_are_noticed(opened: StepContext) -> None:
    root = propose(opened, search_space(run_of(opened)).seeds()[0])
    child = descend(opened, root, np.random.default_rng(1))
    assert child.candidate is not None
    altered = child.candidate.model_copy(update={"moves": child.candidate.moves[:1]})
    trial = propose(opened, altered)

    with pytest.raises(TrainingError, match=f"do not lead from trial {root.number}"):
        fresh_weights(StudyFolder(opened), family_of(opened, trial), PLAIN)


def test_the_report_names_fresh_seeds_too(opened: StepContext) -> None:
    kinds = {
        seed_of(family_of(opened, propose(opened, seed))).partition(" (")[0]
        for seed in search_space(run_of(opened)).seeds()[1:]
    }

    assert kinds == {"three blocks", "residual", "wide"}


def test_a_worker_trains_the_first_trial_from_the_pretrained_weights(tmp_path: Path) -> None:
    context = open_context(tmp_path)
    trainer = TrialTrainer.load(context, run_of(context))
    assert isinstance(trainer.fitter, ImageFitter)
    budget = replace(trainer.fitter.budget, epochs=1, patience=0)
    trainer = replace(trainer, fitter=replace(trainer.fitter, budget=budget))
    claim = TrialSource(context, "one/0", search_space).take()
    assert claim is not None

    with claim.lease.keep_alive() as alive:
        result = trainer.train(claim.trial, TrialTraining("one/0", lambda: None), alive)

    assert result.measurement.weights is not None
    key = result.measurement.weights
    trained = weights_from_bytes(context.store.get(key).data, key)
    assert isinstance(trainer.fitter, ImageFitter)
    start = pretrained_weights(
        StudyFolder(context), family_of(context, claim.trial)[0], trainer.fitter.normalization
    )
    assert start is not None
    stem = "2.weight"
    moved = np.abs(trained[stem] - start.weights[stem]).max()
    assert moved < 0.1 * start.weights[stem].std()
    last = max(int(key.split(".")[0]) for key in trained)
    assert not start.weights[f"{last}.weight"].any()
    assert trained[f"{last}.weight"].any()  # the head is the first epoch


def test_a_short_budget_search_trains_it_for_ten_epochs_and_fresh_seeds_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = lite0(SIZE, CLASSES).architecture
    monkeypatch.setattr(
        "automl.tracks.image.measuring.step_seconds",
        lambda device, network, precision, threads, frozen: 0.3 if network == seed else 0.9,
    )
    context = open_context(tmp_path, time_limit="1m")  # one step an epoch
    space = facts_of(context)
    assert (space["trial_ms"], space["pretrained_ms"]) == (24_000, 3_000)
    trainer, source = (
        TrialTrainer.load(context, run_of(context)), TrialSource(context, "one/0", search_space),
    )  # fmt: skip
    given: list[float | None] = []

    def note(problem: FitProblem, *_: object) -> NoReturn:
        given.append(problem.budget.seconds)
        raise OutOfMemoryError("noted", "nothing to do")

    monkeypatch.setattr("automl.tracks.image.fitter.fit", note)
    for _ in range(2):
        claim = source.take()
        assert claim is not None
        with claim.lease.keep_alive() as alive:
            trainer.train(claim.trial, TrialTraining("one/0", lambda: None, lambda: 50.0), alive)

    assert given == [3.0, 24.0]


@pytest.mark.parametrize(
    ("size", "limits", "reason"),
    [
        (8, {}, "EfficientNet-Lite0 needs images of 24 px, these have 8"),
        (SIZE, {"parameters": 10**6}, "its parameters are 3,382,408, the limit is 1,000,000"),
    ],
)
def test_where_it_does_not_fit_it_is_left_out_with_the_reason(
    tmp_path: Path, size: int, limits: dict[str, Any], reason: str
) -> None:
    context = open_context(tmp_path, size, limits)

    assert "pretrained" not in facts_of(context)
    assert not (tmp_path / "home/studies/noise/pretrained").exists()
    assert reason in reason_of(run_of(context))
    fresh = {seed.genotype() for seed in seed_architectures(size, CLASSES)}
    assert {seed.genotype for seed in search_space(run_of(context)).seeds()} == fresh


def test_without_the_package_a_run_has_the_fresh_seeds_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl.training.backbone.LITE0_PACKAGE", "no-such-package")

    context = open_context(tmp_path)

    assert len(search_space(run_of(context)).seeds()) == 3
    sentence = reason_of(run_of(context))
    assert sentence.startswith("No pretrained seed was available: the package efficientnet-lite0")
    assert "`pretrained`" in sentence
    old_facts = SpaceFacts.of({"image_size": SIZE, "classes": CLASSES, "version": 3})
    older = replace(run_of(context), space=old_facts)
    assert "opened by another release" in reason_of(older)
