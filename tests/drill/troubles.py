"""Injections that kill nothing: what is away, full, wrong, late or asleep for a while."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from functools import partial
from pathlib import Path

import psutil

from automl.domain.study import Run
from automl.domain.trial import TrialState
from automl.storage.leases import TTL_S
from tests.drill.deaths import RestartedServer
from tests.drill.injection import Cost, Injection, Lasting
from tests.drill.nightly import FILE_STUDY
from tests.drill.site import Flight, Site, call, skew_file
from tests.faulty_proxy import Request, refusal

_ROOM = 4096  # bytes of a file on a full disk
_SKEW_S = 300.0
_TAKEOVER_S = 30.0  # for another worker to have its turn
_NIGHT_S = 240.0  # until one of the studies has begun its next search
_ENDED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})  # tasks
_PARSED_S = 45.0  # a file that was mended is parsed by then
_SOAK = os.environ.get("AUTOML_SOAK") == "1"


class StoreAway(Lasting):
    """Nobody gets an answer from the object store."""

    name = "S3 away"
    seconds = 600.0 if _SOAK else 20.0
    cost = Cost(within_s=120.0 + seconds)

    def begin(self, site: Site) -> str:
        """Cut the line."""
        site.night.line.switch_off()
        return f"the line, for {self.seconds:.0f} s"

    def end(self, site: Site) -> None:
        """Mend the line."""
        site.night.line.switch_on()

    def after(self, site: Site) -> str:
        """The line is mended."""
        return "answers again"


class FullDisk(Lasting):
    """No process of a worker may write a file larger than some bytes."""

    name = "disk full on a worker"
    seconds = 12.0
    cost = Cost(tries=2)  # Airflow cannot write the tasks' logs; a retry comes ten seconds later

    def begin(self, site: Site) -> str:
        """Limit the worker's files, and those of all that it starts."""
        self._limited: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._limit, args=(site,), daemon=True)
        self._thread.start()
        return f"worker-gpu, for {self.seconds:.0f} s"

    def _limit(self, site: Site) -> None:
        while not self._stop.wait(0.2):
            for process in site.tree("worker-gpu"):
                self._set(process.pid, _ROOM)
                self._limited.add(process.pid)

    @staticmethod
    def _set(pid: int, room: int | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if room is None else room, hard))

    def end(self, site: Site) -> None:
        """Lift the limit of all: they inherit it."""
        self._stop.set()
        self._thread.join()
        for process in site.tree("worker-gpu"):
            self._set(process.pid, None)

    def after(self, site: Site) -> str:
        """Return how many processes met the limit."""
        return f"{len(self._limited)} processes were limited to {_ROOM} bytes a file"


class SkewedClock(RestartedServer):
    """A worker is started with a clock that is five minutes ahead, and works for a while."""

    name = "clock skew of 5 minutes"
    cost = Cost(within_s=300.0)
    component = "worker-gpu"
    _WORKS_S = 30.0

    def inject(self, site: Site) -> str:
        """Let the worker start with the wrong clock."""
        skew_file(site.stack, self.component).write_text(f"{_SKEW_S:+g}")
        self._is_back_since_s: float | None = None
        self._clock_s = 0.0
        return super().inject(site)

    def over(self, site: Site) -> str:
        """Return what a step's clock was, when the worker has its own clock again."""
        back = super().over(site)
        if not back:
            return ""
        if not skew_file(site.stack, self.component).exists():
            return f"worked with a clock {self._clock_s:+.0f} s ahead; {back}"
        self._is_back_since_s = self._is_back_since_s or time.monotonic()
        if time.monotonic() - self._is_back_since_s >= self._WORKS_S:
            self._clock_s = _clock_of(site.tree(self.component)[0])
            self.release(site)
            super().inject(site)
        return ""

    def release(self, site: Site) -> None:
        """Let the next start have the right clock."""
        skew_file(site.stack, self.component).unlink(missing_ok=True)


def _clock_of(process: psutil.Process) -> float:
    """Return by how much a process's clock is ahead, as its environment says."""
    return float(process.environ().get("FAKETIME", "0"))


class Zombie(Injection):
    """A training stands still until its lease is over and another took the trial, then wakes."""

    name = "zombie that wakes"
    cost = Cost(within_s=TTL_S + 180.0)

    def inject(self, site: Site) -> str:
        """Stop one that has a trial."""
        flight = None
        limit_s = time.monotonic() + _NIGHT_S
        while flight is None and time.monotonic() < limit_s:
            process = site.wait_for_step("run_worker")
            assert process is not None, "nothing was trained"
            flight = self._stopped(site, process)
        assert flight is not None, "nothing was trained"
        self._flight, self._since_s = flight, time.monotonic()
        return f"process {self._process.pid}, {flight.study} trial {flight.trial}"

    def _stopped(self, site: Site, process: psutil.Process) -> Flight | None:
        """Stop a process if it has a trial, and return that."""
        before = set(site.flights())
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            for flight in before & set(site.flights()):
                if self._is_of(site, process, flight):
                    self._process = process
                    return flight
            process.resume()
        time.sleep(0.5)
        return None

    @staticmethod
    def _is_of(site: Site, process: psutil.Process, flight: Flight) -> bool:
        """Return whether a process trains a trial that another worker can take over in time."""
        study = site.study(flight.study)
        name, _, worker = study.trials[flight.trial].worker.rpartition("/")
        run = study.run(name)
        if run is None or run.deadline.timestamp() - time.time() < TTL_S + _TAKEOVER_S:
            return False
        try:
            payload = json.loads(Path(f"/proc/{process.pid}/fd/0").read_bytes())
        except (OSError, ValueError):
            return False
        is_its = (payload["run"], payload["worker"]) == (name, int(worker))
        return is_its and _has_others(site, run, int(worker))

    def over(self, site: Site) -> str:
        """Return who took the trial over, when the zombie was awake again."""
        trial = site.study(self._flight.study).trials[self._flight.trial]
        was_taken = trial.attempt > self._flight.attempt
        lost = time.monotonic() - self._since_s > self.cost.within_s - 60
        if not was_taken and trial.state is TrialState.CLAIMED and not lost:
            return ""
        self.release(site)
        held_s = time.monotonic() - self._since_s
        assert was_taken, f"nobody took trial {trial.number} over in {held_s:.0f} s"
        return f"taken over after {held_s:.0f} s as attempt {trial.attempt}"

    def release(self, site: Site) -> None:
        """Wake it."""
        with contextlib.suppress(psutil.NoSuchProcess, AttributeError):
            self._process.resume()


def _has_others(site: Site, run: Run, worker: int) -> bool:
    """Return whether other workers of a search will have further turns."""
    dag = run.origin.dag
    path = f"dags/{dag}/dagRuns/{run.name.removeprefix(f'{dag}.')}/taskInstances"
    tasks = call(site, "GET", path)["task_instances"]
    return any(
        task["task_id"] == "search" and task["map_index"] != worker and task["state"] not in _ENDED
        for task in tasks
    )


class BrokenFile(Lasting):
    """A study file is broken while its run goes on."""

    name = "study file broken"
    seconds = 15.0

    def begin(self, site: Site) -> str:
        """Break it, when no run is about to begin."""
        site.may_trigger.acquire()
        self._before = site.study(FILE_STUDY).version
        self._path = site.night.studies / f"{FILE_STUDY}.yaml"
        self._text = self._path.read_text()
        self._path.write_text(self._text.replace("task:", "tusk: [") + "\n: broken\n")
        return f"{self._path.name}, for {self.seconds:.0f} s"

    def end(self, site: Site) -> None:
        """Mend it, and let Airflow see that before the next run begins."""
        self._path.write_text(self._text)
        release = threading.Timer(_PARSED_S, site.may_trigger.release)
        release.daemon = True
        release.start()

    def after(self, site: Site) -> str:
        """Return by how much its log has grown; the verdict on runs tells whether all went well."""
        grown = site.study(FILE_STUDY).version - self._before
        return f"mended; {grown} events meanwhile" if grown else ""


class ExpiredToken(Lasting):
    """The store says to the requests of one study that their session is over."""

    name = "expired session token"
    seconds = 6.0
    cost = Cost(words="expired")

    def begin(self, site: Site) -> str:
        """Refuse the requests of steps about a study that is searching, from the first one on."""
        flights = site.flights()
        study = self._rng.choice(flights).study if flights else site.names[0]
        self._refused = 0
        site.night.line.plan(
            refusal(400, "ExpiredToken"), times=1_000_000, matches=partial(self._is_it, study)
        )
        return f"{study}, for {self.seconds:.0f} s"

    def _is_it(self, study: str, request: Request) -> bool:
        if self._is_released or f"/{study}/" not in request.path:
            return False
        self._refused += 1
        return True

    def end(self, site: Site) -> None:
        """Nothing is refused any more once it is released."""

    def over(self, site: Site) -> str:
        """It lasts from the first request on."""
        if not self._refused:
            self._until_s = time.monotonic() + self.seconds
        return super().over(site)

    def after(self, site: Site) -> str:
        """Return how many requests were refused."""
        return f"{self._refused} requests refused"


class Starvation(Lasting):
    """The worker of the GPU queue takes nothing for a while; what it runs goes on."""

    name = "queue starved"
    seconds = 20.0

    def begin(self, site: Site) -> str:
        """Halt the worker's master."""
        (self._master, *_) = site.tree("worker-gpu")
        self._master.suspend()
        return f"worker-gpu, for {self.seconds:.0f} s"

    def end(self, site: Site) -> None:
        """Let it go on."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._master.resume()

    def after(self, site: Site) -> str:
        """It takes tasks again, as its answer to a ping shows."""
        return "answers again"
