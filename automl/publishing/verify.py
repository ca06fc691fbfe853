"""Is a published version still what its manifest says?"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from automl.domain.layout import MODEL_FILE, SAMPLES_FILE
from automl.errors import (
    DamagedDataError,
    ExportError,
    NotFoundError,
    ParityError,
    Problem,
    VerificationError,
)
from automl.publishing.manifest import Parity
from automl.publishing.parity import check_parity
from automl.publishing.registry import Registry
from automl.tracks.image.classifier import OnnxClassifier

Array = np.ndarray[Any, Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time of a zip entry; equal samples give equal bytes


def build_samples(rows: Sequence[Array], probabilities: Array) -> bytes:
    """Return `samples.npz`: raw images of any sizes with the network's probabilities.

    Args:
        rows: uint8 `[H, W, 3]` each.
        probabilities: the network's, float32 `[N, K]`.
    """
    if not len(rows) or len(rows) != len(probabilities):
        raise ExportError(f"There are {len(rows)} images for {len(probabilities)} probabilities.")
    arrays = {
        "pixels": np.concatenate([np.ascontiguousarray(row).reshape(-1) for row in rows]),
        "shapes": np.array([row.shape[:2] for row in rows], dtype=np.int64),
        "probabilities": np.asarray(probabilities, dtype=np.float32),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            zipped = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            archive.writestr(zipped, entry.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def read_samples(data: bytes) -> tuple[list[Array], Array]:
    """Return the images and probabilities of `samples.npz`.

    Raises:
        DamagedDataError: it is no such file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            pixels, shapes = stored["pixels"], stored["shapes"]
            probabilities: Array = stored["probabilities"]
        ends = np.cumsum(3 * shapes.prod(axis=1))
        rows = [
            part.reshape(height, width, 3)
            for part, (height, width) in zip(np.split(pixels, ends[:-1]), shapes, strict=True)
        ]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedDataError(
            f"{SAMPLES_FILE} cannot be read: {error}", "publish a new version"
        ) from error
    return rows, probabilities


def verify_files(registry: Registry, version: int) -> dict[str, Any]:
    """Return `{ok, version, files: [{path, ok}], parity}` for a published version.

    `parity` compares the file with the probabilities stored for it; it is None where the version
    was published without samples, or `model.onnx` or `samples.npz` is damaged (then ok is false).

    Raises:
        NotFoundError: there is no such version.
    """
    manifest = registry.manifest(version)
    sound = {name: _is_sound(registry, version, name) for name in sorted(manifest.files)}
    parity = _stored_parity(registry, version, sound)
    return {
        "ok": all(sound.values()) and (parity is None or parity.ok),
        "version": version,
        "files": [{"path": name, "ok": ok} for name, ok in sound.items()],
        "parity": None if parity is None else parity.model_dump(),
    }


def require_verified(registry: Registry, version: int) -> None:
    """Verify a version that is about to be used.

    Raises:
        VerificationError: its problems name what is wrong.
    """
    document = verify_files(registry, version)
    if document["ok"]:
        return
    problems = [
        Problem(file["path"], "missing, or its checksum differs from the manifest's")
        for file in document["files"]
        if not file["ok"]
    ]
    if document["parity"] is not None and not document["parity"]["ok"]:
        worst = document["parity"]["max_abs_diff"]
        problems.append(
            Problem(MODEL_FILE, f"probabilities differ by up to {worst:.2e} from the stored ones")
        )
    raise VerificationError(
        f"Version {version} is not what its manifest says.",
        "restore the files, or promote another version",
        problems,
    )


def _is_sound(registry: Registry, version: int, name: str) -> bool:
    try:
        registry.read(version, name)
    except (NotFoundError, DamagedDataError):
        return False
    return True


def _stored_parity(registry: Registry, version: int, sound: Mapping[str, bool]) -> Parity | None:
    if not sound.get(SAMPLES_FILE, False) or not sound.get(MODEL_FILE, False):
        return None
    rows, probabilities = read_samples(registry.read(version, SAMPLES_FILE))
    classifier = OnnxClassifier(registry.read(version, MODEL_FILE))
    try:
        return check_parity(probabilities, classifier, rows)
    except ParityError:
        return Parity(rows=len(rows), max_abs_diff=1.0, label_mismatches=len(rows), ok=False)
