"""A byte that changes in a stored file is noticed when the file is read, and the file is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automl.data.splits import Part
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.training import StopReason
from automl.errors import DamagedDataError
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.continuation import fitted_members, trial_member
from automl.runs.proposals import search_space
from automl.runs.training import TrialTrainer, TrialTraining
from automl.runs.trial_files import stored_checkpoints
from automl.runs.trials import Claim, TrialSource, record_result
from automl.steps import evaluate, prepare
from automl.steps.local_run import run_study
from automl.tracks.image.fitter import ImageFitter
from automl.tracks.image.members import weights_of
from automl.tracks.image.snapshot import ImageSnapshot
from automl.training.checkpoint import Checkpoint
from tests import commands
from tests.digits import study_of_digits
from tests.quiet import Quiet


def short_study(folder: Path) -> StudySpec:
    """Return a study of one trial of 250 digits."""
    search = {"time_limit": "5m", "max_trials": 1, "workers": 1}
    return study_of_digits(folder, 250, search=search, final_fit={"time_limit": "60s"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudySpec]:
    """The home of a study that has published its first version."""
    folder = tmp_path_factory.mktemp("finished")
    spec = short_study(folder)
    run_study(Settings(str(folder / "home")), spec, Quiet())
    return folder / "home", spec


@pytest.fixture
def home(finished: tuple[Path, StudySpec], tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "home"))


@pytest.fixture
def context(home: Path, finished: tuple[Path, StudySpec]) -> StepContext:
    context = StepContext.open(Settings(str(home)), finished[1], "next", "test")
    context.record.refresh()
    return context


def one(home: Path, pattern: str) -> Path:
    return sorted(home.glob(pattern))[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def automl(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.automl(*arguments, "--home", str(home), settings=os.environ)


def opened(context: StepContext) -> ImageSnapshot:
    return ImageSnapshot.open(context.store, "digits", context.record.study.runs[0].snapshot)


def published_weights(context: StepContext) -> object:
    return [weights_of(one) for one in fitted_members(context, context.record.study.runs[0])]


def trial_weights(context: StepContext) -> object:
    study = context.record.study
    return weights_of(trial_member(context, study.runs[0], study.trials[0]))


READERS: dict[str, Callable[[StepContext], Any]] = {
    "datasets/digits/*/preprocess.onnx": opened,
    "datasets/digits/sources/rows-*/images-*.safetensors": lambda c: opened(c).tensors(Part.TRAIN),
    "datasets/digits/sources/files/files-*.safetensors": lambda c: list(
        opened(c).files(Part.REPORT)
    ),
    "studies/digits/trials/0/*/weights.safetensors": trial_weights,
    "studies/digits/runs/*/weights.safetensors": published_weights,
}


@pytest.mark.parametrize("pattern", READERS)
def test_a_flipped_byte_is_noticed_by_the_step_that_reads(
    home: Path, context: StepContext, pattern: str
) -> None:
    READERS[pattern](context)
    path = one(home, pattern)
    flip(path)

    with pytest.raises(DamagedDataError) as caught:
        READERS[pattern](context)
    assert path.relative_to(home).as_posix() in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("studies/digits/trials/0/*/curve.jsonl", ["show", "digits", "0"]),
        ("models/digits/1/model.onnx", ["predict", "digits", "image.png"]),
        ("models/digits/1/model.onnx", ["predict", "digits@1", "image.png"]),
    ],
)
def test_a_flipped_byte_is_noticed_by_the_command_that_reads(
    home: Path, pattern: str, command: list[str]
) -> None:
    path = one(home, pattern)
    flip(path)

    done = automl(home, *command)

    assert (done.returncode, done.stdout) == (4, "")
    assert path.relative_to(home).as_posix() in done.stderr
    assert " Hint: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "report.html"])
def test_verify_names_the_file_with_the_flipped_byte(home: Path, name: str) -> None:
    flip(home / "models/digits/1" / name)

    done = automl(home, "verify", "digits", "--json")

    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert [file["path"] for file in document["files"] if not file["ok"]] == [name]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_events(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "events": None}).encode()


def of_another_kind(data: bytes) -> bytes:
    return data.replace(b'"trial_opened"', b'"trial_opensd"')


def of_no_trial(data: bytes) -> bytes:
    return data.replace(b'"n":0', b'"n":7')


@pytest.mark.parametrize(
    "damage", [cut, without_events, of_another_kind, of_no_trial, lambda _: b"", lambda _: b"[]"]
)
def test_a_damaged_log_stops_the_command_with_the_version_and_the_remedy(
    home: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = next(p for p in sorted(home.glob("studies/digits/log/*.json")) if _opens_trial(p))
    path.write_bytes(damage(path.read_bytes()))

    done = automl(home, "leaderboard", "digits")

    assert (done.returncode, done.stdout) == (4, "")
    assert "Traceback" not in done.stderr
    assert path.name in done.stderr or f"Version {int(path.stem)} of the study log" in done.stderr
    assert " Hint: " in done.stderr


def _opens_trial(path: Path) -> bool:
    return b'"trial_opened"' in path.read_bytes()


@pytest.fixture
def exported(home: Path, finished: tuple[Path, StudySpec]) -> StepContext:
    """The run as it was before its version was measured and published."""
    for name in ("manifest.json", "report.html"):
        (home / "models/digits/1" / name).unlink()
    (run,) = [path.name for path in (home / "studies/digits/runs").iterdir()]
    return StepContext.open(Settings(str(home)), finished[1], run, "test")


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz"])
def test_a_flipped_byte_between_export_and_publication_is_noticed(
    home: Path, exported: StepContext, name: str
) -> None:
    flip(home / "models/digits/1" / name)

    with pytest.raises(DamagedDataError, match=rf"models/digits/1/{name} has changed since"):
        evaluate.evaluate(exported)
    assert not (home / "models/digits/1/manifest.json").exists()


def test_a_damaged_curve_is_missing_in_the_report_and_publishes(
    home: Path, exported: StepContext
) -> None:
    path = one(home, "studies/digits/trials/0/*/curve.jsonl")
    flip(path)

    assert evaluate.evaluate(exported)["version"] == 1

    report = (home / "models/digits/1/report.html").read_text()
    assert "The learning curve is missing" in report
    assert path.relative_to(home).as_posix() in report


def test_the_report_says_where_the_winner_comes_from(home: Path) -> None:
    report = (home / "models/digits/1/report.html").read_text()

    assert re.search(r"<td>seed</td><td>(three blocks|residual|wide) \(trial \d+\)</td>", report)
    assert "No pretrained seed was available: EfficientNet-Lite0 needs images of 24 px" in report


def test_the_report_of_the_data_tells_what_trials_predict_and_opened(home: Path) -> None:
    report = one(home, "datasets/digits/*/report.html").read_text()

    assert "Likely label errors are looked for among" in report
    assert "sealed" not in report


def test_a_report_of_the_data_that_cannot_be_written_is_no_reason_to_lose_a_version(
    home: Path, exported: StepContext, caplog: pytest.LogCaptureFixture
) -> None:
    path = one(home, "datasets/digits/*/report.html")
    path.unlink()
    path.mkdir()

    assert evaluate.evaluate(exported)["version"] == 1

    assert "the data report was not written: " in caplog.text


@pytest.fixture
def interrupted(tmp_path: Path) -> tuple[TrialTrainer, TrialSource]:
    """A trial whose first attempt was stopped in its fourth epoch, with two checkpoints."""
    spec = short_study(tmp_path)
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")
    opening.open_run(context, prepare.prepare(context, Quiet().items).id)
    trainer = TrialTrainer.load(context, context.opened_run())
    source = TrialSource(
        context, "one/0", lambda run, bound: search_space(run, bound, trainer.sizes)
    )
    assert isinstance(trainer.fitter, ImageFitter)
    steps_per_epoch = -(-len(trainer.fitter.rows.train.labels) // 64)
    train(trainer, taken(source), steps_per_epoch * 3 + 1)
    return trainer, source


def taken(source: TrialSource) -> Claim:
    claim = source.take()
    assert claim is not None
    return claim


def train(trainer: TrialTrainer, claim: Claim, steps: int) -> int:
    """Train for so many steps, give the trial back, and return the epoch at which it stopped."""
    asked = 0

    def should_stop() -> StopReason | None:
        nonlocal asked
        asked += 1
        return StopReason.SIGNAL if asked > steps else None

    with claim.lease.keep_alive() as alive:
        result = trainer.train(claim.trial, TrialTraining("one/0", should_stop), alive)
    assert result.outcome is None
    record_result(trainer.context, claim.trial, result)
    claim.lease.release()
    return asked


def checkpoints(trainer: TrialTrainer) -> list[Path]:
    folder = Path(trainer.context.store.uri) / "studies/digits/trials/0/1"
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.stem.split("-")[1]))


def test_the_newest_checkpoint_is_read(interrupted: tuple[TrialTrainer, TrialSource]) -> None:
    trainer, source = interrupted

    found = next(stored_checkpoints(trainer.context, taken(source).trial))

    epoch = Checkpoint.from_bytes(found.data).epoch
    assert found.key.endswith(checkpoints(trainer)[-1].name)
    assert checkpoints(trainer)[-1].stem == f"checkpoint-{epoch}" == "checkpoint-3"


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    interrupted: tuple[TrialTrainer, TrialSource], caplog: pytest.LogCaptureFixture
) -> None:
    trainer, source = interrupted
    before, newest = checkpoints(trainer)
    flip(newest)
    claim = taken(source)

    with caplog.at_level("INFO"):
        train(trainer, claim, 1)

    epoch = int(before.stem.removeprefix("checkpoint-"))
    assert f"{newest.name} is damaged, trying the one before" in caplog.text
    assert f"trial 0 resumes at epoch {epoch}" in caplog.text


def test_a_trial_without_a_sound_checkpoint_starts_anew_and_says_so(
    interrupted: tuple[TrialTrainer, TrialSource], caplog: pytest.LogCaptureFixture
) -> None:
    trainer, source = interrupted
    for path in checkpoints(trainer):
        flip(path)
    claim = taken(source)

    with caplog.at_level("INFO"):
        train(trainer, claim, 1)

    assert caplog.text.count("is damaged, trying the one before") == 2
    assert "there is no checkpoint that can be read: the training starts anew" in caplog.text
    assert "resumes" not in caplog.text
