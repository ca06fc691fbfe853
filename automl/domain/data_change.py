"""Changes of a study's data from one snapshot to the next, as its log and people are told them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ChangeKind(StrEnum):
    """Kind of a change, for programs."""

    ROWS = "rows"
    VANISHED_CLASSES = "vanished_classes"
    NEW_CLASSES = "new_classes"
    CLASS_ROWS = "class_rows"
    CLASS_SHARES = "class_shares"
    STATISTIC = "statistic"
    MISSING_VALUES = "missing_values"
    DUPLICATES = "duplicates"
    QUARANTINED = "quarantined"
    NOT_COMPARED = "not_compared"


class DataChange(BaseModel):
    """Difference of a snapshot from the one before.

    Attributes:
        kind: what has changed.
        name: of the class or the statistic that it is about; "" where it is about none or several.
        message: for people, with the numbers before and now.
        before: the number that was compared, of the snapshot before; None without a single one.
        after: that of the new snapshot.
        is_suspicious: it is too large to be chance, or growth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: ChangeKind
    name: str = ""
    message: str
    before: float | None = None
    after: float | None = None
    is_suspicious: bool = False
