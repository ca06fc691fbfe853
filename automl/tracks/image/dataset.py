"""A snapshot of images, as runs and publishing see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from automl.data.splits import Part
from automl.tracks.image.resize import INPUT_NAME
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.track import RawRow, Use

ONE_TEST_SET_BELOW = 1000  # fewer test rows decide about promotions and give the metrics at once


@dataclass(frozen=True, slots=True)
class ImageDataset:
    """A snapshot, opened; see `automl.tracks.track.Dataset`.

    Attributes:
        snapshot: its tensors and files.
    """

    snapshot: ImageSnapshot

    @property
    def envelope(self) -> ImageEnvelope:
        """What the snapshot holds."""
        return self.snapshot.envelope

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that truths count."""
        return self.envelope.classes

    def size_facts(self) -> Mapping[str, int | str]:
        """Return what the search space depends on, the rows alone considered."""
        return {"image_size": self.envelope.image_size, "classes": len(self.labels)}

    def raw(self, use: Use) -> Iterator[RawRow]:
        """Yield rows before preprocessing: their pixels uint8 `[1, H, W, 3]` and their class.

        Raises:
            DamagedDataError: a shard is not what was written.
        """
        for row in self.snapshot.files(*self._parts(use)):
            yield RawRow(row.digest, {INPUT_NAME: row.pixels[None]}, row.label)

    def _parts(self, use: Use) -> tuple[Part, ...]:
        """Return the parts that serve a use."""
        if use is Use.HELD_OUT:
            return (Part.SELECTION, Part.CALIBRATION)
        counts = self.envelope.counts
        if counts[Part.GATE] + counts[Part.REPORT] < ONE_TEST_SET_BELOW:
            return (Part.GATE, Part.REPORT)
        return (Part.GATE,) if use is Use.GATE else (Part.REPORT,)
