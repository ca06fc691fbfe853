"""What judging trials early saves, and what it costs: `make bench-pruning`.

Recorded candidates, each with the curve of its whole training, are evaluated again in random orders
by simulated workers, and the platform's own verdicts stop them. It prints a table and writes it to
`benchmarks/out/pruning.json`.

`python -m benchmarks.pruning --record DATASET` records the curves anew. It goes on where it was
interrupted. `--live DATASET` trains as many candidates of its own, stops those that are behind, and
compares with the recorded ones.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RungReached,
    RunOpened,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.study import Study, replay
from automl.domain.trial import Measurement, Outcome, Trial
from automl.search.pruning import Judging, halving_rungs, incumbent, verdict
from automl.tracks.image.space import REGULARISATION
from automl.tracks.image.spending import FULL_BUDGET
from automl.training.problem import standard_error
from benchmarks.curves import CURVES, Recorded, read_curves, record, train_judged
from benchmarks.trained import Plan

OUT = Path(__file__).parent / "out"
DATASETS = ("digits", "fashion_mnist_small", "cifar10_small")
CANDIDATES, EPOCHS, SEED = 24, 30, 200
WORKERS = (1, 2, 4)
ORDERS = 200
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_RUN = "run"
_JUDGING = Judging(unjudged=REGULARISATION)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one order of the candidates came to.

    Attributes:
        cost: work that was done, as a share of training all for the full number of epochs.
        of_planned: the same, as a share of training all to their planned ends.
        regret: how much worse the selected one is than the best of all, in standard errors of the
            best one's score.
        stopped: how many were stopped.
    """

    cost: float
    of_planned: float
    regret: float
    stopped: int


class _Simulation:
    """A study that simulated workers evaluate."""

    def __init__(self, recorded: Sequence[Recorded], order: Sequence[int]) -> None:
        self.recorded, self.order = recorded, order
        self.study, self.done = Study(), [0] * len(order)
        self._numbers = {place: number for number, place in enumerate(order)}
        self._tell(
            RunOpened(
                at=_AT, run=_RUN, deadline=_AT + timedelta(days=1), snapshot="s", spec_hash="",
                generation_key="", spec={}, origin="benchmark",
            )
        )  # fmt: skip

    def begin(self, number: int) -> None:
        """Let a worker take the next candidate."""
        one = self.recorded[self.order[number]]
        parent = None if one.parent is None else self._numbers[one.parent]
        candidate = Candidate(genotype=str(number), hyperparameters=one.genes, parent=parent)
        self._tell(
            TrialOpened(at=_AT, n=number, run=_RUN, worker="w"),
            TrialProposed(at=_AT, n=number, candidate=candidate, based_on=0, strategy="random"),
            TrialClaimed(at=_AT, n=number, attempt=1, run=_RUN, worker="w"),
        )

    def train(self, number: int) -> bool:
        """Let a trial train an epoch, and return whether it goes on."""
        one = self.recorded[self.order[number]]
        self.done[number] += 1
        done = self.done[number]
        best, known = one.best(done), self.study.trials[number].rungs
        rung = halving_rungs(one.planned).passed(one.curve[done - 1].share)
        error = standard_error(-best.loss, one.rows)
        if rung is not None and all(result.rung < rung for result in known):
            self._tell(
                RungReached(
                    at=_AT, n=number, attempt=1, run=_RUN, rung=rung, epochs=done,
                    planned=one.planned, loss=best.loss, score=-best.loss, error=error,
                    log_loss=best.log_loss,
                )
            )  # fmt: skip
        reason = verdict(self.study, number, one.curve[:done], one.planned, _JUDGING)
        if reason is None and done < one.planned and one.stale(done) < FULL_BUDGET.patience:
            return True
        measured = Measurement(
            score=-best.loss, error=error, loss=best.loss, log_loss=best.log_loss, epochs=done,
            weights="w",
        )  # fmt: skip
        outcome = Outcome.COMPLETED if reason is None else Outcome.PRUNED
        self._tell(
            TrialFinished(
                at=_AT, n=number, attempt=1, run=_RUN, outcome=outcome, measurement=measured,
                cause=reason or "",
            )
        )  # fmt: skip
        return False

    def _tell(self, *events: Event) -> None:
        version = self.study.version + 1
        self.study = replay(((version, event) for event in events), self.study)


def simulate(recorded: Sequence[Recorded], order: Sequence[int], workers: int) -> Replayed:
    """Evaluate candidates in an order; whoever is free takes the next one.

    Args:
        recorded: the candidates.
        order: their places; parents come before their children.
        workers: how many train at the same time, each as quick as the others.
    """
    simulation, waiting = _Simulation(recorded, order), iter(range(len(order)))
    running: list[tuple[int, int]] = []  # when an epoch ends, and of which trial

    def start(now: int) -> None:
        number = next(waiting, None)
        if number is not None:
            simulation.begin(number)
            heapq.heappush(running, (now + recorded[order[number]].macs, number))

    for _ in range(workers):
        start(0)
    while running:
        now, number = heapq.heappop(running)
        if simulation.train(number):
            heapq.heappush(running, (now + recorded[order[number]].macs, number))
        else:
            start(now)
    return _judged(simulation)


def _judged(simulation: _Simulation) -> Replayed:
    recorded, order = simulation.recorded, simulation.order
    work = sum(
        recorded[place].macs * done for place, done in zip(order, simulation.done, strict=True)
    )
    full = max(one.planned for one in recorded)
    finals = [one.best(one.planned).loss for one in recorded]
    best = min(range(len(recorded)), key=lambda place: finals[place])
    winner = incumbent(simulation.study, 0)
    assert winner is not None
    error = standard_error(-finals[best], recorded[best].rows)
    return Replayed(
        cost=work / (full * sum(one.macs for one in recorded)),
        of_planned=work / sum(one.macs * one.planned for one in recorded),
        regret=(winner.loss - finals[best]) / error if error else 0.0,
        stopped=sum(trial.outcome is Outcome.PRUNED for trial in simulation.study.trials),
    )


def orders(recorded: Sequence[Recorded], count: int, seed: int = 0) -> Iterator[list[int]]:
    """Yield random orders in which parents come before their children."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        left, found = list(range(len(recorded))), list[int]()
        while left:
            able = [place for place in left if recorded[place].parent not in left]
            found.append(able[int(rng.integers(len(able)))])
            left.remove(found[-1])
        yield found


def rank_correlations(recorded: Iterable[Recorded]) -> dict[str, tuple[int, float]]:
    """Return for each early rung how many candidates have it, and how their ranks there hold.

    Fresh candidates and children are apart, as they are in the verdicts. Spearman's correlation is
    between the scores at the rung and those of the whole trainings.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in recorded:
        kind = "fresh" if one.parent is None else "inherited"
        for share in halving_rungs(one.planned).shares[:-1]:
            epochs = round(share * one.planned)
            pair = one.best(epochs).loss, one.best(one.planned).loss
            pairs.setdefault(f"{kind} {epochs} of {one.planned}", []).append(pair)
    return {
        name: (len(rows), _rank_correlation(rows))
        for name, rows in sorted(pairs.items())
        if min(len(set(values)) for values in zip(*rows, strict=True)) > 2
    }


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    early, last = zip(*pairs, strict=True)
    return float(spearmanr(early, last).statistic)


@dataclass(frozen=True, slots=True)
class Row:
    """Means over all orders; `regret_error` is the standard error of the mean regret."""

    dataset: str
    workers: int
    orders: int
    cost: float
    of_planned: float
    regret: float
    regret_error: float
    stopped: float


def replays(dataset: str, recorded: Sequence[Recorded], workers: int, count: int) -> Row:
    """Return what judging early comes to for one dataset and number of workers."""
    results = [simulate(recorded, order, workers) for order in orders(recorded, count)]
    regrets = [result.regret for result in results]
    return Row(
        dataset,
        workers,
        count,
        cost=statistics.mean(result.cost for result in results),
        of_planned=statistics.mean(result.of_planned for result in results),
        regret=statistics.mean(regrets),
        regret_error=statistics.stdev(regrets) / len(regrets) ** 0.5,
        stopped=statistics.mean(result.stopped for result in results),
    )


def main(arguments: Sequence[str]) -> None:
    """Record curves, or replay the recorded ones and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", nargs="+", choices=DATASETS, default=[], metavar="DATASET")
    parser.add_argument("--live", nargs="+", choices=DATASETS, default=[], metavar="DATASET")
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)

    def plan(dataset: str) -> Plan:
        return Plan(
            dataset,
            "random",
            inherits=True,
            seed=SEED,
            trials=options.candidates,
            epochs=options.epochs,
        )

    for dataset in options.record:
        record(plan(dataset), options.curves / f"{dataset}.jsonl", options.out / "curves")
    for dataset in options.live:
        trials = train_judged(plan(dataset), options.out / "live")
        print(live_report(trials, read_curves(options.curves / f"{dataset}.jsonl"), plan(dataset)))
    if not options.record and not options.live:
        _replay(options.curves, options.orders, options.out)


def live_report(trials: Sequence[Trial], recorded: Sequence[Recorded], plan: Plan) -> str:
    """Return what judging early came to in a real search, beside the best of the recorded ones.

    Args:
        trials: of the search.
        recorded: candidates of the same dataset, trained in full.
        plan: of the search.
    """
    work = full = 0
    for trial in trials:
        measured = trial.measurement
        work += measured.cost * measured.epochs
        full += measured.cost * plan.epochs
    able = [trial for trial in trials if trial.can_win and trial.loss is not None]
    winner = min(able, key=lambda trial: trial.loss or 0.0)
    best = min((one.best(one.planned) for one in recorded), key=lambda point: point.loss)
    outcomes = Counter(str(trial.outcome) for trial in trials)
    return (
        f"{plan.dataset:22}live  cost {100 * work / full:5.1f} %  "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        + f"  best score {winner.measurement.score:.4f} ± {winner.measurement.error:.4f}, "
        f"of the recorded ones {-best.loss:.4f}"
    )


def _replay(curves: Path, count: int, out: Path) -> None:
    document = []
    for path in sorted(curves.glob("*.jsonl")):
        recorded = read_curves(path)
        correlations = rank_correlations(recorded)
        for name, (number, correlation) in correlations.items():
            print(f"{path.stem:22}rung {name}: rank correlation {correlation:.2f} (n = {number})")
        for workers in WORKERS:
            row = replays(path.stem, recorded, workers, count)
            document.append({**asdict(row), "correlations": correlations})
            print(
                f"{row.dataset:22}{row.workers} workers  cost {100 * row.cost:5.1f} % "
                f"({100 * row.of_planned:.1f} % of what was planned)  regret "
                f"{row.regret:.2f} ± {row.regret_error:.2f} standard errors  "
                f"{row.stopped:.1f} of {len(recorded)} stopped"
            )
    if not document:
        print(f"no curves are recorded under {curves}: record some with --record")
        return
    out.mkdir(exist_ok=True)
    (out / "pruning.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
