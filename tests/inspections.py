"""Inspections of made-up snapshots, as plain or as odd as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from automl.data.exhibits import Exhibit, Exhibits, RowName
from automl.data.findings import Finding, FindingKind
from automl.data.issues import Issue, IssueKind, Issues
from automl.data.label_errors import ConfusedPair
from automl.data.profile import Bins, Distribution, Profile, Scale
from automl.data.snapshot import Envelope, QuarantinedRow
from automl.doctor.data_issues import Audit, Audited
from automl.doctor.data_page import names_of, sampled_labels, shown_issues
from automl.doctor.inspection import Inspection
from automl.domain.data_change import ChangeKind, DataChange

EVIL = "<script>alert('x')</script>\"'&"
LONG = "W" * 3_000
RIGHT_TO_LEFT = "שלום עולם \u202e"
BINS = Bins(scale=Scale.LINEAR, size=4.0)


def plain() -> Inspection:
    """Return the inspection of a small snapshot in which nothing is wrong."""
    counts = {"cat": 6, "dog": 4}
    profile = Profile(rows_listed=10, rows=10, rows_per_label=counts)
    envelope = Envelope(
        id="s1", dataset="pets", counts={"gate": 2, "train": 8}, source="/data", profile=profile
    )
    return Inspection(
        audited=Audited("pets", "s1", "a_task"),
        envelope=envelope,
        exhibits=Exhibits(),
        before=None,
        previous=None,
        changes=(),
        audit=Audit("pets", "s1", Issues((), (0, 0), ()), ("cat", "dog"), (), ()),
        sealed=frozenset(),
        notes=(),
    )


def extreme(classes: int = 1_000, issues: int = 10_000) -> Inspection:
    """Return the inspection of a snapshot with all that may be too much for a page."""
    labels = [EVIL, LONG, RIGHT_TO_LEFT, *(f"class {n} {'ä' * 60}" for n in range(classes - 3))]
    rng = np.random.default_rng(0)
    numbers = {f"{EVIL}{n}": rng.lognormal(3, 2, 500) for n in range(60)}
    spread = {name: Distribution.of(values, BINS) for name, values in numbers.items()}
    rows = {label: 3 * n + 1 for n, label in enumerate(labels)}
    profile = Profile(
        rows_listed=10**6, rows=sum(rows.values()), rows_per_label=rows, duplicates=7,
        statistics=spread,
    )  # fmt: skip
    quarantined = [QuarantinedRow(path=f"{LONG}{n}", reason=f"{EVIL}{n}") for n in range(5_000)]
    finding = Finding.of(FindingKind.NEW_LABELS, f"{EVIL}{LONG}", [LONG, EVIL], 2)
    envelope = Envelope(
        id="s2", dataset="pets", source=LONG, profile=profile, findings=(finding,) * 100,
        counts={EVIL: 10, **{f"part {n}": n for n in range(8)}},
        quarantined=tuple(quarantined),
    )  # fmt: skip
    change = DataChange(kind=ChangeKind.ROWS, message=f"{EVIL}{LONG}", is_suspicious=True)
    audit = Audit(
        "pets", "s2", Issues(tuple(_issues(issues)), (5, 0), (ConfusedPair(0, 1, 2),) * 500),
        tuple(labels), (0,), (),
    )  # fmt: skip
    return replace(
        plain(),
        envelope=envelope,
        exhibits=Exhibits(
            facts={EVIL: LONG},
            rows_per_part={label: {EVIL: count} for label, count in rows.items()},
            notes=(EVIL, LONG),
        ),
        before=EVIL,
        previous=profile.model_copy(update={"statistics": spread}),
        changes=(change,) * 100,
        audit=audit,
        notes=(f"{EVIL}{LONG}",),
    )


def _issues(count: int) -> Sequence[Issue]:
    return [
        Issue(
            path=f"{EVIL}{LONG}{n}", part=EVIL, label=LONG, suggested=EVIL, kind=kind, score=1.0,
            related=f"{LONG}{n}", note=f"{EVIL}{LONG}",
        )
        for n in range(count // len(IssueKind))
        for kind in IssueKind
    ]  # fmt: skip


def exhibits(inspection: Inspection, uri: str) -> Exhibits:
    """Return what a report shows of an inspection, each row as the same picture."""
    issues = [issue for shown in shown_issues(inspection).values() for issue in shown]
    names = [name for issue in issues for name in names_of(issue)]
    return replace(
        inspection.exhibits,
        samples={
            label: [Exhibit(RowName(f"{label}/{n}.png", "train"), uri) for n in range(5)]
            for label in sampled_labels(inspection)
        },
        rows={name: Exhibit(name, uri) for name in names},
    )
