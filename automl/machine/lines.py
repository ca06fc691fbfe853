"""Lines of a process's output, whatever it writes: bounded in memory, and printable."""

from __future__ import annotations

import re
from collections.abc import Callable

LINE_BYTES = 8192  # longer lines come in pieces
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LineSplitter:
    """Cuts a stream of bytes into lines of text; holds no more than one piece of a line.

    Args:
        on_line: gets each line, without its end; control characters are shown as escapes.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the process has written."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            for start in range(0, max(len(line), 1), LINE_BYTES):
                self._give(line[start : start + LINE_BYTES])
        while len(self._rest) > LINE_BYTES:
            piece, self._rest = self._rest[:LINE_BYTES], self._rest[LINE_BYTES:]
            self._give(piece)

    def close(self) -> None:
        """Give the last line if it has no end."""
        if self._rest:
            self._give(self._rest)
            self._rest = b""

    def _give(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]  # a progress bar writes over itself
        text = shown.decode(errors="replace")
        self._on_line(_UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text))
