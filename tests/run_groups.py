"""Runs the groups of tests, two at a time, and prints how long each took and what failed.

Large groups are run in halves. Whoever is done takes the next one, so that both end at about
the same time; each line of output says which one it is of.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

AT_ONCE = 2
# Tests use tiny networks on few cores: threads would wait for each other.
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
NO_TESTS_COLLECTED = 5  # pytest's exit code
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected)")
_FAILURE = re.compile(r"(FAILED|ERROR) tests/.*")
_CLOSING_LINE = re.compile(r"=+ .* in [0-9.]+s.* =+")


@dataclass(frozen=True)
class Group:
    """Tests that one process runs.

    Attributes:
        folder: below `tests/`.
        part: which part of its files, in alphabetical order, from 0.
        parts: of about equally many files.
    """

    folder: str
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """Name in all that is printed."""
        return self.folder if self.parts == 1 else f"{self.folder}-{self.part + 1}"

    def paths(self, root: Path) -> list[str]:
        """Return its folder, or its files, relative to the checkout."""
        folder = root / "tests" / self.folder
        files = sorted(str(path.relative_to(root)) for path in folder.rglob("test_*.py"))
        if self.parts == 1:
            return [f"tests/{self.folder}"] if files else []
        first, last = (len(files) * end // self.parts for end in (self.part, self.part + 1))
        return files[first:last]


GROUPS = (  # what takes longest begins first, and something short is last
    Group("integration", 0, 2),
    Group("integration", 1, 2),
    Group("e2e"),
    Group("unit", 0, 2),
    Group("crash"),
    Group("contracts"),
    Group("unit", 1, 2),
)


@dataclass(frozen=True)
class GroupResult:
    """How one group ended.

    Attributes:
        name: the group.
        returncode: pytest's exit status; None if the group has no tests yet.
        seconds: wall clock.
        counts: tests by outcome.
        failures: pytest's line for each test that failed.
    """

    name: str
    returncode: int | None
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.returncode in {None, 0}


def run_group(root: Path, group: Group, arguments: list[str]) -> GroupResult:
    """Run one group in a process of its own and stream what it prints."""
    name, paths = group.name, group.paths(root)
    if not paths:
        print(f"== {name}: no tests", flush=True)
        return GroupResult(name, None)
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "pytest", *paths, *arguments]
    started = time.monotonic()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with subprocess.Popen(
        command,
        cwd=root,
        env=os.environ | _ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name:13} {line}", end="", flush=True)
            if _CLOSING_LINE.fullmatch(line.strip()):
                counts = count_outcomes(line)
            elif _FAILURE.fullmatch(line.strip()):
                failures.append(line.strip())
    returncode = process.returncode
    if returncode == NO_TESTS_COLLECTED and arguments:  # a selection may leave a group empty
        returncode = 0
    return GroupResult(name, returncode, time.monotonic() - started, counts, tuple(failures))


def count_outcomes(line: str) -> Counter[str]:
    """Return the numbers of pytest's closing line by outcome."""
    return Counter(
        {outcome.removesuffix("s"): int(number) for number, outcome in _COUNT.findall(line)}
    )


def print_table(results: list[GroupResult]) -> None:
    """Print a row per group, a line per failure and, last, one that sums up as pytest does."""
    print(f"\n{'group':<14} {'seconds':>8}  tests")
    total: Counter[str] = Counter()
    for result in results:
        total += result.counts
        told = ", ".join(f"{number} {outcome}" for outcome, number in result.counts.items())
        state = "no tests" if result.returncode is None else told or f"exit {result.returncode}"
        print(f"{result.name:<14} {result.seconds:>8.1f}  {state}")
    for failure in (failure for result in results for failure in result.failures):
        print(failure)
    crashed = [result.name for result in results if not result.ok and not _tells_failure(result)]
    order = ("failed", "error", "passed", "skipped", "deselected", "xfailed", "xpassed")
    parts = [f"{total[outcome]} {outcome}" for outcome in order if total[outcome]]
    parts += [f"{name} broke off" for name in crashed]
    seconds = sum(result.seconds for result in results)
    print(f"===== {', '.join(parts) or 'no tests ran'} in {seconds:.2f}s =====", flush=True)


def _tells_failure(result: GroupResult) -> bool:
    return bool(result.counts["failed"] or result.counts["error"])


def main(arguments: list[str]) -> int:
    """Run all groups, also after one failed, and return 1 if any did.

    Args:
        arguments: handed to pytest, such as `-k name`.
    """
    root = Path(__file__).resolve().parent.parent

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda group: run_group(root, group, arguments), GROUPS))
    print_table(results)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
