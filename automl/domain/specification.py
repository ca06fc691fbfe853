"""The study specification: what a study file, the trigger form and the Python API all build.

Every key of the format is known here from the first version. `automl.domain.availability` refuses
values whose feature does not exist yet; nothing is silently ignored. The format's page is
`docs/formats/study-file.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from automl.domain.byte_size import ByteSize
from automl.domain.cron import check_cron
from automl.domain.duration import Duration, parse_duration
from automl.domain.objective import Objective
from automl.domain.values import (
    NAME_PATTERN,
    Count,
    CountFromZero,
    Fraction,
    NonEmpty,
    check_timezone,
)

RESERVED_NAMES = frozenset({"search", "maintenance"})
MOST_WORKERS = 64


class Split(StrEnum):
    """Way in which rows are held out."""

    STRATIFIED = "stratified"
    RANDOM = "random"
    GROUP = "group"
    TIME = "time"


class Resize(StrEnum):
    """Way in which an image of any shape becomes a square."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"


class SmallClasses(StrEnum):
    """Treatment of classes that are too small for the split."""

    STOP = "stop"
    DROP = "drop"


class ColumnKind(StrEnum):
    """Content of a table's column, where it must be told."""

    NUMBER = "number"
    CATEGORY = "category"
    DATE = "date"
    TEXT = "text"
    IGNORE = "ignore"


class Strategy(StrEnum):
    """Searcher that proposes candidates."""

    BAYESIAN = "bayesian"
    RANDOM = "random"
    EVOLUTION = "evolution"


class Preference(StrEnum):
    """Preference among equally good trials."""

    ACCURACY = "accuracy"
    SMALL = "small"


class Quantization(StrEnum):
    """Number format of the published weights."""

    NONE = "none"
    INT8 = "int8"


class OnChange(StrEnum):
    """Answer of the data gate to a suspicious change of the dataset."""

    WARN = "warn"
    STOP = "stop"


class Section(BaseModel):
    """Base of all sections: immutable, strict about types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,
    )


class GateSection(Section):
    """`data.gate`: what to do when the dataset has changed suspiciously."""

    on_change: OnChange = Field(
        OnChange.WARN, strict=False, description="What a suspicious change of the dataset does."
    )


LOCATION_KEYS = ("source", "images", "test_source", "corrections")  # of `data`: paths or URIs


class DataSection(Section):
    """`data`: where the rows come from and how they are held out."""

    source: NonEmpty = Field(
        description="CSV manifest, folder of class folders, or `.npz` with x and y."
    )
    images: NonEmpty | None = Field(
        None, description="Where the manifest's paths start; empty: beside the manifest."
    )
    label: NonEmpty | None = Field(
        None, description="The manifest's label column; empty: Label, label, target or class."
    )
    test_source: NonEmpty | None = Field(
        None, description="An own sealed test set; `test_fraction` is 0 then."
    )
    image_size: Literal["auto"] | Annotated[int, Field(ge=4, le=1024)] = Field(
        "auto",
        description="Edge of the square that the network sees: `auto`, or pixels from 4 to 1024.",
    )
    resize: Resize = Field(
        Resize.STRETCH, strict=False, description="How an image of any shape becomes a square."
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the rows that scores candidates."
    )
    test_fraction: Fraction = Field(
        0.2, description="Share of the rows that stays sealed until the end."
    )
    split: Split = Field(Split.STRATIFIED, strict=False, description="How rows are held out.")
    group: NonEmpty | None = Field(
        None, description="Column whose values stay together, for the split `group`."
    )
    columns: Mapping[NonEmpty, Annotated[ColumnKind, Field(strict=False)]] | None = Field(
        None, description="What columns hold, by name, where typing must be told."
    )
    weights: NonEmpty | None = Field(None, description="Column of row weights.")
    time: NonEmpty | None = Field(
        None, description="Column that orders the rows, for the split `time`."
    )
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="Share of unreadable rows that is tolerated."
    )
    max_pixels: Count = Field(
        50_000_000, description="Most pixels of one image, before it is decoded."
    )
    small_classes: SmallClasses = Field(
        SmallClasses.STOP,
        strict=False,
        description="What becomes of classes that are too small for the split.",
    )
    corrections: NonEmpty | None = Field(
        None, description="CSV file of rows to drop or to label anew."
    )
    gate: GateSection = Field(default_factory=GateSection)

    @property
    def locations(self) -> dict[str, str]:
        """The paths and URIs that are read, by key."""
        found = {key: getattr(self, key) for key in LOCATION_KEYS}
        return {key: place for key, place in found.items() if place is not None}


class LimitsSection(Section):
    """`search.limits`: what a candidate may cost, trained or published."""

    parameters: Count | None = Field(
        None, description="Most learned scalars of a network that is proposed or published."
    )
    latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most milliseconds that one image may take on one CPU thread."
    )
    device_memory: ByteSize | None = Field(
        None, description="Most memory that a training may take on its device: `512MB`, `6GiB`."
    )


class SpendSection(Section):
    """`search.spend`: what the search may cost."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most GPU hours that the search may take."
    )
    price_per_gpu_hour: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Price of a GPU hour, for `max_cost`."
    )
    max_cost: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most that the search may cost; needs the price."
    )


class ResourcesSection(Section):
    """`search.resources`: what one trial may use."""

    gpus: CountFromZero = Field(
        1,
        description="GPUs of one trial; 0 trains on the CPU, in the CPUs' pool and queue.",
    )
    cpus: Count | None = Field(
        None,
        description="CPU threads of one trial and of the final fit; empty: the machine's, divided.",
    )
    memory: NonEmpty | None = Field(None, description="Memory of one trial.")


class SearchSection(Section):
    """`search`: how candidates are found and for how long."""

    strategy: Strategy = Field(
        Strategy.BAYESIAN, strict=False, description="Searcher that proposes candidates."
    )
    time_limit: Duration = Field(
        default_factory=lambda: parse_duration("2h"),
        description="How long the search may take: `90s`, `15m`, `2h`.",
    )
    max_trials: Count | None = Field(
        None, description="Ends the search early; empty: only the time limit does."
    )
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = Field(
        2, description="How many candidates train at the same time."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Seed of the split and of every proposal."
    )
    objective: Objective = Field(
        Objective.ACCURACY, strict=False, description="What the search optimises."
    )
    prefer: Preference = Field(
        Preference.ACCURACY, strict=False, description="Which of equally good trials wins."
    )
    slice: Duration = Field(
        default_factory=lambda: parse_duration("10m"),
        description="How long a worker keeps its pool slot before others may have it.",
    )
    priority: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Weight in Airflow's pools."
    )
    limits: LimitsSection = Field(default_factory=LimitsSection)
    spend: SpendSection = Field(default_factory=SpendSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)


class FinalFitSection(Section):
    """`final_fit`: how the winner's published weights are made."""

    retrain: bool = Field(
        default=True, description="Train the winner again on all rows that are not sealed."
    )
    time_limit: Duration = Field(
        default_factory=lambda: parse_duration("1h"), description="How long that may take."
    )
    ensemble: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = Field(
        "auto",
        description="Most networks that the published file blends: `auto`, or a number up to 16.",
    )
    from_: Count | None = Field(
        None,
        alias="from",
        description="A published version to train on with the present data, instead of a search.",
    )


class ExportSection(Section):
    """`export`: how the bundle is made and when it becomes the champion."""

    quantize: Quantization = Field(
        Quantization.NONE, strict=False, description="Number format of the published weights."
    )
    max_loss: Annotated[float, Field(ge=0)] = Field(
        0.005, description="Most of the objective that quantisation may cost."
    )
    min_improvement: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Gain on the test rows below which the champion stays."
    )
    approve: bool = Field(
        default=False, description="Whether a person has to agree before the champion changes."
    )
    samples: bool = Field(
        default=True, description="Whether rows with their answers are published along."
    )
    sign: NonEmpty | None = Field(None, description="Key that signs the version.")


class PredictSection(Section):
    """`predict`: what to score whenever a new champion is promoted."""

    source: NonEmpty = Field(description="What is scored when a champion is promoted.")
    output: NonEmpty = Field(description="Where the scores go.")


class RetentionSection(Section):
    """`retention`: how many of each kind of artifact are kept."""

    versions: Count = Field(10, description="Versions that are kept.")
    trials: Count = Field(20, description="Trials whose weights are kept.")
    snapshots: Count = Field(3, description="Snapshots that are kept.")


class StudySpec(Section):
    """One study: dataset, objective, limits and schedule."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="The study. A name used before continues that study."
    )
    task: NonEmpty = Field(description="What is learned from what.")
    data: DataSection
    search: SearchSection = Field(default_factory=SearchSection)
    final_fit: FinalFitSection = Field(default_factory=FinalFitSection)
    export: ExportSection = Field(default_factory=ExportSection)
    predict: PredictSection | None = None
    notify: tuple[NonEmpty, ...] = Field(
        (), strict=False, description="Airflow connections that get messages."
    )
    retention: RetentionSection = Field(default_factory=RetentionSection)
    schedule: NonEmpty | None = Field(
        "0 1 * * *", description="Cron expression of the study's DAG; empty: only by hand."
    )
    timezone: str = Field("UTC", description="The schedule's time zone.")

    @field_validator("name")
    @classmethod
    def _refuse_reserved(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"{name!r} is reserved; choose another name")
        return name

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: str | None) -> str | None:
        return None if schedule is None else check_cron(schedule)

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, timezone: str) -> str:
        return check_timezone(timezone)

    def canonical(self) -> str:
        """Return the specification as JSON text that is equal for equal specifications."""
        document = self.model_dump(mode="json", by_alias=True)
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @property
    def spec_hash(self) -> str:
        """SHA-256 of the whole specification, as hex digits."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def generation_key(self) -> str:
        """Hash of what makes scores comparable: task, objective, label, split and seed."""
        data = self.data
        parts = [
            self.task, self.search.objective, data.label, data.split, data.group, data.time,
            data.validation_fraction, data.test_fraction, data.test_source, self.search.seed,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
