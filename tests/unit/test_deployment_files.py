"""Files of docker/: validators accept them, and reject the same files with an error in them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.image.compose import COMPOSE, resolved, services

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent
SCRIPTS = [DOCKER / each for each in ("automl-healthy", "automl-init", "make-secrets")]
SCRIPTS.append(DOCKER / "postgres-init.sh")
OBJECTS = [DOCKER / "kubernetes/automl.yaml", *sorted((DOCKER / "kubernetes/pods").glob("*.yaml"))]
YAMLS = [COMPOSE, DOCKER / "kubernetes/values.yaml", *OBJECTS]
COMMANDS = {
    "hadolint": ["hadolint"],
    "shellcheck": ["shellcheck"],
    "yamllint": ["yamllint", "--strict", "--config-file", str(ROOT / ".yamllint.yaml")],
    "compose": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
    "kubernetes": ["kubernetes-validate", "--strict"],
}


def verdict(tool: str, path: Path) -> subprocess.CompletedProcess[str]:
    program, *options = COMMANDS[tool]
    found = PROGRAMS / program
    command = [str(found if found.exists() else program), *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


CASES: list[tuple[str, Path, Callable[[str], str]]] = [
    (
        "hadolint",
        DOCKER / "Dockerfile",
        lambda text: text.replace("# hadolint ignore=DL3008\n", ""),
    ),
    *(("shellcheck", path, lambda text: f"{text}\nif [ $1 = x ]; then echo\n") for path in SCRIPTS),
    *(("yamllint", path, lambda text: f"{text}\nname: twice\nname: twice\n") for path in YAMLS),
    ("compose", COMPOSE, lambda text: text.replace("read_only:", "raed_only:")),
    *(("kubernetes", path, lambda text: text.replace("name:", "nmae:")) for path in OBJECTS),
]


@pytest.mark.parametrize(
    ("tool", "path", "spoilt"), CASES, ids=[f"{tool}-{path.name}" for tool, path, _ in CASES]
)
def test_a_validator_accepts_the_file_and_rejects_a_bad_one(
    tool: str, path: Path, spoilt: Callable[[str], str], tmp_path: Path
) -> None:
    bad = tmp_path / path.name
    bad.write_text(spoilt(path.read_text()))
    assert bad.read_text() != path.read_text()

    good, wrong = verdict(tool, path), verdict(tool, bad)

    assert good.returncode == 0, good.stdout + good.stderr
    assert wrong.returncode != 0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(resolved(COMPOSE.read_text(), {}))
    return document


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def test_every_service_has_a_read_only_root_and_no_rights_beyond_its_own(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert all(each.document["user"] == "50000:0" for each in services({}).values())


def test_services_start_when_what_they_need_is_healthy(compose: dict[str, Any]) -> None:
    everything = compose["services"]
    for name, service in everything.items():
        for other, condition in service.get("depends_on", {}).items():
            if other == "init":
                assert condition["condition"] == "service_completed_successfully"
                continue
            assert condition["condition"] == "service_healthy", (name, other)
            assert everything[other]["healthcheck"]["test"], other


def test_no_secret_stands_in_the_compose_file(compose: dict[str, Any]) -> None:
    given = set(compose["secrets"])
    for name, service in compose["services"].items():
        used = set(service.get("secrets", []))
        assert used <= given, name
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or value.startswith("/run/secrets/"), (name, key)
            if "/run/secrets/" in str(value):
                assert str(value).rpartition("/")[2] in used, (name, key)
    assert all(each["file"].startswith("secrets/") for each in compose["secrets"].values())


def test_workers_know_nothing_of_airflows_database() -> None:
    for name in ("worker-default", "worker-gpu", "dask-worker"):
        secrets = set(services({})[name].document["secrets"])
        assert not secrets & {"airflow_database", "fernet_key", "jwt_secret", "admin_password"}


def test_a_worker_may_end_a_slice_before_it_is_killed() -> None:
    default_slice_s = 600
    for name in ("worker-default", "worker-gpu"):
        assert seconds(services({})[name].document["stop_grace_period"]) > default_slice_s


def test_pools_have_no_more_slots_than_workers() -> None:
    given = services({})
    environment = given["init"].document["environment"]
    pools = int(environment["AUTOML_CPU_SLOTS"]) + int(environment["AUTOML_GPU_SLOTS"])
    command = given["worker-default"].command

    assert int(command[command.index("--concurrency") + 1]) >= pools + 2
    assert command[command.index("--queues") + 1] == "default,gpu"


def test_the_example_of_settings_names_variables_of_the_compose_file() -> None:
    lines = (DOCKER / "env.example").read_text().splitlines()
    names = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line}

    unknown = {each for each in names if f"${{{each}" not in COMPOSE.read_text()}

    assert unknown == {"COMPOSE_PROFILES"}  # docker's own


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    maker = tmp_path / "make-secrets"
    maker.write_text((DOCKER / "make-secrets").read_text())
    maker.chmod(0o755)
    for _ in range(2):
        subprocess.run([str(maker)], check=True, capture_output=True)
    made = tmp_path / "secrets"
    contents = {path.name: path.read_text() for path in made.iterdir()}

    subprocess.run([str(maker)], check=True, capture_output=True)

    assert contents == {path.name: path.read_text() for path in made.iterdir()}
    assert not [name for name, text in contents.items() if text != text.strip()]
    assert made.stat().st_mode & 0o777 == 0o700
    assert set(contents) == set(yaml.safe_load(COMPOSE.read_text())["secrets"])
    assert contents["study_log_password"] in contents["study_log"]
    assert contents["celery_results_password"] in contents["celery_results"]
    assert f"requirepass {contents['valkey_password']}" in contents["valkey_config"]
    (identity,) = json.loads(contents["s3_config"])["identities"]
    assert identity["credentials"][0]["secretKey"] in contents["aws_credentials"]


def test_the_healthcheck_knows_every_command_of_the_compose_file() -> None:
    script = (DOCKER / "automl-healthy").read_text()
    for name, service in services({}).items():
        if name != "init":
            words = " ".join(service.command)
            known = [
                line.split('"')[1] for line in script.splitlines() if line.startswith('    *"')
            ]
            assert any(each in words for each in known), name


def test_requirements_of_the_image_leave_torch_to_its_own_step() -> None:
    command = [sys.executable, str(DOCKER / "requirements.py"), str(ROOT / "pyproject.toml")]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")

    assert not [each for each in listed if each.startswith(("torch", "efficientnet"))]
    assert {"apache-airflow-providers-fab", "apache-airflow-providers-cncf-kubernetes"} <= {
        each.partition("==")[0] for each in listed
    }
