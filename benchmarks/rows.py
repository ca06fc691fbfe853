"""The datasets with their own test rows: as pixels for any learner, as sources for a study."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automl.tracks.image.decode import decode_image
from automl.tracks.image.resize import ImagePreprocessor, resize_graph
from automl.tracks.image.samples import write_digits
from automl.tracks.image.tables import read_file_table
from automl.training.examples import Examples
from benchmarks.shared_data import shared_dataset

_DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled raw images.

    Attributes:
        pixels: uint8 [H, W, 3] each.
        labels: as a study knows them.
    """

    pixels: Sequence[np.ndarray]
    labels: tuple[str, ...]

    def examples(self, size: int, classes: Sequence[str]) -> Examples:
        """Return the images stretched to `size` by the platform's own graph, and class numbers."""
        resize = ImagePreprocessor(resize_graph(size).SerializeToString(deterministic=True))
        images = np.concatenate([resize(image[np.newaxis]) for image in self.pixels])
        number = {label: index for index, label in enumerate(classes)}
        return Examples(images, np.array([number[label] for label in self.labels], np.int64))


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset.

    Attributes:
        name: one of `NAMES`.
        size: pixels at which networks see it, which is what `image_size: auto` gives.
        flips: whether a mirrored image keeps its label.
        train: all rows that are no test rows.
        test: what learners are compared on.
        data: the keys of a study's `data` section that name these rows, `test_source` among them.
    """

    name: str
    size: int
    flips: bool
    train: Rows
    test: Rows
    data: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the training rows, sorted."""
        return tuple(sorted(set(self.train.labels)))

    def examples(self) -> tuple[Examples, Examples]:
        """Return training and test rows as networks see them."""
        classes = self.classes
        return self.train.examples(self.size, classes), self.test.examples(self.size, classes)


@dataclass(frozen=True, slots=True)
class _Known:
    size: int
    flips: bool
    write: Callable[[str, Path], Mapping[str, str]]


def load(name: str, folder: Path) -> Dataset:
    """Return a dataset.

    Args:
        name: one of `NAMES`.
        folder: where what a study cannot read as it is gets written.

    Raises:
        FileNotFoundError: the dataset is not on this machine.
    """
    known = _KNOWN[name]
    data = known.write(name, folder / name)
    train, test = (_read(data[key], data.get("images")) for key in ("source", "test_source"))
    return Dataset(name, known.size, known.flips, train, test, data)


def _read(source: str, images: str | None) -> Rows:
    place = Path(source)
    if place.suffix == ".npz":
        with np.load(place) as arrays:
            grey, labels = arrays["x"], arrays["y"]
        return Rows(list(np.repeat(grey[..., np.newaxis], 3, axis=3)), tuple(labels.tolist()))
    if place.suffix == ".csv":
        assert images is not None
        listed = read_file_table(place.read_bytes(), None, name=source)
        files = [(Path(images) / row.path, row.label) for row in listed]
    else:
        files = [(path, path.parent.name) for path in sorted(place.glob("*/*.jpg"))]
    pixels = [decode_image(path.read_bytes()) for path, _ in files]
    return Rows(pixels, tuple(label for _, label in files))


def _split_digits(_name: str, folder: Path) -> Mapping[str, str]:
    """Write scikit-learn's digits, a fifth of every class as test rows."""
    from sklearn.model_selection import train_test_split

    write_digits(folder)
    listed = [
        (row.path, row.label) for row in read_file_table((folder / "train.csv").read_bytes(), None)
    ]
    parts = train_test_split(
        listed,
        test_size=_DIGITS_TEST_SHARE,
        random_state=0,
        stratify=[label for _, label in listed],
    )
    places = [folder / "rest.csv", folder / "test.csv"]
    for place, part in zip(places, parts, strict=True):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([("File Name", "Label"), *part])
        place.write_text(text.getvalue())
    return {
        "source": str(places[0]), "test_source": str(places[1]), "images": str(folder / "images"),
    }  # fmt: skip


def _split_arrays(name: str, folder: Path) -> Mapping[str, str]:
    places = {"source": folder / "train.npz", "test_source": folder / "test.npz"}
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(shared_dataset(name) / "data.npz") as arrays:
        for place, part in zip(places.values(), ("train", "test"), strict=True):
            labels = arrays["classes"][arrays[f"y_{part}"]]
            np.savez(place, allow_pickle=False, x=arrays[f"x_{part}"], y=labels)
    return {key: str(place) for key, place in places.items()}


def _unzip_folders(name: str, folder: Path) -> Mapping[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(shared_dataset(name) / f"{name}.zip") as files:
        files.extractall(folder)
    return {"source": str(folder / "train"), "test_source": str(folder / "test")}


def _name_manifests(name: str, _folder: Path) -> Mapping[str, str]:
    place = shared_dataset(name)
    return {
        "source": str(place / "train.csv"),
        "test_source": str(place / "test.csv"),
        "images": str(place / "images"),
    }


_KNOWN: Mapping[str, _Known] = {
    "digits": _Known(8, flips=False, write=_split_digits),
    "fashion_mnist_small": _Known(32, flips=True, write=_split_arrays),
    "cifar10_small": _Known(32, flips=True, write=_unzip_folders),
    "plant_seedlings": _Known(96, flips=True, write=_name_manifests),
    "clothing": _Known(128, flips=True, write=_name_manifests),
}
NAMES = tuple(_KNOWN)
