"""A Dask scheduler and its workers on this machine."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl_airflow.ports import Ports
from automl_airflow.supervisor import Component

_WORKERS = 2
_TIMEOUT_S = 5.0
_STOP_S = 5.0  # a worker whose scheduler ends before it waits for that one


class DaskCluster:
    """A scheduler and two workers of one thread each.

    Args:
        folder: for what does not fit into memory.
        logs: folder of what they print.
        ports: gives their ports.
    """

    def __init__(self, folder: Path, logs: Path, ports: Ports) -> None:
        self._folder, self._logs = folder, logs
        self._port, self._http = ports.take(), ports.take()

    @property
    def address(self) -> str:
        """For `DASK_SCHEDULER_ADDRESS`."""
        return f"tcp://127.0.0.1:{self._port}"

    def components(self, env: Mapping[str, str]) -> list[Component]:
        """Return the scheduler and the workers; these find each other whoever starts first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        port, http = str(self._port), f"127.0.0.1:{self._http}"
        own = ("--host", "127.0.0.1", "--port", port, "--dashboard-address", http)
        scheduler = self._component("dask-scheduler", own, env)
        names = [f"dask-worker-{number}" for number in range(1, _WORKERS + 1)]
        return [scheduler, *(self._worker(name, env) for name in names)]

    def _worker(self, name: str, env: Mapping[str, str]) -> Component:
        options = (
            *(self.address, "--name", name, "--host", "127.0.0.1"),
            # the supervisor starts it again, as a nanny would
            *("--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--local-directory", str(self._folder)),
        )
        return self._component(name, options, env)

    def _component(self, name: str, options: tuple[str, ...], env: Mapping[str, str]) -> Component:
        kind = "dask_worker" if "worker" in name else "dask_scheduler"
        return Component(
            name,
            [sys.executable, "-m", f"distributed.cli.{kind}", *options],
            self._logs / f"{name}.log",
            self._folder,
            env,
            lambda: name == "dask-scheduler" or name in self._workers(),
            stop_s=_STOP_S,
        )

    def _workers(self) -> set[str]:
        """Return the names of the workers that the scheduler knows."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._http}/json/identity.json", timeout=_TIMEOUT_S
            ) as response:
                identity: dict[str, Any] = json.load(response)
        except (OSError, ValueError):
            return set()
        return {worker["name"] for worker in identity["workers"].values()}
