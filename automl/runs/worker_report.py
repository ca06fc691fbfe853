"""What the step `run_worker` returns; importing it does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class WorkerReport:
    """What one slice of a worker did.

    Attributes:
        state: `slice_ended` or `search_ended`.
        trials: the trials it worked on.
        best: the best score among them.
    """

    state: str = "search_ended"
    trials: list[int] = field(default_factory=list)
    best: float | None = None

    def begin(self, number: int) -> None:
        """Add a trial; one that is resumed counts once."""
        if number not in self.trials:
            self.trials.append(number)

    def note(self, score: float | None) -> None:
        """Keep the score if it is the best so far."""
        if score is not None and (self.best is None or score > self.best):
            self.best = score

    def to_json(self) -> dict[str, object]:
        """Return the step's result with a label for people."""
        shown = ", ".join(str(number) for number in self.trials[-8:]) or "none"
        label = f"trials {shown}" + (f" · best {self.best:.4f}" if self.best is not None else "")
        return {"state": self.state, "trials": self.trials, "best": self.best, "label": label}
