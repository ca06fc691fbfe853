"""Golden files: documents of every stored format, written once and readable for good.

`tests/golden/SHA256SUMS` holds the hash of each, as `sha256sum` writes it. `python -m
tests.golden_files` adds those of new files, and refuses files that differ from what it holds.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).parent
FOLDERS = (TESTS / "golden", TESTS / "unit" / "golden")
SUMS = TESTS / "golden" / "SHA256SUMS"
_FOR_PEOPLE = frozenset({"README.md", SUMS.name})


def golden_files() -> Iterator[Path]:
    """Yield every golden file."""
    for folder in FOLDERS:
        yield from (
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in _FOR_PEOPLE
        )


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by their path below `tests/`."""
    return {
        path.relative_to(TESTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def recorded(text: str) -> dict[str, str]:
    """Return the hashes that lines of `SHA256SUMS` tell, by path."""
    lines = (line.split("  ", 1) for line in text.splitlines())
    return {path: sha256 for sha256, path in lines}


def breaches(known: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the files that are found, by the hashes that are known."""
    altered = (path for path, sha256 in known.items() if found.get(path, sha256) != sha256)
    removed = (path for path in known if path not in found)
    unknown = (path for path in found if path not in known)
    return [
        *(f"{path} was altered; restore it, and add another file" for path in altered),
        *(f"{path} was removed; restore it" for path in removed),
        *(f"{path} has no hash; run `python -m tests.golden_files`" for path in unknown),
    ]


def withdrawn(ever: Iterable[str], text: str) -> list[str]:
    """Return the lines that `SHA256SUMS` has had and has no more."""
    return sorted(set(ever) - set(text.splitlines()))


def lines_ever() -> list[str]:
    """Return every line that any commit has added to `SHA256SUMS`."""
    history = subprocess.run(
        ["git", "log", "--format=", "--patch", "--unified=0", "--", str(SUMS)],  # noqa: S607
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [line[1:] for line in history if line.startswith("+") and not line.startswith("+++")]


def main() -> int:
    """Add the hashes of new files; return 1 if a known one was altered or removed."""
    known = recorded(SUMS.read_text()) if SUMS.exists() else {}
    found = hashes(golden_files())
    wrong = [line for line in breaches(known, found) if "has no hash" not in line]
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    if wrong:
        return 1
    SUMS.write_text("".join(f"{sha256}  {path}\n" for path, sha256 in sorted(found.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
