"""Checks of what is around the home: devices, Dask, Airflow, sources and study files."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from automl.data.cluster import TLS_HINT, is_unprotected
from automl.doctor.findings import STORAGE, USAGE, Finding, failure, fine, trouble
from automl.domain.sources import place_of
from automl.domain.specification import StudySpec
from automl.errors import AutoMLError
from automl.machine.cores import available_cores
from automl.machine.gpus.host import find_gpus
from automl.machine.gpus.lease import occupation
from automl.machine.gpus.ledger import GpuLedger, locks_folder
from automl.storage.open import open_store

_AIRFLOW, _PLUGIN = "3.3.", "automl"
_DASK_TIMEOUT_S, _POOLS_TIMEOUT_S = 10, 120
_POOLS_MODULE = "automl_airflow.slots"  # a process of its own: Airflow's settings load slowly
_ADDRESSES = ("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__API__BASE_URL")


def examine_surroundings(read_study: Callable[[Path], StudySpec]) -> list[Finding]:
    """Return what is found of this machine and of what the environment names.

    Args:
        read_study: reads a study file; raises ConfigError for what is wrong with it.
    """
    return [*_sources(), *_study_files(read_study), _devices(), *_gpus(), *_dask(), *_airflow()]


def _sources() -> Iterator[Finding]:
    parts = os.environ.get("AUTOML_SOURCES", "").split(",")
    prefixes = [prefix for part in parts if (prefix := part.strip())]
    if not prefixes:
        yield _no_sources()
    for prefix in prefixes:
        yield _source(prefix)


def _no_sources() -> Finding:
    found = "AUTOML_SOURCES is not set: under Airflow studies may read nothing"
    if any(name.startswith("AIRFLOW_") for name in os.environ):
        remedy = "set it where Airflow's workers run, such as to /data,s3://bucket/datasets"
        return trouble("sources", found, remedy, USAGE)
    return fine("sources", f"{found}, by the command line whatever you can")


def _source(prefix: str) -> Finding:
    check = f"source {prefix.rpartition('@')[2]}"  # without a login
    try:
        place = place_of(prefix)
    except AutoMLError as error:
        return failure(check, error)
    if not place.startswith("s3://"):
        if os.access(place, os.R_OK):
            return fine(check, "can be read")
        remedy = "create it, give this user the right to read it, or correct AUTOML_SOURCES"
        return trouble(check, "nothing that this user can read", remedy, USAGE)
    bucket, _, key = place.removeprefix("s3://").partition("/")
    try:
        entry = next(open_store(f"s3://{bucket}").list(key), None)
    except AutoMLError as error:
        return failure(check, error)
    if entry is None:
        remedy = "upload the data, or correct AUTOML_SOURCES"
        return trouble(check, "nothing is stored there", remedy, USAGE)
    return fine(check, f"holds {entry.key} and perhaps more")


def _study_files(read_study: Callable[[Path], StudySpec]) -> Iterator[Finding]:
    named = os.environ.get("AUTOML_STUDIES")
    if not named:
        return
    folder = Path(named)
    if not folder.is_dir():
        remedy = "create the folder of study files, or correct AUTOML_STUDIES"
        yield trouble(
            "study files", f"AUTOML_STUDIES is {folder}, which is no folder", remedy, USAGE
        )
        return
    owners: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            name = read_study(path).name
        except AutoMLError as error:
            yield failure(f"study file {path.name}", error)
            continue
        owner = owners.setdefault(name, path)
        if owner is not path:
            found = f"{name!r} is the name of {owner.name} already"
            yield trouble(f"study file {path.name}", found, "choose another name", USAGE)
    yield fine("study files", f"{len(owners)} studies in {folder}")


def _devices() -> Finding:
    import torch

    cores = available_cores()
    gpus = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(gpus)) or "no GPU"
    return fine("devices", f"{cores} CPU cores, {names}, torch {torch.__version__}")


def _gpus() -> Iterator[Finding]:
    """Yield who holds each GPU that a training process of this environment may use."""
    try:
        for gpu in find_gpus(os.environ):
            ledger = GpuLedger(locks_folder(os.environ), gpu)
            yield fine(f"gpu {gpu.index}", occupation([ledger]))
    except AutoMLError as error:
        yield failure("gpus", error)


def _dask() -> Iterator[Finding]:
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        return
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the finding says it
    try:
        with distributed.Client(address, timeout=_DASK_TIMEOUT_S, set_as_default=False) as client:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, ValueError) as error:
        found = f"DASK_SCHEDULER_ADDRESS is {address}, where no scheduler answers: {error}"
        yield trouble("dask", found, "start the scheduler, or unset the variable", STORAGE)
        return
    except TypeError:  # so Dask calls that
        found = f"DASK_SCHEDULER_ADDRESS is {address}, and no certificate is set"
        yield trouble("dask", found, TLS_HINT, USAGE)
        return
    found = f"the scheduler at {address} has {workers} workers"
    if is_unprotected(address):
        found += (
            "; whoever reaches it runs code there, so keep it in a private network or use tls://"
        )
    if workers:
        yield fine("dask", found)
    else:
        yield trouble("dask", found, f"start workers: dask worker {address}", STORAGE)


def _airflow() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("apache-airflow")
    except importlib.metadata.PackageNotFoundError:
        yield fine("airflow", "not installed; only needed to schedule studies")
        return
    reinstall = "install automl-airflow[airflow] with constraints.txt"
    plugins = importlib.metadata.entry_points(group="airflow.plugins")
    if not version.startswith(_AIRFLOW):
        yield trouble("airflow", f"version {version}, not {_AIRFLOW}x", reinstall, USAGE)
    elif _PLUGIN not in plugins.names:
        yield trouble("airflow", f"{version}, without the plugin", reinstall, USAGE)
    else:
        yield fine("airflow", f"{version} with the plugin; a run's `check` looks for the pools")
        yield from _pools()
    if connection := os.environ.get("AUTOML_S3_CONN_ID"):
        yield fine(
            "airflow connection", f"{connection} gives S3 access to tasks, not to this check"
        )


def _pools() -> Iterator[Finding]:
    """Yield what Airflow's pools lack, where the environment says which Airflow."""
    if not any(name in os.environ for name in _ADDRESSES):
        return
    remedy = "see docs/runbook.md"
    try:
        asked = subprocess.run(
            [sys.executable, "-m", _POOLS_MODULE],
            capture_output=True,
            text=True,
            timeout=_POOLS_TIMEOUT_S,
            check=True,
        )
        found = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, LookupError):
        yield trouble("pools", f"{_POOLS_MODULE} fails: Airflow cannot be asked", remedy, STORAGE)
        return
    for warning in found["warnings"]:
        yield trouble("pools", warning, found["error"] or remedy, USAGE)
    if not found["warnings"]:
        yield fine("pools", "they exist, and the workers have a place for each of their slots")
