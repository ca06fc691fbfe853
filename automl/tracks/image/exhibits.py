"""Pictures of a few rows of a snapshot for its data report; no others are read."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl.data.blocks import read_rows
from automl.data.exhibits import Exhibit, Exhibits, RowName, Wanted
from automl.data.files import SourceStore
from automl.data.splits import PARTS, Part
from automl.domain.specification import Resize
from automl.tracks.image.index import RowIndex, read_index
from automl.tracks.image.snapshot import ImageEnvelope

SIDE = 96  # pixels of a picture, unless the snapshot's are smaller
MOST_BYTES = 4_500  # of a picture's file
_QUALITIES = (85, 70, 50, 30, 10)  # of JPEG; noise of 96 pixels fits with the last one

Pixels = NDArray[np.uint8]


def exhibits(store: SourceStore, dataset: str, snapshot: str, wanted: Wanted) -> Exhibits:
    """Return what a report shows of a snapshot of images.

    Pictures are the squares that networks learn from. Those of a class are a random sample: its
    first rows by their digests, training rows before others.

    Args:
        store: holds it.
        dataset: whose snapshot it is.
        snapshot: its id.
        wanted: what to show.

    Raises:
        NotFoundError, DamagedDataError, NewerSchemaError: it cannot be read.
    """
    envelope = ImageEnvelope.read(store, dataset, snapshot)
    samples: dict[str, list[Exhibit]] = defaultdict(list)
    rows: dict[RowName, Exhibit] = {}
    if envelope.index is not None and (wanted.labels or wanted.rows):
        parts = [part for part in PARTS if part.value not in wanted.sealed]
        index = read_index(store, envelope, parts)
        chosen, named = [*_samples(envelope, index, wanted)], [*_named(index, wanted.rows)]
        shown = _shown(store, envelope, index, {row for _, row in (*chosen, *named)})
        for label, row in chosen:
            samples[label].append(shown[row])
        rows = {name: shown[row] for name, row in named}
    return Exhibits(
        facts=_facts(envelope),
        rows_per_part={
            label: {part.value: count for part, count in counts.items()}
            for label, counts in envelope.counts_per_class.items()
        },
        notes=(_note(envelope),),
        samples=samples,
        rows=rows,
    )


def _facts(envelope: ImageEnvelope) -> Mapping[str, str]:
    red, green, blue = (f"{value:.0f}" for value in envelope.mean)
    facts = {
        "image size": f"{envelope.image_size} px, {envelope.image_size_reason}",
        "resizing": envelope.resize.value,
        "mean colour": f"red {red}, green {green}, blue {blue} of 255, over the training rows",
    }
    if envelope.test_source is not None:
        facts["test rows from"] = envelope.test_source
    return facts


def _note(envelope: ImageEnvelope) -> str:
    if envelope.index is None:
        return "An earlier release made this snapshot: the next one is shown in pictures, too."
    how = {Resize.STRETCH: "stretched to squares", Resize.LETTERBOX: "padded to squares"}
    size = envelope.image_size
    return f"Pictures are shown as networks see them: {how[envelope.resize]} of {size} pixels."


def _samples(envelope: ImageEnvelope, index: RowIndex, wanted: Wanted) -> Iterator[tuple[str, int]]:
    """Yield labels with rows that have them; copies of a row are left out."""
    numbers = {label: number for number, label in enumerate(envelope.classes)}
    order = np.argsort(index.parts != PARTS.index(Part.TRAIN), kind="stable")
    for label in wanted.labels:
        rows = order[index.labels[order] == numbers.get(label, -1)]
        _, firsts = np.unique(index.digests[rows], axis=0, return_index=True)
        for row in rows[np.sort(firsts)][: wanted.per_label].tolist():
            yield label, row


def _named(index: RowIndex, names: Sequence[RowName]) -> Iterator[tuple[RowName, int]]:
    """Yield the rows that are named; where a name fits several of other content, none of them."""
    asked = {name.path for name in names}
    places: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(index.paths):
        if path in asked:
            places[path].append(row)
    for name in dict.fromkeys(names):
        rows = [
            row for row in places[name.path] if name.part in {"", PARTS[index.parts[row]].value}
        ]
        if len({index.digests[row].tobytes() for row in rows}) == 1:
            yield name, rows[0]


def _shown(
    store: SourceStore, envelope: ImageEnvelope, index: RowIndex, rows: set[int]
) -> Mapping[int, Exhibit]:
    """Return rows as a report shows them."""
    of_block: dict[int, list[int]] = defaultdict(list)
    for row in sorted(rows):
        of_block[int(index.images[row, 0])].append(row)
    found = {}
    for number, there in of_block.items():
        places = index.images[there, 1].tolist()
        images = read_rows(store, envelope.blocks[number], "images", places)
        for row, image in zip(there, images, strict=True):
            name = RowName(index.paths[row], PARTS[index.parts[row]].value)
            found[row] = Exhibit(name, picture(image))
    return found


def picture(pixels: Pixels) -> str:
    """Return an image, uint8 `[S, S, 3]`, as a `data:` URI of a file of at most `MOST_BYTES`.

    A small one is enlarged by an integer, so that its pixels are seen; a large one is reduced.
    """
    side = pixels.shape[0]
    image = Image.fromarray(pixels)
    if side <= SIDE // 2:
        scale = SIDE // side
        image = image.resize((scale * side, scale * side), Image.Resampling.NEAREST)
        data = _encoded(image, format="PNG")
        if len(data) <= MOST_BYTES:
            return _uri("png", data)
    elif side > SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    files = (_encoded(image, format="JPEG", quality=quality) for quality in _QUALITIES)
    return _uri("jpeg", next(data for data in files if len(data) <= MOST_BYTES))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image.Image, **how: str | int) -> bytes:
    data = io.BytesIO()
    image.save(data, **how)  # type: ignore[arg-type]
    return data.getvalue()
