"""Commands of the image test: what they print is kept, and each step tells how long it took."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_LAST_LINES = 40


class ImageTestError(Exception):
    """The image does not do what it should, or this machine cannot try it."""


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def step(name: str, times: dict[str, float]) -> Iterator[None]:
    """Print when a step begins and how long it took, and write that down."""
    say(f"== {name}")
    began_s = time.monotonic()
    yield
    times[name] = time.monotonic() - began_s
    say(f"   {name}: {times[name]:.1f} s")


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900,
    may_fail: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed, standard error included.

    Args:
        command: the words of the command.
        log: gets what it printed.
        env: its environment; that of this process by default.
        timeout_s: how long it may take.
        may_fail: whether an exit code other than 0 is an answer.

    Raises:
        ImageTestError: it failed; the message ends with its last lines.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=None if env is None else dict(env),
        timeout=timeout_s,
        check=False,
    )
    if log is not None:
        log.write_text(done.stdout)
    if done.returncode != 0 and not may_fail:
        last = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
        raise ImageTestError(f"{' '.join(words[:6])} … ended with {done.returncode}:\n{last}")
    return done


def expect(fact: object, complaint: str) -> None:
    """Raise ImageTestError unless a fact holds."""
    if not fact:
        raise ImageTestError(complaint)
