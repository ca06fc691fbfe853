"""The facts that a study's log holds. Everything else about a study is derived from them.

Each event has a `type` and the time `at` which it was written. Their JSON form is described in
`docs/formats/study-log.md`. A reader refuses what it does not know: the log was then written by a
newer version.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from automl.domain.candidate import Candidate
from automl.domain.data_change import DataChange
from automl.domain.trial import Device, Measurement, Outcome
from automl.errors import NewerSchemaError

SCHEMA = 1


class FitSource(StrEnum):
    """Making of the published weights."""

    RETRAINED = "retrained"  # from fresh ones
    CONTINUED = "continued"  # from those of a trial or a version
    INCUMBENT = "incumbent"  # they are those of a trial or a version


class SearchEnd(StrEnum):
    """Reason why a search ended."""

    DEADLINE = "deadline"
    MAX_TRIALS = "max_trials"
    EXHAUSTED = "exhausted"
    CONTINUED = "continued"  # there was none: the run continues a published version


class RunState(StrEnum):
    """State of a run of a study."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    at: AwareDatetime


class RunOpened(_Event):
    """A run of the study begins; `deadline` is when its search ends.

    `space` is what the search space depends on besides `spec`; None in logs from before it was
    recorded. `split` is in the first run of a generation: by label, or by what else holds rows out,
    the thresholds that do so, which stay what they are for as long as the generation lasts. It is
    None in other runs, and in logs from before it was recorded.
    """

    type: Literal["run_opened"] = "run_opened"
    run: str
    deadline: AwareDatetime
    snapshot: str
    spec_hash: str
    generation_key: str
    spec: dict[str, Any]
    origin: str
    space: dict[str, int | str] | None = None
    split: dict[str, tuple[float, ...]] | None = None


class TrialOpened(_Event):
    """Trial `n` takes its number; its proposal follows from the log up to here.

    The candidate must fit on `device`, where the worker trains; None in logs from before it was
    recorded.
    """

    type: Literal["trial_opened"] = "trial_opened"
    n: int
    run: str
    worker: str
    device: Device | None = None


class PassedOver(BaseModel):
    """A trial with less loss than the winner, and why it is not the winner."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    trial: int
    reason: str


class TrialProposed(_Event):
    """Trial `n` has its candidate, computed from the log's prefix up to version `based_on`.

    `repeats` is the trial of another snapshot whose candidate is measured again, if it is one.
    """

    type: Literal["trial_proposed"] = "trial_proposed"
    n: int
    candidate: Candidate
    based_on: int
    strategy: str
    repeats: int | None = None


class TrialClaimed(_Event):
    """A worker trains trial `n`; `attempt` is the fencing token.

    `checkpoint` is the key that it continues from, chosen before the claim: what an earlier attempt
    writes later does not count.
    """

    type: Literal["trial_claimed"] = "trial_claimed"
    n: int
    attempt: int
    run: str
    worker: str
    checkpoint: str | None = None


class TrialReleased(_Event):
    """The worker gives trial `n` back; whoever claims it next continues from its checkpoint."""

    type: Literal["trial_released"] = "trial_released"
    n: int
    attempt: int
    reason: str


class RungReached(_Event):
    """Trial `n` has trained `epochs` of its `planned` ones, which is rung `rung`, from 1.

    `loss`, `score`, its standard error `error` and `log_loss` are what its measurement would be if
    it ended here: those of the best epoch so far; `log_loss` is None where predictions are no
    probabilities. `share` of its training was done by then, above 0 to 1. The network saw images of
    `resolution` pixels in its last epoch. Both are None in logs of earlier releases.
    """

    type: Literal["rung_reached"] = "rung_reached"
    n: int
    attempt: int
    run: str
    rung: int
    epochs: int
    planned: int
    loss: float
    score: float
    error: float
    log_loss: float | None
    resolution: int | None = None
    share: float | None = None


class TrialFinished(_Event):
    """Trial `n` has reached its outcome."""

    type: Literal["trial_finished"] = "trial_finished"
    n: int
    attempt: int
    run: str
    outcome: Outcome
    measurement: Measurement
    cause: str = ""


class SearchEnded(_Event):
    """No further trial starts in this run."""

    type: Literal["search_ended"] = "search_ended"
    run: str
    reason: SearchEnd


class WinnerChosen(_Event):
    """The run's final fit and export are of this trial.

    `runner_up` takes its place if its weights are lost; None if no other trial could win.
    `passed_over` are the trials that a final fit would have no memory for, `blended` the further
    trials that the published model blends with the winner.
    """

    type: Literal["winner_chosen"] = "winner_chosen"
    run: str
    trial: int
    loss: float
    runner_up: int | None = None
    passed_over: tuple[PassedOver, ...] = ()
    blended: tuple[int, ...] = ()


class FittedMember(BaseModel):
    """One of the fitted candidates that a published model blends.

    Attributes:
        trial: number of the trial whose candidate it is.
        model: key of the bytes that its fit came to.
        weight: its share of the blend.
        details: what its track must know of the fit; empty in logs from before it was recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    trial: int
    model: str
    weight: float = 1.0
    details: dict[str, JsonValue] = Field(default_factory=dict)


_OF_MEMBER = {"trial": "trial", "weights": "model"}  # keys of the event before there were members


class FinalFitFinished(_Event):
    """The published model exists as its `members`; `source` says how it was made.

    The winner's member is the first. Earlier releases knew one, and had its fields among the
    event's own: `trial`, `weights`, and `mean` and `std` of each channel of its images.
    """

    type: Literal["final_fit_finished"] = "final_fit_finished"
    run: str
    members: Annotated[tuple[FittedMember, ...], Field(min_length=1)]
    source: FitSource
    epochs: int
    note: str = ""

    @property
    def trials(self) -> tuple[int, ...]:
        """Numbers of the members' trials."""
        return tuple(member.trial for member in self.members)

    @model_validator(mode="before")
    @classmethod
    def _read_one_member(cls, document: Any) -> Any:
        if not isinstance(document, dict) or "members" in document:
            return document
        own = dict(document)
        member = {new: own.pop(old) for old, new in _OF_MEMBER.items() if old in own}
        details = {name: own.pop(name, None) for name in ("mean", "std")}
        member["details"] = {name: value for name, value in details.items() if value is not None}
        return {**own, "members": (member,)}


class VersionReserved(_Event):
    """The run exports as this version."""

    type: Literal["version_reserved"] = "version_reserved"
    run: str
    version: int


class TestOpened(_Event):
    """The sealed test rows are read to measure this version."""

    __test__ = False

    type: Literal["test_opened"] = "test_opened"
    run: str
    version: int
    rows: int


class VersionPublished(_Event):
    """The version's manifest exists."""

    type: Literal["version_published"] = "version_published"
    run: str
    version: int


class RunClosed(_Event):
    """The run is over."""

    type: Literal["run_closed"] = "run_closed"
    run: str
    state: RunState
    cause: str = ""
    version: int | None = None
    promoted: bool = False


class RunReopened(_Event):
    """A run that had failed or was abandoned goes on.

    With a `deadline` its search begins anew and ends then; else what it has come to stands.
    """

    type: Literal["run_reopened"] = "run_reopened"
    run: str
    deadline: AwareDatetime | None = None


class StudyGiven(_Event):
    """The study belongs to `owner`, whose text is that of an origin, until it is given again.

    `by` is the run that was opened for it, or the person who gave it.
    """

    type: Literal["study_given"] = "study_given"
    owner: str
    by: str


class DataChanged(_Event):
    """The snapshot prepared for `run`, not open yet, differs from `before`, that of the last run.

    With `stopped` the data gate let the run go no further.
    """

    type: Literal["data_changed"] = "data_changed"
    run: str
    snapshot: str
    before: str
    changes: tuple[DataChange, ...]
    stopped: bool = False


class DataAccepted(_Event):
    """The data gate lets `snapshot` pass until another run is opened, as a person decided."""

    type: Literal["data_accepted"] = "data_accepted"
    snapshot: str
    by: str
    why: str


Event = (
    RunOpened
    | TrialOpened
    | TrialProposed
    | TrialClaimed
    | TrialReleased
    | RungReached
    | TrialFinished
    | SearchEnded
    | WinnerChosen
    | FinalFitFinished
    | VersionReserved
    | TestOpened
    | VersionPublished
    | RunClosed
    | RunReopened
    | StudyGiven
    | DataChanged
    | DataAccepted
)


@cache
def _adapter() -> TypeAdapter[Event]:
    """Return what tells events apart, built when the first one is read."""
    return TypeAdapter(Annotated[Event, Field(discriminator="type")])


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the stored form of `event`."""
    return event.model_dump(mode="json")


def event_from_json(document: object, where: str) -> Event:
    """Return the event that `document` stores.

    Args:
        document: one parsed JSON object of a log version.
        where: names the log version in errors.

    Raises:
        NewerSchemaError: its type or a key is unknown.
    """
    try:
        return _adapter().validate_python(document)
    except ValidationError as error:
        raise NewerSchemaError(
            f"{where} holds an event that this version does not know: {error.errors()[0]['msg']}.",
            "it was written by a newer version; upgrade this worker",
        ) from error
