"""Judging early, on simulated workers: what it saves and what it loses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from automl.search.pruning import JudgedPoint
from automl.tracks.image.spending import FULL_BUDGET
from benchmarks.curves import CURVES, Recorded, read_curves
from benchmarks.pruning import WORKERS, orders, rank_correlations, replays, simulate

RECORDED = ("cifar10_small", "digits", "fashion_mnist_small")  # one that vanishes is missed
MOST_COST, MOST_REGRET = 0.5, 1.0
GENES = {"weight_decay": 5e-4, "augmentation": 0.5, "dropout": 0.0}


def test_the_recorded_curves_are_all_there() -> None:
    assert {path.stem for path in CURVES.glob("*.jsonl")} == {*RECORDED}


@pytest.mark.parametrize("workers", WORKERS)
def test_judging_recorded_candidates_early_saves_work_and_loses_little(workers: int) -> None:
    for dataset in RECORDED:
        row = replays(dataset, read_curves(CURVES / f"{dataset}.jsonl"), workers, 20)
        assert row.cost <= MOST_COST, row
        assert row.regret <= MOST_REGRET, row


def made_up(seed: int, count: int = 24, *, children: int = 8) -> list[Recorded]:
    """Return candidates whose curves fall as power laws, noisily, to ends that differ."""
    rng, found = np.random.default_rng(seed), list[Recorded]()
    for place in range(count):
        is_child = place >= count - children
        parent = int(rng.integers(place)) if is_child else None
        planned = 11 if is_child else 30
        end, noise = 0.3 * math.exp(rng.normal(0, 0.5)), rng.normal(0, 0.02, planned)
        losses = [
            end * ((epoch + 1) / planned) ** -0.4 * (1 + noise[epoch]) for epoch in range(planned)
        ]
        curve = tuple(
            JudgedPoint(-math.exp(-loss), loss, (epoch + 1) / planned)
            for epoch, loss in enumerate(losses)
        )
        found.append(Recorded(parent, GENES, int(rng.integers(10**6, 10**7)), 450, curve))
    return found


@pytest.mark.parametrize("workers", WORKERS)
def test_judging_made_up_candidates_early_saves_work_and_loses_little(workers: int) -> None:
    rows = [replays("made up", made_up(seed), workers, 10) for seed in range(5)]

    assert np.mean([row.cost for row in rows]) <= MOST_COST
    assert np.mean([row.regret for row in rows]) <= MOST_REGRET
    assert min(row.stopped for row in rows) > 4


def test_the_best_of_all_is_found_where_ranks_hold() -> None:
    recorded = made_up(1, children=0)
    order = next(orders(recorded, 1))

    assert simulate(recorded, order, 1).regret == 0
    assert rank_correlations(recorded)["fresh 10 of 30"][1] > 0.9


def test_who_is_trained_to_the_end_costs_what_was_planned() -> None:
    falling = tuple(
        JudgedPoint(-0.5 - 0.01 * epoch, 1 - 0.01 * epoch, (epoch + 1) / 30) for epoch in range(30)
    )
    equal = [Recorded(None, GENES, 10**6, 450, falling)] * 6

    whole = simulate(equal, range(6), 6)

    assert (whole.cost, whole.of_planned, whole.regret, whole.stopped) == (1.0, 1.0, 0.0, 0)


def test_who_has_learned_all_it_can_ends() -> None:
    flat = tuple(JudgedPoint(-0.5, 1.0, (epoch + 1) / 30) for epoch in range(30))

    ended = simulate([Recorded(None, GENES, 10**6, 450, flat)], [0], 1)

    assert (ended.cost, ended.stopped) == ((1 + FULL_BUDGET.patience) / 30, 0)


def test_orders_have_parents_before_their_children() -> None:
    recorded = made_up(3)
    found = list(orders(recorded, 20))

    assert len({tuple(order) for order in found}) == 20
    for order in found:
        assert sorted(order) == list(range(24))
        assert all(
            one.parent is None or order.index(one.parent) < order.index(place)
            for place, one in enumerate(recorded)
        )


def test_a_recorded_candidate_survives_its_stored_form(tmp_path: Path) -> None:
    one = made_up(4)[-1]

    stored = Recorded.from_json(one.to_json())

    assert stored.parent == one.parent
    losses = [point.log_loss for point in one.curve]
    assert [point.log_loss for point in stored.curve] == pytest.approx(losses, abs=1e-6)
    assert stored.best(1) == stored.curve[0] != stored.best(one.planned)
    assert read_curves(tmp_path / "none.jsonl") == []
