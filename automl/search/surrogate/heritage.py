"""Training that the weights which a candidate inherits have had already."""

from __future__ import annotations

import math

from automl.domain.candidate import Candidate
from automl.search.history import History


class Heritage:
    """The training that is behind the weights of each finished trial.

    A morph goes on from its parent's weights, so that candidates of late generations are better
    than their architectures and genes alone would make them.

    Args:
        history: the trials that weights are inherited from.
    """

    def __init__(self, history: History) -> None:
        self._epochs: dict[int, int] = {}  # behind the kept weights, by trial
        finished = sorted((*history.elsewhere, *history.finished), key=lambda trial: trial.number)
        for trial in finished:  # parents have lower numbers
            best = trial.measurement.best_epoch
            own = trial.measurement.epochs if best is None else best + 1
            assert trial.candidate is not None
            self._epochs[trial.number] = own + self.inherited_epochs(trial.candidate)

    def inherited_epochs(self, candidate: Candidate) -> int:
        """Return the epochs behind the weights that it starts from; 0 for fresh ones."""
        return 0 if candidate.parent is None else self._epochs.get(candidate.parent, 0)

    def feature(self, candidate: Candidate) -> float:
        """Return the binary logarithm of one plus the inherited epochs: later ones matter less."""
        return math.log2(1 + self.inherited_epochs(candidate))
