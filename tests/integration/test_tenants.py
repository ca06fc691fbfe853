"""Every track goes the same way: from a file to a champion, with a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from automl.domain.study import Study
from automl.domain.trial import TrialState
from automl.storage.open import open_store
from automl.storage.study_log import ObjectStudyLog, StudyRecord
from tests.tenants import TENANTS, Tenant

TIMEOUT_S = 900


@dataclass(frozen=True)
class Tenancy:
    """A track's study in a home of its own.

    Attributes:
        tenant: the track and its study.
        folder: has the data, the study file and the home.
        document: what `automl run` printed.
        log: what it said on standard error.
    """

    tenant: Tenant
    folder: Path
    document: dict[str, Any]
    log: str

    def automl(self, *arguments: str) -> dict[str, Any]:
        """Run a command that succeeds, and return its document."""
        done = subprocess.run(
            command(*arguments), env=self.tenant.process_environment(self.folder / "home"),
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    @property
    def study(self) -> Study:
        """The study as its log tells."""
        return study_in(self.folder / "home", self.tenant.name)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "automl.cli", *arguments, "--json"]


def study_in(home: Path, name: str) -> Study:
    return StudyRecord(ObjectStudyLog(open_store(str(home)), f"studies/{name}/log")).refresh()


def training_workers(home: Path, name: str, run: int) -> list[int]:
    """Return the process ids of the run's workers, once one of its trials is being trained."""
    if not any(trial.state is TrialState.CLAIMED for trial in study_in(home, name).trials):
        return []
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and is_worker(entry, run)
    ]


def is_worker(entry: Path, run: int) -> bool:
    """Return whether a process is a worker that another one has started."""
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"run_worker" in words and int(parent) == run


@pytest.fixture(scope="module", params=TENANTS, ids=lambda tenant: tenant.task)
def tenancy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tenancy:
    """A study that a run with two workers has brought to a champion, though one was killed."""
    tenant: Tenant = request.param
    folder = tmp_path_factory.mktemp(tenant.name)
    study, home = tenant.write_study(folder), folder / "home"
    with (folder / "log").open("w") as log, subprocess.Popen(
        command("run", str(study)), env=tenant.process_environment(home),
        stdout=subprocess.PIPE, stderr=log, text=True,
    ) as process:  # fmt: skip
        try:
            workers: list[int] = []
            while process.poll() is None and not workers:
                time.sleep(0.1)
                workers = training_workers(home, tenant.name, process.pid)
            if workers:
                os.kill(workers[0], signal.SIGKILL)
            output, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.terminate()
    said = (folder / "log").read_text()
    assert process.returncode == 0, output + said
    assert workers, "the run ended before a worker could be killed"
    return Tenancy(tenant, folder, json.loads(output), said)


def test_the_first_version_is_the_champion_though_a_worker_was_killed(tenancy: Tenancy) -> None:
    assert "was killed by signal 9" in tenancy.log
    assert tenancy.document["state"] == "succeeded"
    assert tenancy.document["promoted"] is True
    models = tenancy.automl("models", tenancy.tenant.name)
    (version,) = models["versions"]
    assert models["champion"] == version["version"] == 1
    assert set(version["metrics"]) >= tenancy.tenant.metrics


def test_the_log_knows_all_trials_and_members(tenancy: Tenancy) -> None:
    study = tenancy.study
    asked = tenancy.tenant.sections["search"]["max_trials"]

    (run,) = study.runs
    assert len(study.trials) == asked
    assert {trial.state for trial in study.trials} == {TrialState.FINISHED}
    assert run.final_fit is not None
    assert len(run.final_fit.members) == tenancy.tenant.members
    assert sum(member.weight for member in run.final_fit.members) == pytest.approx(1)


def test_the_leaderboard_ranks_by_the_objective(tenancy: Tenancy) -> None:
    board = tenancy.automl("leaderboard", tenancy.tenant.name)

    scores = [trial["score"] for trial in board["trials"] if trial["outcome"] == "completed"]
    assert len(board["trials"]) == len(tenancy.study.trials)
    assert scores
    assert scores == sorted(scores, reverse=tenancy.tenant.is_maximised)


def test_each_trial_is_shown_with_its_curve(tenancy: Tenancy) -> None:
    shown = tenancy.automl("show", tenancy.tenant.name, "0")

    assert shown["trial"] == 0
    assert shown["curve"][-1]["score"] is not None


def test_every_proposal_is_derived_again(tenancy: Tenancy) -> None:
    replay = tenancy.automl("replay", tenancy.tenant.name)

    assert replay["ok"] is True
    assert replay["trials"] == len(tenancy.study.trials)


def test_the_published_version_is_verified(tenancy: Tenancy) -> None:
    assert tenancy.automl("verify", tenancy.tenant.name)["ok"] is True


def test_the_file_alone_predicts(tenancy: Tenancy) -> None:
    path = tenancy.tenant.write_inputs(tenancy.folder)

    predicted = tenancy.automl("predict", tenancy.tenant.name, str(path))

    assert len(predicted["rows"]) == tenancy.tenant.inputs
    model = tenancy.folder / "home" / "models" / tenancy.tenant.name / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert {output.name for output in session.get_outputs()} == tenancy.tenant.outputs
    assert np.isfinite([value for row in predicted["rows"] for value in numbers_of(row)]).all()


def numbers_of(row: dict[str, Any]) -> list[float]:
    """Return the numbers that a prediction consists of."""
    if "value" in row:
        return [float(row["value"])]
    return [float(value) for value in row["probabilities"].values()]
