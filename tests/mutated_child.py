"""`python -m tests.mutated_child FIRST COUNT`: read mutants, and print what became of them.

One process reads them all, so that its peak is the peak of what any of them takes. A mutant that
takes more than `MOST_CPU_S` ends it by SIGVTALRM.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TextIO

from automl.errors import DataError
from automl.storage.memory import MemoryObjectStore
from automl.tracks.image.decode import MOST_PIXELS, decode_image, longer_side
from automl.tracks.image.source_rows import SourceRows
from automl.tracks.image.sources import Listing, SourceRow
from tests.local import problems_of
from tests.mutations import Mutant, mutant, parquet, tables
from tests.packing import listed

MOST_CPU_S = 20  # of a mutant, or of a batch
BATCH = 50


def read_image(found: Mutant) -> str:
    """Decode an image as a preparation does, and return why it cannot be, or ""."""
    longer_side(found.data, MOST_PIXELS)
    try:
        pixels = decode_image(found.data)
    except DataError as error:
        return str(error) or "a DataError without a reason"
    assert pixels.dtype == "uint8"
    assert pixels.shape[2:] == (3,)
    assert 0 < pixels.size <= 3 * MOST_PIXELS
    assert pixels.flags.c_contiguous
    return ""


def read_table(found: Mutant) -> str:
    """Read all rows of an archive or a table, and return why that cannot be, or ""."""
    try:
        listing = listed(found.name, found.data)
        told = problems_of(listing)
    except DataError as error:
        return str(error) or "a DataError without a reason"
    return "; ".join(filter(None, told))


def read_rows_of(batch: list[Mutant]) -> list[str]:
    """Read images by the task of a Dask worker, and return why each cannot be used, or ""."""
    store = MemoryObjectStore()
    for found in batch:
        store.put(found.name, found.data)
    rows = SourceRows.of(
        SourceRow(found.name, "a", found.name, len(found.data), str(found.number))
        for found in batch
    )
    return problems_of(Listing(rows, store))


class Reading:
    """Reading of mutants, and what was seen."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest: tuple[float, int] = (0.0, 0)
        self.now = ""
        warnings.showwarning = self._warned
        logging.basicConfig(level=logging.WARNING)

    def _warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self.wrong.append(f"{self.now}: a warning is printed: {category.__name__} {message}")

    def read(self, found: Mutant) -> str:
        """Read one mutant."""
        self.now = f"mutant {found.number} ({found.sample})"
        signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
        started = time.process_time()
        try:
            why = read_image(found) if found.is_image else read_table(found)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            self.wrong.append(f"{self.now}: {type(error).__name__}: {error}")
            why = "wrong"
        self.slowest = max(self.slowest, (time.process_time() - started, found.number))
        self.counts[f"{found.sample.split()[0]} {'refused' if why else 'read'}"] += 1
        return why

    def read_batch(self, batch: list[Mutant]) -> None:
        """Read images one by one, and then together; both have to agree."""
        alone = [self.read(found) for found in batch]
        images = [found for found in batch if found.is_image]
        self.now = f"mutants {batch[0].number} to {batch[-1].number} together"
        try:
            together = read_rows_of(images)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            self.wrong.append(f"{self.now}: {type(error).__name__}: {error}")
            return
        whys = [why for why, found in zip(alone, batch, strict=True) if found.is_image]
        for found, why, again in zip(images, whys, together, strict=True):
            if bool(why) != bool(again):
                self.wrong.append(f"mutant {found.number}: {why!r} alone, {again!r} together")


def peak_kib() -> int:
    """Return the most memory that this process has had; `ru_maxrss` counts its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main(first: int, count: int) -> None:
    """Read mutants and print counts, what was wrong, the slowest one, and the peak in MB."""
    has_arrow = importlib.util.find_spec("pyarrow") is not None
    others = {**tables(), **(parquet() if has_arrow else {})}
    reading = Reading()
    for start in range(first, first + count, BATCH):
        numbers = range(start, min(start + BATCH, first + count))
        print(start, flush=True)  # noqa: T201 - what was read last if a mutant ends the process
        reading.read_batch([mutant(number, others) for number in numbers])
    document = {
        "counts": reading.counts,
        "wrong": reading.wrong,
        "slowest_cpu_s": reading.slowest[0],
        "slowest": reading.slowest[1],
        "peak_mb": peak_kib() / 1024,
    }
    print(json.dumps(document))  # noqa: T201 - its result


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
