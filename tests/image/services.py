"""Services of the image in a network of their own: they start, are healthy, and find a champion.

`unshare --net -- python -m tests.image.services FOLDER IMAGE`: every service's command, user,
mounts and environment come from the parsed compose file. All ports stay inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from automl_airflow.rest import AirflowClient

from tests.image.backing import backing
from tests.image.commands import ImageTestError, expect, run, say, step
from tests.image.compose import Service, services

SETTINGS = {"DASK_SCHEDULER_ADDRESS": "tcp://dask-scheduler:8786"}
S3_SETTINGS = {
    "AUTOML_BUCKET": "automl",
    "AUTOML_HOME": "s3://automl/home",
    "AWS_ENDPOINT_URL": "http://seaweedfs:8333",
}  # the lines of the profile `s3` in docker/env.example
HOST_FOLDERS = ("./data", "./studies")
FIRST = "init"
_HEALTHY_S, _RUN_S = 240, 600
_MAKE_SECRETS = Path(__file__).parents[2] / "docker/make-secrets"
_USER = 50000
# Containers share the ports of this network: the second worker's server of logs gets another one.
_MORE = {"worker-gpu": ["--env", "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=8795"]}


@dataclass(slots=True)
class Installation:
    """Services of the image, and what they share.

    Attributes:
        image: name of the image.
        folder: where everything lies.
        services: by name.
        times: seconds of each step.
        started: names of the containers.
    """

    image: str
    folder: Path
    services: dict[str, Service]
    times: dict[str, float] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    @property
    def secrets(self) -> Path:
        """Folder of the secrets."""
        return self.folder / "secrets"

    def folders(self) -> dict[str, Path]:
        """Return what stands for each folder of the host, made for the user of the image."""
        found = {name: self.folder / "folders" / name.strip("./") for name in HOST_FOLDERS}
        for path in found.values():
            if not path.exists():
                path.mkdir(parents=True)
                os.chown(path, _USER, 0)
        return found

    def arguments(self, service: Service, name: str) -> list[str]:
        """Return `podman run` with all that a service's container has, up to the image's name."""
        servers = ("postgres", "valkey", "seaweedfs")
        addresses = dict.fromkeys(servers, "127.0.0.1")  # and each service its own
        addresses |= {each: f"127.0.1.{n}" for n, each in enumerate(self.services, 10)}
        words = ["podman", "run", "--pull=never", "--network", "host", "--name", name]
        words += [f"--add-host={host}:{address}" for host, address in addresses.items()]
        words += ["--health-interval=disable"]  # there is no systemd: the test asks by itself
        words += service.podman_arguments(self.folders(), self.secrets)
        return [*words, *_MORE.get(service.name, []), self.image]

    def once(self, name: str, *command: str, service: Service | None = None) -> str:
        """Run a command with what a service has, the default worker's, and return its output."""
        words = self.arguments(service or self.services["worker-default"], name)
        writable = [word.replace(":/data:ro", ":/data") for word in words]
        return run([*writable[:2], "--rm", *writable[2:], *command], timeout_s=300).stdout

    def start(self, service: Service) -> None:
        """Start a service in the background."""
        words = self.arguments(service, service.name)
        run([*words[:2], "--detach", *words[2:], *service.command])
        self.started.append(service.name)

    def wait_for_health(self, name: str) -> None:
        """Wait until a service's own check says that it is healthy.

        Raises:
            ImageTestError: it ended, or is not healthy in time; with the end of its log.
        """
        deadline_s = time.monotonic() + _HEALTHY_S
        while run(["podman", "healthcheck", "run", name], may_fail=True).returncode != 0:
            state = run(["podman", "inspect", "--format", "{{.State.Status}}", name]).stdout.strip()
            if state != "running" or time.monotonic() > deadline_s:
                raise ImageTestError(f"{name} is {state} and not healthy:\n{self.log(name)}")
            time.sleep(1)
        say(f"   {name} is healthy")

    def log(self, name: str) -> str:
        """Return the end of a container's log."""
        return run(["podman", "logs", "--tail", "40", name], may_fail=True).stdout

    def stop(self) -> None:
        """Remove all containers that were started."""
        for name in self.started:
            run(["podman", "rm", "--force", "--time", "5", name], may_fail=True)


@contextlib.contextmanager
def running(folder: Path, image: str) -> Iterator[Installation]:
    """Make secrets, run the servers, and remove every container at the end."""
    run(["ip", "link", "set", "lo", "up"])
    maker = folder / "make-secrets"
    shutil.copy(_MAKE_SECRETS, maker)
    run([maker])
    made = Installation(image, folder, services(SETTINGS))
    with backing(folder, made.secrets):
        try:
            yield made
        finally:
            (folder / "logs").mkdir(exist_ok=True)
            for name in made.started:
                log = run(["podman", "logs", name], may_fail=True).stdout
                (folder / "logs" / f"{name}.txt").write_text(log)
            made.stop()


def examine(made: Installation) -> None:
    """Look at the image without services: its user, its root, its commands."""
    with step("commands as uid 50000 on a read-only root", made.times):
        expect("uid=50000(airflow) gid=0(root)" in made.once("who", "id"), "another user")
        written = made.once("write", "bash", "-c", "touch /etc/x /opt/airflow/x 2>&1 || true")
        expect(written.count("Read-only file system") == 2, f"the root is writable: {written}")
        made.once("import", "python", "-c", "import torch, airflow, automl.cli")
        made.once("check", "pip", "check")


def serve(made: Installation) -> None:
    """Start every service and wait until all are healthy."""
    with step("a study of digits", made.times):
        made.once("sample", "automl", "sample", "digits", "/data/digits")
        _write_study(made)
    with step("init", made.times):
        service = made.services[FIRST]
        for name in ("init", "init-again"):  # it may run at any time
            made.once(name, *service.command, service=service)
    with step("all services healthy", made.times):
        others = [each for name, each in made.services.items() if name != FIRST]
        for service in others:
            expect(service.document["healthcheck"]["test"] == ["CMD", "automl-healthy"], "a check")
            made.start(service)
        for service in others:
            made.wait_for_health(service.name)


def advise(made: Installation) -> None:
    """Let `automl doctor` look at a home on S3, and at the pools and workers of the services."""
    with step("a home on S3, and what the doctor says", made.times):
        on_s3 = services(S3_SETTINGS)
        made.once("init-s3", *on_s3[FIRST].command, service=on_s3[FIRST])
        told = made.once("doctor", "automl", "doctor", service=on_s3["worker-default"])
        for fact in ("s3://automl/home", "the workers have a place for each of their slots"):
            expect(fact in told, f"the doctor does not say {fact!r}: {told}")


def _write_study(made: Installation) -> None:
    folders = made.folders()
    study = yaml.safe_load((folders["./data"] / "digits" / "study.yaml").read_text())
    data = study["data"]
    for key in {"source", "images"} & data.keys():
        data[key] = str(Path("/data/digits", data[key]))
    # a number of trials ends it, so that a busy machine finds a champion as well
    study["search"] = {"time_limit": "5m", "max_trials": 3, "slice": "15s", "workers": 2}
    study["final_fit"] = {"time_limit": "1m"}
    study["schedule"] = None
    (folders["./studies"] / "digits.yaml").write_text(yaml.safe_dump(study))


def search(made: Installation) -> None:
    """Let a study find a champion, through all services."""
    password = (made.secrets / "admin_password").read_text().strip()
    client = AirflowClient("http://127.0.0.1:8080", "admin", password)
    with step("digits become a champion", made.times):
        client.wait_for_dag("automl_digits", 120)
        run_id = client.trigger("automl_digits")
        state = client.wait("automl_digits", run_id, _RUN_S)
        tasks = {
            f"{task['task_id']}[{task['map_index']}]": task["state"]
            for task in client.tasks("automl_digits", run_id)
        }
        expect(state == "success", f"the run ended as {state}: {tasks}")
        told = made.once("models", "automl", "models", "digits", "--json")
        models = json.loads(told[told.index("{") :])
        expect(models["champion"] == 1, f"there is no champion: {told}")
        made.once("verify", "automl", "verify", "digits")
    with step("workers stop by themselves when they are asked to", made.times):
        for name in ("worker-default", "worker-gpu"):
            run(["podman", "stop", "--time", "60", name])
            code = run(["podman", "inspect", "--format", "{{.State.ExitCode}}", name]).stdout
            expect(code.strip() == "0", f"{name} was stopped with {code}:\n{made.log(name)}")


def main(arguments: list[str]) -> int:
    """Run all steps and write their times to `services.json` in the folder."""
    folder, image = Path(arguments[0]), arguments[1]
    folder.mkdir(parents=True)
    try:
        with running(folder, image) as made:
            try:
                examine(made)
                serve(made)
                advise(made)
                search(made)
            finally:
                (folder / "times.json").write_text(json.dumps(made.times))
    except ImageTestError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
