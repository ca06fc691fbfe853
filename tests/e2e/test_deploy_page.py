"""The section for one host of docs/deploy.md, followed to the letter in a fresh clone."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from automl_airflow.rest import AirflowClient

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/deploy.md"
DAG = "automl_digits"
_TIMEOUT_S = 3600  # it installs everything
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"AIRFLOW.*|AUTOML.*|AWS_.*|DASK_.*|PYTHON.*|OMP_.*|VIRTUAL_ENV|GIT_.*|MAKE.*")


def commands(section: str) -> str:
    """Return the commands of a section of the page, one block after the other."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(_BLOCK.findall(text))


@dataclass(frozen=True)
class Reader:
    """Somebody with a fresh clone, who is not root, and whose shell knows nothing of ours."""

    clone: Path
    home: Path
    uid: int
    gid: int

    def run(self, script: str, timeout_s: float = _TIMEOUT_S) -> str:
        """Run a script in the clone, up to the first command that fails, and return its output."""
        env = {name: value for name, value in os.environ.items() if not _OURS.fullmatch(name)}
        own = str(Path(sys.executable).parent)
        places = [place for place in env["PATH"].split(":") if place != own]
        path = self.home / "script.sh"
        path.write_text(script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", str(path)],  # noqa: S607 - whichever the reader has
            cwd=self.clone,
            env=env | {"PATH": ":".join(places), "HOME": str(self.home), "USER": "reader"},
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]
        return done.stdout


@pytest.fixture
def reader() -> Iterator[Reader]:
    folder = Path(tempfile.mkdtemp(prefix="automl-reader-"))
    home, clone = folder / "home", folder / "automl-airflow"
    home.mkdir()
    git = ["git", "clone", "--quiet", str(ROOT), str(clone)]
    subprocess.run(git, check=True, capture_output=True)
    settings = Path.home() / ".config/pip"
    if settings.is_dir():
        shutil.copytree(settings, home / ".config/pip")
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid, nobody.pw_gid
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)
    person = Reader(clone, home, uid, gid)
    try:
        yield person
    finally:
        if (clone / ".venv").exists():
            person.run("make down || true", timeout_s=120)
        shutil.rmtree(folder)


@pytest.mark.soak
def test_the_section_for_one_host_leads_to_a_nightly_study_that_publishes(reader: Reader) -> None:
    told = reader.run(commands("One host"))
    status = reader.run("make --silent status")

    url, password = re.findall(r"Airflow is at (\S+);.* password (\S+)", status)[0]
    client = AirflowClient(url, "admin", password)
    (run,) = client.call("GET", f"dags/{DAG}/dagRuns")["dag_runs"]
    assert client.wait(DAG, run["dag_run_id"], 300) == "success", client.tasks(
        DAG, run["dag_run_id"]
    )
    due = datetime.fromisoformat(client.call("GET", f"dags/{DAG}")["next_dagrun_run_after"])
    assert (due.astimezone(UTC).hour, due.minute) == (1, 0)
    assert 0 < due.timestamp() - time.time() <= 24 * 3600
    assert (reader.clone / "automl-home/models/digits/1/model.onnx").exists()
    assert "0000.png" in told  # and what it shows
    assert "stopped" in reader.run("make down")


def test_the_section_for_one_host_is_a_script_that_needs_no_root(tmp_path: Path) -> None:
    script = commands("One host")
    path = tmp_path / "script.sh"
    path.write_text(script)

    subprocess.run(["bash", "-n", str(path)], check=True)  # noqa: S607

    assert "sudo" not in script
    assert {"make install", "make up"} <= set(script.splitlines())
