"""Results of the checks of `automl doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from automl.errors import AutoMLError

USAGE, STORAGE = 2, 4  # exit codes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what it is.
        ok: whether nothing needs doing.
        found: what was seen.
        remedy: what to do about it; every trouble has one.
        exit_code: of the command, if this is the trouble.
    """

    check: str
    ok: bool
    found: str
    remedy: str = ""
    exit_code: int = 0

    def __post_init__(self) -> None:
        assert self.ok or (self.remedy and self.exit_code)


def fine(check: str, found: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, ok=True, found=found)


def trouble(check: str, found: str, remedy: str, exit_code: int) -> Finding:
    """Return a finding that needs something done."""
    return Finding(check, ok=False, found=found, remedy=remedy, exit_code=exit_code)


def failure(check: str, error: AutoMLError) -> Finding:
    """Return the finding that a check ended with an error."""
    details = "".join(f"; {problem}" for problem in error.problems)
    remedy = error.hint or "see docs/runbook.md"
    return trouble(check, error.message + details, remedy, error.exit_code)
