"""Studies told trial by trial, for tests of what is decided on the way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

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
from automl.domain.study import Study, replay
from automl.domain.trial import Measurement, Outcome

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Story:
    """A study that grows, one event a version.

    Attributes:
        study: as it is now.
    """

    def __init__(self) -> None:
        self.study = Study()
        self.run("first")

    def tell(self, *events: Event) -> None:
        for event in events:
            self.study = replay([(self.study.version + 1, event)], self.study)

    def run(self, name: str, snapshot: str = "s", key: str = "k", **search: Any) -> None:
        self._run = name
        self.tell(
            RunOpened(
                at=AT, run=name, deadline=AT + timedelta(hours=1), snapshot=snapshot,
                spec_hash="h", generation_key=key, spec={"search": search}, origin="test",
            )
        )  # fmt: skip

    def trial(
        self,
        parent: int | None = None,
        genes: Mapping[str, float] | None = None,
        repeats: int | None = None,
    ) -> int:
        """Open, propose and claim a trial, and return its number."""
        n = len(self.study.trials)
        candidate = Candidate(
            genotype=str(n), hyperparameters=dict(genes or {"weight_decay": 1.0}), parent=parent
        )
        self.tell(
            TrialOpened(at=AT, n=n, run=self._run, worker="w"),
            TrialProposed(
                at=AT, n=n, candidate=candidate, based_on=0, strategy="random", repeats=repeats
            ),
            TrialClaimed(at=AT, n=n, attempt=1, run=self._run, worker="w"),
        )
        return n

    def rung(
        self,
        n: int,
        score: float,
        error: float = 0.01,
        rung: int = 1,
        planned: int = 30,
        resolution: int = 64,
    ) -> None:
        """Let a trial reach a rung of a training of 30 epochs, or another one."""
        epochs = {1: planned // 9, 2: planned // 3, 3: planned}[rung]
        self.tell(
            RungReached(
                at=AT, n=n, attempt=1, run=self._run, rung=rung, epochs=epochs, planned=planned,
                loss=-score, score=score, error=error, log_loss=1 - score, resolution=resolution,
            )
        )  # fmt: skip

    def finish(
        self, n: int, score: float, log_loss: float, outcome: Outcome = Outcome.COMPLETED
    ) -> None:
        """Give a trial its outcome; its weights are kept."""
        measured = Measurement(score=score, error=0.01, loss=-score, log_loss=log_loss, weights="w")
        self.tell(
            TrialFinished(
                at=AT, n=n, attempt=1, run=self._run, outcome=outcome, measurement=measured
            )
        )
