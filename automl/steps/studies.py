"""Studies in the hands of people: to give them to another, and to free them."""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.domain.settings import Settings
from automl.machine.person import person
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
    gift = give(open_home(settings), study, owner_named(dag, user), person())
    return {
        "schema": 1,
        "study": study,
        "owner": str(gift.owner),
        "from": None if gift.before is None else str(gift.before),
        "changed": gift.is_new,
    }


def abandon(settings: Settings, study: str) -> dict[str, JsonValue]:
    """Close the open run of a study whose next step will never come, and return its name.

    Raises:
        ConfigError: there is no such study.
        StudyBusyError: a process of the run works.
    """
    home = open_home(settings)
    Library(home).study(study)  # raises if there is none
    return {"schema": 1, "study": study, "run": abandon_run(home, study, person())}
