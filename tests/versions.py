"""Published versions for tests that care about the registry alone: their network is just bytes."""

from __future__ import annotations

from datetime import UTC, datetime

from automl.domain.layout import MODEL_FILE
from automl.publishing.manifest import Parity, VersionFacts
from automl.publishing.registry import Registry
from automl.scoring.interval import Interval

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)


def publish(registry: Registry, run: str) -> int:
    """Publish a version whose `model.onnx` is 1,000 bytes that tell its run, and return it."""
    version = registry.claim_version(run)
    registry.write(version, {MODEL_FILE: f"{run:1000}".encode()}, facts(run))
    return version


def facts(run: str) -> VersionFacts:
    """Return what a manifest says of a version of `run`."""
    return VersionFacts(
        run=run,
        trial=0,
        snapshot="snapshot",
        task="image_classification",
        objective="accuracy",
        labels=("a", "b"),
        input={"decode": "rgb8", "resize": "stretch", "size": 8},
        metrics={"accuracy": Interval(value=0.9, low=0.8, high=0.95, n=100)},
        selected_on=True,
        decisions=1,
        parity=Parity(rows=4, max_abs_diff=1e-7, label_mismatches=0, ok=True),
        latency_ms={"1": {"p50": 0.5, "p95": 0.75}, "threads": 1},
        parameters=12,
        made_by={"automl": "0.1.0", "at": NOW.isoformat()},
    )
