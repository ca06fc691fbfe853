"""How quickly searchers find the best cell of NAS-Bench-201: `make bench-search`.

Every search of a row is a simulated study on a table of all cells (`benchmarks.simulation`). It
prints a table, paired tests and thresholds, and writes them to `benchmarks/out/search.json`. What
has been computed is kept as one JSON line per search in `benchmarks/out/search.jsonl`, and is
computed again only when the code behind it has changed. Compare searchers on seeds that nothing was
tuned on.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from automl.search.searcher import Searcher
from benchmarks.json_lines import append_line, read_lines
from benchmarks.nasbench201 import TABLE, NasBench201Space, Table, read_table
from benchmarks.search_report import Row, report
from benchmarks.simulation import simulate

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out"
SEARCHERS = {
    "random": "automl.search.searchers.random:RandomSearcher",
    "evolution": "automl.search.searchers.evolution:RegularizedEvolution",
    "local": "benchmarks.baselines:LocalSearch",
    "tpe": "benchmarks.baselines:TreeParzen",
    "gp": "benchmarks.baselines:PlainGaussianProcess",
    "bayesian": "automl.search.searchers.bayesian:BayesianSearcher",
}
_OUR_CODE = ("automl.search", "benchmarks")
_LIBRARIES = ("numpy", "optuna", "scipy")


@dataclass(frozen=True, slots=True)
class Job:
    """One search to be simulated.

    Attributes:
        searcher: name of the row.
        workers: trials that are evaluated at the same time.
        seed: of the study.
        trials: how many trials finish.
        version: hash of the code, the libraries and the table that the result depends on.
    """

    searcher: str
    workers: int
    seed: int
    trials: int
    version: str


def run_missing(jobs: Sequence[Job], table: Path, log: Path, processes: int) -> list[Row]:
    """Return the results of all jobs, in order; those that the log lacks are computed and added.

    Args:
        jobs: searches.
        table: the file of scores.
        log: JSON lines of finished searches; may not exist yet.
        processes: how many compute, one thread each.
    """
    found = {Job(**row.pop("job")): row for row in read_lines(log)}
    missing = [job for job in jobs if job not in found]
    print(f"{len(jobs)} searches, {len(missing)} to compute", file=sys.stderr, flush=True)
    for count, (job, result) in enumerate(_computed(missing, table, processes), start=1):
        append_line(log, {"job": asdict(job), **result})
        found[job] = result
        if count % 20 == 0 or count == len(missing):
            print(f"{count}/{len(missing)} {job.searcher}", file=sys.stderr, flush=True)
    return [Row(job.searcher, job.workers, job.seed, **found[job]) for job in jobs]


def _computed(
    jobs: Sequence[Job], table: Path, processes: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Compute in other processes, if they are many, and yield what is finished as it comes."""
    if processes == 1:
        yield from ((job, _compute(job, table)) for job in jobs)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they start
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(_compute, job, table): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compute(job: Job, table: Path) -> dict[str, Any]:
    searcher = make_searcher(job.searcher)
    return asdict(simulate(searcher, _table(table), job.workers, job.seed, job.trials))


def make_searcher(name: str) -> Searcher:
    """Return the searcher of a row, for the space of all cells."""
    module, _, symbol = SEARCHERS[name].partition(":")
    searcher: Searcher = getattr(import_module(module), symbol)(NasBench201Space())
    return searcher


@cache  # once per process
def _table(path: Path) -> Table:
    return read_table(path)


def code_version(searcher: str, table: Table) -> str:
    """Return a hash of what a search's result depends on.

    That is the code of the searcher and of the simulation, with all modules of the search and the
    benchmarks that they import, the libraries, and the table. Comments and docstrings do not
    count.
    """
    module, _, _ = SEARCHERS[searcher].partition(":")
    trees = _imported([module, "benchmarks.simulation"])
    parts = [table.name, *(f"{name} {version(name)}" for name in _LIBRARIES)]
    parts += [ast.dump(_without_docstrings(trees[name])) for name in sorted(trees)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _imported(names: Sequence[str]) -> dict[str, ast.Module]:
    """Return the modules, and all of ours that they import, directly or not."""
    found: dict[str, ast.Module] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name in found or not name.startswith(_OUR_CODE) or not path.exists():
            continue
        found[name] = ast.parse(path.read_text())
        for node in ast.walk(found[name]):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return found


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main(arguments: Sequence[str]) -> None:
    """Compute what is missing, print the report and write it to `search.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searchers", nargs="+", choices=SEARCHERS, default=list(SEARCHERS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", type=_seeds, default=_seeds("1000-1099"), help="first-last")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    searchers = [name for name in options.searchers if _exists(name)]
    for name in sorted({*options.searchers} - {*searchers}):
        print(f"{name}: left out, {SEARCHERS[name]} is not there", file=sys.stderr)
    table = read_table(options.table)
    jobs = [
        Job(name, workers, seed, options.trials, code)
        for name, code in ((name, code_version(name, table)) for name in searchers)
        for workers in options.workers
        for seed in options.seeds
    ]
    rows = run_missing(jobs, options.table, options.out / "search.jsonl", options.processes)
    text, document = report(rows)
    document |= {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _LIBRARIES},
        "table": table.name,
        "searchers": {name: code_version(name, table) for name in searchers},
        "seeds": [options.seeds[0], options.seeds[-1]],
        "trials": options.trials,
    }
    (options.out / "search.json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)
    print(f"wrote {options.out / 'search.json'}")


def _exists(searcher: str) -> bool:
    return find_spec(SEARCHERS[searcher].partition(":")[0]) is not None


if __name__ == "__main__":
    main(sys.argv[1:])
