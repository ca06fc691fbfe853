"""Facts of image searches: what their space depends on besides the specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from automl.domain.facts import SpaceFacts
from automl.domain.specification import LimitsSection
from automl.errors import DamagedDataError
from automl.morphism.costs import DeviceFactors

SPACE_VERSION = 11  # rises whenever the same log and seed would lead to other proposals

_DEVICE_FACTORS = tuple(field.name for field in fields(DeviceFactors))


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts that the search space of a run depends on.

    Attributes:
        image_size: height and width in pixels.
        classes: their number.
        version: of the search; 1 in logs that do not say.
        epochs: of a trial; None in older logs.
        trial_ms: how long a training takes that is neither stopped nor shortened; None for any
            time, and in older logs.
        pretrained_ms: likewise of the pretrained seed and its descendants, where that is less.
        pretrained: SHA-256 of the pretrained seed's weights; None without such a seed.
        batch_size: examples of a step; None in older logs.
        evaluation_batch: examples that are evaluated at once.
        dataset_bytes: of the rows that are kept on the device if they fit.
        replicas: copies of the network between which a batch is divided.
        is_bfloat16: whether trainings compute in bfloat16.
        macs: most multiply-adds of a network for one image; None, also in older logs, for the
            usual limit.
        factors: how fast files compute on the machine that opened the run; None without a limit.
    """

    image_size: int
    classes: int
    version: int = SPACE_VERSION
    epochs: int | None = None
    trial_ms: int | None = None
    pretrained_ms: int | None = None
    pretrained: str | None = None
    batch_size: int | None = None
    evaluation_batch: int = 0
    dataset_bytes: int = 0
    replicas: int = 1
    is_bfloat16: bool = False
    macs: int | None = None
    factors: DeviceFactors | None = None

    @classmethod
    def read(cls, facts: SpaceFacts, limits: LimitsSection) -> ImageFacts:
        """Return what a run recorded.

        Args:
            facts: the record.
            limits: of the run's specification, which decide what must be there.

        Raises:
            DamagedDataError: a fact is missing.
        """
        recorded = facts.recorded
        try:
            factors = None
            if limits.latency_ms is not None:
                factors = DeviceFactors(**{name: int(recorded[name]) for name in _DEVICE_FACTORS})
            if limits.device_memory is not None:
                int(recorded["batch_size"])
            return cls(
                image_size=int(recorded["image_size"]),
                classes=int(recorded["classes"]),
                version=facts.version,
                epochs=_number(recorded, "epochs"),
                trial_ms=facts.trial_ms,
                pretrained_ms=_number(recorded, "pretrained_ms"),
                pretrained=str(recorded["pretrained"]) if "pretrained" in recorded else None,
                batch_size=_number(recorded, "batch_size"),
                evaluation_batch=int(recorded.get("evaluation_batch", 0)),
                dataset_bytes=int(recorded.get("dataset_bytes", 0)),
                replicas=int(recorded.get("shards", 1)),
                is_bfloat16=bool(recorded.get("bfloat16", 0)),
                macs=_number(recorded, "macs"),
                factors=factors,
            )
        except KeyError as error:
            raise DamagedDataError(
                f"The log's description of the search space, {dict(recorded)}, has no {error}, on "
                f"which a search with limits {limits.model_dump(exclude_none=True)} depends.",
                "restore it from a backup of the home; see docs/runbook.md",
            ) from error

    def to_record(self) -> dict[str, int | str]:
        """Return what `run_opened` records."""
        named: dict[str, int | str | None] = {
            "image_size": self.image_size,
            "classes": self.classes,
            "version": self.version,
            "epochs": self.epochs,
            "trial_ms": self.trial_ms,
            "pretrained_ms": self.pretrained_ms,
            "pretrained": self.pretrained,
            "macs": self.macs,
        }
        if self.batch_size is not None:
            named |= {
                "batch_size": self.batch_size,
                "evaluation_batch": self.evaluation_batch,
                "dataset_bytes": self.dataset_bytes,
                "shards": self.replicas,
                "bfloat16": int(self.is_bfloat16),
            }
        if self.factors is not None:
            named |= {name: getattr(self.factors, name) for name in _DEVICE_FACTORS}
        return {name: value for name, value in named.items() if value is not None}


def _number(recorded: Mapping[str, int | str], name: str) -> int | None:
    return int(recorded[name]) if name in recorded else None
