"""A snapshot of images, as runs and publishing see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.data.splits import Part
from automl.domain.facts import SpaceFacts
from automl.domain.specification import SearchSection
from automl.tracks.image import file
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.resize import INPUT_NAME
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.track import Feed, FileFacts, Member, RawRow, StudyFiles, Use, Values

if TYPE_CHECKING:
    from automl.tracks.image.fitter import ImageFitter

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
        """Envelope of the snapshot."""
        return self.snapshot.envelope

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that truths count."""
        return self.envelope.classes

    @property
    def details(self) -> Mapping[str, Any]:
        """Mean and standard deviation that weights fitted on the snapshot know."""
        return {"mean": list(self.envelope.mean), "std": list(self.envelope.std)}

    def size_facts(self) -> Mapping[str, int | str]:
        """Return what the search space depends on, the rows alone considered."""
        sizes = ImageFacts(self.envelope.image_size, len(self.labels))
        return sizes.to_record()

    def facts(self, search: SearchSection, files: StudyFiles) -> Mapping[str, int | str]:
        """Return what the search space of a new run depends on, measured on this machine.

        Raises:
            DamagedDataError: the installed pretrained weights are not those that were published.
        """
        from automl.tracks.image.measuring import measure  # torch is slow to import

        return measure(self.envelope, search, files).to_record()

    def fitter(
        self, search: SearchSection, facts: SpaceFacts | None, files: StudyFiles
    ) -> ImageFitter:
        """Return what fits networks of a run; the rows are read now."""
        from automl.tracks.image.fitter import ImageFitter  # torch is slow to import

        return ImageFitter.load(self.snapshot, search, facts, files)

    def raw(self, use: Use) -> Iterator[RawRow]:
        """Yield rows before preprocessing: their pixels uint8 `[1, H, W, 3]` and their class.

        Raises:
            DamagedDataError: a shard is not what was written.
        """
        for row in self.snapshot.files(*self.parts(use)):
            yield RawRow(row.digest, {INPUT_NAME: row.pixels[None]}, row.label)

    def parts(self, use: Use) -> tuple[Part, ...]:
        """Return the parts that serve a use."""
        if use is Use.HELD_OUT:
            return (Part.SELECTION, Part.CALIBRATION)
        counts = self.envelope.counts
        if counts[Part.GATE] + counts[Part.REPORT] < ONE_TEST_SET_BELOW:
            return (Part.GATE, Part.REPORT)
        return (Part.GATE,) if use is Use.GATE else (Part.REPORT,)

    def example(self) -> Feed:
        """Return a black image of the snapshot's size."""
        size = self.envelope.image_size
        return {INPUT_NAME: np.zeros((1, size, size, 3), np.uint8)}

    def emit(self, members: Sequence[Member], properties: Mapping[str, str]) -> bytes:
        """Return the ONNX file of a network; equal arguments give equal bytes.

        Raises:
            ExportError: there are several, or the network does not fit the snapshot.
        """
        return file.emit(self.snapshot, members, properties)

    def reference(self, members: Sequence[Member], most: int) -> Values:
        """Return a network's probabilities of the first held-out images, float32 on the CPU."""
        images, _ = self.snapshot.tensors(*self.parts(Use.HELD_OUT))
        return file.reference(self.envelope, members, images[:most])

    def file_facts(self, members: Sequence[Member]) -> FileFacts:
        """Return what a manifest says of a network's file."""
        return file.file_facts(self.envelope, members)

    def misfits(self, published: FileFacts) -> Iterator[str]:
        """Yield in what a published file differs from one that would be fitted on this snapshot."""
        return file.misfits(self.envelope, published)
