"""Memory and time that the rows of a listing cost the process that prepares them.

`make bench-listings` prints a table and writes `benchmarks/out/listings.json`. A million empty
files are listed as class folders, and by a CSV manifest. No image is read: the ledger of the home
that each is prepared in knows every file already, with digests that are drawn. What is measured is
everything else that a preparation does, in a fresh process for each form, once all is imported: the
listing and its fingerprint, which is all that an unchanged source costs; and, as after a change of
the split, the ledger, the lookup of all rows in it, the plan, and the snapshot's index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from automl.data.blocks import Block, write_block
from automl.data.dask import LocalWorkers
from automl.data.digest_index import digests
from automl.data.ledger import Page, Seen, place_of, state_of, write_page
from automl.domain.layout import DatasetKeys, SnapshotKeys
from automl.domain.sources import Sources
from automl.storage.file import FileObjectStore
from automl.storage.sources import open_source
from automl.tracks.image.hashing import THUMBNAIL_SIDE
from automl.tracks.image.index import locate
from automl.tracks.image.listings import Listings, list_sources
from automl.tracks.image.look_alikes import near_duplicates
from automl.tracks.image.plan import fingerprint, make_plan
from automl.tracks.image.reading import CHUNK_ROWS, Reading
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.statistics import STATISTICS

OUT = Path(__file__).parent / "out" / "listings.json"
FORMS = ("folders", "manifest")
CLASSES = 20
NAME = "rows"


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one phase.

    Attributes:
        phase: its name.
        seconds: its time.
        peak_bytes: the most that the process had resident during it, beyond what it had at first.
        kept_bytes: what it has afterwards, likewise.
    """

    phase: str
    seconds: float
    peak_bytes: int
    kept_bytes: int


def write_source(folder: Path, rows: int) -> None:
    """Write empty files in class folders, and a manifest beside them."""
    for number in range(CLASSES):
        (folder / "photographs" / f"class-{number:02d}").mkdir(parents=True)
    with (folder / "rows.csv").open("w") as manifest:
        manifest.write("path,label\n")
        for row in range(rows):
            label = f"class-{row % CLASSES:02d}"
            path = f"photographs/{label}/{row:07d}.jpg"
            (folder / path).touch()
            manifest.write(f"{path},{label}\n")


def request_of(folder: Path, form: str) -> ImageRequest:
    """Return what a study asks for."""
    place = folder / ("photographs" if form == "folders" else "rows.csv")
    source, key = open_source(str(place), Sources(str(folder / "home")))
    return ImageRequest(NAME, source, key, image_size=64)


def recipe_of(request: ImageRequest) -> Recipe:
    """Return what becomes of an image."""
    return Recipe.of(request, (64, "set by data.image_size"), {})


def write_ledgers(folder: Path, form: str) -> None:
    """Write ledgers that know all rows, and all files of held-out ones; blocks are empty."""
    request, store = request_of(folder, form), FileObjectStore(folder / form)
    (_, listing), keys = list_sources(request), DatasetKeys(NAME)
    prefix = keys.rows(recipe_of(request).name)
    names = listing.names()
    blank = np.zeros((CHUNK_ROWS, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    previews = write_block(store, f"{prefix}thumbnails", CHUNK_ROWS, {"thumbnails": blank})
    for first in range(0, len(listing), CHUNK_ROWS):
        page = _page(listing, names, first, prefix, previews)
        assert page.block is not None
        store.put(page.block.key, b"")
        write_page(store, prefix, page)
        block = Block(
            key=f"{keys.files}files-{first}", rows=len(page.rows), sha256="", size_bytes=0
        )
        store.put(block.key, b"")
        write_page(store, keys.files, Page(Seen.of([]), page.contents, page.rows, {}, block=block))


def _page(
    listing: Listings, names: Iterator[str], first: int, prefix: str, previews: Block
) -> Page:
    rows = range(first, min(first + CHUNK_ROWS, len(listing)))
    contents = [blake2b(str(row).encode(), digest_size=16).digest() for row in rows]
    told = [(listing.source.rows[row], next(names)) for row in rows]
    seen = [
        (state_of(name, row.size_bytes, row.etag), place_of(name), row.size_bytes, content)
        for (row, name), content in zip(told, contents, strict=True)
    ]
    n = len(rows)
    facts: dict[str, Any] = {
        "digest": digests((blake2b(c, digest_size=32).digest() for c in contents), 32),
        "hash": digests((blake2b(c, digest_size=8).digest() for c in contents), 8).view(np.uint64)[
            :, 0
        ],
        "statistics": np.zeros((n, len(STATISTICS))),
        "sums": np.zeros((n, 3), np.int64),
        "squares": np.zeros((n, 3), np.int64),
    }
    block = Block(key=f"{prefix}images-{first}", rows=n, sha256="", size_bytes=0)
    numbers = np.arange(n, dtype=np.int32)
    return Page(Seen.of(seen), digests(contents), numbers, facts, {}, block, previews)


def measure(folder: Path, form: str) -> list[Cost]:
    """Return what the phases of a preparation cost this process."""
    costs: list[Cost] = []
    at_first = _status("VmRSS")

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the phase
        began_s = time.perf_counter()
        yield
        seconds = time.perf_counter() - began_s
        costs.append(Cost(name, seconds, _status("VmHWM") - at_first, _status("VmRSS") - at_first))

    store = FileObjectStore(folder / form)
    request = request_of(folder, form)
    recipe = recipe_of(request)
    with phase("listing"):
        request, listing = list_sources(request)
    with phase("fingerprint"):
        fingerprint(request, listing, {})
    workers = LocalWorkers(1, lambda *_: None, list, ExitStack())  # for nothing: all is known
    reading = Reading(NAME, listing, recipe, store, workers)
    with phase("lookup"):
        ledger, inspected = reading.inspect()
    with phase("look-alikes"):
        near = near_duplicates(store, ledger, inspected.contents)
    with phase("plan"):
        plan = make_plan(request, listing, inspected, recipe, lambda _: near)
    with phase("index"):
        located = locate(listing, plan, ledger, reading.keep_files(plan, ledger))
        located.stored(store, SnapshotKeys(NAME, plan.id))
    return costs


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary one")
    options = parser.parse_args()
    found: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-listings-", dir=options.folder) as name:
        folder = Path(name)
        write_source(folder, options.rows)
        for form in FORMS:
            with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                pool.apply(write_ledgers, (folder, form))
                found[form] = pool.apply(measure, (folder, form))
            for cost in found[form]:
                print(
                    f"{form:8} {cost.phase:11} {cost.seconds:6.1f} s, peak "
                    f"{cost.peak_bytes / options.rows:5.0f} bytes a row, kept "
                    f"{cost.kept_bytes / options.rows:5.0f}",
                    flush=True,
                )
    told = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "rows": options.rows,
        "forms": {form: [asdict(cost) for cost in costs] for form, costs in found.items()},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
