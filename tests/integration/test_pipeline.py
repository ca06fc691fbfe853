"""The whole pipeline on 300 digits: command line, folder and S3, and the estimator."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from automl.api import ImageClassifier, load_image_dataset
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.domain.trial import TrialState
from automl.errors import ConfigError, DataError
from automl.runs.run_lease import is_run_alive
from automl.steps.dispatch import run_named_step
from automl.storage.open import open_home, open_store
from automl.storage.study_log import ObjectStudyLog, StudyRecord
from automl.tracks.image.decode import encode_png
from automl.tracks.image.snapshot import ImageSnapshot
from benchmarks.servers import POSTGRES_PASSWORD
from tests.commands import automl, document_of
from tests.digits import digits, write_digits

ROWS = 300


def write_study(folder: Path, max_trials: int = 3, workers: int = 2) -> Path:
    """Write a study of a few short trials on the first digits."""
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder / "rows.npz", ROWS)
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"time_limit": "60s", "max_trials": max_trials, "workers": workers},
        "final_fit": {"time_limit": "30s"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder / "study.yaml"


def run_study(study: Path, home: str) -> dict[str, Any]:
    return document_of(automl("run", str(study), "--home", home, "--json"))


def study_in(home: str) -> Study:
    return StudyRecord(ObjectStudyLog(open_store(home), "studies/digits/log")).refresh()


@dataclass(frozen=True)
class Published:
    """What a first run left behind."""

    document: dict[str, Any]
    study: Path
    home: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("pipeline")
    study = write_study(folder / "in")
    return Published(run_study(study, str(folder / "home")), study, folder / "home")


@pytest.fixture
def home(published: Published, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(published.home, tmp_path / "home"))


def test_a_run_prints_its_document(published: Published) -> None:
    document = published.document

    assert {key: document[key] for key in ("schema", "study", "state", "version", "promoted")} == {
        "schema": 1,
        "study": "digits",
        "state": "succeeded",
        "version": 1,
        "promoted": True,
    }
    (run,) = study_in(str(published.home)).runs
    assert document["run"] == run.name
    assert set(document["winner"]) == {"trial", "score", "error"}
    assert document["winner"]["score"] > 0.8
    accuracy = document["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > 0.8
    assert Path(document["onnx"]) == published.home / "models" / "digits" / "1" / "model.onnx"
    assert Path(document["onnx"]).is_file()


def test_a_run_trains_as_many_trials_as_it_may(published: Published) -> None:
    study = study_in(str(published.home))

    assert len(study.trials) == 3
    assert all(trial.state is TrialState.FINISHED for trial in study.trials)
    assert study.decisions == 1


def test_the_published_file_needs_onnx_runtime_alone(published: Published) -> None:
    folder = published.home / "models" / "digits"
    champion = json.loads((folder / "champion.json").read_text())
    data = (folder / champion["uri"]).read_bytes()
    x, y = digits()
    rgb = np.repeat(x[ROWS : ROWS + 100, ..., None], 3, axis=-1)
    large = np.repeat(np.repeat(rgb, 5, axis=1), 3, axis=2)  # 40 x 24 pixels

    assert champion["version"] == 1
    assert hashlib.sha256(data).hexdigest() == champion["sha256"]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["labels"]) == list("0123456789")
    for pixels in (rgb, large):
        labels, probabilities = session.run(["label", "probabilities"], {"image": pixels})
        assert (labels == y[ROWS : ROWS + 100].astype(str)).mean() > 0.7
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_published_version_verifies(published: Published) -> None:
    done = automl("verify", "digits", "--home", str(published.home), "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema"], document["ok"], document["version"]) == (1, True, 1)
    assert {"model.onnx", "report.html", "samples.npz"} <= {f["path"] for f in document["files"]}
    assert document["parity"]["ok"]
    assert document["parity"]["rows"] > 0


def test_one_changed_byte_fails_the_verification(home: Path) -> None:
    model = home / "models" / "digits" / "1" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)

    done = automl("verify", "digits@1", "--home", str(home), "--json")

    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert not document["ok"]
    assert [file["path"] for file in document["files"] if not file["ok"]] == ["model.onnx"]
    assert "model.onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_leaderboard_and_the_registry_tell_of_the_run(published: Published) -> None:
    home = str(published.home)

    board = json.loads(automl("leaderboard", "digits", "--home", home, "--json").stdout)
    models = json.loads(automl("models", "digits", "--home", home, "--json").stdout)

    assert [row["rank"] for row in board["trials"]] == [1, 2, 3]
    assert board["trials"][0]["trial"] == published.document["winner"]["trial"]
    assert models["champion"] == 1
    assert [row["version"] for row in models["versions"]] == [1]


def test_a_champion_classifies_files(published: Published, tmp_path: Path) -> None:
    x, y = digits()
    image = tmp_path / "digit.png"
    image.write_bytes(encode_png(np.repeat(x[0, ..., None], 3, axis=-1)))
    (tmp_path / "broken.png").write_bytes(b"no image")

    done = automl(
        "predict", "digits", str(image), str(tmp_path / "broken.png"),
        "--home", str(published.home), "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    good, broken = json.loads(done.stdout)["rows"]
    assert good["label"] == str(y[0])
    assert set(good["probabilities"]) == set("0123456789")
    assert "not an image file" in broken["error"]


def test_all_steps_of_a_published_run_can_be_called_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_HOME", str(home))
    before = study_in(str(home))
    (run,) = before.runs
    payload = {"spec": run.spec, "run": run.name, "worker": 0, "snapshot": run.snapshot}

    results: dict[str, Any] = {
        step: run_named_step(step, payload)
        for step in (
            "open_run", "run_worker", "choose", "final_fit", "export", "evaluate", "promote",
        )
    }  # fmt: skip

    assert results["open_run"] == [0, 1]
    assert results["run_worker"] == {
        "state": "search_ended", "trials": [], "best": None, "label": "trials none",
    }  # fmt: skip
    assert run.winner == results["choose"]["trial"] == results["final_fit"]["trial"]
    assert results["export"] == {"version": 1}
    assert results["evaluate"]["version"] == 1
    assert (results["promote"]["version"], results["promote"]["promoted"]) == (1, True)
    assert study_in(str(home)) == before
    assert len(list((home / "models" / "digits").glob("[0-9]*"))) == 1


def test_a_second_run_continues_the_study(published: Published, home: Path) -> None:
    document = run_study(published.study, str(home))

    assert document["version"] == 2
    study = study_in(str(home))
    first, second = study.runs
    assert second.snapshot == first.snapshot
    assert [trial.run for trial in study.trials] == [first.name] * 3 + [second.name] * 3
    assert second.outcomes == 3
    snapshots = [
        path for path in (home / "datasets" / "digits").iterdir() if path.name != "sources"
    ]
    assert [path.name for path in snapshots] == [first.snapshot]
    manifest = Path("datasets", "digits", first.snapshot, "manifest.json")
    assert (home / manifest).stat().st_mtime_ns == (published.home / manifest).stat().st_mtime_ns


def test_a_run_on_s3_reads_a_source_on_disk(tmp_path: Path, s3_store_uri: str) -> None:
    document = run_study(write_study(tmp_path, max_trials=1, workers=1), s3_store_uri)

    assert document["state"] == "succeeded"
    assert document["onnx"] == f"{s3_store_uri}/models/digits/1/model.onnx"
    store = open_store(s3_store_uri)
    champion = json.loads(store.get("models/digits/champion.json").data)
    model = store.get(f"models/digits/{champion['uri']}").data
    assert hashlib.sha256(model).hexdigest() == champion["sha256"]
    (run,) = study_in(s3_store_uri).runs
    assert sum(ImageSnapshot.open(store, "digits", run.snapshot).envelope.counts.values()) == ROWS
    assert automl("verify", "digits", "--home", s3_store_uri).returncode == 0
    assert not (tmp_path / "automl-home").exists()


@pytest.mark.soak
def test_a_run_keeps_its_log_in_postgresql(tmp_path: Path, postgres_url: str) -> None:
    home = tmp_path / "home"
    settings = {"AUTOML_HOME": str(home), "AUTOML_STUDY_LOG": postgres_url}
    done = automl(
        "run", str(write_study(tmp_path / "in", max_trials=2)), "--json", settings=settings
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert POSTGRES_PASSWORD not in done.stdout + done.stderr
    assert not list(home.glob("studies/*/log"))
    assert not list(home.glob("studies/*/leases"))
    study = StudyRecord(
        open_home(Settings(str(home), study_log=postgres_url)).study_log("digits")
    ).refresh()
    assert [trial.state for trial in study.trials] == [TrialState.FINISHED] * 2
    for command in ("leaderboard", "models", "verify"):
        printed = automl(command, "digits", "--json", settings=settings)
        assert printed.returncode == 0, printed.stderr
    assert automl("leaderboard", "digits", "--home", str(home)).returncode != 0


def test_an_estimator_fits_evaluates_and_exports(tmp_path: Path) -> None:
    x, y = digits()
    test_x, test_y = x[ROWS : ROWS + 200], y[ROWS : ROWS + 200]
    classifier = ImageClassifier(home=str(tmp_path / "home"), seed=0, workers=1)

    with pytest.raises(ConfigError, match="has not been fitted"):
        classifier.predict(test_x)
    assert classifier.fit(x[:ROWS], y[:ROWS], time_limit="20s") is classifier

    assert classifier.classes_.tolist() == list(range(10))
    assert classifier.predict_proba(test_x).shape == (200, 10)
    assert classifier.predict(test_x).dtype == y.dtype
    accuracy = classifier.evaluate(test_x, test_y)["accuracy"]
    assert accuracy["value"] == pytest.approx(classifier.score(test_x, test_y))
    assert accuracy["value"] > 0.7

    (study,) = (state := open_home(Settings(str(tmp_path / "home")))).study_names()
    assert not is_run_alive(state, study)  # another fit need not wait

    classifier.final_fit(x[:ROWS], y[:ROWS])
    assert not is_run_alive(state, study)
    path = classifier.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = np.repeat(test_x[..., None], 3, axis=-1)
    (labels,) = session.run(["label"], {"image": pixels})
    assert labels.tolist() == classifier.predict(test_x).astype(str).tolist()
    assert not (tmp_path / "home" / "models").exists()
    floats: Any = np.zeros((1, 8, 8))
    with pytest.raises(DataError, match="x is float64"):
        classifier.predict(floats)


def test_an_estimator_refuses_rows_it_cannot_use(tmp_path: Path) -> None:
    classifier = ImageClassifier(home=str(tmp_path / "home"))
    floats: Any = np.zeros((4, 8, 8))  # as callers pass who check no types

    with pytest.raises(DataError, match=r"float64 of shape \(4, 8, 8\)"):
        classifier.fit(floats, np.arange(4))
    with pytest.raises(DataError, match="for 4 images"):
        classifier.fit(np.zeros((4, 8, 8), np.uint8), np.arange(3))
    assert not (tmp_path / "home").exists()


def test_a_manifest_becomes_arrays_of_one_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, width, 3), dtype=np.uint8) for width in (8, 8, 12)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("File Name", "Label"))
        for number, image in enumerate(images):
            (tmp_path / f"{number}.png").write_bytes(encode_png(image))
            writer.writerow((f"{number}.png", "ab"[number % 2]))

    x, y = load_image_dataset(tmp_path / "rows.csv", tmp_path)

    assert (x.dtype, x.shape) == (np.uint8, (3, 8, 8, 3))
    assert y.tolist() == ["a", "b", "a"]
    np.testing.assert_array_equal(x[0], images[0])


def test_unreadable_images_of_a_manifest_are_all_listed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("path,label\nbroken.png,a\nabsent.png,b\n")
    (tmp_path / "broken.png").write_bytes(b"no image")

    with pytest.raises(DataError, match="2 of 2 images cannot be read") as caught:
        load_image_dataset(tmp_path / "rows.csv", tmp_path)

    assert [problem.path for problem in caught.value.problems] == ["broken.png", "absent.png"]
