"""Verification: whether a published version is still what its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl.domain.layout import MODEL_FILE, SAMPLES_FILE
from automl.errors import (
    DamagedDataError,
    DataError,
    NotFoundError,
    ParityError,
    Problem,
    VerificationError,
)
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Parity
from automl.publishing.parity import check_parity
from automl.publishing.registry import Registry
from automl.tracks.track import track_of


def verify_files(registry: Registry, version: int) -> dict[str, Any]:
    """Return `{ok, version, files: [{path, ok}], parity}` for a published version.

    `parity` compares the file with the predictions stored for it; it is None where the version
    was published without samples, or `model.onnx` or `samples.npz` is damaged (then ok is false).

    Raises:
        NotFoundError: there is no such version.
        ConfigError: the version has samples, and the track for its task is not installed.
    """
    manifest = registry.manifest(version)
    sound = {name: _is_sound(registry, version, name) for name in sorted(manifest.files)}
    parity = _stored_parity(registry, version, manifest.task, sound)
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
            Problem(MODEL_FILE, f"predictions differ by up to {worst:.2e} from the stored ones")
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


def _stored_parity(
    registry: Registry, version: int, task: str, sound: Mapping[str, bool]
) -> Parity | None:
    if not sound.get(SAMPLES_FILE, False) or not sound.get(MODEL_FILE, False):
        return None
    track = track_of(task)
    feeds, values = track.samples.unpack(registry.read(version, SAMPLES_FILE))
    model = OnnxModel(registry.read(version, MODEL_FILE))
    try:
        return check_parity(values, model, feeds, track.tolerance)
    except (ParityError, DataError):  # the file cannot be compared with what is stored for it
        rows = len(feeds)
        return Parity(rows=rows, max_abs_diff=1.0, label_mismatches=rows, ok=False)
