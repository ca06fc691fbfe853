"""Images that are stored with a version, as `samples.npz` (docs/formats/bundle.md)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automl.errors import DamagedDataError, ExportError
from automl.tracks.image.resize import INPUT_NAME
from automl.tracks.track import Feed, Values

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time of a zip entry; equal samples give equal bytes


class ImageSamples:
    """Raw images of any sizes with the network's probabilities."""

    def pack(self, feeds: Sequence[Feed], values: Values) -> bytes:
        """Return images with their probabilities; equal arguments give equal bytes.

        Args:
            feeds: one image each.
            values: the network's probabilities, `[N, K]`.

        Raises:
            ExportError: there are none, or not as many of both.
        """
        if not len(feeds) or len(feeds) != len(values):
            raise ExportError(f"There are {len(feeds)} images for {len(values)} probabilities.")
        images = [feed[INPUT_NAME] for feed in feeds]
        arrays = {
            "pixels": np.concatenate([np.ascontiguousarray(image).reshape(-1) for image in images]),
            "shapes": np.array([image.shape[1:3] for image in images], dtype=np.int64),
            "probabilities": np.asarray(values, dtype=np.float32),
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in arrays.items():
                entry = io.BytesIO()
                np.lib.format.write_array(entry, array, allow_pickle=False)
                zipped = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
                archive.writestr(zipped, entry.getvalue(), zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def unpack(self, data: bytes) -> tuple[list[Feed], Values]:
        """Return the images and their probabilities.

        Raises:
            DamagedDataError: it is no such file.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                pixels, shapes = stored["pixels"], stored["shapes"]
                probabilities: NDArray[np.float32] = stored["probabilities"]
            ends = np.cumsum(3 * shapes.prod(axis=1))
            feeds: list[Feed] = [
                {INPUT_NAME: part.reshape(1, height, width, 3)}
                for part, (height, width) in zip(np.split(pixels, ends[:-1]), shapes, strict=True)
            ]
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedDataError(
                f"samples.npz cannot be read: {error}", "publish a new version"
            ) from error
        return feeds, probabilities
