"""The commands of `python -m automl_airflow.local`: up, status, down and demo."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import yaml

from automl.errors import AutoMLError
from automl_airflow.local import TRIGGERER, LocalAirflow, LocalAirflowError, write_private

_DAG_ID = "automl_digits"
_TIMEOUT_S = 1800.0
_ENDED, _WATCH_S = "ended.txt", 1.0


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m automl_airflow.local", description=__doc__)
    parser.add_argument("command", choices=["up", "serve", "status", "down", "demo"])
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="folder of the DAG files")
    parser.add_argument("--time-limit", default="2m", help="search time of the demo")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        if options.command == "down":
            _down(options.folder or Path("automl-local"))
        elif options.command == "status":
            _status(options.folder or Path("automl-local"))
        elif options.command == "up":
            _up(options.folder or Path("automl-local"), options.dags)
        elif options.command == "serve":
            _serve(options.folder or Path("automl-local"), options.dags)
        else:
            folder = options.folder or Path(tempfile.mkdtemp(prefix="automl-demo-"))
            demo(folder.resolve(), options.dags, options.time_limit)
    except AutoMLError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; everything is stopped")
        return 130
    return 0


def _raise_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _up(folder: Path, dags: Path) -> None:
    """Start a process that runs Airflow until `down`, wait until it serves, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    address, log = folder / "address.txt", folder / "local.log"
    if _running(folder) is not None:
        if not address.exists():
            _say(f"Airflow is starting; see {log}")
        else:
            _status(folder)
        return
    address.unlink(missing_ok=True)
    command = [sys.executable, "-m", "automl_airflow.local", "serve"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--folder", str(folder), "--dags", str(dags)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while not address.exists():
        if process.poll() is not None:
            raise LocalAirflowError("Airflow did not start.", f"see {log}")
        time.sleep(0.2)
    _say(address.read_text())


def _serve(folder: Path, dags: Path) -> None:
    """Run Airflow in this process until it is asked to stop."""
    home = os.environ.get("AUTOML_HOME", str(folder.resolve() / "automl-home"))
    sources = os.environ.get("AUTOML_SOURCES") or _near_sources()
    pid_file, address = folder / "local.pid", folder / "address.txt"
    (folder / _ENDED).unlink(missing_ok=True)
    pid_file.write_text(str(os.getpid()))
    try:
        env = {"AUTOML_HOME": home, "AUTOML_SOURCES": sources}
        with LocalAirflow(folder, dags, env, more=[TRIGGERER]) as airflow:
            write_private(
                address,
                f"Airflow is at {airflow.url}; user admin, password {airflow.password}\n"
                f"state is kept in {home}; studies may read {sources}; `make down` ends it",
            )
            _watch(airflow, folder / _ENDED)
    finally:
        address.unlink(missing_ok=True)
        pid_file.unlink()


def _watch(airflow: LocalAirflow, report: Path) -> NoReturn:
    """Report each component that ends, to the log of this process and to a file, until a signal."""
    known: dict[str, int] = {}
    while True:
        ended = airflow.ended()
        if ended != known:
            lines = {
                name: f"Airflow's {name} has ended with exit code {code}: see {log}"
                for name, code in ended.items()
                if (log := airflow.log_file(name))
            }
            for name in ended.keys() - known.keys():
                _say(lines[name])
            report.write_text("\n".join(lines.values()) + "\n")
            known = ended
        time.sleep(_WATCH_S)


def _status(folder: Path) -> None:
    """Say where Airflow serves.

    Raises:
        LocalAirflowError: it does not run, or parts of it have ended.
    """
    if _running(folder) is None or not (folder / "address.txt").exists():
        raise LocalAirflowError(f"Nothing serves from {folder}.", "start it with `make up`")
    _say((folder / "address.txt").read_text())
    ended = folder / _ENDED
    if ended.exists():
        raise LocalAirflowError(
            ended.read_text().strip(), "`make down` and `make up` start all of it again"
        )


def _near_sources() -> str:
    """Return what studies may read on a person's own machine: where that works, and its studies."""
    folders = [Path.cwd(), Path(os.environ.get("AUTOML_STUDIES") or ".").resolve()]
    return ",".join(dict.fromkeys(map(str, folders)))


def _running(folder: Path) -> int | None:
    """Return the id of the process that serves from `folder`, None if there is none."""
    try:
        pid = int((folder / "local.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if b"automl_airflow.local" in words else None


def _down(folder: Path) -> None:
    pid = _running(folder)
    if pid is None:
        raise LocalAirflowError(f"Nothing runs in {folder}.", "name its folder with --folder")
    os.kill(pid, signal.SIGTERM)
    while _running(folder) is not None:
        time.sleep(0.2)
    _say("stopped")


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
    _say(f"starting Airflow under {folder}")
    with LocalAirflow(folder / "airflow", dags, env) as airflow:
        airflow.client.wait_for_dag(_DAG_ID)
        run_id = airflow.client.trigger(_DAG_ID)
        _say(f"{airflow.url}: {_DAG_ID} runs as {run_id}; the search takes {time_limit}")
        state = airflow.client.wait(_DAG_ID, run_id, _TIMEOUT_S, _Watcher())
        if state != "success":
            raise LocalAirflowError(f"The run ended as {state}.", _why(airflow, run_id))
    _say(_use(home, sample))


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
                _say(f"{seconds:6.0f} s  {task['task_id']}{index}: {state}  {label}".rstrip())
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
    _say(f"{image_path.name} shows {label}")
    accuracy = manifest["metrics"]["accuracy"]
    return (
        f"demo ok: accuracy {accuracy['value']:.4f} "
        f"[{accuracy['low']:.4f}, {accuracy['high']:.4f}], model {model}"
    )
