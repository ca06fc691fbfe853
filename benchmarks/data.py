"""Cost of preparing images: against a bare loop, in memory, and when little has changed.

`make bench-data` prints a table and writes `benchmarks/out/data.json`. Photographs are made up:
JPEGs of 64 to 640 pixels a side. The bare loop reads, decodes and resizes them with the very graph
and takes their digests, with one process a core that has started before; preparing is the step in a
process of its own, its start included. Both take turns, and medians count.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from automl.machine.cores import available_cores
from automl.machine.process import run_step
from automl.steps.study_file import study_spec
from automl.storage.open import open_store
from automl.tracks.image.decode import decode_image, pixel_digest
from automl.tracks.image.resize import ImagePreprocessor, resize_graph
from benchmarks.servers import BUCKET, SeaweedServer

OUT = Path(__file__).parent / "out" / "data.json"
CLASSES = 20
_LEAST, _MOST = 64, 640  # pixels of a side
_SAMPLE_S = 0.1
_ROUNDS = 3
_FEW = 0.01  # of the rows, which are new


@dataclass(frozen=True, slots=True)
class Photographs:
    """Made-up photographs in a folder, in class folders.

    Attributes:
        folder: where they are.
        count: how many there are.
    """

    folder: Path
    count: int

    def path(self, number: int) -> Path:
        """Return the place of one."""
        return self.folder / f"class-{number % CLASSES:02d}" / f"{number:07d}.jpg"

    def write(self, first: int = 0) -> None:
        """Write those from `first` on."""
        for label in range(CLASSES):
            (self.folder / f"class-{label:02d}").mkdir(parents=True, exist_ok=True)
        numbers = range(first, self.count)
        parts = [numbers[start :: available_cores()] for start in range(available_cores())]
        with ProcessPoolExecutor(available_cores(), get_context("fork")) as pool:
            list(pool.map(self._write, parts))

    def _write(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.path(number).write_bytes(photograph(number))

    def paths(self) -> list[Path]:
        """Return the places of all."""
        return [self.path(number) for number in range(self.count)]


def photograph(number: int) -> bytes:
    """Return a JPEG of smooth colours and some grain."""
    rng = np.random.default_rng(number)
    width, height = rng.integers(_LEAST, _MOST + 1, 2).tolist()
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    buffer = io.BytesIO()
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def bare_images_per_s(paths: Sequence[Path], size: int) -> float:
    """Return how many images a second a bare loop reads, decodes, resizes and hashes."""
    cores = available_cores()
    with ProcessPoolExecutor(cores, get_context("fork")) as pool:
        list(pool.map(_bare, [([path], size) for path in paths[:cores]]))
        parts = [(list(paths[start::cores]), size) for start in range(cores)]
        began_s = time.perf_counter()
        list(pool.map(_bare, parts))
        return len(paths) / (time.perf_counter() - began_s)


def _bare(job: tuple[Sequence[Path], int]) -> None:
    paths, size = job
    preprocess = ImagePreprocessor(resize_graph(size).SerializeToString())
    for path in paths:
        data = path.read_bytes()
        hashlib.blake2b(data, digest_size=16).digest()
        pixels = decode_image(data)
        pixel_digest(pixels)
        preprocess(pixels[None])


@dataclass(frozen=True, slots=True)
class Prepared:
    """Cost of one preparation.

    Attributes:
        seconds: from the start of its process to its end.
        peak_bytes: the most that all its processes had resident at once, shared pages in each.
        home_bytes: what the home holds afterwards.
    """

    seconds: float
    peak_bytes: int
    home_bytes: int


def prepare(source: str, home: str, size: int) -> Prepared:
    """Prepare a source in a process of its own.

    Raises:
        AutoMLError: it failed.
    """
    data = {"source": source, "image_size": size}
    spec = study_spec({"name": "photographs", "task": "image_classification", "data": data})
    payload = {"spec": spec.model_dump(mode="json", by_alias=True), "run": "r", "origin": "bench"}
    with _peak() as peak:
        began_s = time.perf_counter()
        ended = run_step(
            "prepare",
            payload,
            env={**os.environ, "AUTOML_HOME": home},
            timeout_s=None,
            on_line=lambda _: None,
            stop=lambda: False,
        )
        seconds = time.perf_counter() - began_s
    if ended.failure is not None:
        raise ended.failure.to_error()
    stored = sum(entry.size_bytes for entry in open_store(home).list(""))
    return Prepared(seconds, peak[0], stored)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Yield a list whose only element is the most memory that this process's children had."""
    peak, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE_S):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Place:
    """Place of sources and homes.

    Attributes:
        name: of the kind of place.
        root: a folder, or a bucket's URI.
    """

    name: str
    root: str

    def source(self, photographs: Photographs) -> str:
        """Return where the photographs are, once they are there."""
        if self.name == "file":
            return str(photographs.folder)
        store = open_store(f"{self.root}/source")
        known = {entry.key for entry in store.list("")}
        for number in range(photographs.count):
            path = photographs.path(number)
            key = f"{path.parent.name}/{path.name}"
            if key not in known:
                store.put(key, path.read_bytes())
        return f"{self.root}/source"


def measured(place: Place, photographs: Photographs, size: int, rounds: int) -> dict[str, Any]:
    """Return what the first preparations cost and those after some changes."""
    source = place.source(photographs)
    homes = (f"{place.root}/home-{number}" for number in range(rounds))
    paths = photographs.paths()
    bare, first, last = [], [], ""
    for last in homes:
        bare.append(bare_images_per_s(paths, size))
        first.append(prepare(source, last, size))
    rate = photographs.count / statistics.median(each.seconds for each in first)
    again = {"unchanged": prepare(source, last, size)}
    more = Photographs(photographs.folder, round(photographs.count * (1 + _FEW)))
    more.write(photographs.count)
    again["1 % new"] = prepare(place.source(more), last, size)
    if place.name == "file":
        for path in more.paths():
            os.utime(path)
        again["touched"] = prepare(source, last, size)
    for path in more.paths()[photographs.count :]:
        path.unlink()
    return {
        "place": place.name,
        "rows": photographs.count,
        "size": size,
        "bare_images_per_s": statistics.median(bare),
        "images_per_s": rate,
        "ratio": rate / statistics.median(bare),
        "first": [asdict(each) for each in first],
        "again": {name: asdict(each) for name, each in again.items()},
    }


def _show(row: dict[str, Any]) -> None:
    first = statistics.median(each["seconds"] for each in row["first"])
    disk = row["first"][-1]["home_bytes"]
    print(
        f"{row['place']:4} {row['rows']:6} rows at {row['size']:3} px: bare "
        f"{row['bare_images_per_s']:6.0f} images/s, prepared {row['images_per_s']:6.0f} "
        f"({row['ratio']:.2f}), peak {max(e['peak_bytes'] for e in row['first']) / 2**30:.2f} GiB",
        *(
            f"\n     {name}: {each['seconds']:.1f} s ({each['seconds'] / first:.1%}), "
            f"disk {each['home_bytes'] / disk - 1:+.1%}"
            for name, each in row["again"].items()
        ),
        flush=True,
    )


@contextmanager
def places(names: Sequence[str]) -> Iterator[list[Callable[[], Place]]]:
    """Yield what makes places, each without anything in it."""
    with ExitStack() as stack:
        made: list[Callable[[], Place]] = []
        if "file" in names:

            def local() -> Place:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-data-"))
                return Place("file", folder)

            made.append(local)
        if "s3" in names:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-data-"))
            server = stack.enter_context(SeaweedServer(Path(folder)))
            os.environ.update(server.environment)
            count = iter(range(10**6))
            made.append(lambda: Place("s3", f"s3://{BUCKET}/{next(count)}"))
        yield made


def main() -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", nargs="+", default=["file", "s3"])
    parser.add_argument(
        "--sets", nargs="+", default=["6000:64", "60000:64", "2000:224", "20000:224"]
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-photographs-") as folder:
        for named in options.sets:
            count, size = map(int, named.split(":"))
            photographs = Photographs(Path(folder) / str(count), count)
            photographs.write()
            with places(options.places) as made:
                for make in made:
                    row = measured(make(), photographs, size, options.rounds)
                    _show(row)
                    rows.append(row)
    found = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "rows": rows,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
