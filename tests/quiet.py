"""A display of progress that shows nothing."""

from __future__ import annotations


class Quiet:
    """Shows nothing."""

    def step(self, name: str) -> None:
        """A step begins."""

    def items(self, done: int, total: int, what: str) -> None:
        """Of `total` items, `done` are through."""

    def line(self, text: str) -> None:
        """A worker says something."""

    def search(self, look: object) -> None:
        """The search goes on."""
