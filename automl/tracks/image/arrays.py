"""Images of a folder as arrays, for those who work in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.specification import Resize
from automl.errors import AutoMLError, ConfigError, DataError, Problem
from automl.tracks.image.decode import decode_image
from automl.tracks.image.resize import ImagePreprocessor, resize_graph
from automl.tracks.image.tables import read_file_table


def load_image_dataset(
    csv_path: str | Path, images_path: str | Path, resize: str = "stretch"
) -> tuple[Any, Any]:
    """Return images and labels that a CSV manifest lists; see `automl.api.load_image_dataset`."""
    kinds = [kind.value for kind in Resize]
    if resize not in kinds:
        raise ConfigError(f"resize is {resize!r}.", f"use {' or '.join(kinds)}")
    rows = list(read_file_table(Path(csv_path).read_bytes(), None, Path(csv_path).name))
    pixels, problems = [], []
    for row in rows:
        try:
            if row.problem:
                raise DataError(row.problem)
            pixels.append(decode_image((Path(images_path) / row.path).read_bytes()))
        except (AutoMLError, OSError) as error:
            problems.append(Problem(row.path, str(error)))
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} images cannot be read.", "", problems)
    if len({image.shape for image in pixels}) > 1:
        size = int(np.median([max(image.shape[:2]) for image in pixels]))
        preprocess = ImagePreprocessor(resize_graph(size, Resize(resize)).SerializeToString())
        pixels = [preprocess(image[None])[0] for image in pixels]
    return np.stack(pixels), np.asarray([row.label for row in rows])
