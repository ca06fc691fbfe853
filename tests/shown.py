"""The log of a short study, for tests of what people look at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RungReached,
    RunOpened,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.trial import Measurement, NetworkMeasurement, Outcome
from automl.storage.home import Home
from automl.tracks.image.space import NetworkMorphismSpace

STUDY = "digits"
AT = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = NetworkMorphismSpace(16, 10)


def write_study(home: Home) -> None:
    """Write the log to `home`, one event per version."""
    for version, event in enumerate(events()):
        home.study_log(STUDY).append([event], expected_version=version - 1)


def append(home: Home, *news: Event) -> None:
    """Append events to the log as one version."""
    log = home.study_log(STUDY)
    log.append(news, expected_version=log.read()[-1][0])


def finish(home: Home, number: int, score: float) -> None:
    """Claim a trial and complete it with a score."""
    measured = Measurement(
        score=score,
        error=0.01,
        loss=-score,
        best_epoch=2,
        seconds=3.0,
        latency_ms=0.5,
        weights="weights",
        network=NetworkMeasurement(macs=7, parameters=5),
    )
    append(
        home,
        TrialClaimed(at=AT, n=number, attempt=2, run="a", worker="w"),
        TrialFinished(
            at=AT, n=number, attempt=2, run="a", outcome=Outcome.COMPLETED, measurement=measured
        ),
    )


def events() -> Iterator[Event]:
    """Yield a run with a seed, its child, and a trial that has no candidate yet."""
    yield RunOpened(
        at=AT, run="a", deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
        generation_key="k", spec={"name": STUDY, "task": "image_classification"}, origin="test",
    )  # fmt: skip
    seed = SPACE.seeds()[0]
    child = SPACE.mutate(seed.model_copy(update={"parent": 0}), np.random.default_rng(3))
    for n, candidate in enumerate((seed, child, None)):
        yield TrialOpened(at=AT, n=n, run="a", worker="w")
        if candidate is not None:
            yield _proposed(n, candidate)
    yield TrialClaimed(at=AT, n=1, attempt=1, run="a", worker="w")
    for rung, epochs in ((1, 3), (2, 10)):
        yield RungReached(
            at=AT, n=1, attempt=1, run="a", rung=rung, epochs=epochs, planned=30, loss=-0.5,
            score=0.5, error=0.02, log_loss=1.5, resolution=8,
        )  # fmt: skip


def _proposed(n: int, candidate: Candidate) -> TrialProposed:
    return TrialProposed(at=AT, n=n, candidate=candidate, based_on=0, strategy="random")
