"""Published versions in the hands of people: to predict, verify, promote and roll back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from automl.domain.layout import MODEL_FILE
from automl.domain.settings import Settings
from automl.errors import AutoMLError, ConfigError, ExportError, NotFoundError
from automl.machine.cores import available_cores
from automl.machine.person import person
from automl.onnx.model import OnnxModel
from automl.publishing.promotions import Change
from automl.publishing.registry import Registry
from automl.publishing.verify import verify_files
from automl.runs.context import StoreClock
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home, open_store
from automl.tracks.cards import installed_cards
from automl.tracks.track import Feed, Track, track_of
from automl.views.library import Library


def predict_files(settings: Settings, model: str, inputs: list[str]) -> dict[str, Any]:
    """Predict for the rows of input files; one that cannot be read gets an error of its own.

    Args:
        settings: where versions live.
        model: a study's name, `STUDY@VERSION`, or a path or URI that ends in `.onnx`.
        inputs: paths or URIs of files that the model's track reads.

    Raises:
        ConfigError: there is no such model, or no track for it is installed.
    """
    track, file = _open_model(settings, model)
    rows: list[dict[str, Any]] = []
    for name in inputs:
        try:
            for row, feed in track.read(name, _read(name)):
                rows.append({"input": row, **_predicted(file, feed)})
        except AutoMLError as error:
            rows.append({"input": name, "error": str(error)})
    return {"schema": 1, "rows": rows}


def _predicted(file: OnnxModel, feed: Feed) -> dict[str, Any]:
    """Return what is shown of the prediction for one row."""
    values, chosen = file.predict(feed)
    if not file.labels:
        return {"value": float(values[0, 0])}
    by_label = dict(zip(file.labels, map(float, values[0]), strict=True))
    return {"label": chosen[0], "probabilities": by_label}


def _open_model(settings: Settings, model: str) -> tuple[Track, OnnxModel]:
    """Return the file and the track that it is one of."""
    if model.endswith(".onnx"):
        file = OnnxModel(_read(model), available_cores())
        return _track_for(model, file), file
    registry, version = resolve_version(open_home(settings).store, model)
    track = track_of(registry.manifest(version).task)
    return track, OnnxModel(registry.read(version, MODEL_FILE), available_cores())


def _track_for(name: str, file: OnnxModel) -> Track:
    """Return the track that recognises a file.

    Raises:
        ExportError: none does.
    """
    for task in installed_cards():
        track = track_of(task)
        if track.recognises(file.inputs, file.outputs):
            return track
    raise ExportError(
        f"{name} reads {list(file.inputs)} and computes {sorted(file.outputs)}; no installed track "
        f"({', '.join(installed_cards())}) writes such files.",
        "give a file that this platform wrote, or install its track",
    )


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


def promote_version(
    settings: Settings, study: str, version: int, why: str | None
) -> dict[str, Any]:
    """Make a published version the champion and return what changed.

    Args:
        settings: where versions live.
        study: the study's name.
        version: its number.
        why: one sentence for the record.

    Raises:
        ConfigError: there is no such study or version.
        DamagedDataError: its `model.onnx` is not what was published.
    """

    def change(registry: Registry, now: datetime) -> Change:
        return registry.promote(version, person(), why or "Promoted by hand.", now)

    return _changed(settings, study, change)


def roll_back(settings: Settings, study: str, why: str | None) -> dict[str, Any]:
    """Make the champion before the present one champion again and return what changed.

    Args:
        settings: where versions live.
        study: the study's name.
        why: one sentence for the record.

    Raises:
        ConfigError: there is no such study, or no champion before the present one.
        DamagedDataError: that champion's `model.onnx` is not what was published.
    """

    def change(registry: Registry, now: datetime) -> Change:
        return registry.rollback(person(), why or "Rolled back by hand.", now)

    return _changed(settings, study, change)


def _changed(
    settings: Settings, study: str, change: Callable[[Registry, datetime], Change]
) -> dict[str, Any]:
    home = open_home(settings)
    Library(home).study(study)  # raises if there is none
    registry = Registry(home.store, study)
    try:
        done = change(registry, StoreClock(home.store).now())
    except NotFoundError as error:
        raise ConfigError(error.message, error.hint) from error
    version = done.promotion.to_version
    return {
        "schema": 1,
        "study": study,
        "champion": version,
        "from": done.promotion.from_version,
        "promotion": done.number,
        "changed": done.is_new,
        "who": done.promotion.who,
        "when": done.promotion.when,
        "why": done.promotion.why,
        "onnx": registry.uri(version, MODEL_FILE),
    }


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
