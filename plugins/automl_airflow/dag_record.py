"""Record of the DAGs of study files, so that a run goes on when its file is deleted or renamed.

Airflow schedules no task of a DAG that its file does not define any more, and a run of it never
ends. Therefore the DAG processor writes down which DAGs it has seen, and keeps those that are gone
until their runs can be over. See docs/adr/0016-files-cannot-hurt-each-other.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from automl.errors import Problem
from automl_airflow.study_files import PREFIX, StudyFile

# No package has such a name: Airflow's processes and their children may run in AIRFLOW_HOME, where
# a folder `automl` would stand before the installed package.
FOLDER = "automl-studies"
_SCHEMA = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One DAG of the record.

    Attributes:
        file: path of its study file.
        lasts_s: how long its runs may take.
        on_cpu: whether the study asks for no GPU, so that a run that is under way finds its pool.
        gone_at: when it was found to be gone, as ISO 8601; None while it is there.
    """

    file: str
    lasts_s: float
    on_cpu: bool | None = None
    gone_at: str | None = None


def gone_study(dag_id: str, path: Path, *, on_cpu: bool | None = None) -> StudyFile:
    """Return the study of a DAG whose file is gone: it has no schedule, and its `check` fails."""
    problem = Problem("", "the study file is gone, or has another name in it now")
    return StudyFile(path, dag_id, None, (problem,), schedule=None, on_cpu=on_cpu)


def unknown_study(dag_id: str, folder: Path) -> StudyFile:
    """Return the study of a DAG of which nothing but the id is known."""
    return gone_study(dag_id, folder / f"{dag_id.removeprefix(PREFIX)}.yaml")


def remember(
    files: Sequence[StudyFile], folder: Path, now: datetime | None = None
) -> list[StudyFile]:
    """Write down which DAGs there are, and return their studies, also of those that are gone.

    What cannot be read of a broken file is as it was when it could. One that is gone may still have
    a run. A record that cannot be read or written is no reason to do without DAGs.
    """
    now = now or datetime.now(UTC)
    path = _path(folder)
    before = _read(path)
    after: dict[str, _Seen] = {}
    studies: list[StudyFile] = []
    for each in files:
        file, known, lasts_s = each, before.get(each.dag_id), each.lasts.total_seconds()
        if file.spec is None and known is not None:  # its run began while the file was whole
            lasts_s = max(lasts_s, known.lasts_s)
            file = file if file.on_cpu is not None else replace(file, on_cpu=known.on_cpu)
        after[file.dag_id] = _Seen(file.place, lasts_s, file.on_cpu)
        studies.append(file)
    for dag_id, seen in before.items():
        left = seen if seen.gone_at else replace(seen, gone_at=now.isoformat())
        if dag_id not in after and _may_run(left, now):
            after[dag_id] = left
    if after != before:
        _write(path, after)
    gone = ((dag_id, seen) for dag_id, seen in after.items() if seen.gone_at)
    return [*studies, *(gone_study(i, Path(seen.file), on_cpu=seen.on_cpu) for i, seen in gone)]


def _may_run(seen: _Seen, now: datetime) -> bool:
    assert seen.gone_at is not None
    return now - datetime.fromisoformat(seen.gone_at) < timedelta(seconds=seen.lasts_s)


def _path(folder: Path) -> Path:
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
    return home / FOLDER / f"{name}.json"


def _read(path: Path) -> dict[str, _Seen]:
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = {dag_id: _Seen(**entry) for dag_id, entry in document["dags"].items()}
        for seen in found.values():
            timedelta(seconds=seen.lasts_s)
            datetime.fromisoformat(seen.gone_at or "2026-01-01")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        log.warning("The record of study DAGs cannot be read and is begun anew: %s", error)
        return {}
    return found


def _write(path: Path, seen: Mapping[str, _Seen]) -> None:
    document = {"schema": _SCHEMA, "dags": {dag_id: asdict(each) for dag_id, each in seen.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".new", delete=False
        ) as file:
            json.dump(document, file)
        Path(file.name).replace(path)
    except OSError as error:
        log.warning("The record of study DAGs cannot be written: %s", error)
