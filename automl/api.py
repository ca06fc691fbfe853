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

from automl.domain.parsing import Purpose
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, DataError
from automl.progress import progress_for
from automl.steps import estimator
from automl.steps.estimator import EstimatorRun
from automl.steps.study_file import study_spec

_TASK = "image_classification"
_INPUT = "image"  # of the exported file

Images = npt.NDArray[np.uint8]


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # sklearn is untyped
    """Searches for a network that classifies images, and predicts with its exported file.

    Args:
        home: folder or `s3://bucket/prefix` for state; the same home continues earlier searches.
        seed: seed of the split and of every proposal.
        workers: concurrent trainers.
        resize: how images that are no squares become squares, in the exported file too: `stretch`,
            or `letterbox`, which keeps their aspect.

    Attributes:
        classes_: labels in the order of the columns of `predict_proba`.
        best_trial_: number of the winning trial.
    """

    def __init__(
        self,
        home: str = "automl-home",
        seed: int = 0,
        workers: int = 2,
        resize: str = "stretch",
    ) -> None:
        self.home = home
        self.seed = seed
        self.workers = workers
        self.resize = resize

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
            with progress_for(Console(stderr=True)) as progress:
                self._keep(estimator.search(settings, spec, progress))
        self.best_trial_ = self._run.trial
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
        run = self._fitted()
        images, labels = _check_rows(x, y)
        if _name(images, labels) != run.study:
            raise ConfigError(
                "final_fit was given other rows than fit.", "call fit with these rows first"
            )
        with progress_for(Console(stderr=True)) as progress:
            self._keep(estimator.final_fit(run, progress, retrain=retrain))
        return self

    def predict(self, x: Images) -> npt.NDArray[Any]:
        """Return the label [n] of each image, in the type that `fit` was given."""
        columns = self.predict_proba(x).argmax(axis=1)
        chosen: npt.NDArray[Any] = self.classes_[columns]
        return chosen

    def predict_proba(self, x: Images) -> npt.NDArray[np.float32]:
        """Return probabilities [n, K], columns in the order of `classes_`."""
        self._fitted()
        probabilities = self._file.predict({_INPUT: _as_rgb(x)}).values
        order = [self._file.labels.index(str(label)) for label in self.classes_]
        columns: npt.NDArray[np.float32] = probabilities[:, order]
        return columns

    def evaluate(self, x: Images, y: npt.ArrayLike) -> dict[str, Any]:
        """Return metrics of the exported file on rows of your own, with 95 % intervals."""
        probabilities = self.predict_proba(x)
        position = {label: index for index, label in enumerate(self.classes_.tolist())}
        columns = np.asarray([position[label] for label in np.asarray(y).tolist()])
        labels = tuple(map(str, self.classes_))
        metrics = estimator.score(self._run, probabilities, labels, columns)
        return {name: interval.model_dump() for name, interval in metrics.items()}

    def export(self, path: str | Path) -> Path:
        """Write the self-contained ONNX file, which appears whole or not at all; return its path.

        Raises:
            StorageError: it cannot be written there.
        """
        return estimator.save_file(self._fitted().onnx, path)

    def _keep(self, run: EstimatorRun) -> None:
        self._run, self._file = run, estimator.open_file(run.onnx)

    def _fitted(self) -> EstimatorRun:
        run: EstimatorRun | None = getattr(self, "_run", None)
        if run is None:
            raise ConfigError("This ImageClassifier has not been fitted.", "call fit first")
        return run

    def _spec(
        self, images: Images, labels: npt.NDArray[Any], folder: Path, time_limit: str
    ) -> StudySpec:
        source = folder / "rows.npz"
        np.savez(source, allow_pickle=False, x=images, y=labels)
        document = {
            "name": _name(images, labels),
            "task": _TASK,
            "data": {"source": str(source), "resize": self.resize, "test_fraction": 0.0},
            "search": {"time_limit": time_limit, "workers": self.workers, "seed": self.seed},
        }
        return study_spec(document, purpose=Purpose.ESTIMATOR)


def load_image_dataset(
    csv_path: str | Path, images_path: str | Path, resize: str = "stretch"
) -> tuple[Any, Any]:
    """Return images and labels that a CSV manifest lists.

    Args:
        csv_path: manifest with a path and a label column, as in a study file.
        images_path: folder where its paths start.
        resize: how images of several sizes become squares of one: `stretch` or `letterbox`.

    Returns:
        x, uint8 [n, H, W, 3], resized to one size where sizes differ; y, text [n].

    Raises:
        DataError: a row cannot be read; all such rows are listed.
        ConfigError: there is no such way to resize.
    """
    return estimator.read_rows(_TASK, csv_path, images_path, resize)


def _check_rows(x: Images, y: npt.ArrayLike) -> tuple[Images, npt.NDArray[Any]]:
    images, labels = _check_images(x), np.asarray(y)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuUb":
        raise DataError(
            f"y is {labels.dtype} of shape {labels.shape} for {len(images)} images.",
            "pass one text or integer label per image",
        )
    return images, labels


def _check_images(x: Images) -> Images:
    images = np.asarray(x)
    if images.dtype != np.uint8 or images.ndim not in {3, 4} or not images.size:
        raise DataError(
            f"x is {images.dtype} of shape {images.shape}.",
            "pass uint8 pixels of shape [n, H, W], [n, H, W, 1] or [n, H, W, 3]",
        )
    return images


def _as_rgb(x: Images) -> Images:
    images = _check_images(x)
    if images.ndim == 3:
        images = images[..., None]
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _name(images: Images, labels: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(images.tobytes())
    digest.update(repr((images.shape, labels.dtype.str)).encode() + labels.tobytes())
    return f"estimator-{digest.hexdigest()[:16]}"
