"""The steps outside of the pipeline: what a supervisor calls when a process or a run has failed.

Neither opens a run again that has failed.
"""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.runs import opening
from automl.runs.context import StepContext
from automl.steps.call import StepCall


def give_back(context: StepContext, worker: int) -> list[int]:
    """Free the leases that a dead worker held, so that others may take its trials at once.

    Returns:
        The numbers of the trials given back.
    """
    name, freed = f"{context.run}/{worker}", []
    for trial in context.record.refresh().trials:
        if trial.outcome is None and context.leases.holder(str(trial.number)) == name:
            lease = context.leases.acquire(str(trial.number), name)
            if lease is not None:
                lease.release()
                freed.append(trial.number)
    return freed


def give_back_step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the numbers of the trials given back."""
    assert call.worker is not None
    return give_back(context, call.worker)


def fail_run_step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the state that the run is in now; none of its steps is tried again."""
    assert call.cause is not None
    return {"state": opening.fail_run(context, call.cause)}
