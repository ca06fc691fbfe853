"""What the read-only commands show: studies, leaderboard, one trial, versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from automl.domain.layout import MODEL_FILE
from automl.domain.ranking import ranked
from automl.domain.study import Run, Study, lineage
from automl.domain.trial import NetworkMeasurement, RungResult, Trial
from automl.errors import ConfigError
from automl.morphism.architecture import Architecture
from automl.morphism.summary import difference, table
from automl.publishing.registry import Registry
from automl.runs.curves import read_curve
from automl.storage.home import Home
from automl.storage.study_log import StudyRecord
from automl.views.comparison import compare_strategies
from automl.views.provenance import versions_of, weights_document


def load_study(home: Home, name: str) -> Study:
    """Return the study called `name`.

    Raises:
        ConfigError: the home has no such study.
    """
    study = StudyRecord(home.study_log(name)).refresh()
    if not study.runs:
        known = ", ".join(home.study_names()) or "none"
        raise ConfigError(
            f"There is no study {name!r} under {home.store.uri}.", f"known here: {known}"
        )
    return study


def studies_document(home: Home) -> dict[str, Any]:
    """Return a summary of every study."""
    rows = []
    for name in home.study_names():
        study = StudyRecord(home.study_log(name)).refresh()
        if not study.runs:
            continue
        run = study.runs[-1]
        best = ranked(study.comparable(run))[:1]
        rows.append(
            {
                "study": name,
                "runs": len(study.runs),
                "trials": len(study.trials),
                "state": run.state.value,
                "last_run": run.name,
                "opened_at": run.opened_at.isoformat(),
                "best_score": best[0].measurement.score if best else None,
                "champion": champion_version(home, name),
            }
        )
    return {"schema": 1, "studies": rows}


def champion_version(home: Home, name: str) -> int | None:
    """Return the champion's version, or None before the first promotion."""
    champion = Registry(home.store, name).champion()
    return None if champion is None else champion.version


def leaderboard_document(home: Home, name: str) -> dict[str, Any]:
    """Return the trials of the newest run's generation and snapshot, best first."""
    study = load_study(home, name)
    run = study.runs[-1]
    return {
        "schema": 1,
        "study": name,
        "run": run.name,
        "trials": leaderboard_rows(study, run),
        "strategies": [asdict(row) for row in compare_strategies(study.comparable(run))],
    }


def leaderboard_rows(study: Study, run: Run) -> list[dict[str, Any]]:
    """Return the trials that compare within `run`: ranked ones first, then those without a loss."""
    rows = [_trial_row(trial, rank) for rank, trial in enumerate(ranked(study.comparable(run)), 1)]
    rows += [_trial_row(trial, None) for trial in study.comparable(run) if trial.loss is None]
    return rows


def _trial_row(trial: Trial, rank: int | None) -> dict[str, Any]:
    measured = trial.measurement
    network = measured.network or NetworkMeasurement()
    return {
        "trial": trial.number,
        "rank": rank,
        "outcome": trial.outcome.value if trial.outcome else None,
        "score": measured.score,
        "error": measured.error,
        "parameters": network.parameters,
        "macs": network.macs,
        "latency_ms": measured.latency_ms,
        "seconds": measured.seconds,
        "strategy": trial.strategy,
        "parent": trial.candidate.parent if trial.candidate else None,
        "rung": trial.rungs[-1].rung if trial.rungs else 0,
        "cause": trial.cause,
        "attempts": trial.attempt,
    }


def show_document(home: Home, name: str, number: int) -> dict[str, Any]:
    """Return one trial with its lineage, its learning curve and the versions made of it.

    Raises:
        ConfigError: there is no such trial.
    """
    study = load_study(home, name)
    if not 0 <= number < len(study.trials):
        raise ConfigError(
            f"Study {name} has no trial {number}.", f"trials are 0 to {len(study.trials) - 1}"
        )
    trial = study.trials[number]
    order = [entry.number for entry in ranked(study.comparable(study.runs[-1]))]
    document = _trial_row(trial, order.index(number) + 1 if number in order else None)
    candidate = trial.candidate
    document |= {
        "run": trial.run,
        "state": trial.state.value,
        "lineage": [ancestor.number for ancestor in lineage(study, trial)[1:]],
        "moves": list(candidate.moves) if candidate else [],
        "hyperparameters": candidate.hyperparameters if candidate else {},
        "genotype": json.loads(candidate.genotype) if candidate else None,
        **_architecture(study, trial),
        "resumed_at": trial.measurement.resumed_at,
        "best_epoch": trial.measurement.best_epoch,
        "versions": versions_of(study, number),
        "rungs": [_rung_row(result) for result in trial.rungs],
        "curve": curve(home, name, trial),
    }
    return {"schema": 1, "study": name} | document


def _rung_row(result: RungResult) -> dict[str, Any]:
    row = asdict(result)
    del row["recorded_in"]
    return row


def _architecture(study: Study, trial: Trial) -> dict[str, str | None]:
    """Return a trial's network for people: in a line, layer by layer, and against its parent's."""
    if trial.candidate is None:
        return {"architecture": None, "layers": None, "difference": None}
    child, compared = Architecture.from_genotype(trial.candidate.genotype), None
    if trial.candidate.parent is not None:
        parent = study.trials[trial.candidate.parent]
        assert parent.candidate is not None
        compared = difference(Architecture.from_genotype(parent.candidate.genotype), child)
    return {"architecture": child.summary(), "layers": table(child), "difference": compared}


def curve(home: Home, name: str, trial: Trial) -> list[dict[str, Any]]:
    """Return the learning curve of the trial's last attempt, empty before its first epoch.

    Raises:
        DamagedDataError: it is not what was written.
    """
    return [epoch.to_json() for epoch in read_curve(home.store, name, trial)]


def models_document(home: Home, name: str) -> dict[str, Any]:
    """Return the published versions of a study, its promotions and which version is champion.

    Each version says how its weights were made; None where the log does not tell.
    """
    study = load_study(home, name)
    registry = Registry(home.store, name)
    champion = registry.champion()
    promotions = registry.promotions()
    promoted = {promotion.to_version for promotion in promotions.values()}
    versions = []
    for version in registry.versions():
        manifest, run = registry.manifest(version), study.fitted(version)
        versions.append(
            {
                "version": version,
                "published_at": manifest.made_by.get("at"),
                "promoted": version in promoted,
                "weights": None if run is None else weights_document(run),
                "metrics": {
                    metric: interval.model_dump() for metric, interval in manifest.metrics.items()
                },
                "onnx": registry.uri(version, MODEL_FILE),
            }
        )
    number = None if champion is None else champion.version
    return {
        "schema": 1,
        "study": name,
        "champion": number,
        "versions": versions,
        "promotions": [
            {
                "promotion": place,
                "when": promotion.when,
                "from": promotion.from_version,
                "to": promotion.to_version,
                "who": promotion.who,
                "why": promotion.why,
            }
            for place, promotion in promotions.items()
        ],
    }
