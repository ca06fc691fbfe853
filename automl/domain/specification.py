"""The study specification: what a study file, the trigger form and the Python API all build.

Every key of the format is known here from the first version. `automl.domain.availability` refuses
values whose feature does not exist yet; nothing is silently ignored. The format's page is
`docs/formats/study-file.md`.
"""

from __future__ import annotations

import hashlib
import json
import zoneinfo
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from automl.domain.byte_size import ByteSize
from automl.domain.cron import check_cron
from automl.domain.duration import Duration, parse_duration
from automl.domain.objective import Objective

RESERVED_NAMES = frozenset({"search", "maintenance"})
MOST_WORKERS = 64

Fraction = Annotated[float, Field(ge=0, lt=1)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]


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

    on_change: OnChange = Field(OnChange.WARN, strict=False)


LOCATION_KEYS = ("source", "images", "test_source")  # of `data`: paths or URIs


class DataSection(Section):
    """`data`: where the rows come from and how they are held out."""

    source: NonEmpty
    images: NonEmpty | None = None
    label: NonEmpty | None = None
    test_source: NonEmpty | None = None
    image_size: Literal["auto"] | Annotated[int, Field(ge=4, le=1024)] = "auto"
    resize: Resize = Field(Resize.STRETCH, strict=False)
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_fraction: Fraction = 0.2
    split: Split = Field(Split.STRATIFIED, strict=False)
    group: NonEmpty | None = None
    columns: Mapping[NonEmpty, Annotated[ColumnKind, Field(strict=False)]] | None = None
    weights: NonEmpty | None = None
    time: NonEmpty | None = None
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    small_classes: SmallClasses = Field(SmallClasses.STOP, strict=False)
    corrections: NonEmpty | None = None
    gate: GateSection = Field(default_factory=GateSection)

    @property
    def locations(self) -> dict[str, str]:
        """The paths and URIs that rows are read from, by key."""
        found = {key: getattr(self, key) for key in LOCATION_KEYS}
        return {key: place for key, place in found.items() if place is not None}


class LimitsSection(Section):
    """`search.limits`: what a candidate may cost, trained or published."""

    parameters: Annotated[int, Field(ge=1)] | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    device_memory: ByteSize | None = None


class SpendSection(Section):
    """`search.spend`: what the search may cost."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    price_per_gpu_hour: Annotated[float, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None


class ResourcesSection(Section):
    """`search.resources`: what one trial may use."""

    gpus: Annotated[int, Field(ge=0)] = 1
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: NonEmpty | None = None


class SearchSection(Section):
    """`search`: how candidates are found and for how long."""

    strategy: Strategy = Field(Strategy.BAYESIAN, strict=False)
    time_limit: Duration = Field(default_factory=lambda: parse_duration("2h"))
    max_trials: Annotated[int, Field(ge=1)] | None = None
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    objective: Objective = Field(Objective.ACCURACY, strict=False)
    prefer: Preference = Field(Preference.ACCURACY, strict=False)
    slice: Duration = Field(default_factory=lambda: parse_duration("10m"))
    priority: Annotated[int, Field(ge=1, le=1000)] = 1
    limits: LimitsSection = Field(default_factory=LimitsSection)
    spend: SpendSection = Field(default_factory=SpendSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)


class FinalFitSection(Section):
    """`final_fit`: how the winner's published weights are made."""

    retrain: bool = True
    time_limit: Duration = Field(default_factory=lambda: parse_duration("1h"))
    ensemble: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = "auto"
    from_: Annotated[int, Field(ge=1)] | None = Field(None, alias="from")


class ExportSection(Section):
    """`export`: how the bundle is made and when it becomes the champion."""

    quantize: Quantization = Field(Quantization.NONE, strict=False)
    max_loss: Annotated[float, Field(ge=0)] = 0.005
    min_improvement: Annotated[float, Field(ge=0)] = 0.0
    approve: bool = False
    samples: bool = True
    sign: NonEmpty | None = None


class PredictSection(Section):
    """`predict`: what to score whenever a new champion is promoted."""

    source: NonEmpty
    output: NonEmpty


class RetentionSection(Section):
    """`retention`: how many of each kind of artifact are kept."""

    versions: Annotated[int, Field(ge=1)] = 10
    trials: Annotated[int, Field(ge=1)] = 20
    snapshots: Annotated[int, Field(ge=1)] = 3


class StudySpec(Section):
    """One study: dataset, objective, limits and schedule."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    task: NonEmpty
    data: DataSection
    search: SearchSection = Field(default_factory=SearchSection)
    final_fit: FinalFitSection = Field(default_factory=FinalFitSection)
    export: ExportSection = Field(default_factory=ExportSection)
    predict: PredictSection | None = None
    notify: tuple[NonEmpty, ...] = Field((), strict=False)
    retention: RetentionSection = Field(default_factory=RetentionSection)
    schedule: NonEmpty | None = "0 1 * * *"
    timezone: str = "UTC"

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
        try:
            zoneinfo.ZoneInfo(timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"{timezone!r} is not a time zone; write it like Europe/Berlin"
            ) from error
        return timezone

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
