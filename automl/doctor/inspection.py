"""Inspection of a snapshot: what it holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from automl.data.exhibits import Exhibits, Wanted
from automl.data.findings import MOST_EXAMPLES
from automl.data.issues import IssueKind
from automl.data.profile import Distribution, Profile
from automl.data.snapshot import Envelope, QuarantinedRow
from automl.doctor.data_issues import Audit, Audited, audit_snapshot, sealed_parts
from automl.domain.data_change import DataChange
from automl.domain.study import Study
from automl.errors import DamagedDataError, NotFoundError
from automl.runs.admission import changes_since
from automl.storage.home import Home
from automl.tracks.cards import card_of, load

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
OF_ISSUES: Mapping[IssueKind, str] = {
    IssueKind.LABEL_ERROR: "rows that may be labelled wrong, by what trials predict",
    IssueKind.DUPLICATE_LABELS: "rows that are equal to rows with other labels",
    IssueKind.NEAR_DUPLICATE_LABELS: "rows that are nearly equal to rows with other labels",
    IssueKind.NEAR_DUPLICATE_PARTS: "rows that are nearly equal to rows of another part",
    IssueKind.NEAR_DUPLICATE: "rows that are nearly equal to others of their part",
    IssueKind.DARK: "rows far darker than nearly all others",
    IssueKind.BRIGHT: "rows far brighter than nearly all others",
    IssueKind.BLURRED: "rows far less sharp than nearly all others",
    IssueKind.TINY: "rows far smaller than nearly all others",
    IssueKind.OUTLIER: "rows far from nearly all others in contrast or shape",
}
_SEVERE_ISSUES = {
    IssueKind.LABEL_ERROR,
    IssueKind.DUPLICATE_LABELS,
    IssueKind.NEAR_DUPLICATE_LABELS,
}


class Topic(NamedTuple):
    """Topic of a problem; a report has a section for each."""

    anchor: str
    title: str


CHANGES = Topic("changes", "Changes since the snapshot before")
LEFT_OUT = Topic("left-out", "Rows that are left out")
FINDINGS = Topic("findings", "What is odd about the source")
ISSUES = Topic("issues", "Rows to look at")


@dataclass(frozen=True, slots=True)
class DataProblem:
    """Something that a person should know of a snapshot.

    Attributes:
        topic: what it is about.
        is_severe: whether a model may be the worse for it.
        message: for people.
    """

    topic: Topic
    is_severe: bool
    message: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that cannot be used for one reason.

    Attributes:
        reason: without what it says of a single row.
        rows: their number.
        examples: some of them, with the whole reason.
    """

    reason: str
    rows: int
    examples: tuple[QuarantinedRow, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Contents of a snapshot, and what is wrong with it.

    Attributes:
        audited: the snapshot, and the task of its track; "" where that is not known.
        envelope: of the snapshot.
        exhibits: what its track tells of it; no pictures.
        before: the snapshot that it is compared with, or None.
        previous: profile of that.
        changes: what differs.
        audit: what is known of its rows; None where its track has no audit.
        sealed: parts whose labels nobody may see yet.
        notes: what else a person should know.
    """

    audited: Audited
    envelope: Envelope
    exhibits: Exhibits
    before: str | None
    previous: Profile | None
    changes: tuple[DataChange, ...]
    audit: Audit | None
    sealed: frozenset[str]
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Number of the rows."""
        return sum(self.envelope.counts.values())

    @property
    def rows_per_label(self) -> Mapping[str, int]:
        """Rows of each class; empty where labels are no classes, or are not known."""
        if self.exhibits.rows_per_part:
            return {n: sum(parts.values()) for n, parts in self.exhibits.rows_per_part.items()}
        return {} if self.envelope.profile is None else self.envelope.profile.rows_per_label

    @property
    def statistics(self) -> Mapping[str, Distribution]:
        """Distributions of numbers of the rows, by name."""
        return {} if self.envelope.profile is None else self.envelope.profile.statistics

    @property
    def issue_counts(self) -> Mapping[IssueKind, int]:
        """Number of issues of each kind that there is."""
        issues = () if self.audit is None else self.audit.found.issues
        counts = Counter(issue.kind for issue in issues)
        return {kind: counts[kind] for kind in IssueKind if counts[kind]}

    def left_out(self) -> Sequence[LeftOut]:
        """Return the rows that cannot be used by reason, the most frequent first.

        A reason may end with what is true of one row alone, after a colon.
        """
        found: dict[str, list[QuarantinedRow]] = defaultdict(list)
        for row in self.envelope.quarantined:
            found[row.reason.partition(": ")[0]].append(row)
        order = sorted(found.items(), key=lambda each: (-len(each[1]), each[0]))
        return [LeftOut(name, len(rows), tuple(rows[:MOST_EXAMPLES])) for name, rows in order]

    def problems(self) -> Sequence[DataProblem]:
        """Return what a person should know, what is severe first."""
        return sorted(self._problems(), key=lambda problem: not problem.is_severe)

    def _problems(self) -> Iterator[DataProblem]:
        for change in self.changes:
            if change.is_suspicious:
                yield DataProblem(CHANGES, is_severe=True, message=change.message)
        for kind, count in self.issue_counts.items():
            message = f"{OF_ISSUES[kind]}: {count:,}"
            yield DataProblem(ISSUES, is_severe=kind in _SEVERE_ISSUES, message=message)
        for each in self.left_out():
            message = f"rows left out, {each.reason}: {each.rows:,}"
            yield DataProblem(LEFT_OUT, is_severe=False, message=message)
        for finding in self.envelope.findings:
            yield DataProblem(FINDINGS, is_severe=False, message=str(finding))
        profile = self.envelope.profile
        if profile is not None and profile.duplicates:
            message = f"rows that are exact copies of others: {profile.duplicates:,}"
            yield DataProblem(ISSUES, is_severe=False, message=message)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `automl data inspect`, but for where its report is."""
        profile, parts = self.envelope.profile, self.exhibits.rows_per_part
        return {
            "schema": 1,
            "dataset": self.envelope.dataset,
            "snapshot": self.envelope.id,
            "task": self.audited.task,
            "source": self.envelope.source,
            "facts": dict(self.exhibits.facts),
            "rows": self.rows,
            "rows_listed": None if profile is None else profile.rows_listed,
            "counts": dict(self.envelope.counts),
            "classes": [
                {"label": label, "rows": rows, "parts": dict(parts.get(label, {}))}
                for label, rows in self.rows_per_label.items()
            ],
            "problems": [
                {"topic": each.topic.anchor, "severe": each.is_severe, "message": each.message}
                for each in self.problems()
            ],
            "quarantined": [
                {"reason": each.reason, "rows": each.rows}
                | {"examples": [row.model_dump() for row in each.examples]}
                for each in self.left_out()
            ],
            "excluded": {
                "rows": len(self.envelope.excluded),
                "examples": [row.model_dump() for row in self.envelope.excluded[:MOST_EXAMPLES]],
            },
            "findings": [each.model_dump(mode="json") for each in self.envelope.findings],
            "statistics": {name: _summary(each) for name, each in self.statistics.items()},
            "copies": None if profile is None else profile.duplicates,
            "before": self.before,
            "changes": [each.model_dump(mode="json") for each in self.changes],
            "issues": None if self.audit is None else _of_audit(self.audit),
            "sealed": sorted(self.sealed),
            "notes": list(self.notes),
        }


def _of_audit(audit: Audit) -> dict[str, Any]:
    document = audit.to_json()
    return {name: document[name] for name in ("counts", "judged", "trials", "confused")}


def _summary(distribution: Distribution) -> dict[str, Any]:
    """Return numbers of a distribution; quantiles are known by the bounds of their bins."""
    known = distribution.known > 0
    return {
        "rows": distribution.known,
        "missing": distribution.missing,
        "mean": distribution.mean,
        "std": distribution.std,
        "quantiles": {f"{q:g}": distribution.quantile(q) for q in _QUANTILES} if known else {},
    }


def inspect_snapshot(home: Home, study: Study, audited: Audited) -> Inspection:
    """Return what a snapshot holds, and what is wrong with it.

    Args:
        home: where it is kept.
        study: what the log of its study tells.
        audited: the snapshot; its task may be "", then the parts of a track are missing.

    Raises:
        NotFoundError: there is no such snapshot.
        StorageError: it cannot be read.
    """
    name, snapshot, task = audited
    envelope = Envelope.read(home.store, name, snapshot)
    card = card_of(task) if task else None
    notes = list(_notes(study, audited))
    exhibits, audit, sealed = Exhibits(), None, frozenset[str]()
    if card is not None:
        sealed = sealed_parts(home, study, audited)
        exhibits = exhibits_of(home, audited, Wanted())
    if card is not None and card.auditor:
        audit = audit_snapshot(home, study, audited)
        notes += audit.notes
    elif card is not None:
        notes.append("the rows are not audited one by one: the track of the task has no audit")
    before = _before(study, snapshot)
    changes = () if before is None else tuple(changes_since(home.store, before, envelope))
    previous = None if before is None else _profile(home, name, before)
    return Inspection(
        audited, envelope, exhibits, before, previous, changes, audit, sealed, tuple(notes)
    )


def exhibits_of(home: Home, audited: Audited, wanted: Wanted) -> Exhibits:
    """Return what the track of a snapshot shows of it; nothing where it has no exhibits."""
    if not audited.task or not (exhibitor := card_of(audited.task).exhibitor):
        return Exhibits()
    found: Exhibits = load(exhibitor)(home.store, audited.dataset, audited.snapshot, wanted)
    return found


def _before(study: Study, snapshot: str) -> str | None:
    """Return the snapshot of the last run before the first one on `snapshot`; None without one."""
    names = [run.snapshot for run in study.runs]
    earlier = names[: names.index(snapshot)] if snapshot in names else names
    return earlier[-1] if earlier else None


def _profile(home: Home, name: str, snapshot: str) -> Profile | None:
    try:
        return Envelope.read(home.store, name, snapshot).profile
    except (NotFoundError, DamagedDataError):
        return None  # `changes` say so


def _notes(study: Study, audited: Audited) -> Iterator[str]:
    if not audited.task:
        yield "no run was opened yet, which tells the track: rows are not looked at one by one"
    judged = study.judged
    if judged is not None and judged.snapshot != audited.snapshot:
        how = "was stopped by the data gate" if judged.stopped else "was prepared since"
        yield f"snapshot {judged.snapshot} {how}: inspect {audited.dataset}@{judged.snapshot}"
