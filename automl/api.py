"""Estimators with scikit-learn's conventions, on the same engine as the nightly runs."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin

from automl.domain.events import RunState
from automl.domain.facts import OriginKind
from automl.domain.parsing import Purpose
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, DataError, StorageError
from automl.machine.cores import available_cores
from automl.progress import progress_for
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.scoring.metrics import classification_metrics
from automl.steps import check, choose, export, local_run, prepare
from automl.steps.open_run import open_search
from automl.steps.study_file import study_spec
from automl.storage.durable import write_file
from automl.tracks.image.arrays import load_image_dataset
from automl.tracks.image.classifier import OnnxClassifier

__all__ = ["ImageClassifier", "load_image_dataset"]

Images = npt.NDArray[np.uint8]


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # sklearn is untyped
    """Searches for a network that classifies images, and predicts with its exported file.

    Args:
        home: folder or `s3://bucket/prefix` for state; the same home continues earlier searches.
        seed: seed of the split and of every proposal.
        workers: concurrent trainers.

    Attributes:
        classes_: labels in the order of the columns of `predict_proba`.
        best_trial_: number of the winning trial.
    """

    def __init__(self, home: str = "automl-home", seed: int = 0, workers: int = 2) -> None:
        self.home = home
        self.seed = seed
        self.workers = workers

    def fit(self, x: Images, y: npt.ArrayLike, *, time_limit: str = "2h") -> ImageClassifier:
        """Search for a network until the time limit.

        Args:
            x: images, uint8 [n, H, W], [n, H, W, 1] or [n, H, W, 3].
            y: labels [n], text or integers.
            time_limit: wall clock of the search, such as `15m`.

        Raises:
            DataError: `x` or `y` cannot be used.
            ConfigError: a parameter is wrong.
            SearchError: no trial completed.
        """
        images, labels = _check_rows(x, y)
        self.classes_ = np.unique(labels)
        with tempfile.TemporaryDirectory() as folder:
            spec = self._spec(images, labels, Path(folder), time_limit)
            settings = Settings.from_environment(home=self.home)
            context = StepContext.open(settings, spec, local_run.new_run_name(), OriginKind.PYTHON)
            with progress_for(Console(stderr=True)) as progress:
                progress.step("prepare")
                check.check(context)
                snapshot = prepare.prepare(context, progress.items)
                with RunLease(context) as lease:
                    workers = open_search(context, snapshot.id)
                    try:
                        local_run.search(context, workers, progress)
                        self.best_trial_ = choose.choose(context).trial
                    except BaseException as error:
                        opening.close_run(context, RunState.FAILED, str(error) or "interrupted")
                        raise
                lease.release()  # the run stays open for `final_fit`, but another may take over
        self._context = context
        self._load(export.incumbent_onnx(context))
        return self

    def final_fit(self, x: Images, y: npt.ArrayLike, *, retrain: bool = True) -> ImageClassifier:
        """Fit the winner on training and selection rows together.

        Args:
            x: the images that `fit` was given.
            y: their labels.
            retrain: start from fresh weights; False continues from the winner's.

        Raises:
            ConfigError: `fit` was not called, or was called with other rows.
        """
        context = self._fitted()
        images, labels = _check_rows(x, y)
        if _name(images, labels) != context.spec.name:
            raise ConfigError(
                "final_fit was given other rows than fit.", "call fit with these rows first"
            )
        fit_section = context.spec.final_fit.model_copy(update={"retrain": retrain})
        spec = context.spec.model_copy(update={"final_fit": fit_section})
        changed = StepContext.open(context.settings, spec, context.run, context.origin)
        with RunLease(changed):
            with progress_for(Console(stderr=True)) as progress:
                progress.step("final_fit")
                local_run.final_fit(changed, progress)
            opening.close_run(changed, RunState.SUCCEEDED, "")
        self._load(export.fitted_onnx(changed))
        return self

    def predict(self, x: Images) -> npt.NDArray[Any]:
        """Return the label [n] of each image, in the type that `fit` was given."""
        columns = self.predict_proba(x).argmax(axis=1)
        chosen: npt.NDArray[Any] = self.classes_[columns]
        return chosen

    def predict_proba(self, x: Images) -> npt.NDArray[np.float32]:
        """Return probabilities [n, K], columns in the order of `classes_`."""
        self._fitted()
        _, probabilities = self._classifier.predict(_as_rgb(x))
        order = [self._classifier.labels.index(str(label)) for label in self.classes_]
        columns: npt.NDArray[np.float32] = probabilities[:, order]
        return columns

    def evaluate(self, x: Images, y: npt.ArrayLike) -> dict[str, Any]:
        """Return metrics of the exported file on rows of your own, with 95 % intervals."""
        probabilities = self.predict_proba(x)
        position = {label: index for index, label in enumerate(self.classes_.tolist())}
        labels = np.asarray([position[label] for label in np.asarray(y).tolist()])
        metrics = classification_metrics(probabilities, labels)
        return {name: interval.model_dump() for name, interval in metrics.items()}

    def export(self, path: str | Path) -> Path:
        """Write the self-contained ONNX file, which appears whole or not at all; return its path.

        Raises:
            StorageError: it cannot be written there.
        """
        self._fitted()
        target = Path(path)
        try:
            write_file(target, self._onnx)
        except OSError as error:
            raise StorageError(
                f"{target} cannot be written: {error.strerror}.", "choose another place"
            ) from error
        return target

    def _load(self, onnx: bytes) -> None:
        self._onnx = onnx
        self._classifier = OnnxClassifier(onnx, available_cores())

    def _fitted(self) -> StepContext:
        context: StepContext | None = getattr(self, "_context", None)
        if context is None:
            raise ConfigError("This ImageClassifier has not been fitted.", "call fit first")
        return context

    def _spec(
        self, images: Images, labels: npt.NDArray[Any], folder: Path, time_limit: str
    ) -> StudySpec:
        source = folder / "rows.npz"
        np.savez(source, allow_pickle=False, x=images, y=labels)
        document = {
            "name": _name(images, labels),
            "task": "image_classification",
            "data": {"source": str(source), "test_fraction": 0.0},
            "search": {"time_limit": time_limit, "workers": self.workers, "seed": self.seed},
        }
        return study_spec(document, purpose=Purpose.ESTIMATOR)


def _check_rows(x: Images, y: npt.ArrayLike) -> tuple[Images, npt.NDArray[Any]]:
    images, labels = np.asarray(x), np.asarray(y)
    if images.dtype != np.uint8 or images.ndim not in {3, 4}:
        raise DataError(
            f"x is {images.dtype} of shape {images.shape}.",
            "pass uint8 pixels of shape [n, H, W], [n, H, W, 1] or [n, H, W, 3]",
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuUb":
        raise DataError(
            f"y is {labels.dtype} of shape {labels.shape} for {len(images)} images.",
            "pass one text or integer label per image",
        )
    return images, labels


def _as_rgb(x: Images) -> Images:
    images = np.asarray(x)
    if images.ndim == 3:
        images = images[..., None]
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _name(images: Images, labels: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(images.tobytes())
    digest.update(repr((images.shape, labels.dtype.str)).encode() + labels.tobytes())
    return f"estimator-{digest.hexdigest()[:16]}"
