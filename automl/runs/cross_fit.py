"""Cross-fitting of a run's winner: predictions for the rows that its trials have learnt from.

The audit of data looks for wrong labels by predictions out of sample, and trials leave these for
held-out rows alone. After the final fit is stored, the winner's candidate is therefore fitted twice
more, on either half of the training rows, and predicts the other half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from automl.domain.events import RunState
from automl.domain.study import Run
from automl.errors import AutoMLError, StorageError
from automl.runs.context import StepContext
from automl.runs.refit import FitHooks, Limits
from automl.runs.training import lineage_of
from automl.runs.trial_files import predictions_to_bytes
from automl.tracks.track import CrossFit, Fitter

_SHARE = 0.1  # of the search's time limit, for both fits
_STREAM = 2  # of the seed; trials have none, and final fits 1

log = logging.getLogger(__name__)


def cross_fit(context: StepContext, fitter: Callable[[], Fitter], limits: Limits) -> None:
    """Store the winner's predictions for training rows, unless they are, or time is over.

    It takes at most a tenth of the search's time limit from the moment that the final fit was
    stored, all attempts together, so that what a study publishes does not wait for it. Nor does it
    depend on it: what cannot be fitted, since a file is lost that nothing else needs, say, is told
    by a warning.

    Args:
        context: of a run whose final fit is stored.
        fitter: returns what fits candidates on the run's snapshot; asked if there is time.
        limits: of the final fit.

    Raises:
        StorageError: the process was asked to stop, or the home cannot be reached.
    """
    run = context.opened_run()
    assert run.final_fit is not None
    most = _SHARE * context.spec.search.time_limit
    limits = Limits(limits.stop, min(limits.end, run.final_fit.at + most))
    if run.state is not RunState.OPEN or context.clock.now() >= limits.end:
        return
    key = context.keys.run(context.run).cross_fit
    if any(entry.key == key for entry in context.store.list(key)):
        return
    hooks = FitHooks(context, limits, "cross-fit", key=None)
    try:
        predictions = fitter().cross_fit(_job(context, run, limits), hooks)
    except AutoMLError as error:
        if error.retryable:
            raise
        log.warning("training rows are not predicted, and their labels not audited: %s", error)
        return
    if limits.stop.is_set():
        raise StorageError("The cross-fit was asked to stop.", "run the step again")
    if predictions is not None:
        context.store.put(key, predictions_to_bytes(predictions))


def _job(context: StepContext, run: Run, limits: Limits) -> CrossFit:
    study = context.record.study
    assert run.final_fit is not None
    number = run.final_fit.members[0].trial
    return CrossFit(
        lineage=lineage_of(study, study.trials[number]),
        seed=(context.spec.search.seed, number, _STREAM),
        left_s=(limits.end - context.clock.now()) / timedelta(seconds=1),
    )
