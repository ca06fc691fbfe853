"""The folder of study files: which DAG each one gets, and what is wrong with the broken ones.

Nothing in a file, nor its name, can make reading the folder fail: a broken file gets a DAG as well.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from automl.domain.cron import check_cron
from automl.domain.specification import RESERVED_NAMES, StudySpec
from automl.domain.values import NAME_PATTERN, check_timezone
from automl.errors import ConfigError, Problem
from automl.steps.study_file import StudyText, read_study_file

NIGHTLY = "0 1 * * *"
PREFIX = "automl_"
_SUFFIXES = (".yaml", ".yml")
_RESERVED = frozenset({"automl_search", "automl_maintenance", "automl_batch_predict"})
_RESERVED_PREFIX = "automl_predict_"
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_STEM = 200  # of 250 characters that an id may have
_SPARE = timedelta(days=1)  # for queues, preparing and publishing
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class StudyFile:
    """One file of the folder.

    Attributes:
        path: where it is.
        dag_id: the DAG that it gets; "" until that is decided.
        spec: what it says; None if it is broken.
        problems: what is wrong with it.
        name: the study's name, wherever that can be read.
        schedule: when its DAG runs; None for by hand. Nightly where that cannot be read.
        timezone: that of the schedule. UTC where that cannot be read.
        on_cpu: whether it asks for no GPU; None where that cannot be read.
    """

    path: Path
    dag_id: str
    spec: StudySpec | None
    problems: tuple[Problem, ...] = ()
    name: str | None = None
    schedule: str | None = NIGHTLY
    timezone: str = "UTC"
    on_cpu: bool | None = None

    @property
    def place(self) -> str:
        """The path as text that everything can store and show."""
        text = str(self.path)
        return text if text.isprintable() else text.encode("ascii", "backslashreplace").decode()

    @property
    def priority(self) -> int:
        """Weight of the study's tasks in pools."""
        return 1 if self.spec is None else self.spec.search.priority

    @property
    def cpus(self) -> int | None:
        """CPUs that a training asks for; None leaves that to the machine."""
        return None if self.spec is None else self.spec.search.resources.cpus

    @property
    def lasts(self) -> timedelta:
        """Time that a run of the study may take."""
        if self.spec is None:
            return _SPARE
        return self.spec.search.time_limit + self.spec.final_fit.time_limit + _SPARE


def studies_folder(default: Path) -> Path:
    """Return the folder that `AUTOML_STUDIES` names, or `default`."""
    return Path(os.environ.get("AUTOML_STUDIES") or default)


def read_study_files(folder: Path) -> list[StudyFile]:
    """Return all study files of `folder`, by file name; a broken one does not touch the others."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
    except OSError:
        return []
    return list(_with_ids([read_one(path) for path in paths]))


def read_one(path: Path) -> StudyFile:
    """Return a file whose DAG is not decided yet."""
    try:
        text = read_study_file(path)
    except ConfigError as error:
        return StudyFile(path, "", None, _problems(error))
    file = StudyFile(path, "", None, (), *_salvaged(text))
    try:
        spec = text.spec()
    except ConfigError as error:
        return replace(file, problems=_problems(error))
    if not path.name.isprintable():
        problem = Problem("", "the file's name holds characters that cannot be shown; rename it")
        return replace(file, problems=(problem,))
    on_cpu = spec.search.resources.gpus == 0
    return StudyFile(path, "", spec, (), spec.name, spec.schedule, spec.timezone, on_cpu)


def _problems(error: ConfigError) -> tuple[Problem, ...]:
    return error.problems or (Problem("", error.message),)


def _salvaged(text: StudyText) -> tuple[str | None, str | None, str, bool | None]:
    """Return name, schedule, time zone and `on_cpu` of a file, each where it is valid by itself."""
    name, schedule, timezone = (_value(text, key) for key in ("name", "schedule", "timezone"))
    is_name = isinstance(name, str) and re.fullmatch(NAME_PATTERN, name)
    is_free = is_name and name not in RESERVED_NAMES
    return (
        str(name) if is_free else None,
        None if schedule is None else _valid(schedule, check_cron, NIGHTLY),
        _valid(timezone, check_timezone, "UTC"),
        _on_cpu(text.document),
    )


def _on_cpu(document: object) -> bool | None:
    gpus = document
    for key in ("search", "resources", "gpus"):
        gpus = gpus.get(key) if isinstance(gpus, dict) else None
    return gpus == 0 if isinstance(gpus, int) else None


def _valid(value: object, check: Callable[[str], str], default: str) -> str:
    try:
        return check(value) if isinstance(value, str) else default
    except ValueError:
        return default


def _value(text: StudyText, key: str) -> object:
    """Return the value of a key of the top level, from its line where the rest is no YAML."""
    if isinstance(text.document, dict) and key in text.document:
        return text.document[key]
    line = re.search(rf"^{key}[ \t]*:[ \t]+(.*)$", text.text, re.MULTILINE)
    if line is None:
        return _ABSENT
    quoted = re.match(r"""(["'])(.*?)\1""", line[1])
    value = quoted[2] if quoted else re.split(r"\s#", line[1])[0].strip()
    return None if value in {"null", "~", ""} and not quoted else value


def _with_ids(files: list[StudyFile]) -> Iterator[StudyFile]:
    """Yield the files with their DAGs' ids, in the same order.

    `automl_<name>` belongs to the first valid file of that name, else to the first broken one. Any
    other file has an id after its own name, which does not depend on the files beside it.
    """
    owners: dict[str, StudyFile] = {}
    for file in [*(f for f in files if f.spec), *(f for f in files if not f.spec)]:
        if file.name is not None:
            owners.setdefault(file.name, file)
    taken = {f"{PREFIX}{name}".casefold() for name in owners}
    for file in files:
        if file.name is not None and owners[file.name] is file:
            yield replace(file, dag_id=f"{PREFIX}{file.name}")
            continue
        if file.spec is not None:
            owner = owners[file.spec.name].path.name
            problem = Problem("name", f"{file.name!r} is the name of {owner} already")
            file = replace(file, spec=None, problems=(problem,))
        dag_id = next(each for each in _ids_of(file.path) if each.casefold() not in taken)
        taken.add(dag_id.casefold())
        yield replace(file, dag_id=dag_id)


def _ids_of(path: Path) -> Iterator[str]:
    """Yield ids for a file: after its stem where that is an id, then with a digest of its name."""
    stem = _NOT_IN_AN_ID.sub("_", path.stem)
    dag_id = f"{PREFIX}{stem}"
    is_reserved = dag_id in _RESERVED or dag_id.startswith(_RESERVED_PREFIX)
    if stem == path.stem and len(stem) <= _LONGEST_STEM and not is_reserved:
        yield dag_id
    for number in range(2**32):
        digest = hashlib.sha256(f"{number}{path.name}".encode(errors="surrogatepass")).hexdigest()
        yield f"{PREFIX}file.{stem[:_LONGEST_STEM]}.{digest[:8]}"


def owner_of(name: str, folder: Path) -> Path | None:
    """Return the file of `folder` that has the name of a study, or its DAG's; a broken one too."""
    for file in read_study_files(folder):
        if name == file.name or file.dag_id == f"{PREFIX}{name}":
            return file.path
    return None
