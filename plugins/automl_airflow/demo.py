"""The demo: a whole night on a real sample dataset, from nothing, under Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from automl.errors import AutoMLError
from automl_airflow.commands import say
from automl_airflow.local import LocalAirflow

_DAG_ID = "automl_digits"
_TIMEOUT_S = 1800.0


class DemoError(AutoMLError):
    """The demo's run has failed."""


def demo(folder: Path, dags: Path, time_limit: str) -> None:
    """Search for a digits model through a real Airflow, then use the published file.

    Raises:
        AutoMLError: the run failed; the message ends with the failing task's log.
    """
    sample, home = folder / "digits", folder / "home"
    subprocess.run(
        [sys.executable, "-m", "automl.cli", "sample", "digits", str(sample)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    study_file = sample / "study.yaml"
    study = yaml.safe_load(study_file.read_text())
    study.setdefault("search", {}).update(time_limit=time_limit, slice="1m", workers=2)
    study_file.write_text(yaml.safe_dump(study, sort_keys=False))
    env = {"AUTOML_HOME": str(home), "AUTOML_STUDIES": str(sample), "AUTOML_SOURCES": str(sample)}
    env["OMP_NUM_THREADS"] = "1"
    say(f"starting Airflow under {folder}")
    with LocalAirflow(folder / "airflow", dags, env) as airflow:
        airflow.client.wait_for_dag(_DAG_ID)
        run_id = airflow.client.trigger(_DAG_ID)
        say(f"{airflow.url}: {_DAG_ID} runs as {run_id}; the search takes {time_limit}")
        state = airflow.client.wait(_DAG_ID, run_id, _TIMEOUT_S, _Watcher())
        if state != "success":
            raise DemoError(f"The run ended as {state}.", _why(airflow, run_id))
    say(_use(home, sample))


class _Watcher:
    """Says when a task changes its state."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], str] = {}
        self._started_s = time.monotonic()

    def __call__(self, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            key, state = (task["task_id"], task["map_index"]), task["state"] or "waiting"
            if self._seen.get(key, "waiting") != state and state not in {"scheduled", "queued"}:
                label = task.get("rendered_map_index") or ""
                index = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
                seconds = time.monotonic() - self._started_s
                say(f"{seconds:6.0f} s  {task['task_id']}{index}: {state}  {label}".rstrip())
            self._seen[key] = state


def _why(airflow: LocalAirflow, run_id: str) -> str:
    tasks = airflow.client.tasks(_DAG_ID, run_id)
    failed = [task for task in tasks if task["state"] in {"failed", "up_for_retry"}]
    if not failed:
        return "no task failed: " + ", ".join(f"{t['task_id']} {t['state']}" for t in tasks)
    name = failed[0]["task_id"]
    return f"the log of {name} ends with:\n{airflow.log_tail(_DAG_ID, run_id, name)}"


def _use(home: Path, sample: Path) -> str:
    """Return the demo's last line, after a prediction with ONNX Runtime alone."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    registry = home / "models" / "digits"
    champion = json.loads((registry / "champion.json").read_text())
    model = (registry / champion["uri"]).resolve()
    manifest = json.loads((model.parent / "manifest.json").read_text())
    image_path = sorted(sample.rglob("*.png"))[0]
    pixels = np.asarray(Image.open(image_path).convert("RGB"), np.uint8)[np.newaxis]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    label = session.run(["label"], {"image": pixels})[0][0]
    say(f"{image_path.name} shows {label}")
    accuracy = manifest["metrics"]["accuracy"]
    return (
        f"demo ok: accuracy {accuracy['value']:.4f} "
        f"[{accuracy['low']:.4f}, {accuracy['high']:.4f}], model {model}"
    )
