"""Progress of `automl run`: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from automl.views.search import Standing

_LINE_EVERY_S = 10.0
_TOLD = (
    " trial ",
    "gave up",
    "killed",
    "GPU: ",
    "holds GPU",
    " WARNING ",
    " ERROR ",
)  # to be shown


class PlainProgress:
    """Lines, for logs and pipes.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_s = time.monotonic()
        self._last_s = 0.0

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def step(self, name: str) -> None:
        """Say that a step begins."""
        self._print(f"step {name}")

    def items(self, done: int, total: int, what: str) -> None:
        """Say how many items are through, at most every ten seconds."""
        if done >= total or self._is_due():
            self._print(f"{what}: {done} of {total}")

    def line(self, text: str) -> None:
        """Show what a process says if it matters to people."""
        if any(mark in text for mark in _TOLD):
            self._print(text)

    def search(self, look: Callable[[], Standing | None]) -> None:
        """Say where the search stands, at most every ten seconds."""
        if self._is_due():
            self._print(search_summary(look()))

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s < _LINE_EVERY_S:
            return False
        self._last_s = now_s
        return True

    def _print(self, text: str) -> None:
        elapsed_s = time.monotonic() - self._started_s
        self._console.print(f"[{elapsed_s:6.1f} s] {text}", markup=False, highlight=False)


class LiveProgress:
    """A display that repaints itself, for terminals.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._console, self._step = console, ""

    def __enter__(self) -> LiveProgress:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def step(self, name: str) -> None:
        """Show that a step begins."""
        self._step = name
        self._live.update(f"{name} …")

    def items(self, done: int, total: int, what: str) -> None:
        """Show how many items are through."""
        self._live.update(f"{self._step}: {what}, {done} of {total}")

    def line(self, text: str) -> None:
        """Show what a process says if somebody should look."""
        if " WARNING " in text or " ERROR " in text or "killed" in text or "gave up" in text:
            self._live.console.print(text, markup=False, highlight=False)

    def search(self, look: Callable[[], Standing | None]) -> None:
        """Show the best trials so far."""
        standing = look()
        if standing is None:
            return
        table = Table("rank", "trial", "outcome", "score", title=search_summary(standing))
        for row in standing.best:
            table.add_row(
                str(row.rank),
                str(row.trial),
                str(row.outcome),
                f"{row.score:.4f} ± {row.error or 0:.4f}",
            )
        self._live.update(table)


def search_summary(standing: Standing | None) -> str:
    """Return one line about the search: time left, trials and the best score."""
    if standing is None:
        return "the search has not begun"
    shown = "none yet"
    if standing.best:
        shown = f"{standing.best[0].score:.4f} (trial {standing.best[0].trial})"
    return (
        f"search: {standing.left_s:.0f} s left, {standing.outcomes} trials finished, best {shown}"
    )


def progress_for(console: Console) -> LiveProgress | PlainProgress:
    """Return the display that fits `console`."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
