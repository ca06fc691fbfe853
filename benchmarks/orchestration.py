"""Costs of orchestration: how busy slots are, and what a trial takes besides its training.

`make bench-orchestration` prints a table and writes `benchmarks/out/orchestration.json`. Airflow,
its executor and database, the study log and all steps are real; trainings sleep, as an installed
track of `benchmarks/sleeping` has them do. Scenes that are done are not repeated, unless code has
changed: `benchmarks/out/orchestration.jsonl` has a line of each.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from automl_airflow.local import LocalAirflow
from automl_airflow.pools import NAMES
from automl_airflow.rest import FINAL_STATES
from automl_airflow.supervisor import Component

from automl.domain.events import Event, RunOpened, SearchEnded, TrialClaimed, TrialFinished
from automl.domain.settings import Settings
from automl.steps.specs import Pool
from automl.storage.open import open_home
from benchmarks.json_lines import append_line, read_lines
from benchmarks.servers import PostgresServer
from benchmarks.sleeping import TASK

OUT = Path(__file__).parent / "out" / "orchestration.json"
LINES = OUT.with_suffix(".jsonl")
ROOT = Path(__file__).parents[1]
INSTALLED = ROOT / "benchmarks" / "installed"
SLOTS = 4
_MEDIAN_S, _DEVIATION = 10.0, 1.0  # of log-normal trainings
_ROWS = 2_040  # durations, some of them test rows
_KNOWN_S, _RUN_S, _LOOK_S = 180.0, 7_200.0, 3.0
_STEADY = 0.2  # of the trials of a worker, whose first ones are at a start


@dataclass(frozen=True, slots=True)
class Scene:
    """A study under Airflow.

    Attributes:
        name: of the study.
        limit: of its search.
        trials: most of them; None for as many as there is time for.
        training_s: of each training; None for log-normal ones.
        slice: how long a worker keeps its slot.
        workers: of the study.
    """

    name: str
    limit: str
    trials: int | None
    training_s: float | None
    slice: str = "10m"
    workers: int = SLOTS

    def write(self, folder: Path, sources: Path) -> None:
        """Write the study file and its data."""
        rng = np.random.default_rng(0)
        drawn = _MEDIAN_S * np.exp(_DEVIATION * rng.normal(size=_ROWS))
        seconds = drawn if self.training_s is None else np.full(_ROWS, self.training_s)
        source = sources / f"{self.name}.csv"
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["x", "seconds"])
            writer.writerows(enumerate(seconds))
        study = {
            "name": self.name,
            "task": TASK,
            "schedule": None,
            "data": {"source": str(source)},
            "search": {
                "strategy": "random",
                "time_limit": self.limit,
                "max_trials": self.trials,
                "workers": self.workers,
                "slice": self.slice,
                "resources": {"gpus": 0, "cpus": 1},
            },
        }
        (folder / f"{self.name}.yaml").write_text(yaml.safe_dump(study))


OCCUPANCY = Scene("occupancy", "5m", None, None)
OVERHEAD = [Scene(f"trials-{n}", "1h", n, 1.0, slice="1h") for n in (50, 500, 2000)]


@dataclass(frozen=True, slots=True)
class Turn:
    """A trial of a worker: when it was claimed, when it was over, and how long it slept."""

    claimed_at: datetime
    finished_at: datetime
    slept_s: float


def figures(events: Iterable[tuple[int, Event]], slots: int) -> dict[str, Any]:
    """Return what the log of a study tells of its one search.

    - `busy`: the share of all slots' time, from the run's opening to the search's end, in which a
      training slept; starting the workers counts as idle.
    - `wall_s`: what a trial takes of a slot from the first claim to the last outcome, besides
      its sleep.
    - `between_s`: what passes from a claim to the same worker's next one, besides the sleep; the
      mean, without the worker's first trials.
    """
    opened, ended, turns = _turns(events)
    flat = [turn for each in turns.values() for turn in each]
    slept_s = sum(turn.slept_s for turn in flat)
    span_s = _seconds(max(t.finished_at for t in flat) - min(t.claimed_at for t in flat))
    between = [
        _seconds(second.claimed_at - first.claimed_at) - first.slept_s
        for each in turns.values()
        for first, second in itertools.pairwise(each[int(_STEADY * len(each)) :])
    ]
    first_s = [_seconds(min(t.claimed_at for t in each) - opened) for each in turns.values()]
    return {
        "trials": len(flat),
        "workers": len(turns),
        "search_s": _seconds(ended - opened),
        "first_claims_s": sorted(first_s),
        "busy": slept_s / (slots * _seconds(ended - opened)),
        "wall_s": (slots * span_s - slept_s) / len(flat),
        "between_s": float(np.mean(between)),
        "between_p99_s": float(np.percentile(between, 99)),
    }


def _turns(
    events: Iterable[tuple[int, Event]],
) -> tuple[datetime, datetime, dict[str, list[Turn]]]:
    claims: dict[tuple[int, int], TrialClaimed] = {}
    turns: dict[str, list[Turn]] = defaultdict(list)
    opened = ended = None
    for _, event in events:
        match event:
            case RunOpened():
                opened = event.at
            case SearchEnded():
                ended = event.at
            case TrialClaimed():
                claims[event.n, event.attempt] = event
            case TrialFinished():
                claim = claims[event.n, event.attempt]
                turns[claim.worker].append(Turn(claim.at, event.at, event.measurement.seconds))
    assert opened is not None
    assert ended is not None
    return opened, ended, turns


def _seconds(span: timedelta) -> float:
    return span.total_seconds()


class Bench:
    """Airflow with a pool of a few slots, in which scenes happen one after the other.

    Args:
        folder: for all that it writes.
        postgres: has Airflow's database, and that of the study logs.
        scenes: that may happen.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, scenes: Sequence[Scene]) -> None:
        self._postgres, self._database = postgres, postgres.create_database()
        self._loops = folder / "loops"
        studies, sources = folder / "studies", folder / "sources"
        for each in (studies, sources):
            each.mkdir()
        for scene in scenes:
            scene.write(studies, sources)
        self._settings = Settings(
            str(folder / "home"), study_log=postgres.url(postgres.create_database())
        )
        paths = [str(INSTALLED), str(ROOT), os.environ.get("PYTHONPATH", "")]
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "AUTOML_HOME": self._settings.home,
            "AUTOML_STUDY_LOG": str(self._settings.study_log),
            "AUTOML_STUDIES": str(studies),
            "AUTOML_SOURCES": str(sources),
            "OMP_NUM_THREADS": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(self._database),
        }
        self.airflow = LocalAirflow(
            folder / "airflow",
            ROOT / "dags",
            env,
            parallelism=2 * SLOTS,
            slots=dict.fromkeys((NAMES[Pool.CPU], NAMES[Pool.GPU]), SLOTS),
        )
        self._component = self.airflow.component
        self.airflow.component = self._timed  # type: ignore[method-assign]

    def _timed(self, *command: str) -> Component:
        """Return a component; the scheduler notes how long its loop takes."""
        found = self._component(*command)
        if command != ("scheduler",):
            return found
        module = [sys.executable, "-m", "benchmarks.timed_scheduler", str(self._loops)]
        return replace(found, command=module)

    def happen(self, scene: Scene) -> dict[str, Any]:
        """Run the DAG of a scene's study, and return what it was like.

        Raises:
            AssertionError: the run failed.
        """
        client, dag = self.airflow.client, f"automl_{scene.name}"
        client.wait_for_dag(dag, _KNOWN_S)
        self._loops.unlink(missing_ok=True)
        load = os.getloadavg()[0]
        run = client.trigger(dag)
        state = self._end_of(dag, run)
        assert state == "success", f"{dag} ended as {state}: {client.tasks(dag, run)}"
        loops_ms = [1000 * float(line) for line in self._loops.read_text().split()]
        events = open_home(self._settings).study_log(scene.name).read()
        return {
            **figures(events, SLOTS),
            "loop_p50_ms": float(np.percentile(loops_ms, 50)),
            "loop_p99_ms": float(np.percentile(loops_ms, 99)),
            "xcoms": self._xcoms(dag),
            "load_before": load,
        }

    def _end_of(self, dag: str, run: str) -> str:
        """Return the state of a run once it has ended; a server that is busy is asked again."""
        limit_s, state = time.monotonic() + _RUN_S, ""
        while state not in FINAL_STATES and time.monotonic() < limit_s:
            time.sleep(_LOOK_S)
            with suppress(TimeoutError):
                state = self.airflow.client.run_state(dag, run)
        return state

    def _xcoms(self, dag: str) -> dict[str, int]:
        """Return the largest size in bytes of the XComs of each task and key of a DAG."""
        rows = self._postgres.execute(
            "SELECT dag_id, task_id, key, max(octet_length(value::text)) FROM xcom "
            "GROUP BY dag_id, task_id, key",
            self._database,
        )
        return {f"{task}.{key}": size for of, task, key, size in rows if of == dag}


@contextmanager
def bench(scenes: Sequence[Scene]) -> Iterator[Bench]:
    """Yield a bench that serves, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="automl-bench-") as name, PostgresServer() as postgres:
        found = Bench(Path(name), postgres, scenes)
        with found.airflow:
            yield found


def code_hash() -> str:
    """Return a hash of the code that the figures depend on."""
    digest = hashlib.sha256()
    for folder in ("automl", "plugins", "dags", "benchmarks/sleeping"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    for name, row in rows.items():
        print(
            f"{name:14} {row['trials']:5} trials in {row['search_s']:6.1f} s: slots busy "
            f"{100 * row['busy']:5.1f} %, overhead {row['wall_s']:6.3f} s a trial, "
            f"{row['between_s']:6.3f} s between two (p99 {row['between_p99_s']:6.3f}), scheduler "
            f"loop {row['loop_p50_ms']:4.0f}, {row['loop_p99_ms']:5.0f} ms, largest XCom "
            f"{max(row['xcoms'].values())} bytes, load {row['load_before']:.1f}",
            flush=True,
        )
    few, many = (rows.get(f"trials-{n}") for n in (50, 2000))
    if few is not None and many is not None:
        for name, key in (("overhead", "wall_s"), ("between two", "between_s")):
            print(f"{name} at 2,000 trials, by that at 50: {many[key] / few[key]:.2f}")


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    scenes = {scene.name: scene for scene in (OCCUPANCY, *OVERHEAD)}
    parser.add_argument("--scenes", nargs="+", default=list(scenes), choices=scenes)
    parser.add_argument("--again", action="store_true", help="repeat what has been measured")
    parser.add_argument("--limit", help="another time limit of `occupancy`, to try things out")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and end what was started
    if options.limit:
        scenes["occupancy"] = replace(OCCUPANCY, limit=options.limit)
    code = code_hash()
    wanted = [scenes[name] for name in options.scenes]
    done = {
        line["scene"]: line["figures"]
        for line in ([] if options.again else read_lines(LINES))
        if line["code"] == code and line["limit"] == scenes[line["scene"]].limit
    }
    left = [scene for scene in wanted if scene.name not in done]
    if left:
        with bench(left) as found:
            for scene in left:
                done[scene.name] = found.happen(scene)
                line = {"scene": scene.name, "code": code, "limit": scene.limit}
                at = datetime.now(UTC).isoformat()
                append_line(LINES, {**line, "at": at, "figures": done[scene.name]})
                _show({scene.name: done[scene.name]})
    rows = {name: done[name] for name in options.scenes}
    print()
    _show(rows)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"code": code, "rows": rows}, indent=1) + "\n")
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
