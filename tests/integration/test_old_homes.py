"""Homes that an earlier release wrote are read, verified, replayed and continued.

How they were made, and what that release made of them, is told in `tests/golden`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "EXPECTED.json").read_text())
STUDY, RUN = "patterns", "night-1"
TIMEOUT_S = 180
CONTINUED = ("run_worker", "choose", "final_fit", "export", "evaluate", "promote")


@dataclass(frozen=True)
class OldHome:
    """A home of the earlier release, with the data of its study beside it."""

    folder: Path

    @classmethod
    def unpack(cls, name: str, folder: Path) -> OldHome:
        """Return what the archive of that name holds."""
        with tarfile.open(GOLDEN / f"home-{name}.tar.gz") as archive:
            # Debian 12's Python 3.11.2 has no filters
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder)  # noqa: S202 - it is filtered where it can be
        return cls(folder)

    @property
    def study_file(self) -> Path:
        """The file of its study."""
        return self.folder / "source" / "study.yaml"

    def environment(self) -> dict[str, str]:
        """Return that of the commands, which find this home."""
        clean = {key: value for key, value in os.environ.items() if "AUTOML" not in key}
        return {**clean, "AUTOML_HOME": str(self.folder / "home")}

    def automl(self, *arguments: str) -> dict[str, Any]:
        """Run a command that succeeds, and return its document."""
        done = subprocess.run(
            [sys.executable, "-m", "automl.cli", *arguments, "--json"],
            env=self.environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def step(self, name: str) -> Any:
        """Run a step of the begun run that succeeds, and return its result."""
        payload = {
            "study_file": str(self.study_file),
            "run": RUN,
            "worker": 0,
            "origin": f"airflow:automl_{STUDY}",
        }
        result = self.folder / f"{name}.json"
        with result.open("w") as file:
            done = subprocess.run(
                [sys.executable, "-m", "automl.steps", name],
                env={
                    **self.environment(),
                    **EXPECTED["numerics"],
                    "AUTOML_RESULT_FD": str(file.fileno()),
                },
                input=json.dumps(payload), capture_output=True, text=True, timeout=TIMEOUT_S,
                pass_fds=(file.fileno(),), check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(result.read_text().splitlines()[-1])["result"]  # labels come before it

    def leaderboard(self) -> list[dict[str, Any]]:
        """Return the trials by rank, without what is of no concern here."""
        keys = EXPECTED["finished"]["leaderboard"][0]
        rows = self.automl("leaderboard", STUDY)["trials"]
        return [{key: row[key] for key in keys} for row in rows]

    def onnx_sha256(self, version: int) -> str:
        """Return the SHA-256 of a version's file."""
        file = self.folder / "home" / "models" / STUDY / str(version) / "model.onnx"
        return hashlib.sha256(file.read_bytes()).hexdigest()


def computes_as_then() -> bool:
    """Return whether the sums of a training are those of the machine that `EXPECTED` is from.

    Other instructions and other releases of the libraries add in another order.
    """
    text = Path("/proc/cpuinfo").read_text()
    here = {
        key: found[1].strip() if (found := re.search(rf"^{key}\s*:(.*)$", text, re.M)) else ""
        for key in EXPECTED["machine"]["cpu"]
    }
    versions = {name: importlib.metadata.version(name) for name in EXPECTED["machine"]["versions"]}
    return bool(EXPECTED["machine"] == {"cpu": here, "versions": versions})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> OldHome:
    """Two finished runs, each with its version; it is only read."""
    return OldHome.unpack("finished", tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> OldHome:
    """A run whose worker got SIGTERM in its third trial, and which now goes on to its end."""
    home = OldHome.unpack("begun", tmp_path_factory.mktemp("begun"))
    assert home.leaderboard() == EXPECTED["begun"]["leaderboard"]
    results = {name: home.step(name) for name in CONTINUED}
    assert results["run_worker"]["state"] == "search_ended"
    assert results["run_worker"]["trials"] == EXPECTED["continued"]["search"]
    assert results["choose"]["trial"] == EXPECTED["continued"]["winner"]
    assert results["promote"]["promoted"]
    return home


def test_the_trials_of_an_old_home_rank_as_they_did(finished: OldHome) -> None:
    assert finished.leaderboard() == EXPECTED["finished"]["leaderboard"]


def test_a_trial_of_an_old_home_shows_its_lineage_and_its_curve(finished: OldHome) -> None:
    expected = EXPECTED["finished"]["trial"]
    found = finished.automl("show", STUDY, str(expected["trial"]))

    assert {key: found[key] for key in expected if key != "curve"} == {
        key: value for key, value in expected.items() if key != "curve"
    }
    assert [epoch["train_loss"] for epoch in found["curve"]] == expected["curve"]


def test_the_versions_of_an_old_home_are_listed(finished: OldHome) -> None:
    expected, found = EXPECTED["finished"], finished.automl("models", STUDY)

    assert found["champion"] == expected["champion"]
    assert [promotion["to"] for promotion in found["promotions"]] == [1]
    for row, version in zip(found["versions"], expected["versions"], strict=True):
        assert row["version"] == version["version"]
        assert row["promoted"] == version["promoted"]
        assert row["weights"]["source"] == version["source"]
        assert row["weights"]["epochs"] == version["epochs"]
        assert row["metrics"]["accuracy"]["value"] == version["accuracy"]
        assert finished.onnx_sha256(row["version"]) == version["sha256"]


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_version_verifies(finished: OldHome, version: int) -> None:
    found = finished.automl("verify", f"{STUDY}@{version}")

    assert found["ok"]
    assert {file["path"] for file in found["files"]} == {
        "model.onnx", "report.html", "samples.npz",
    }  # fmt: skip


def test_the_proposals_of_an_old_home_follow_from_its_log(finished: OldHome) -> None:
    found = finished.automl("replay", STUDY)

    assert {key: found[key] for key in EXPECTED["finished"]["replay"]} == (
        EXPECTED["finished"]["replay"]
    )


def test_an_old_champion_classifies_new_images(finished: OldHome) -> None:
    expected = EXPECTED["finished"]["predictions"]
    images = [str(finished.folder / "source" / f"{label}.png") for label in expected]
    rows = finished.automl("predict", STUDY, *images)["rows"]

    for row, (label, probabilities) in zip(rows, expected.items(), strict=True):
        assert row["label"] == label
        assert row["probabilities"] == pytest.approx(probabilities, abs=1e-4)


def test_an_old_version_is_trained_further(tmp_path: Path) -> None:
    home, expected = OldHome.unpack("finished", tmp_path), EXPECTED["finished"]["further"]
    study = yaml.safe_load(home.study_file.read_text())
    study["final_fit"] = {"from": 1}
    home.study_file.write_text(yaml.safe_dump(study))

    found = home.automl("run", str(home.study_file))

    assert found["version"] == 3
    assert found["winner"] == expected["winner"]
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(expected["accuracy"], abs=0.05)
    if computes_as_then():
        assert home.onnx_sha256(3) == expected["sha256"]


def test_a_begun_trial_goes_on_from_its_old_checkpoint(continued: OldHome) -> None:
    expected, old = EXPECTED["continued"]["trial"], EXPECTED["continued"]["old_curve"]
    found = continued.automl("show", STUDY, str(expected["trial"]))

    assert {key: found[key] for key in expected} == expected
    assert [epoch["train_loss"] for epoch in found["curve"][: len(old)]] == old


def test_a_continued_run_publishes_the_bytes_that_the_old_release_would_have(
    continued: OldHome,
) -> None:
    assert continued.automl("verify", f"{STUDY}@1")["ok"]
    if computes_as_then():
        assert continued.onnx_sha256(1) == EXPECTED["continued"]["sha256"]


def test_the_proposals_of_a_continued_run_follow_from_its_log(continued: OldHome) -> None:
    found = continued.automl("replay", STUDY)

    assert {key: found[key] for key in EXPECTED["continued"]["replay"]} == (
        EXPECTED["continued"]["replay"]
    )
