"""Space of architectures that network morphisms reach from the seeds, with hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.errors import ConfigError, DamagedDataError, Problem
from automl.morphism.architecture import Architecture
from automl.morphism.costs import training_work
from automl.morphism.limits import Bounded
from automl.morphism.moves import GROWING, SHRINKING, Limits, Move, MoveKind, random_move
from automl.morphism.pretrained import frozen_nodes
from automl.morphism.seeds import MOST_PROMISING, named_seeds
from automl.search.recent import Recent
from automl.search.space import Description, origin
from automl.tracks.image.layer_graph import layer_graph

MAX_MOVES = 2
SYMMETRY_NOISE = 1e-2  # of the range of a layer's weights; see Move.noise
_DIGITS = 4  # significant digits of a gene
_DROPOUT = "dropout"
_ARCHITECTURES_KEPT = 512  # some 0.1 MB each
MOST_GROWTH = 1.5  # of the work of a training by one move
GENTLE_GROWTH = 1.1  # likewise in short-budget searches, and for descendants of the pretrained seed
_DRAWS = 64  # of a move that leaves the pretrained seed's first layers as they are
_MOST_SHRINKING = 64  # moves that may bring a candidate within the limits
_UNLIMITED = Limits(parameters=2**62, depth=2**62, macs=2**62)
_LIMIT_KEYS = frozenset({"parameters", "latency_ms", "device_memory"})  # of a study file


@dataclass(frozen=True, slots=True)
class Gene:
    """A training setting that is searched along with the architecture.

    Attributes:
        default: the seeds' value.
        low: its smallest value.
        high: its largest value.
        step: standard deviation of a perturbation: of the logarithm if `relative`, else of the
            value itself.
        relative: whether the gene is a positive scale.
        regularises: whether it regularises: what regularises more looks worse early in a
            training, and shows its effect late.
    """

    default: float
    low: float
    high: float
    step: float
    relative: bool
    regularises: bool = False

    def perturb(self, value: float, rng: np.random.Generator) -> float:
        """Return a value nearby, within the bounds, with few digits."""
        shift = self.step * rng.standard_normal()
        moved = value * np.exp(shift) if self.relative else value + shift
        return float(f"{np.clip(moved, self.low, self.high):.{_DIGITS}g}")

    def scaled(self, value: float) -> float:
        """Return where a value lies between the bounds, from 0 to 1."""
        if self.relative:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


GENES: Mapping[str, Gene] = {
    # Peak of the one-cycle schedule: SGD with Nesterov momentum at a batch size of 64.
    "learning_rate": Gene(default=0.06, low=0.01, high=0.4, step=0.25, relative=True),
    "weight_decay": Gene(
        default=5e-4, low=1e-5, high=5e-3, step=0.3, relative=True, regularises=True
    ),
    # Strength from none to full.
    "augmentation": Gene(
        default=0.2, low=0.0, high=1.0, step=0.1, relative=False, regularises=True
    ),
    # Rate of all dropout nodes, whose own is the seeds' value; in front of the logits without any.
    _DROPOUT: Gene(default=0.0, low=0.0, high=0.6, step=0.05, relative=False, regularises=True),
}
# What trainings of fresh weights begin with; dropout is the architecture's own.
DEFAULT_HYPERPARAMETERS: Mapping[str, float] = {
    name: gene.default for name, gene in GENES.items() if name != _DROPOUT
}
# Of the pretrained seed, which has learned the rows within a few epochs and then overfits.
_PRETRAINED_GENES: Mapping[str, float] = {"augmentation": 0.5}
REGULARISATION = frozenset(name for name, gene in GENES.items() if gene.regularises)
JUDGED_EPOCHS = 20  # with fewer, trials say nothing of regularisation
_SHORT_BUDGET_SEEDS = 2
_REGULARISED_SHARE = 0.25  # of the children try other regularisation: they train in full


@dataclass(frozen=True, slots=True)
class Allowance:
    """Allowance of the trials of a search.

    Attributes:
        epochs: what each gets in all; None if it is not known. With fewer than `JUDGED_EPOCHS`,
            regularisation stays as it is.
        is_short_budget: whether the seeds take most of the time. Only the first two are tried, and
            a mutation, whose training will be short, is one move that keeps what the network
            computes and makes it little slower.
    """

    epochs: int | None = None
    is_short_budget: bool = False


class NetworkMorphismSpace:
    """Seeds sized to the image, and their morphs within limits.

    Args:
        image_size: height and width of the images in pixels.
        classes: number of classes.
        limits: what no candidate may exceed.
        pretrained: a network whose weights have been trained on other images; the first seed,
            unless it is beyond the limits.
        allowance: what trials can afford.

    Raises:
        ConfigError: every seed is beyond the limits.
    """

    def __init__(
        self,
        image_size: int,
        classes: int,
        limits: Limits | None = None,
        pretrained: Architecture | None = None,
        allowance: Allowance = Allowance(),
    ) -> None:
        self._limits = limits or Limits()
        epochs = allowance.epochs
        is_judged = epochs is None or epochs >= JUDGED_EPOCHS
        self._regularised_share = _REGULARISED_SHARE if is_judged else 0.0
        self._most_moves, self._growth, self._kinds = MAX_MOVES, MOST_GROWTH, tuple(MoveKind)
        if allowance.is_short_budget:
            self._most_moves, self._growth, self._kinds = 1, GENTLE_GROWTH, GROWING
        self._frozen = 0 if pretrained is None else frozen_nodes(pretrained)
        seeds = _seeds(image_size, classes, self._limits, pretrained)
        self._seeds = seeds[:_SHORT_BUDGET_SEEDS] if allowance.is_short_budget else seeds
        self._architectures = Recent[str, Architecture](_ARCHITECTURES_KEPT)  # by genotype

    def seeds(self) -> Sequence[Candidate]:
        """Return the pretrained seed if there is one, the most promising fresh one, the others.

        A trial is stopped early only where others have finished before it, to be compared with.
        """
        return self._seeds

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return a morph of a uniformly chosen parent; without parents, a seed with other genes."""
        if parents:
            return self.mutate(origin(parents[int(rng.integers(len(parents)))]), rng)
        return self._varied_seed(rng)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a child a few moves away, with perturbed genes.

        A candidate at the limits, with no legal move left, gets a child that differs in its genes.
        One of an earlier run with wider limits is shrunk until it is within them; where that fails,
        a seed with other genes, and without a parent, takes the child's place.

        Raises:
            DamagedDataError: the candidate is not one of this space.
        """
        architecture = self._architecture(candidate.genotype).canonical()[0]
        moves: list[Move] = []
        for _ in range(int(rng.integers(1, self._most_moves + 1))):
            drawn = self._drawn(architecture, rng)
            if drawn is None:
                break
            move, architecture = drawn
            moves.append(move)
        if not moves and not self._limits.allow(architecture):
            shrunk = self._shrunk(architecture, rng)
            if shrunk is None:
                return self._varied_seed(rng)
            moves, architecture = shrunk
        genotype = architecture.genotype()
        self._architectures.put(genotype, architecture)
        inherited = () if candidate.parent is None else (move.to_json() for move in moves)
        return Candidate(
            genotype=genotype,
            hyperparameters=self._perturbed(candidate, rng),
            parent=candidate.parent,
            moves=(*candidate.moves, *inherited),
        )

    def _drawn(
        self, architecture: Architecture, rng: np.random.Generator
    ) -> tuple[Move, Architecture] | None:
        """Return a random move and where it leads; None if none is found.

        A child that took several times its parent's work would learn little in the time that it
        has. Descendants of the pretrained seed keep its first layers, which are not trained, and
        grow slowly: what they know is in the weights that they have.
        """
        work, limits = training_work(architecture), self._limits
        if not self._frozen or frozen_nodes(architecture) < self._frozen:
            limits = replace(limits, work=int(self._growth * work))
            return random_move(architecture, limits, rng, self._kinds, SYMMETRY_NOISE)
        most = int(GENTLE_GROWTH * architecture.parameters)
        limits = replace(
            limits,
            work=int(GENTLE_GROWTH * work),
            parameters=min(limits.parameters, most),
        )
        for _ in range(_DRAWS):
            drawn = random_move(architecture, limits, rng, self._kinds, SYMMETRY_NOISE)
            if drawn is None or frozen_nodes(drawn[1]) >= self._frozen:
                return drawn
        return None

    def contains(self, candidate: Candidate) -> bool:
        """Return whether image size and number of classes are this space's, within its limits."""
        architecture = self._architecture(candidate.genotype)
        seed = self._architecture(self._seeds[0].genotype)
        fits = (architecture.input_size, architecture.input_channels, architecture.classes) == (
            seed.input_size, seed.input_channels, seed.classes,
        )  # fmt: skip
        return fits and self._limits.allow(architecture)

    def describe(self, candidate: Candidate) -> Description:
        """Return the graph of layers, the scaled genes, parameters and MACs, and the work.

        Raises:
            DamagedDataError: the candidate is not one of this space.
        """
        architecture = self._architecture(candidate.genotype)
        genes = self._genes(candidate)
        return Description(
            graph=layer_graph(architecture),
            genes=tuple(gene.scaled(genes[name]) for name, gene in GENES.items()),
            costs={"parameters": architecture.parameters, "macs": architecture.macs},
            spent=training_work(architecture),
        )

    def _varied_seed(self, rng: np.random.Generator) -> Candidate:
        """Return a uniformly chosen seed with perturbed genes."""
        seed = self._seeds[int(rng.integers(len(self._seeds)))]
        return Candidate(genotype=seed.genotype, hyperparameters=self._perturbed(seed, rng))

    def _shrunk(
        self, architecture: Architecture, rng: np.random.Generator
    ) -> tuple[list[Move], Architecture] | None:
        """Return moves that bring an architecture within the limits, and where they lead."""
        moves: list[Move] = []
        while len(moves) < _MOST_SHRINKING:
            drawn = random_move(architecture, _UNLIMITED, rng, SHRINKING)
            if drawn is None:
                return None
            move, architecture = drawn
            moves.append(move)
            if self._limits.allow(architecture):
                return moves, architecture
        return None

    def _perturbed(self, candidate: Candidate, rng: np.random.Generator) -> dict[str, float]:
        """Return genes nearby: regularisation changes in one child of four, all of it together.

        Their changes are judged by trainings in full, so that not every child may have one.
        """
        genes = self._genes(candidate)
        is_kept = rng.random() >= self._regularised_share
        return {
            name: genes[name] if gene.regularises and is_kept else gene.perturb(genes[name], rng)
            for name, gene in GENES.items()
        }

    def _genes(self, candidate: Candidate) -> Mapping[str, float]:
        """Return the genes of a candidate; older versions wrote none for dropout."""
        own = _own_dropout(self._architecture(candidate.genotype))
        genes = {_DROPOUT: own, **candidate.hyperparameters}
        if missing := GENES.keys() - genes.keys():
            raise DamagedDataError(
                f"A candidate lacks the genes {sorted(missing)}.", "restore the study's log"
            )
        return genes

    def _architecture(self, genotype: str) -> Architecture:
        return self._architectures.get(genotype, lambda: Architecture.parse(genotype))


def _seeds(
    image_size: int, classes: int, limits: Limits, pretrained: Architecture | None
) -> tuple[Candidate, ...]:
    first = [] if pretrained is None else [pretrained]
    fresh = named_seeds(image_size, classes)
    architectures = [*first, fresh.pop(MOST_PROMISING), *fresh.values()]
    able = [seed for seed in architectures if limits.allow(seed)]
    if not able:
        raise ConfigError(
            f"Each of the networks that a search for {image_size} px and {classes} classes starts "
            "from exceeds one of its limits.",
            "raise the limits below, or lower data.image_size",
            _exceeded(architectures, limits),
        )

    def genes(seed: Architecture) -> dict[str, float]:
        own = _PRETRAINED_GENES if seed is pretrained else {}
        return {**DEFAULT_HYPERPARAMETERS, _DROPOUT: _own_dropout(seed), **own}

    return tuple(Candidate(genotype=seed.genotype(), hyperparameters=genes(seed)) for seed in able)


def _exceeded(architectures: Sequence[Architecture], limits: Limits) -> list[Problem]:
    """Return a problem for each limit that some exceed, with the least value of them all."""
    found: dict[str, list[Bounded]] = {}
    for architecture in architectures:
        for bounded in limits.bounded(architecture):
            found.setdefault(bounded.name, []).append(bounded)
    problems = []
    for name, all_of in found.items():
        if all(bounded.value <= bounded.most for bounded in all_of):
            continue
        least = min(all_of, key=lambda bounded: bounded.value)
        path = f"search.limits.{name}" if name in _LIMIT_KEYS else name
        problems.append(Problem(path, f"the smallest has {least}"))
    return problems


def _own_dropout(architecture: Architecture) -> float:
    return GENES[_DROPOUT].default if architecture.dropout is None else architecture.dropout
