"""A study without training: a table answers, and workers take their time in a simulated clock."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, replace

import numpy as np

from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.search.history import History
from automl.search.searcher import Searcher
from benchmarks.nasbench201 import Table

SNAPSHOT = "nasbench201"
_DURATION_STREAM = 1  # keeps durations apart from the generators of proposals


@dataclass(frozen=True, slots=True)
class Search:
    """What a simulated study has found.

    Attributes:
        regrets: the best score of the table minus the best seen, in per cent points, after each
            finished trial, in the order the trials ended. Once it is 0 nothing is computed any
            more, since nothing can change.
        seconds_per_proposal: mean time of the proposals that were computed.
        strategies: how many finished trials each strategy proposed.
    """

    regrets: tuple[float, ...]
    seconds_per_proposal: float
    strategies: dict[str, int]


def simulate(searcher: Searcher, table: Table, workers: int, seed: int, trials: int) -> Search:
    """Run a study in which `workers` evaluate candidates side by side.

    A trial takes between one and two units of time. A worker that is free proposes at once, while
    the others' trials are pending.

    Args:
        searcher: proposes; its generator is that of the study seed and the trial number.
        table: what is measured.
        workers: trials that are evaluated at the same time.
        seed: of the study.
        trials: how many trials finish.
    """
    history, best = History(SNAPSHOT), table.best
    ends: list[tuple[float, int, Trial]] = []
    regrets: list[float] = []
    strategies: dict[str, int] = {}
    spent_s, number, now, regret = 0.0, 0, 0.0, np.inf
    while len(regrets) < trials and regret > 0:
        while len(ends) < workers and number < trials:
            started_s = time.perf_counter()
            suggestion = searcher.propose(history, np.random.default_rng([seed, number]))
            spent_s += time.perf_counter() - started_s
            trial = Trial(
                number=number,
                run="run-1",
                generation=1,
                snapshot=SNAPSHOT,
                state=TrialState.CLAIMED,
                strategy=suggestion.strategy,
                candidate=suggestion.candidate,
            )
            history.add(trial)
            heapq.heappush(ends, (now + _duration(seed, number), number, trial))
            number += 1
        now, _, trial = heapq.heappop(ends)
        assert trial.candidate is not None
        score = table.scores[trial.candidate.genotype]
        history.add(_finished(trial, score, len(regrets)))
        strategies[trial.strategy] = strategies.get(trial.strategy, 0) + 1
        regret = min(regret, round(best - score, 6))
        regrets.append(regret)
    regrets += [0.0] * (trials - len(regrets))
    return Search(tuple(regrets), spent_s / number, strategies)


def _finished(trial: Trial, score: float, place: int) -> Trial:
    measurement = Measurement(score=score / 100, loss=-score / 100)
    return replace(
        trial,
        state=TrialState.FINISHED,
        outcome=Outcome.COMPLETED,
        measurement=measurement,
        finished_in=place,
    )


def _duration(seed: int, number: int) -> float:
    rng = np.random.default_rng([seed, number, _DURATION_STREAM])
    return float(rng.uniform(1, 2))
