"""Real sample datasets that need no download."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from automl.tracks.image.decode import encode_png

DIGITS_STUDY = """\
# The 1,797 scans of handwritten digits that scikit-learn ships, 8 x 8 pixels each.
name: digits
task: image_classification
data:
  source: train.csv
  images: images
search:
  time_limit: 2m
  workers: 2
  seed: 0
schedule: null
"""


def write_digits(directory: Path) -> Path:
    """Write scikit-learn's digits as PNG files, with a table and a study file; return the latter.

    Each file appears whole, the study file last. Files of an earlier call are replaced by the same
    content; as that can be repeated at any time, they are not synced one by one, which takes long.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = np.rint(np.asarray(digits.images) * (255 / 16)).astype(np.uint8)
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (scan, label) in enumerate(zip(values, digits.target, strict=True)):
        name = f"{number:04d}.png"
        pixels = np.repeat(scan[:, :, np.newaxis], 3, axis=2)
        _write(images / name, encode_png(pixels))
        rows.append((name, str(label)))
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("File Name", "Label"))
    writer.writerows(rows)
    _write(directory / "train.csv", table.getvalue().encode())
    study = directory / "study.yaml"
    _write(study, DIGITS_STUDY.encode())
    return study


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(content)
    partial.replace(path)
