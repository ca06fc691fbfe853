"""Small real datasets, as sources that a study can name."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from automl.tracks.image.samples import write_digits
from benchmarks.shared_data import shared_dataset

NAMES = ("digits", "fashion_mnist_small", "cifar10_small", "plant_seedlings", "clothing")
_CIFAR_ROWS_PER_CLASS = 300
_FASHION_ROWS = 3000
_PHOTOGRAPH_SIZE = 32  # pixels, so that a trial takes seconds


def data_section(name: str, folder: Path) -> dict[str, Any]:
    """Return the `data` section of a study of a dataset.

    Args:
        name: one of `NAMES`.
        folder: where what has to be written is written, unless it is there.

    Raises:
        FileNotFoundError: the dataset is not on this machine.
    """
    if name == "digits":
        write_digits(folder / name)
        return {"source": str(folder / name / "train.csv"), "images": str(folder / name / "images")}
    place = shared_dataset(name)
    if name == "fashion_mnist_small":
        with np.load(place / "data.npz") as arrays:
            (folder / name).mkdir(parents=True, exist_ok=True)
            rows = folder / name / "rows.npz"
            np.savez(
                rows,
                allow_pickle=False,
                x=arrays["x_train"][:_FASHION_ROWS],
                y=arrays["y_train"][:_FASHION_ROWS],
            )
        return {"source": str(rows)}
    if name == "cifar10_small":
        return {"source": str(_unzip(place / f"{name}.zip", folder / name))}
    return {
        "source": str(place / "train.csv"),
        "images": str(place / "images"),
        "image_size": _PHOTOGRAPH_SIZE,
    }


def _unzip(archive: Path, folder: Path) -> Path:
    """Write the first files of every class of the training rows, and return their folder."""
    with zipfile.ZipFile(archive) as files:
        taken: dict[str, int] = {}
        for name in sorted(files.namelist()):
            part, _, rest = name.partition("/")
            label = PurePosixPath(rest).parent.name
            if part != "train" or not rest.endswith(".jpg"):
                continue
            taken[label] = taken.get(label, 0) + 1
            if taken[label] <= _CIFAR_ROWS_PER_CLASS:
                target = folder / label / PurePosixPath(rest).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(files.read(name))
    return folder
