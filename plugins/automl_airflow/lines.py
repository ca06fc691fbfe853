"""Lines of a step's process in the task's log: each with its level, and not too many of them."""

from __future__ import annotations

import logging
import re
from collections import deque
from typing import Protocol

MOST_LINES, MOST_LETTERS = 5000, 2_000_000  # shown as they come, in one call of a step
LAST_LINES = 200  # shown at the end besides
_RECORD = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8},[0-9]{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)", re.S
)
_BREAKDOWN = {
    "Traceback (most recent call last)": logging.ERROR,
    "Fatal Python error": logging.CRITICAL,
}


class Log(Protocol):
    """A task's log; loggers of the standard library and of structlog are."""

    def log(self, level: int, event: str, *args: object) -> object:
        """Write a line."""


class LineSink:
    """Writes a process's lines into a task's log; call `close` when the process has ended.

    A line in the format of `python -m automl.steps` has its own level. Others, such as those of
    a traceback, belong to the record before. The first lines are written as they come, of the
    rest the last ones at the end.

    Args:
        log: the task's log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: deque[tuple[int, str]] = deque(maxlen=LAST_LINES)
        self._begin()

    def _begin(self) -> None:
        self._level = logging.INFO
        self._lines = self._letters = self._left_out = 0
        self._last.clear()

    def __call__(self, line: str) -> None:
        """Write the line, or keep it for the end."""
        text = self._leveled(line)
        if self._lines < MOST_LINES and self._letters < MOST_LETTERS:
            self._lines += 1
            self._letters += len(text)
            self._log.log(self._level, "%s", text)
            return
        if not self._last:
            self._log.log(
                logging.WARNING,
                "The process has written %d lines; of the following ones the last %d are shown "
                "when it ends",
                self._lines,
                LAST_LINES,
            )
        self._left_out += len(self._last) == LAST_LINES
        self._last.append((self._level, text))

    def close(self) -> None:
        """Write how many lines were left out, and the last ones; the next line begins anew."""
        if self._left_out:
            self._log.log(logging.WARNING, "%d lines are left out here", self._left_out)
        for level, text in self._last:
            self._log.log(level, "%s", text)
        self._begin()

    def _leveled(self, line: str) -> str:
        """Return the line without the time, which the task's log adds itself; note its level."""
        if record := _RECORD.match(line):
            self._level = logging.getLevelNamesMapping()[record[1]]
            return record[2]
        for beginning, level in _BREAKDOWN.items():
            if line.startswith(beginning):
                self._level = level
        return line
