"""Reports of workers, which the step `run_worker` returns; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from automl.domain.documents import JsonValue
from automl.domain.trial import Measurement

_LABELLED, _LISTED = 8, 64  # of the last trials; Airflow keeps a result in its database


@dataclass(slots=True)
class WorkerReport:
    """Report of one slice of a worker.

    Attributes:
        state: `slice_ended` or `search_ended`.
        trials: the trials it worked on.
        best: what the best of them measured.
        left_s: seconds that the search has left; None where the slice had not begun.
    """

    state: str = "search_ended"
    trials: list[int] = field(default_factory=list)
    best: Measurement | None = None
    left_s: float | None = None

    def begin(self, number: int) -> None:
        """Add a trial; one that is resumed counts once."""
        if number not in self.trials:
            self.trials.append(number)

    def note(self, measured: Measurement) -> None:
        """Keep what a trial measured if its loss is the least so far."""
        if measured.loss is None:
            return
        if self.best is None or self.best.loss is None or measured.loss < self.best.loss:
            self.best = measured

    def to_json(self) -> dict[str, JsonValue]:
        """Return the step's result, which lists the last trials, with a label for people."""
        shown = ", ".join(str(number) for number in self.trials[-_LABELLED:]) or "none"
        score = None if self.best is None else self.best.score
        label = f"trials {shown}" + (f" · best {score:.4f}" if score is not None else "")
        last = self.trials[-_LISTED:]
        left = {} if self.left_s is None else {"left_s": round(self.left_s, 1)}
        return {"state": self.state, "trials": last, "best": score, "label": label, **left}
