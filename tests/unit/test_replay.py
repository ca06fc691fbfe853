"""Replaying proposals: each follows from the log before it, or is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import Event, RunOpened, TrialFinished, TrialOpened, TrialProposed
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import ConfigError, DamagedDataError
from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors
from automl.morphism.memory import TrainingPlan, memory_need
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.proposals import search_space
from automl.runs.replay import rederive, replay_document
from automl.runs.trials import Claim, TrialSource
from automl.search.memory_model import MemoryBound
from automl.search.space import Description, LabelledGraph, SearchSpace
from automl.steps.study_file import study_spec
from automl.storage.home import ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.storage.study_log import ObjectStudyLog
from automl.tracks.image.facts import SPACE_VERSION

FACTS = {"image_size": 8, "classes": 10, "version": SPACE_VERSION}
DOCUMENT: dict[str, Any] = {
    "name": "digits",
    "task": "image_classification",
    "data": {"source": "/rows.npz"},
    "search": {"seed": 7, "workers": 3},
}
SPEC = study_spec(DOCUMENT)
# draws its parents from all trials
RANDOM = study_spec(DOCUMENT | {"search": {"seed": 7, "workers": 3, "strategy": "random"}})
Log = list[tuple[int, Event]]


class Searching:
    """A study whose trials are proposed by the workers' own code and finish at once."""

    def __init__(self, spec: StudySpec = SPEC) -> None:
        self.home = ObjectHome(MemoryObjectStore())
        self.context = StepContext.open(Settings("/"), spec, "one", "test", self.home)
        self._scores = np.random.default_rng(0)

    def open(self, space: dict[str, int] | None = FACTS) -> Searching:
        opening.open_run(self.context, "snapshot", space)
        return self

    def tickets(self, count: int) -> Searching:
        """Open trials before any of them is proposed, as workers do that start together."""
        for _ in range(count):
            self.context.record.commit(
                lambda study: [
                    TrialOpened(at=self._now, n=len(study.trials), run="one", worker="gone")
                ]
            )
        return self

    def trials(self, count: int) -> Searching:
        """Let three workers go through trials, each starting before the one before it ends."""
        workers = [TrialSource(self.context, f"one/{index}", search_space) for index in range(3)]
        held: list[Claim] = []
        for index in range(count):
            claim = workers[index % 3].take()
            assert claim is not None
            held.append(claim)
            if len(held) == 3:
                self._finish(held.pop(0))
        for claim in held:
            self._finish(claim)
        return self

    def _finish(self, claim: Claim) -> None:
        number, score = claim.trial.number, float(self._scores.random())
        event = TrialFinished(
            at=self._now,
            n=number,
            attempt=claim.trial.attempt,
            run="one",
            outcome=Outcome.COMPLETED,
            measurement=Measurement(score=score, loss=-score, weights=f"weights of {number}"),
        )
        self.context.record.commit(
            lambda study: () if study.trials[number].outcome is not None else [event]
        )
        claim.lease.release()

    @property
    def _now(self) -> Any:
        return self.context.clock.now()

    @property
    def log(self) -> Log:
        return list(self.context.record.log.read())

    @property
    def found(self) -> list[Trial]:
        return list(self.context.record.refresh().trials)


@pytest.fixture(scope="module", params=[16, pytest.param(24, marks=pytest.mark.soak)])
def searched(request: pytest.FixtureRequest) -> Searching:
    return Searching().open().tickets(3).trials(request.param)


def space_of(run: Run, memory: MemoryBound | None) -> SearchSpace:
    assert run.space is not None
    return search_space(run, memory)


def altered(log: Log, number: int, **fields: Any) -> Log:
    """Return the log with other fields in the proposal of one trial."""
    return changed(log, lambda event: event.n == number, **fields)


def changed(log: Log, is_meant: Callable[[TrialProposed], bool], **fields: Any) -> Log:
    found: Log = []
    for version, event in log:
        if isinstance(event, TrialProposed) and is_meant(event):
            own = {name: fields[name] for name in fields.keys() & {"based_on", "strategy"}}
            candidate = event.candidate.model_dump() | {
                name: value for name, value in fields.items() if name not in own
            }
            own["candidate"] = Candidate.model_validate(candidate)
            found.append((version, event.model_copy(update=own)))
        else:
            found.append((version, event))
    return found


def differences(log: Log) -> list[tuple[int, str]]:
    return [
        (proposal.recorded.n, name)
        for proposal in rederive(log, space_of)
        for name in proposal.different_fields
    ]


def parent_of_others(trials: Sequence[Trial]) -> int:
    """Return a trial that has a parent and a child."""
    parents = {t.number: t.candidate.parent for t in trials if t.candidate is not None}
    return next(n for n, parent in parents.items() if parent is not None and n in parents.values())


def test_every_proposal_is_derived_again(searched: Searching) -> None:
    assert replay_document(searched.home, "digits") == {
        "schema": 1, "study": "digits", "ok": True, "trials": len(searched.found), "different": [],
    }  # fmt: skip


def test_proposals_are_of_both_kinds(searched: Searching) -> None:
    trials = searched.found

    assert {trial.based_on == trial.opened_in for trial in trials} == {True, False}
    assert parent_of_others(trials) >= 0


def test_a_log_without_candidates_gives_all_of_them_back(searched: Searching) -> None:
    bare = changed(
        searched.log, lambda _: True, genotype="", hyperparameters={}, parent=None, moves=()
    )

    found = list(rederive(bare, space_of))

    assert all(proposal.different_fields for proposal in found)
    assert [p.derived and p.derived.candidate for p in found] == [
        trial.candidate for trial in searched.found
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hyperparameters", {"learning_rate": 0.2, "weight_decay": 1e-3, "augmentation": 0.5}),
        ("hyperparameters", {}),
        ("genotype", "{}"),
        ("parent", None),
        ("moves", ()),
        ("strategy", "evolution"),
        ("based_on", 0),
    ],
)
def test_an_altered_proposal_alone_is_named_though_others_descend_from_it(
    searched: Searching, name: str, value: object
) -> None:
    number = parent_of_others(searched.found)

    assert differences(altered(searched.log, number, **{name: value})) == [(number, name)]


def test_a_genotype_that_another_trial_has_is_named(searched: Searching) -> None:
    first, second = (t.candidate for t in searched.found[:2])
    assert first is not None
    assert second is not None

    assert differences(altered(searched.log, 1, genotype=first.genotype)) == [(1, "genotype")]


def test_what_follows_from_a_recorded_candidate_is_right_though_that_one_is_not() -> None:
    searching = Searching(RANDOM).open().trials(8)
    log = searching.log
    # the store now holds a study whose trial 6 an earlier searcher proposed
    genes = {"learning_rate": 0.123, "weight_decay": 1e-3, "augmentation": 0.5}
    rewrite(searching, altered(log, 6, hyperparameters=genes))
    searching.context = StepContext.open(Settings("/"), RANDOM, "one", "test", searching.home)
    searching.trials(16)

    assert any(t.candidate and t.candidate.parent == 6 for t in searching.found)
    assert differences(searching.log) == [(6, "hyperparameters")]


def rewrite(searching: Searching, log: Log) -> None:
    """Put other events in the place of those that the study's log holds."""
    store = MemoryObjectStore()
    target = ObjectStudyLog(store, "studies/digits/log")
    versions: dict[int, list[Event]] = {}
    for version, event in log:
        versions.setdefault(version, []).append(event)
    for version, events in versions.items():
        target.append(events, expected_version=version - 1)
    searching.home = ObjectHome(store)


@pytest.mark.parametrize("strategy", ["quantum", "grid"])
def test_a_strategy_that_this_version_lacks_is_an_error(searched: Searching, strategy: str) -> None:
    log: Log = []
    for version, event in searched.log:
        if isinstance(event, RunOpened):
            spec = event.spec | {"search": event.spec["search"] | {"strategy": strategy}}
            log.append((version, event.model_copy(update={"spec": spec})))
        else:
            log.append((version, event))

    with pytest.raises(ConfigError, match="Run one was opened with a specification") as caught:
        differences(log)
    assert [problem.path for problem in caught.value.problems] == ["search.strategy"]
    assert strategy in str(caught.value)


class OneCandidateSpace:
    """A space that is exhausted after one trial."""

    def seeds(self) -> Sequence[Candidate]:
        return [Candidate(genotype="only", hyperparameters={})]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return self.seeds()[0]

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        return candidate

    def contains(self, candidate: Candidate) -> bool:
        return True

    def describe(self, candidate: Candidate) -> Description:
        return Description(LabelledGraph((candidate.genotype,), ((),)))


FACTORS = {"ps_per_flop": 25, "ps_per_byte": 100, "ns_per_layer": 15_000}
LIMITED = study_spec(
    DOCUMENT
    | {"search": {"seed": 7, "workers": 3, "limits": {"latency_ms": 0.5, "device_memory": "8MB"}}}
)


def test_a_limited_search_is_derived_from_the_recorded_factors() -> None:
    searching = Searching(LIMITED).open(FACTS | FACTORS | {"batch_size": 64}).trials(12)

    assert replay_document(searching.home, "digits")["ok"]
    genotypes = [t.candidate.genotype for t in searching.found if t.candidate is not None]
    for architecture in map(Architecture.from_genotype, genotypes):
        assert DeviceFactors(**FACTORS).latency_ms(architecture) <= 0.5
        assert memory_need(architecture, TrainingPlan(64)).total <= 8e6


@pytest.mark.parametrize("name", [*FACTORS, "batch_size"])
def test_a_limit_whose_factors_are_not_recorded_is_damage(name: str) -> None:
    facts = {k: v for k, v in (FACTS | FACTORS | {"batch_size": 64}).items() if k != name}
    searching = Searching(LIMITED).open(facts)

    with pytest.raises(DamagedDataError, match=rf"has no '{name}', .*'latency_ms': 0\.5"):
        searching.trials(1)


def test_a_proposal_where_nothing_was_left_to_propose_is_named(searched: Searching) -> None:
    found = list(rederive(searched.log, lambda *_: OneCandidateSpace()))

    assert [proposal.different_fields[-1] for proposal in found[1:]] == ["candidate"] * (
        len(searched.found) - 1
    )


def test_a_proposal_without_a_ticket_is_damage(searched: Searching) -> None:
    first = next(event for _, event in searched.log if isinstance(event, TrialProposed))
    opened = searched.log[0]

    with pytest.raises(DamagedDataError, match=r"Version 1 .* proposes trial 0, which no version"):
        list(rederive([opened, (1, first)], space_of))


def test_a_second_proposal_of_a_trial_is_ignored_as_by_a_replay(searched: Searching) -> None:
    log = searched.log
    again = next(event for _, event in log if isinstance(event, TrialProposed))
    late = again.model_copy(update={"strategy": "evolution"})

    assert differences([*log, (log[-1][0] + 1, late)]) == []


def test_a_study_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigError, match="There is no study 'nothing'"):
        replay_document(ObjectHome(MemoryObjectStore()), "nothing")
