"""Studies in the hands of people: given to another, freed, and let go on with changed data."""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.domain.settings import Settings
from automl.machine.person import person
from automl.runs.acceptance import accept
from automl.runs.opening import abandon_run
from automl.runs.ownership import give, owner_named
from automl.storage.open import open_home
from automl.views.library import Library


def give_study(settings: Settings, study: str, dag: str, user: str | None) -> dict[str, JsonValue]:
    """Let a study belong to a DAG from now on, and return what changed.

    Args:
        settings: where studies live.
        study: its name.
        dag: the DAG's id, or `cli` for the command line.
        user: of the form's DAG, whose runs alone may continue the study; None for all of them.

    Raises:
        ConfigError: there is no such study, or can be no such owner.
    """
    return give(open_home(settings), study, owner_named(dag, user), person()).document(study)


def abandon(settings: Settings, study: str) -> dict[str, JsonValue]:
    """Close the open run of a study whose next step will never come, and return its name.

    Raises:
        ConfigError: there is no such study.
        StudyBusyError: a process of the run works.
    """
    home = open_home(settings)
    Library(home).study(study)  # raises if there is none
    return {"schema": 1, "study": study, "run": abandon_run(home, study, person())}


def accept_data(settings: Settings, study: str, why: str) -> dict[str, JsonValue]:
    """Let the data pass that a study's gate has stopped, and return what is accepted.

    Raises:
        ConfigError: there is no such study, nothing to accept, or no reason.
    """
    return accept(open_home(settings), study, person(), why).document(study)
