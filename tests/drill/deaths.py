"""Injections that end processes: by force, as a restart does, or as an eviction does."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import ClassVar

import psutil

from tests.drill.injection import Cost, Injection, Restart
from tests.drill.site import WORKERS, Site

_GRACE_S = 30.0  # of an eviction, as Kubernetes has it


class KilledTraining(Injection):
    """The process of a training dies: its trial is given back at once, and resumed."""

    name = "training process killed"

    def inject(self, site: Site) -> str:
        """Kill one that has a trial."""
        process = site.wait_for_step("run_worker")
        assert process is not None, "nothing was trained"
        limit_s = time.monotonic() + 30
        while not site.flights() and time.monotonic() < limit_s:
            time.sleep(0.5)
        process = self._rng.choice(site.steps("run_worker") or [process])
        self._before = {name: site.study(name).version for name in site.names}
        self._pid = process.pid
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        return f"process {self._pid}"

    def over(self, site: Site) -> str:
        """Return what the log has got since."""
        if psutil.pid_exists(self._pid):
            return ""
        news = [n for n, version in self._before.items() if site.study(n).version > version]
        return f"{', '.join(news)} went on" if news else ""


class KilledComponent(Restart):
    """A component is killed by SIGKILL, and only its own process."""

    def inject(self, site: Site) -> str:
        """Kill it."""
        self.note(site)
        process = psutil.Process(site.report(self.component).pid)
        process.kill()
        return f"{self.component}, process {process.pid}"


class KilledScheduler(KilledComponent):
    """Airflow's scheduler dies."""

    name, component = "scheduler killed", "scheduler"


class KilledDagProcessor(KilledComponent):
    """Airflow's DAG processor dies."""

    name, component = "DAG processor killed", "dag-processor"


class KilledApiServer(KilledComponent):
    """Airflow's API server dies: tasks cannot say how they fare."""

    name, component = "API server killed", "api-server"


class KilledTriggerer(KilledComponent):
    """Airflow's triggerer dies."""

    name, component = "triggerer killed", "triggerer"


class KilledDaskWorker(KilledComponent):
    """A worker of Dask dies, while something is prepared if that happens soon."""

    name = "Dask worker killed"

    def inject(self, site: Site) -> str:
        """Kill one of the two."""
        self.component = self._rng.choice(["dask-worker-1", "dask-worker-2"])
        prepares = site.wait_for_step("prepare", within_s=30)
        return super().inject(site) + (" during prepare" if prepares else "")


class KilledCeleryWorker(Restart):
    """A Celery worker dies with all that it has started; Airflow has to find that out."""

    name = "Celery worker killed with its children"
    cost = Cost(tries=1)

    def inject(self, site: Site) -> str:
        """Kill it; children first would let it replace them."""
        self.component = self._rng.choice(WORKERS)
        self.note(site)
        tree = site.tree(self.component)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return f"{self.component}, {len(tree)} processes"


class Evicted(Restart):
    """A worker is evicted: it is asked to end, and killed with its children 30 s later."""

    name = "eviction of a worker"
    cost = Cost(tries=1)  # of what needs more than the grace

    def inject(self, site: Site) -> str:
        """Ask the master alone, as a kubelet does."""
        self.component = "worker-gpu"
        self.note(site)
        tree = site.tree(self.component)
        tree[0].terminate()
        killer = threading.Timer(_GRACE_S, self._kill, (tree[0], site))
        killer.daemon = True
        killer.start()
        return f"{self.component}, {len(tree)} processes"

    @staticmethod
    def _kill(master: psutil.Process, site: Site) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [master, *master.children(recursive=True)]:
                process.kill()


class EvictedStep(Injection):
    """The processes of a training are asked to end: it checkpoints, and waits for its next turn."""

    name = "eviction of a training"

    def inject(self, site: Site) -> str:
        """Ask the step's process."""
        process = site.wait_for_step("run_worker")
        assert process is not None, "nothing was trained"
        self._pid, self._at_s = process.pid, time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        return f"process {self._pid}"

    def over(self, site: Site) -> str:
        """Return how long it took."""
        if psutil.pid_exists(self._pid) and psutil.Process(self._pid).status() != "zombie":
            return ""
        return f"ended after {time.monotonic() - self._at_s:.1f} s"


class RestartedServer(Restart):
    """A server that keeps state is stopped as it should be, and started again."""

    asked: ClassVar[signal.Signals] = signal.SIGTERM

    def inject(self, site: Site) -> str:
        """Ask it to end."""
        self.note(site)
        process = psutil.Process(site.report(self.component).pid)
        process.send_signal(self.asked)
        return f"{self.component}, process {process.pid}"


class RestartedPostgres(RestartedServer):
    """PostgreSQL ends all sessions, and is back: Airflow, Celery and the logs need it."""

    name, component, asked = "PostgreSQL restarted", "postgres", signal.SIGINT


class RestartedValkey(RestartedServer):
    """Valkey ends, and is back with what was queued."""

    name, component = "Valkey restarted", "valkey"


class RestartedSeaweed(RestartedServer):
    """The object store ends, and is back."""

    name, component = "SeaweedFS restarted", "seaweedfs"
