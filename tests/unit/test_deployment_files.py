"""Files of docker/: validators accept them, and reject the same files with an error in them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from automl_airflow import celery_workers
from automl_airflow.dag_record import FOLDER
from automl_airflow.slots import compare

from tests.image.compose import COMPOSE, resolved, services

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent
SCRIPTS = [DOCKER / each for each in ("automl-healthy", "automl-init", "make-secrets")]
SCRIPTS.append(DOCKER / "postgres-init.sh")
OBJECTS = [DOCKER / "kubernetes/automl.yaml", *sorted((DOCKER / "kubernetes/pods").glob("*.yaml"))]
HOSTS = sorted((DOCKER / "several-hosts").glob("*.yaml"))
YAMLS = [COMPOSE, *HOSTS, DOCKER / "kubernetes/values.yaml", *OBJECTS]
COMMANDS = {
    "hadolint": ["hadolint"],
    "shellcheck": ["shellcheck"],
    "yamllint": ["yamllint", "--strict", "--config-file", str(ROOT / ".yamllint.yaml")],
    "compose": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
    "kubernetes": ["kubernetes-validate", "--strict"],
}


def verdict(tool: str, paths: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    program, *options = COMMANDS[tool]
    found = PROGRAMS / program
    command = [str(found if found.exists() else program), *options, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


Spoil = Callable[[str], str]
CASES: dict[str, tuple[list[Path], Spoil]] = {
    "hadolint": (
        [DOCKER / "Dockerfile"],
        lambda text: text.replace("# hadolint ignore=DL3008\n", ""),
    ),
    "shellcheck": (SCRIPTS, lambda text: f"{text}\nif [ $1 = x ]; then echo\n"),
    "yamllint": (YAMLS, lambda text: f"{text}\nname: twice\nname: twice\n"),
    "compose": ([COMPOSE, *HOSTS], lambda text: text.replace("services:", "sevrices:")),
    "kubernetes": (OBJECTS, lambda text: text.replace("\nmetadata:", "\nsepc: {}\nmetadata:")),
}


@pytest.mark.parametrize("tool", CASES)
def test_a_validator_accepts_the_files_and_rejects_bad_ones(tool: str, tmp_path: Path) -> None:
    paths, spoilt = CASES[tool]
    bad = [tmp_path / path.name for path in paths]
    for path, copy in zip(paths, bad, strict=True):
        copy.write_text(spoilt(path.read_text()))
        assert copy.read_text() != path.read_text()

    good, wrong = verdict(tool, paths), verdict(tool, bad)

    assert good.returncode == 0, good.stdout + good.stderr
    assert wrong.returncode != 0
    told = wrong.stdout + wrong.stderr
    assert not [path for path in bad if str(path) not in told], told


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


def test_a_restart_of_the_broker_costs_neither_slots_nor_tries() -> None:
    for name in ("scheduler", "worker-default", "worker-gpu"):
        environment = services({})[name].document["environment"]
        for variable, value in celery_workers.SETTINGS.items():
            assert yaml.safe_load(environment[variable]) == yaml.safe_load(value), (name, variable)


def test_a_worker_may_end_a_slice_before_it_is_killed() -> None:
    default_slice_s = 600
    for name in ("worker-default", "worker-gpu"):
        assert seconds(services({})[name].document["stop_grace_period"]) > default_slice_s


def settings_of(comment: str) -> dict[str, str]:
    """Return the settings of docker/env.example, with those below a comment."""
    text = (DOCKER / "env.example").read_text()
    before, _, after = text.partition(f"\n# {comment}")
    chosen = after.partition("\n\n")[0].replace("\n#AUTOML", "\nAUTOML")
    lines = [line for line in [*before.splitlines(), *chosen.splitlines()] if line[:1] != "#"]
    return dict(line.split("=", 1) for line in lines if "=" in line)


def places(settings: dict[str, str], workers: Sequence[str]) -> dict[frozenset[str], int]:
    found: Counter[frozenset[str]] = Counter()
    for worker in workers:
        command = services(settings)[worker].command
        queues = command[command.index("--queues") + 1].split(",")
        found[frozenset(queues)] += int(command[command.index("--concurrency") + 1])
    return dict(found)


def slots(settings: dict[str, str]) -> dict[str, int]:
    environment = services(settings)["init"].document["environment"]
    return {
        "automl_gpu": int(environment["AUTOML_GPU_SLOTS"]),
        "automl_cpu": int(environment["AUTOML_CPU_SLOTS"]),
    }


QUEUES = {"automl_gpu": "gpu", "automl_cpu": "default"}


def test_pools_have_no_more_slots_than_workers_have_places() -> None:
    with_gpus = settings_of("Profile gpu")

    assert compare(slots({}), QUEUES, places({}, ["worker-default"])) == []
    both = places(with_gpus, ["worker-default", "worker-gpu"])
    assert set(both) == {frozenset({"gpu"}), frozenset({"default"})}
    assert compare(slots(with_gpus), QUEUES, both) == []


def test_a_pool_for_several_hosts_gives_this_hosts_worker_no_more_than_its_gpus() -> None:
    settings = settings_of("Profile gpu") | {"AUTOML_GPU_SLOTS": "8", "AUTOML_HOST_GPUS": "4"}
    one_host = places(settings, ["worker-default", "worker-gpu"])
    two_hosts = places(settings, ["worker-default", "worker-gpu", "worker-gpu"])

    assert compare(slots(settings), QUEUES, two_hosts) == []
    (warning,) = compare(slots(settings), QUEUES, one_host)
    assert "The pool automl_gpu has 8 slots" in warning


def test_short_tasks_have_places_beside_those_of_the_pools() -> None:
    for settings in ({}, settings_of("Profile gpu")):
        pools = slots(settings)
        (number,) = places(settings, ["worker-default"]).values()
        mine = pools["automl_cpu"] + (0 if settings else pools["automl_gpu"])
        assert number >= mine + 2


def test_several_hosts_change_services_that_are_there(compose: dict[str, Any]) -> None:
    for path in HOSTS:
        for name, service in yaml.safe_load(resolved(path.read_text(), {}))["services"].items():
            known = compose["services"][name]
            assert set(service) - {"ports"} <= {"extra_hosts", "hostname"}, name
            others = set(service.get("extra_hosts", {}))
            # a worker finds there what it waits for on one host
            assert others in (set(), set(known.get("depends_on", ()))), name


def test_the_record_of_studies_is_kept_where_the_dag_processor_writes_it() -> None:
    place = f"/opt/airflow/{FOLDER}"
    values = yaml.safe_load((DOCKER / "kubernetes/values.yaml").read_text())
    mounts = {each["mountPath"] for each in values["dagProcessor"]["extraVolumeMounts"]}

    assert f"study-dags:{place}" in services({})["dag-processor"].document["volumes"]
    assert mounts == {place}
    assert f" {place} " in (DOCKER / "Dockerfile").read_text()  # with the owner of the image


def test_every_volume_is_a_folder_that_the_image_gives_to_its_user(
    compose: dict[str, Any],
) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    made = text[text.index("mkdir -p") : text.index("chown -R")].split()
    for service in services({}).values():
        for volume in service.document.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source in compose["volumes"]:
                assert target in made, (service.name, target)


def test_logs_of_pods_outlive_them() -> None:
    values = yaml.safe_load((DOCKER / "kubernetes/values.yaml").read_text())
    assert values["config"]["logging"]["remote_logging"] == "True"
    for path in (DOCKER / "kubernetes/pods").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        (config,) = (each for each in spec["volumes"] if each["name"] == "config")
        (mount,) = (
            each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "config"
        )
        assert config["configMap"]["name"] == "airflow-config"  # of a release called airflow
        assert mount["mountPath"] == "/opt/airflow/airflow.cfg"
    reader = values["apiServer"]
    assert reader["env"][0]["name"] == "AWS_SHARED_CREDENTIALS_FILE"
    mounted = reader["extraVolumeMounts"][0]["mountPath"]
    assert reader["env"][0]["value"] == f"{mounted}/aws_credentials"


def test_no_user_with_a_known_password_is_made_on_kubernetes() -> None:
    values = yaml.safe_load((DOCKER / "kubernetes/values.yaml").read_text())
    assert values["createUserJob"]["enabled"] is False


def test_no_secret_is_a_word_of_a_command_line() -> None:
    for path in [*SCRIPTS, DOCKER / "kubernetes/README.md"]:
        for line in path.read_text().splitlines():
            assert "--from-literal" not in line, path
            assert not re.search(r"--\S*password\S* .*\$", line), (path, line)


def test_the_example_of_settings_names_variables_of_the_compose_files() -> None:
    lines = (DOCKER / "env.example").read_text().splitlines()
    names = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line}

    files = "".join(path.read_text() for path in [COMPOSE, *HOSTS])
    unknown = {each for each in names if f"${{{each}" not in files}

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
    names = {re.split("[=<>\\[]", each)[0] for each in listed}
    providers = {"apache-airflow-providers-fab", "apache-airflow-providers-cncf-kubernetes"}
    assert {*providers, "pyarrow"} <= names


def test_what_people_put_into_docker_is_not_sent_to_the_build() -> None:
    private = {
        line.rstrip("/")
        for line in (ROOT / ".gitignore").read_text().splitlines()
        if line.startswith("docker/")
    }

    assert private
    assert private <= set((ROOT / ".dockerignore").read_text().splitlines())
