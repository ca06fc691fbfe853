"""Celery's workers of Airflow on this machine, and what the broker tells of workers anywhere.

`python -m automl_airflow.celery_workers` answers how many tasks the workers of queues run at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from automl_airflow.supervisor import Component

if TYPE_CHECKING:
    from automl_airflow.local import LocalAirflow

# What a restart of the broker would cost otherwise. A worker fetches fewer tasks until those that
# run are over, and leaves slots idle for a whole slice; and the scheduler gives a task up, which
# costs one of its tries, when it could not hand it over for a second.
SETTINGS: Mapping[str, str] = {
    "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps(
        {
            "worker_enable_prefetch_count_reduction": False,
            "task_publish_retry_policy": {
                "max_retries": 1000,
                "interval_start": 0,
                "interval_step": 0.2,
                "interval_max": 0.5,
            },
        }
    ),
    # each time for `operation_timeout`, a second
    "AIRFLOW__CELERY__TASK_PUBLISH_MAX_RETRIES": "60",
}
_HOST = "stack"
_PING_S, _TIMEOUT_S = 2.0, 60.0
_BROKER: Mapping[str, Any] = {
    "broker_connection_timeout": 3,
    "broker_connection_retry": False,
    "broker_connection_max_retries": 0,
    "broker_transport_options": {"socket_timeout": 5, "socket_connect_timeout": 3},
}


@dataclass(frozen=True, slots=True)
class CeleryWorkers:
    """Workers of one Airflow.

    Args:
        airflow: their Airflow.
        broker_url: where they get their tasks.
        stop_s: how long they may take to end.
    """

    airflow: LocalAirflow
    broker_url: str
    stop_s: float

    def component(self, queue: str, slots: int) -> Component:
        """Return a worker that serves one queue.

        Args:
            queue: the queue, which also names the worker.
            slots: how many tasks it runs at once.
        """
        node = f"{queue}@{_HOST}"
        pid_file = self.airflow.home_dir / f"celery-{queue}.pid"
        run = self.airflow.component(
            *("celery", "worker", "--queues", queue, "--concurrency", str(slots)),
            *("--celery-hostname", node, "--pid", str(pid_file)),
        )
        port = {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.airflow.ports.take())}
        return replace(
            run,
            name=f"worker-{queue}",
            log=self.airflow.logs / f"worker-{queue}.log",
            env={**run.env, **port},
            is_healthy=lambda: is_answering(self.broker_url, node),
            stop_s=self.stop_s,
        )


def is_answering(broker_url: str, node: str) -> bool:
    """Return whether a worker answers a ping by way of the broker."""
    try:
        return bool(_ask(broker_url, "ping", [node]))
    except ConnectionError:
        return False


def places_of(broker_url: str, queues: Iterable[str]) -> dict[frozenset[str], int]:
    """Return how many tasks workers run at once, by which of the queues they serve.

    Workers of all hosts count, and those that serve the same queues together. A process of its own
    asks: one that a Celery worker has forked shares its connections.

    Raises:
        ConnectionError: the broker cannot be reached.
    """
    question = json.dumps({"broker": broker_url, "queues": sorted(queues)})
    command = [sys.executable, "-m", "automl_airflow.celery_workers"]
    try:
        asked = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except subprocess.SubprocessError as error:  # without its output, which may hold the address
        raise ConnectionError("Celery's workers could not be asked") from error
    places: Counter[frozenset[str]] = Counter()
    for served, number in json.loads(asked.stdout.splitlines()[-1]):
        places[frozenset(served)] += number
    return dict(places)


def _places(broker_url: str, queues: Iterable[str]) -> list[tuple[list[str], int]]:
    """Return the queues that each worker serves, and how many tasks it runs at once."""
    asked = set(queues)
    served = _ask(broker_url, "active_queues")
    stats = _ask(broker_url, "stats") if served else {}
    return [
        (sorted(asked & {queue["name"] for queue in own}), _concurrency(stats.get(node)))
        for node, own in served.items()
    ]


def _concurrency(stats: Mapping[str, Any] | None) -> int:
    return 0 if stats is None else int(stats["pool"]["max-concurrency"])


def _ask(broker_url: str, question: str, nodes: list[str] | None = None) -> dict[str, Any]:
    """Return the answers of workers by their names.

    Raises:
        ConnectionError: the broker cannot be reached.
    """
    from celery import Celery

    with Celery("automl", broker=broker_url, set_as_current=False) as app:
        app.conf.update(_BROKER)
        try:
            inspect = app.control.inspect(nodes, timeout=_PING_S)
            answer: dict[str, Any] | None = getattr(inspect, question)()
        except Exception as error:  # of three libraries; all say that the broker is away
            raise ConnectionError("Celery's broker does not answer") from error
    return answer or {}


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    sys.stdout.write(f"{json.dumps(_places(asked['broker'], asked['queues']))}\n")
