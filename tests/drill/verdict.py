"""Verdict on a drill: computed from the studies' logs, their store, and what Airflow tells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.domain.events import Event, RunState, TrialClaimed, TrialFinished, TrialReleased
from automl.domain.invariants import violations
from automl.domain.layout import StudyKeys, checkpoint_epoch
from automl.domain.study import Study, replay
from automl.domain.training import CurvePoint
from automl.domain.trial import Outcome, Trial, TrialState
from automl.publishing.registry import Registry
from automl.publishing.verify import verify_files
from automl.runs.choice import LEFT_BEHIND
from automl.runs.curves import curve_from_bytes
from automl.storage.home import Home
from automl.storage.objects import ObjectStore
from tests.drill.nightly import Nights, Span
from tests.drill.site import Flight, Site, call, patiently
from tests.drill.strikes import Strike

INTERVAL_S = 10.0  # twenty times what a checkpoint of these small networks takes to be stored
_CLOSED = {RunState.SUCCEEDED, RunState.FAILED, RunState.ABANDONED}
_BROKEN_OFF = {RunState.FAILED, RunState.ABANDONED}

Events = Sequence[tuple[int, Event]]


@dataclass(frozen=True, slots=True)
class Loss:
    """Training that an attempt had done and the next one did again.

    Attributes:
        flight: the attempt that ended.
        at_s: when it was hit, else when the next one began, in seconds of the epoch.
        seconds: of training.
    """

    flight: Flight
    at_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """Observations of a study.

    Attributes:
        expected: trials that were begun in runs that were not broken off.
        counted: those of them that have their outcome.
        late: results of attempts that no longer counted.
    """

    expected: int
    counted: int
    late: int


def left_behind(events: Events, strikes: Sequence[Strike]) -> frozenset[int]:
    """Return the trials that their search has left behind, where an injection may cost workers."""
    study, found = replay(events), set()
    for event in (event for _, event in events if isinstance(event, TrialReleased)):
        run = study.run(study.trials[event.n].claimed_in or "")
        if event.reason == LEFT_BEHIND and run is not None:
            span_s = run.opened_at.timestamp(), event.at.timestamp()
            if any(s.cost.words and span_s[0] <= s.hit_s <= span_s[1] for s in strikes):
                found.add(event.n)
    return frozenset(found)


def counted(events: Events, left: frozenset[int] = frozenset()) -> Counted:
    """Return how many observations a log should hold, and holds.

    Args:
        events: of the log.
        left: trials that need no outcome.
    """
    study = replay(events)
    owed = [trial for trial in study.trials if is_owed(study, trial) and trial.number not in left]
    ends = [version for version, event in events if isinstance(event, TrialFinished)]
    valid = {trial.finished_in for trial in study.trials}
    return Counted(
        len(owed),
        sum(trial.state is TrialState.FINISHED for trial in owed),
        sum(version not in valid for version in ends),
    )


def is_owed(study: Study, trial: Trial) -> bool:
    """Return whether a trial must have its outcome: it was begun, and its run not broken off."""
    run = None if trial.claimed_in is None else study.run(trial.claimed_in)
    return run is not None and (run.state not in _BROKEN_OFF or trial.outcome is not None)


def faults_of_log(name: str, events: Events, left: frozenset[int] = frozenset()) -> Iterator[str]:
    """Yield what is wrong with the log of a study whose runs are all over.

    Args:
        name: of the study.
        events: of the log.
        left: trials that need no outcome.
    """
    study = replay(events)
    yield from (f"{name}: {words}" for words in violations(events))
    for run in study.runs:
        if run.state not in _CLOSED:
            yield f"{name}: run {run.name} is {run.state}"
        if run.state in _BROKEN_OFF and not run.cause:
            yield f"{name}: run {run.name} is {run.state} without a cause"
    attempts = Counter((e.n, e.attempt) for _, e in events if isinstance(e, TrialFinished))
    twice = sorted({n for (n, _), ends in attempts.items() if ends > 1})
    if twice:
        yield f"{name}: trials {twice} were observed twice"
    for trial in study.trials:
        is_unfinished = trial.state is not TrialState.FINISHED and trial.number not in left
        if is_owed(study, trial) and is_unfinished:
            yield f"{name}: trial {trial.number} has no outcome"
        if trial.outcome is Outcome.FAILED:
            yield f"{name}: trial {trial.number} failed: {trial.cause}"
        if trial.outcome not in {None, Outcome.COMPLETED} and not trial.cause:
            yield f"{name}: trial {trial.number} is {trial.outcome} without a cause"


def faults_of_versions(name: str, home: Home, study: Study) -> Iterator[str]:
    """Yield what is wrong with a study's published versions."""
    registry = Registry(home.store, name)
    versions = registry.versions()
    for version in versions:
        if not verify_files(registry, version)["ok"]:
            yield f"{name}: version {version} does not verify"
    for run in study.runs:
        if run.state is RunState.SUCCEEDED and run.version not in versions:
            yield f"{name}: run {run.name} has no version"
    champion = registry.champion()
    if champion is None or champion.version not in versions:
        yield f"{name}: the champion is {champion}"


def losses(
    name: str, store: ObjectStore, events: Iterable[tuple[int, Event]], strikes: Sequence[Strike]
) -> list[Loss]:
    """Return what each attempt did again of what the one before it had done.

    That is what its learning curve tells beyond the checkpoint that counts, and the time from the
    curve's last point until the next injection, if the attempt was not over before that.
    """
    found, begun_s = [], dict[Flight, float]()
    for event in (event for _, event in events if isinstance(event, TrialClaimed)):
        at_s = event.at.timestamp()
        begun_s[Flight(name, event.n, event.attempt)] = at_s
        if event.attempt > 1:
            flight = Flight(name, event.n, event.attempt - 1)
            curve, written_s = _curve(store, flight, begun_s[flight])
            kept = 0 if event.checkpoint is None else checkpoint_epoch(event.checkpoint)
            during = (s.hit_s for s in strikes if flight in s.flights)
            hits = [hit_s for hit_s in during if written_s <= hit_s <= at_s]
            since_s = min(hits, default=written_s) - written_s
            seconds = _seconds_after(curve, kept) + since_s
            found.append(Loss(flight, min(hits, default=at_s), seconds))
    return found


def _curve(store: ObjectStore, flight: Flight, begun_s: float) -> tuple[list[CurvePoint], float]:
    """Return an attempt's curve, and when its last point was written; else when it began."""
    key = StudyKeys(flight.study).trial(flight.trial, flight.attempt).curve
    for entry in store.list(key):
        return curve_from_bytes(store.get(key).data, key), entry.modified.timestamp()
    return [], begun_s


def _seconds_after(curve: Sequence[CurvePoint], epochs: int) -> float:
    """Return how long a training went on after so many epochs."""
    if not curve:
        return 0.0
    kept = [point.seconds for point in curve if point.epoch < epochs]
    return curve[-1].seconds - (kept[-1] if kept else 0.0)


def faults_of_runs(site: Site, nights: Nights, strikes: Sequence[Strike]) -> Iterator[str]:
    """Yield runs that failed and retries that were used, where no injection may cost that."""
    if nights.trouble:
        yield f"{nights.study}: no further night after {nights.trouble}"
    for span in nights.runs:
        during = [s for s in strikes if _overlap(s, span)]
        tasks = patiently(span.run.tasks)
        words = {strike.cost.words for strike in during} - {""}
        if span.state != "success" and not _is_named(site, span, tasks, words):
            yield f"{span.run.dag_id} {span.run.run_id} is {span.state}: {_told(tasks)}"
        allowed = sum(strike.cost.tries for strike in during)
        for task in tasks:
            extra = max(0, (task["try_number"] or 0) - 1)
            what = f"{span.run.dag_id} {span.run.run_id} {task['task_id']}[{task['map_index']}]"
            if extra > allowed:
                yield f"{what} used {extra} retries, of {allowed} that injections may cost"
            for number in range(1, extra + 1):
                if not reasons(site, span, task, number):
                    yield f"{what} failed at try {number} without a word"


def _overlap(strike: Strike, span: Span) -> bool:
    late_s = 120.0  # Airflow notices a lost task a minute later
    return strike.at_s <= span.end_s and strike.at_s + strike.seconds + late_s >= span.start_s


def _is_named(
    site: Site, span: Span, tasks: Sequence[dict[str, Any]], words: Iterable[str]
) -> bool:
    """Return whether a task of a failed run says one of the words that an injection explains."""
    failed = [task for task in tasks if task["state"] == "failed"]
    told = " ".join(
        text for task in failed for text in reasons(site, span, task, task["try_number"] or 1)
    )
    return any(word in told for word in words)


def reasons(site: Site, span: Span, task: dict[str, Any], number: int) -> list[str]:
    """Return what a task's log, or Airflow's record of events, says of the end of a try."""
    home = site.night.airflow.home_dir / "logs"
    folder = home / f"dag_id={span.run.dag_id}" / f"run_id={span.run.run_id}"
    folder /= f"task_id={task['task_id']}"
    found = [
        line
        for path in sorted(folder.rglob(f"attempt={number}.log*"))
        if task["map_index"] < 0 or f"map_index={task['map_index']}" in path.parts
        for line in _loud_lines(path)
    ]
    query = f"dag_id={span.run.dag_id}&run_id={span.run.run_id}&task_id={task['task_id']}&limit=200"
    entries = call(site, "GET", f"eventLogs?{query}")["event_logs"]
    loud = ("heartbeat timeout", "state mismatch", "stuck in queued", "failed")
    found += [f"{e['event']}: {e['extra']}" for e in entries if e["event"] in loud]
    return found


def _loud_lines(path: Path) -> Iterator[str]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("level") in {"warning", "error", "critical"}:
            details = [each.get("exc_value", "") for each in entry.get("error_detail", ())]
            yield " ".join([str(entry.get("event", "")), *map(str, details)])


def _told(tasks: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{t['task_id']}[{t['map_index']}] {t['state']}" for t in tasks)
