"""One trial, with everything that is known of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

from automl.domain.card import Portrait
from automl.domain.ranking import ranked
from automl.domain.study import Study, lineage
from automl.domain.trial import RungResult, Trial, TrialState
from automl.tracks.cards import card_of, load
from automl.views.curve import curve_points
from automl.views.document import Document, Row
from automl.views.leaderboard import TrialRow, trial_row
from automl.views.library import Library, find_trial
from automl.views.provenance import MadeVersion, versions_of


class RungRow(Row):
    """Measurements of a trial at a rung.

    Attributes:
        rung: the rung, from 1.
        epochs: epochs trained by then.
        planned: epochs that the trial was to train in all.
        loss: what is minimised.
        score: the objective, in its natural orientation.
        error: standard error of the score.
        log_loss: nats per example; None where predictions are no probabilities.
        share: of the training that was done by then, above 0 to 1.
        resolution: height and width that the network saw by then; None in older logs.
    """

    rung: int
    epochs: int
    planned: int
    loss: float
    score: float
    error: float
    log_loss: float | None
    share: float
    resolution: int | None


class _Named(Document):
    study: str


class TrialDocument(TrialRow, _Named):
    """The document of `automl show`.

    Attributes:
        owner: whose study it is; None: anybody's.
        run: the run that opened the trial.
        state: how far it has come.
        lineage: the trials that it descends from, its parent first.
        moves: what leads from its parent's candidate to its own.
        hyperparameters: of its training, by name.
        genotype: of its candidate; None before it is proposed, as the next three.
        architecture: the genotype in a line, for people.
        layers: the genotype as a table, for people.
        difference: what is otherwise than in its parent's; None for a seed.
        resumed_at: epochs that its last attempt continued from, 0 for a fresh start.
        best_epoch: the epoch, from 0, whose weights are kept.
        versions: the published versions that were made of it.
        rungs: those that it reached.
        curve: the learning curve of its last attempt, a point per epoch.
    """

    owner: str | None
    run: str
    state: TrialState
    lineage: tuple[int, ...]
    moves: tuple[dict[str, Any], ...]
    hyperparameters: dict[str, float]
    genotype: JsonValue
    architecture: str | None
    layers: str | None
    difference: str | None
    resumed_at: int
    best_epoch: int | None
    versions: tuple[MadeVersion, ...]
    rungs: tuple[RungRow, ...]
    curve: tuple[dict[str, Any], ...]


def show_trial(library: Library, name: str, number: int) -> TrialDocument:
    """Return one trial with its lineage, its learning curve and the versions made of it.

    Raises:
        ConfigError: there is no such trial, or nothing installed knows the study's task.
        DamagedDataError: its learning curve is not what was written.
    """
    study = library.study(name)
    trial = find_trial(study, name, number)
    order = [entry.number for entry in ranked(study.comparable(study.runs[-1]))]
    row = trial_row(trial, order.index(number) + 1 if number in order else None)
    candidate, portrait = trial.candidate, portrait_of(study, trial)
    return TrialDocument(
        **dict(row),
        study=name,
        owner=None if study.owner is None else str(study.owner),
        run=trial.run,
        state=trial.state,
        lineage=tuple(ancestor.number for ancestor in lineage(study, trial)[1:]),
        moves=candidate.moves if candidate else (),
        hyperparameters=candidate.hyperparameters if candidate else {},
        genotype=json.loads(candidate.genotype) if candidate else None,
        architecture=portrait and portrait.summary,
        layers=portrait and portrait.layers,
        difference=portrait and portrait.difference,
        resumed_at=trial.measurement.resumed_at,
        best_epoch=trial.measurement.best_epoch,
        versions=versions_of(study, number),
        rungs=tuple(map(_rung_row, trial.rungs)),
        curve=curve_points(library.store, name, trial),
    )


def _rung_row(result: RungResult) -> RungRow:
    return RungRow(
        rung=result.rung,
        epochs=result.epochs,
        planned=result.planned,
        loss=result.loss,
        score=result.score,
        error=result.error,
        log_loss=result.log_loss,
        share=result.done,
        resolution=result.resolution,
    )


def portrait_of(study: Study, trial: Trial) -> Portrait | None:
    """Return a trial's candidate as its track draws it; None if there is nothing to draw."""
    drawer = card_of(study.runs[-1].task).portrait
    if trial.candidate is None or not drawer:
        return None
    parent = None
    if trial.candidate.parent is not None:
        parent = study.trials[trial.candidate.parent].candidate
        assert parent is not None
    draw: Callable[[str, str | None], Portrait] = load(drawer)
    return draw(trial.candidate.genotype, None if parent is None else parent.genotype)
