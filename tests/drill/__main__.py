"""The drill: `python -m tests.drill --seed N --injections 30`.

Prints a table of what was hit and what came of it, writes it to `benchmarks/out`, and fails if
anything was not as it should be. `--only` takes names of injections, or parts of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from automl.domain.study import replay
from automl.domain.trial import TrialState
from tests.drill import nightly, table, verdict
from tests.drill.nightly import STUDIES, Nights, write_file
from tests.drill.schedule import KINDS, Planned, draw
from tests.drill.site import Flight, Site, patiently, put_rows, serving
from tests.drill.strikes import Strike, say, strike
from tests.drill.verdict import Loss

_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "out"
_END_S = 900.0  # for the last nights
_IDLE_S = 180.0  # between two searches; both studies may be there at once


def drill(site: Site, schedule: Sequence[Planned]) -> tuple[list[Strike], list[Nights]]:
    """Make the injections while the studies run; return them when the last nights have ended."""
    for study in STUDIES:
        put_rows(nightly.FIRST_ROWS, site.night.few.with_name(f"{study}.npz"), f"{study}.npz")
    write_file(site)
    over = threading.Event()
    nights = [Nights(site, study, over) for study in STUDIES]
    threads = [threading.Thread(target=each.run, daemon=True) for each in nights]
    for thread in threads:
        thread.start()
    assert site.wait_for_step("run_worker", within_s=180) is not None, "no night has begun"
    strikes = []
    for number, planned in enumerate(schedule, start=1):
        if not any(thread.is_alive() for thread in threads):
            break  # the nights' own trouble, which the verdict tells
        time.sleep(planned.pause_s)
        strikes.append(strike(site, number, planned.kind, planned.seed, _IDLE_S))
    over.set()
    say("the last nights end")
    limit_s = time.monotonic() + _END_S
    for thread, night in zip(threads, nights, strict=True):
        thread.join(max(0.0, limit_s - time.monotonic()))
        if thread.is_alive():
            night.trouble = "the last night does not end"
    return strikes, nights


def judge(site: Site, strikes: Sequence[Strike], nights: Sequence[Nights]) -> list[str]:
    """Print the table, and return all that is wrong."""
    faults = [f"injection {s.number}, {s.name}: {s.fault}" for s in strikes if s.fault]
    lost: list[Loss] = []
    owed, ended = set[Flight](), set[Flight]()
    for each in nights:
        events = patiently(site.night.home.study_log(each.study).read)
        study = replay(events)
        left = verdict.left_behind(events, strikes)
        faults += verdict.faults_of_log(each.study, events, left)
        faults += verdict.faults_of_versions(each.study, site.night.home, study)
        faults += verdict.faults_of_runs(site, each, strikes)
        lost += verdict.losses(each.study, site.night.home.store, events, strikes)
        for trial in study.trials:
            if verdict.is_owed(study, trial) and trial.number not in left:
                owed.add(Flight(each.study, trial.number, 0))
                if trial.state is TrialState.FINISHED:
                    ended.add(Flight(each.study, trial.number, 0))
        found = verdict.counted(events, left)
        say(
            f"{each.study}: {len(each.runs)} nights, {found.expected} observations expected, "
            f"{found.counted} counted, {len(left)} left behind by failed workers, "
            f"{found.late} late ones that do not count"
        )
    for one in lost:
        if one.seconds > verdict.INTERVAL_S:
            where = f"{one.flight.study} trial {one.flight.trial} attempt {one.flight.attempt}"
            faults.append(f"{where} lost {one.seconds:.1f} s of training")
    shown = table.text(table.rows(strikes, owed, ended, lost))
    print(shown, flush=True)  # noqa: T201 - the result
    return faults


def main() -> int:
    """Drill once."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--injections", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of injections")
    given = parser.parse_args()
    kinds = [kind for kind in KINDS if _is_meant(kind.name, given.only)]
    schedule = draw(given.seed, given.injections, kinds)
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="automl-drill-"))
    with serving(folder, {"AUTOML_CACHE": str(folder / "cache")}, nightly.STUDIES) as site:
        say(f"seed {given.seed}, {len(schedule)} injections; all is kept in {folder}")
        strikes, nights = drill(site, schedule)
        faults = judge(site, strikes, nights)
    if not faults:
        shutil.rmtree(folder)
    minutes = (time.monotonic() - began_s) / 60
    for fault in faults:
        say(f"FAULT {fault}")
    say(f"seed {given.seed}: {len(strikes)} injections, {minutes:.1f} min, {len(faults)} faults")
    _OUT.mkdir(parents=True, exist_ok=True)
    document = {"seed": given.seed, "minutes": minutes, "faults": faults}
    document["strikes"] = [asdict(each) for each in strikes]
    (_OUT / f"drill-{given.seed}.json").write_text(json.dumps(document, indent=1))
    return 1 if faults else 0


def _is_meant(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)


if __name__ == "__main__":
    sys.exit(main())
