"""`automl doctor` against real trouble: each is found, has a remedy, and decides the exit code."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from automl import doctor as doctor_package
from automl.doctor import examine as diagnose
from automl.doctor import store, surroundings
from automl.doctor.findings import Finding
from automl.doctor.store import clock, examine_store
from automl.domain.candidate import Candidate
from automl.domain.events import TrialClaimed, TrialOpened, TrialProposed
from automl.domain.settings import Settings
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import WAITING_TTL_S, RunLease
from automl.steps.study_file import load_study_file, study_spec
from automl.storage.memory import MemoryObjectStore
from automl.storage.open import open_store
from benchmarks.servers import READER_ACCESS_KEY, READER_SECRET_KEY
from tests.commands import automl
from tests.homes import IgnoringStore

SPEC = study_spec(
    {"name": "digits", "task": "image_classification", "data": {"source": "/rows.npz"}}
)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in os.environ if name.startswith(("AIRFLOW_", "AUTOML_", "DASK_"))]
    for name in names:
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def doctor(home: Path | str, **process: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "automl.cli", "doctor", "--home", str(home), "--json"],
        capture_output=True, text=True, timeout=60, check=False, **process,
    )  # fmt: skip


def examine(home: str | None) -> dict[str, Any]:
    return diagnose(home, load_study_file).to_json()


def troubles(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {row["check"]: row for row in document["checks"] if not row["ok"]}
    assert document["ok"] == (not found)
    assert (document["exit_code"] == 0) == (not found)
    assert all(row["remedy"] for row in found.values())
    return found


def only_trouble(document: dict[str, Any]) -> tuple[str, str, str, int]:
    """Return check, what was found, remedy and exit code of the one trouble."""
    (row,) = troubles(document).values()
    return row["check"], row["found"], row["remedy"], document["exit_code"]


def opened(home: Path) -> StepContext:
    context = StepContext.open(Settings(str(home)), SPEC, "one", "test")
    with RunLease(context):
        opening.open_run(context, "snapshot")
    return context


def version_of(home: Path, number: int) -> Path:
    return home / "studies" / "digits" / "log" / f"{number:012d}.json"


# --- the home ---


def test_a_healthy_home_has_no_trouble_and_keeps_nothing_of_the_probe(home: Path) -> None:
    opened(home)
    before = {entry.key for entry in open_store(str(home)).list("")}

    done = doctor(home)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert troubles(document) == {}
    assert {row["check"] for row in document["checks"]} >= {
        "settings", "unfinished writes", "listing", "space", "writing", "reading", "latency",
        "deleting", "conditional writes", "clock", "study digits", "sources", "devices", "airflow",
    }  # fmt: skip
    assert {entry.key for entry in open_store(str(home)).list("")} == before


def test_a_home_that_is_no_address_is_wrong_usage() -> None:
    check, found, remedy, code = only_trouble(examine("gs://bucket"))

    assert (check, code) == ("settings", 2)
    assert "gs://bucket" in found
    assert "s3://bucket/prefix" in remedy


def test_a_file_where_the_home_should_be_is_named(home: Path) -> None:
    home.write_text("not a folder")

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, code) == ("writing", 4)
    assert "is a file" in found
    assert "remove one of the two" in remedy
    assert home.read_text() == "not a folder"


def obey_rights() -> None:
    """Let a process of root be denied what the rights of a file deny to its owner."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; others lack them anyway


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    opened(home)
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield home
    for folder in folders:
        folder.chmod(0o755)


def test_a_folder_that_may_only_be_read_is_named(read_only: Path) -> None:
    done = doctor(read_only, preexec_fn=obey_rights)

    assert done.returncode == 4, done.stderr
    check, found, remedy, code = only_trouble(json.loads(done.stdout))
    assert (check, code) == ("writing", 4)
    assert "Permission denied" in found
    assert "rights to the folder" in remedy


@pytest.mark.parametrize(
    ("constant", "check"),
    [("_FREE_BYTES", "space"), ("_FREE_FILES", "space"), ("_SLOW_S", "latency")],
)
def test_a_home_below_what_a_study_needs_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, constant: str, check: str
) -> None:
    monkeypatch.setattr(store, constant, 0.0 if constant == "_SLOW_S" else 2**62)

    name, found, remedy, code = only_trouble(examine(str(home)))

    assert (name, code) == (check, 4)
    assert "GiB" in found or "ms" in found
    assert "AUTOML_HOME" in remedy or "nearer" in remedy


def test_the_clock_is_told_with_its_direction() -> None:
    def against(offset: timedelta) -> Finding:
        return clock("clock", "the store's", lambda: datetime.now(UTC) + offset)

    assert against(timedelta(seconds=30)).ok
    behind, ahead = against(timedelta(minutes=5)), against(timedelta(minutes=-5))
    assert behind.found == "this machine's clock is 300.0 s behind the store's"
    assert ahead.found == "this machine's clock is 300.0 s ahead of the store's"
    assert not behind.ok
    assert not ahead.ok
    assert "synchronise" in ahead.remedy


class ForgetfulStore(MemoryObjectStore):
    """Answers writes, and keeps something else."""

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data[:-1])


def test_a_store_that_loses_bytes_is_named() -> None:
    bad = [finding for finding in examine_store(ForgetfulStore(), 1) if not finding.ok]

    assert [(f.check, f.exit_code) for f in bad] == [("reading", 4)]
    assert "does not give back what was written" in bad[0].found


def test_a_store_that_ignores_conditions_is_named_with_the_way_out() -> None:
    careless = IgnoringStore()
    (bad,) = [finding for finding in examine_store(careless, 1) if not finding.ok]

    assert (bad.check, bad.exit_code) == ("conditional writes", 4)
    assert "AUTOML_STUDY_LOG" in bad.remedy
    assert list(careless.list("")) == []


def test_what_dead_processes_left_in_a_folder_is_counted(home: Path) -> None:
    opened(home)
    left = home / ".tmp" / ".tmp-of-a-dead-process"
    left.write_bytes(b"half a checkpoint")
    past_s = time.time() - 2 * 86_400
    os.utime(left, (past_s, past_s))

    rows = {row["check"]: row for row in examine(str(home))["checks"]}

    assert rows["unfinished writes"]["found"] == "1 temporary files, which the next write removes"


# --- S3 ---


def test_a_home_on_s3_is_examined(s3_store_uri: str) -> None:
    assert troubles(examine(s3_store_uri)) == {}
    assert list(open_store(s3_store_uri).list("")) == []


def test_a_wrong_secret_is_named(s3_store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret-value")

    check, _, remedy, code = only_trouble(document := examine(s3_store_uri))

    assert (check, code) == ("listing", 4)
    assert "AWS_SECRET_ACCESS_KEY" in remedy
    assert "a-wrong-secret-value" not in json.dumps(document)


def test_credentials_that_may_only_read_are_named(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET_KEY)

    found = troubles(document := examine(s3_store_uri))

    assert "writing" in found
    assert "AccessDenied" in found["writing"]["found"]
    assert document["exit_code"] == 4


def test_a_server_that_is_away_is_named_before_long(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert doctor_package._PATIENCE_S <= 30
    monkeypatch.setattr(doctor_package, "_PATIENCE_S", 1.0)
    started_s = time.monotonic()

    check, found, remedy, code = only_trouble(examine(s3_store_uri))

    assert (check, code) == ("listing", 4)
    assert "127.0.0.1" in found
    assert "AWS_ENDPOINT_URL" in remedy
    assert time.monotonic() - started_s < 60


def test_uploads_that_were_never_completed_are_named(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    bucket, _, prefix = s3_store_uri.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/studies/x/big")
    monkeypatch.setattr(store, "_ABANDONED", timedelta(seconds=-60))  # as if a day had passed

    check, found, remedy, code = only_trouble(examine(s3_store_uri))
    client.abort_multipart_upload(
        Bucket=bucket, Key=f"{prefix}/studies/x/big", UploadId=upload["UploadId"]
    )
    client.close()

    assert (check, code) == ("unfinished writes", 4)
    assert "such as of studies/x/big" in found
    assert "AbortIncompleteMultipartUpload" in remedy


# --- a study log in a database ---


def test_a_database_is_examined_with_its_clock(
    home: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDY_LOG", postgres_url)

    document = examine(str(home))
    rows = {row["check"]: row for row in document["checks"]}

    assert troubles(document) == {}
    assert "that of postgresql://127.0.0.1" in rows["study log"]["found"]


def test_a_database_that_cannot_be_used_is_named_without_its_password(
    home: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDY_LOG", postgres_url.replace("@", "-and-wrong@"))

    document = examine(str(home))
    found = troubles(document)

    assert set(found) == {"study log", "conditional writes"}  # which are made under its locks
    assert document["exit_code"] == 4
    assert "postgresql://127.0.0.1" in found["study log"]["found"]
    assert "-and-wrong" not in json.dumps(document)


def test_an_address_of_no_database_is_wrong_usage(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDY_LOG", "mysql://user:secret@host/logs")

    check, _, _, code = only_trouble(document := examine(str(home)))

    assert (check, code) == ("settings", 2)
    assert "secret" not in json.dumps(document)


# --- studies ---


def test_a_damaged_log_is_named_with_its_version_and_others_are_examined(home: Path) -> None:
    opened(home)
    other = SPEC.model_copy(update={"name": "leaves"})
    with RunLease(context := StepContext.open(Settings(str(home)), other, "two", "test")):
        opening.open_run(context, "snapshot")
    version_of(home, 0).write_bytes(b'{"schema": 1, "ev')

    document = examine(str(home))
    check, found, remedy, code = only_trouble(document)

    assert (check, code) == ("study digits", 4)
    assert "000000000000.json" in found
    assert "backup" in remedy
    assert any(row["check"] == "study leaves" for row in document["checks"])


def test_a_log_of_a_newer_version_is_named(home: Path) -> None:
    opened(home)
    newer = json.loads(version_of(home, 0).read_text()) | {"schema": 2}
    version_of(home, 0).write_text(json.dumps(newer))

    check, found, remedy, _ = only_trouble(examine(str(home)))

    assert check == "study digits"
    assert "has schema 2" in found
    assert "upgrade" in remedy


def test_a_log_that_contradicts_itself_is_named(home: Path) -> None:
    context = opened(home)
    ticket = TrialOpened(at=NOW, n=0, run="one", worker="w")
    twin = Candidate(genotype="{}", hyperparameters={})
    context.record.commit(lambda study: () if study.trials else [ticket])
    proposal = TrialProposed(at=NOW, n=0, candidate=twin, based_on=1, strategy="random")
    claim = TrialClaimed(at=NOW, n=0, attempt=7, run="one", worker="w")
    context.record.commit(
        lambda study: () if study.trials[0].candidate is not None else [proposal, claim]
    )

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, code) == ("study digits", 4)
    assert "its log contradicts itself in 1 places, first: " in found
    assert "backup" in remedy


def test_an_open_run_whose_processes_died_is_named(home: Path) -> None:
    opened(home)
    lease = home / "studies" / "digits" / "leases" / "run.json"
    past_s = time.time() - WAITING_TTL_S - 1
    os.utime(lease, (past_s, past_s))  # as if nobody had renewed it since

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, code) == ("study digits", 4)
    assert found == "run one is open, but its processes give no sign of life"
    assert "closes this one as abandoned" in remedy


# --- what is around the home ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_dask_scheduler_that_does_not_answer_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    assert surroundings._DASK_TIMEOUT_S <= 30
    monkeypatch.setattr(surroundings, "_DASK_TIMEOUT_S", 1)

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, code) == ("dask", 4)
    assert address in found
    assert "start the scheduler" in remedy


def test_a_dask_scheduler_without_workers_and_without_protection_is_named(home: Path) -> None:
    port = free_port()
    address = f"tcp://0.0.0.0:{port}"  # of this machine, but not its loopback's name
    command = "from distributed.cli.dask_scheduler import main; main()"
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    scheduler = subprocess.Popen(
        [sys.executable, "-c", command, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        done = doctor(home, env={**os.environ, "DASK_SCHEDULER_ADDRESS": address})
    finally:
        scheduler.terminate()
        scheduler.wait()

    assert done.returncode == 4
    check, found, remedy, _ = only_trouble(json.loads(done.stdout))
    assert check == "dask"
    assert found == (
        f"the scheduler at {address} has 0 workers; whoever reaches it runs code there, so keep it "
        "in a private network or use tls://"
    )
    assert remedy == f"start workers: dask worker {address}"


def wait_for(port: int) -> None:
    limit_s = time.monotonic() + 60
    while time.monotonic() < limit_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the scheduler does not start")


def test_sources_that_cannot_be_read_are_named(
    home: Path, tmp_path: Path, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    open_store(s3_store_uri).put("farm/rows.csv", b"data")
    sources = [
        str(tmp_path / "data"), str(tmp_path / "absent"), f"{s3_store_uri}/farm",
        f"{s3_store_uri}/empty", "s3://no-such-bucket-here/farm",
    ]  # fmt: skip
    monkeypatch.setenv("AUTOML_SOURCES", ", ".join(sources))

    document = examine(str(home))
    found = troubles(document)

    assert set(found) == {f"source {sources[index]}" for index in (1, 3, 4)}
    assert "NoSuchBucket" in found[f"source {sources[4]}"]["found"]
    assert document["exit_code"] == 2


def test_a_setting_without_which_airflow_reads_nothing_is_missed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sources" not in troubles(examine(str(home)))

    monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
    found = troubles(examine(str(home)))["sources"]
    assert "under Airflow studies may read nothing" in found["found"]
    assert "set it where Airflow's workers run" in found["remedy"]

    monkeypatch.setenv("AUTOML_SOURCES", "/usr, http://eve:hidden@host/data")
    (check, wrong), *others = troubles(examine(str(home))).items()
    assert not others
    assert "Data cannot be read from http://" in wrong["found"]
    assert "hidden" not in check + str(wrong)


def test_study_files_with_problems_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = "name: {}\ntask: image_classification\ndata: {{source: x.csv}}\n"
    (tmp_path / "a.yaml").write_text(good.format("leaves"))
    (tmp_path / "b.yml").write_text(good.format("leaves"))
    (tmp_path / "c.yaml").write_text("name: c\ntask: image_classification\ndata: {sorce: x}\n")
    (tmp_path / "d.yaml").write_text("name: [unclosed\n")
    monkeypatch.setenv("AUTOML_STUDIES", str(tmp_path))

    document = examine(str(home))
    found = troubles(document)

    assert set(found) == {"study file b.yml", "study file c.yaml", "study file d.yaml"}
    assert "'leaves' is the name of a.yaml already" in found["study file b.yml"]["found"]
    assert "did you mean 'source'" in found["study file c.yaml"]["found"]
    assert document["exit_code"] == 2


def test_a_folder_of_study_files_that_does_not_exist_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDIES", str(tmp_path / "absent"))

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, code) == ("study files", 2)
    assert str(tmp_path / "absent") in found
    assert "AUTOML_STUDIES" in remedy


def test_an_airflow_of_another_version_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "apache_airflow-2.9.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: apache-airflow\nVersion: 2.9.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    check, found, remedy, code = only_trouble(examine(str(home)))

    assert (check, found, code) == ("airflow", "version 2.9.0, not 3.3.x", 2)
    assert "constraints.txt" in remedy


def test_wrong_usage_comes_before_trouble_that_may_pass(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("not a folder")
    monkeypatch.setenv("AUTOML_STUDIES", str(tmp_path / "absent"))

    assert examine(str(home))["exit_code"] == 2


def test_people_get_a_line_for_each_check(home: Path) -> None:
    home.write_text("not a folder")

    done = automl("doctor", "--home", str(home), settings=os.environ)

    assert done.returncode == 4
    assert f"ok  settings: everything is kept in {home}\n" in done.stdout
    assert "BAD writing: " in done.stdout
    assert " Remedy: no key may be a folder of another" in done.stdout
