"""What `automl predict` and `automl verify` do: run published files on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl.domain.layout import MODEL_FILE
from automl.domain.settings import Settings
from automl.errors import AutoMLError, ConfigError, NotFoundError
from automl.machine.cores import available_cores
from automl.publishing.registry import Registry
from automl.publishing.verify import verify_files
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home, open_store
from automl.tracks.image.classifier import OnnxClassifier
from automl.tracks.image.decode import decode_image


def predict_files(settings: Settings, model: str, inputs: list[str]) -> dict[str, Any]:
    """Classify image files; one that cannot be read gets an error of its own.

    Args:
        settings: where versions live.
        model: a study's name, `STUDY@VERSION`, or a path or URI that ends in `.onnx`.
        inputs: paths or URIs of image files.

    Raises:
        ConfigError: there is no such model.
    """
    classifier = OnnxClassifier(_model_bytes(settings, model), available_cores())
    rows: list[dict[str, Any]] = []
    for name in inputs:
        try:
            pixels = decode_image(_read(name))
        except AutoMLError as error:
            rows.append({"input": name, "error": str(error)})
            continue
        labels, probabilities = classifier.predict(pixels[None])
        by_label = dict(zip(classifier.labels, map(float, probabilities[0]), strict=True))
        rows.append({"input": name, "label": labels[0], "probabilities": by_label})
    return {"schema": 1, "rows": rows}


def verify_version(settings: Settings, reference: str) -> dict[str, Any]:
    """Return what `automl verify` prints for a study's champion or one of its versions."""
    store = open_home(settings).store
    registry, version = resolve_version(store, reference)
    return {"schema": 1, **verify_files(registry, version)}


def resolve_version(store: ObjectStore, reference: str) -> tuple[Registry, int]:
    """Return the registry and version that `STUDY` (its champion) or `STUDY@VERSION` names.

    Raises:
        ConfigError: there is no such study, champion or version.
    """
    study, _, text = reference.partition("@")
    registry = Registry(store, study)
    if text:
        if not text.isascii() or not text.isdigit() or int(text) not in registry.versions():
            known = ", ".join(map(str, registry.versions())) or "none"
            raise ConfigError(f"Study {study} has no version {text!r}.", f"known here: {known}")
        return registry, int(text)
    champion = registry.champion()
    if champion is None:
        raise ConfigError(
            f"There is no champion of a study {study!r} under {store.uri}.",
            "`automl studies` lists what is there; `automl run` makes a first version",
        )
    return registry, champion.version


def _model_bytes(settings: Settings, model: str) -> bytes:
    if model.endswith(".onnx"):
        return _read(model)
    registry, version = resolve_version(open_home(settings).store, model)
    return registry.read(version, MODEL_FILE)


def _read(name: str) -> bytes:
    """Return the bytes of a path or URI.

    Raises:
        NotFoundError: there is no such file.
    """
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        return open_store(f"s3://{bucket}").get(key).data
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"{name} cannot be read: {error.strerror}.", "check the path"
        ) from error
