from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from automl.domain.trial import TrialState
from automl.search.history import History
from automl.search.searcher import Searcher, Suggestion
from automl.search.searchers.evolution import RegularizedEvolution
from automl.search.searchers.random import RandomSearcher
from benchmarks import search
from benchmarks.baselines import LocalSearch, PlainGaussianProcess, TreeParzen
from benchmarks.nasbench201 import OPERATIONS, NasBench201Space, Table, read_table, to_cell
from benchmarks.search_report import Row, check, compare, group, holm, report
from benchmarks.simulation import simulate
from tests.unit.test_nasbench201 import write_table

REPOSITORY = Path(__file__).parents[2]
VALUES = {"none": 0.0, "skip_connect": 4.0, "nor_conv_1x1": 9.0, "nor_conv_3x3": 12.5}


def score(cell: Sequence[str]) -> float:
    """Return a score with one peak: the more and the later the convolutions, the better."""
    return sum(VALUES.get(operation, 3.0) + 0.1 * edge for edge, operation in enumerate(cell))


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(to_cell(cell), score(cell)) for cell in product(OPERATIONS, repeat=6)]
    return write_table(tmp_path_factory.mktemp("table") / "scores.csv.gz", rows)


@pytest.fixture(scope="module")
def table(table_path: Path) -> Table:
    return read_table(table_path)


class Onlooker:
    """Random search that notes what is pending when it is asked."""

    def __init__(self) -> None:
        self._random = RandomSearcher(NasBench201Space())
        self.pending: list[list[int]] = []
        self.finished: list[list[int]] = []

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        assert all(one.state is not TrialState.FINISHED for one in history.pending.values())
        self.pending.append(list(history.pending))
        self.finished.append([one.number for one in history.finished])
        return self._random.propose(history, rng)


def test_one_worker_proposes_with_nothing_pending(table: Table) -> None:
    onlooker = Onlooker()
    simulate(onlooker, table, workers=1, seed=0, trials=5)

    assert onlooker.pending == [[]] * 5
    assert onlooker.finished == [[*range(n)] for n in range(5)]


def test_four_workers_propose_while_three_trials_are_pending(table: Table) -> None:
    onlooker = Onlooker()
    found = simulate(onlooker, table, workers=4, seed=0, trials=30)

    assert [len(pending) for pending in onlooker.pending] == [0, 1, 2, *[3] * 27]
    assert len(found.regrets) == 30
    last = onlooker.finished[-1]
    assert last != sorted(last)  # some trials overtake others
    assert all(abs(place - number) <= 6 for place, number in enumerate(last))  # none takes for ever


def test_regret_falls_to_zero_and_stays_there(table: Table) -> None:
    space = NasBench201Space()
    searcher = LocalSearch(space)
    found = simulate(searcher, table, workers=1, seed=1, trials=150)

    assert list(found.regrets) == sorted(found.regrets, reverse=True)
    assert found.regrets[0] > 0
    assert found.regrets[-1] == 0
    computed = sum(found.strategies.values())
    assert found.regrets[computed - 1] == 0 < found.regrets[computed - 2]


@pytest.mark.parametrize("make", [LocalSearch, TreeParzen, PlainGaussianProcess])
@pytest.mark.parametrize("workers", [1, 4])
def test_baselines_repeat_nothing_and_depend_on_their_arguments_alone(
    make: type[LocalSearch] | type[TreeParzen] | type[PlainGaussianProcess],
    workers: int,
    table: Table,
) -> None:
    class Fresh:
        """A new searcher for every proposal."""

        def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
            suggestion = make(NasBench201Space()).propose(history, rng)
            assert suggestion.candidate.identity not in history.identities
            return suggestion

    kept = simulate(make(NasBench201Space()), table, workers, seed=3, trials=25)

    assert kept.regrets == simulate(Fresh(), table, workers, seed=3, trials=25).regrets
    assert {*kept.strategies} - {"random"}


@pytest.mark.parametrize("make", [RegularizedEvolution, LocalSearch, PlainGaussianProcess])
def test_searchers_that_learn_beat_random_search_on_one_peak(
    make: type[RegularizedEvolution], table: Table
) -> None:
    def regret(searcher: Searcher) -> float:
        runs = [simulate(searcher, table, 1, seed, trials=60).regrets[-1] for seed in range(3)]
        return float(np.mean(runs))

    space = NasBench201Space()
    assert regret(make(space)) < 0.7 * regret(RandomSearcher(space))


def curves(out: Path) -> dict[int, list[float]]:
    lines = (out / "search.jsonl").read_text().splitlines()
    return {row["job"]["seed"]: row["regrets"] for row in map(json.loads, lines)}


def arguments(out: Path, table: Path, seeds: str, *more: str) -> list[str]:
    return [
        *("--searchers", "random", "--workers", "1", "--seeds", seeds, "--trials", "20"),
        *("--processes", "1", "--table", str(table), "--out", str(out), *more),
    ]


def test_the_same_seeds_give_the_same_curves(tmp_path: Path, table_path: Path) -> None:
    for name in ("first", "second"):
        search.main(arguments(tmp_path / name, table_path, "7-8"))

    assert curves(tmp_path / "first") == curves(tmp_path / "second")
    assert [len(curve) for curve in curves(tmp_path / "first").values()] == [20, 20]
    summary = json.loads((tmp_path / "first" / "search.json").read_text())["summary"]
    assert summary[0]["seeds"] == 2


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, table_path: Path, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "search.jsonl"
    command = [sys.executable, "-m", "benchmarks.search"]
    process = subprocess.Popen(
        [*command, *arguments(tmp_path, table_path, "0-9999")],
        cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + 60
        while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    complete = log.read_bytes()[: log.read_bytes().rfind(b"\n") + 1]
    log.write_bytes(complete + b'{"job": {"searcher": "ran')
    seeds = sorted(curves_of(complete))

    search.main(arguments(tmp_path, table_path, f"0-{seeds[-1] + 2}"))

    assert log.read_bytes().startswith(complete)
    expected = {
        seed: list(simulate(RandomSearcher(NasBench201Space()), table, 1, seed, 20).regrets)
        for seed in range(seeds[-1] + 3)
    }
    assert curves(tmp_path) == expected
    missing = len(expected) - len(seeds)
    assert f"{len(expected)} searches, {missing} to compute" in capsys.readouterr().err


def curves_of(lines: bytes) -> set[int]:
    return {json.loads(line)["job"]["seed"] for line in lines.splitlines()}


def test_versions_follow_the_code_that_is_imported_and_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: Table
) -> None:
    for folder in ("automl/search", "benchmarks"):
        shutil.copytree(
            REPOSITORY / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("out", "__pycache__"),
        )
    monkeypatch.setattr(search, "ROOT", tmp_path)
    names = ("random", "evolution", "local")

    def versions() -> list[str]:
        return [search.code_version(name, table) for name in names]

    def edit(name: str, text: str) -> list[bool]:
        before, path = versions(), tmp_path / name
        path.write_text(path.read_text() + text)
        return [a != b for a, b in zip(before, versions(), strict=True)]

    assert edit("automl/search/searchers/evolution.py", "\nCONSTANT = 1\n") == [False, True, False]
    assert edit("automl/search/searchers/random.py", "\nCONSTANT = 1\n") == [True, True, True]
    assert edit("benchmarks/simulation.py", "\nCONSTANT = 1\n") == [True, True, True]
    assert edit("benchmarks/simulation.py", "\n# a comment\n") == [False, False, False]
    assert edit("benchmarks/search_report.py", "\nCONSTANT = 1\n") == [False, False, False]
    other = Table("another", table.scores)
    assert search.code_version("random", table) != search.code_version("random", other)


def rows(searcher: str, curves: Sequence[Sequence[float]], workers: int = 1) -> list[Row]:
    return [Row(searcher, workers, n, curve, 0.01, {}) for n, curve in enumerate(curves)]


def test_the_report_sums_up_curves() -> None:
    falling = [[1.0] * 24 + [0.5] * 25 + [0.2] * 50 + [0.1] * 50 + [0.0]] * 3
    flat = [[2.0] * 150]
    text, document = report(rows("random", [*falling, *flat]))
    line = document["summary"][0]

    assert [line[f"median_{n}"] for n in (25, 50, 100, 150)] == [0.5, 0.2, 0.1, 0.0]
    assert line["mean_100"] == pytest.approx((3 * 0.1 + 2.0) / 4)
    assert line["optimum_150"] == 0.75
    assert line["area"] == pytest.approx((3 * (24 + 12.5 + 10 + 5) + 300) / 4)
    assert "75%" in text


def test_short_searches_have_no_figures_beyond_their_end() -> None:
    line = report(rows("random", [[0.0] * 60]))[1]["summary"][0]

    assert line["median_50"] == 0
    assert np.isnan([line["median_100"], line["mean_100"], line["optimum_150"]]).all()


def test_p_values_are_corrected_as_holm_says() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_paired_test_sees_a_small_gain_on_every_seed() -> None:
    spread = [float(10 * seed) for seed in range(20)]
    groups = group(
        rows("bayesian", [[level - 0.1 - 0.01 * n] for n, level in enumerate(spread)])
        + rows("local", [[level] for level in spread])
        + rows("random", [[level - 1] for level in spread])
    )
    worse, better = compare(groups, workers=1)

    assert worse["other"] == "local"
    assert worse["p_uncorrected"] == pytest.approx(2**-20)
    assert worse["p"] == pytest.approx(2 * 2**-20)
    assert better["p"] > 0.99
    assert compare(groups, workers=4) == []


def test_thresholds_pass_and_fail_one_by_one() -> None:
    good, slow = [1.0] * 40 + [0.0] * 110, [1.0] * 60 + [0.0] * 90
    groups = group(rows("bayesian", [good] * 9 + [slow]) + rows("bayesian", [slow] * 3, workers=4))

    passed = {one["what"]: one["passed"] for one in check(groups)}

    assert passed == {
        "mean regret @100": True,
        "share without the optimum @150": True,
        "median regret @50": True,
        "4 workers: mean regret @100 above one worker's": True,
        "4 workers: median regret @50": False,
    }
