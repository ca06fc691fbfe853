"""Operators with small children in place of real steps, and what Airflow gives them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

CHILD = """
import json, os, signal, sys, time

step, payload = sys.argv[1], json.load(sys.stdin)
with open(os.environ.get("AUTOML_CALLS", os.devnull), "a") as file:
    file.write(step + "\\n")

def answer(document, code=0):
    os.write(int(os.environ["AUTOML_RESULT_FD"]), json.dumps(document).encode())
    sys.exit(code)

plan = os.environ.get("AUTOML_TEST_PLAN", "echo")
if step == "give_back":
    plan = os.environ.get("AUTOML_TEST_GIVE_BACK", "freed")
if step == "fail_run":
    plan = os.environ.get("AUTOML_TEST_FAIL_RUN", "echo")
if plan == "echo":
    print("first line"); print("second line", file=sys.stderr)
    answer({"result": {"payload": payload, "env": sorted(os.environ), "argv": sys.argv,
        "study_log": os.environ.get("AUTOML_STUDY_LOG")}})
if plan == "slice":
    answer({"result": {"state": "slice_ended", "label": "trials 0, 3"}})
if plan == "ended":
    answer({"result": {"state": "search_ended", "label": "trials 0, 3"}})
errors = {"refused": "ConfigError", "away": "StorageError", "busy": "StudyBusyError"}
if plan in errors:
    answer({"error": {"type": errors[plan],
        "message": "It is wrong.", "hint": "do better", "retryable": plan != "refused",
        "problems": [{"path": "a.b", "message": "one"}, {"path": "c", "message": "two"}]}}, 2)
if plan in ("freed", "nothing freed"):
    answer({"result": [4] if plan == "freed" else []})
if plan == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if plan == "crash":
    raise ValueError("a bug")
if plan == "checkpoint":
    signal.signal(signal.SIGTERM, lambda *_: answer({"result": "checkpointed"}))
if plan == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if plan == "labels":
    fd = int(os.environ["AUTOML_RESULT_FD"])
    os.write(fd, b'{"label": "trial 3 \\u00b7 best 0.5"}\\n{"label": "tri')
    time.sleep(0.5)
    os.write(fd, b'al 4"}\\n')
    answer({"result": "done"})
if plan == "endless line":
    for _ in range(2000):
        os.write(1, b"x" * 65536)
    answer({"result": "done"})
if plan == "binary":
    os.write(1, b"\\x00\\x1b[31mred\\xff\\xfe\\r\\n" + b"10%\\r20%\\r30%\\n" + bytes(range(256)))
    answer({"result": "done"})
if plan == "logs":
    import logging
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.info("begins"); logging.warning("look\\nhere"); logging.info("goes on")
    raise ValueError("a bug")
if plan == "chatty":
    for number in range(20000):
        print("line", number)
    answer({"result": "done"})
if plan == "grandchild":
    if os.fork() == 0:
        time.sleep(30); os._exit(0)
    answer({"result": "left a grandchild"})
print(f"pid {os.getpid()}", flush=True)
time.sleep(60)
"""

PARAMS = {
    "name": "leaves", "task": "image_classification", "source": "/data/leaves.csv",
    "time_limit": "1m", "workers": 2, "objective": "auto",
    "images": None, "label": None, "image_size": "auto", "split": "stratified",
    "validation_fraction": 0.2, "test_fraction": 0.2, "max_bad_fraction": 0.05, "max_trials": None,
    "seed": 0, "slice": "30s", "retrain": True, "final_time_limit": "1m", "min_improvement": 0.0,
    "continue_version": None,
}  # fmt: skip
CHECKED: dict[str, Any] = {
    "study": "leaves", "home": "/home", "spec": "0" * 64, "time_limit": 60.0,
    "schedule": "0 1 * * *", "timezone": "UTC", "workers": 2,
    "limits": dict.fromkeys(
        ("prepare", "open_run", "run_worker", "choose", "final_fit", "export", "evaluate",
         "promote", "give_back", "fail_run"), 600.0,
    ),
}  # fmt: skip


class States:
    """A task's state, as Airflow's store keeps it: JSON, and no value is None."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    def get(self, key: str) -> Any:
        """Return what is stored; None if nothing is."""
        return json.loads(self.stored.get(key, "null"))

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        assert value is not None
        self.stored[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Forget what is stored."""
        self.stored.pop(key, None)


def context(**more: Any) -> Any:
    """Return what Airflow gives a task of a run from the form; `more` are values of its fields."""
    run = SimpleNamespace(
        dag_id="automl_search",
        run_id="manual__2026+01",
        conf={},
        run_type="manual",
        triggering_user_name="anna",
    )
    return {
        "params": {**PARAMS, **more},
        "dag_run": run,
        "ti": SimpleNamespace(id="one", try_number=1, max_tries=2),
        "task_state_store": States(),
    }


@contextmanager
def api_server(status: int = 200, *missing: str, ahead_s: float = 0.0) -> Iterator[str]:
    """Run a server that answers like Airflow's when it is asked for missing pools.

    Args:
        status: of its answers.
        missing: names of pools.
        ahead_s: by how much its clock is ahead.

    Yields:
        The address at which tasks find Airflow.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"missing": missing}).encode())

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + ahead_s)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/execution/"
        server.shutdown()
        thread.join()
