"""What the caller asks `prepare_snapshot` for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from automl.data.files import FileStore
from automl.data.splits import SplitSettings
from automl.tracks.image.sources import SourceLocation


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """What to prepare; the fields mean what the study file's `data` section says.

    Attributes:
        name: of the dataset; snapshots lie under it.
        source: store of the source.
        source_key: its key there.
        images: store of the manifest's files; None: `source`.
        images_prefix: where the manifest's paths start; None: beside the manifest.
        label: label column.
        image_size: pixels, or from the rows.
        split: `stratified` or `random`.
        validation_fraction: of all rows.
        test_fraction: of all rows.
        seed: key of the split.
        max_bad_fraction: of rows that may be unusable.
        thresholds: those of the study's first snapshot, if there is one.
    """

    name: str
    source: FileStore
    source_key: str
    images: FileStore | None = None
    images_prefix: str | None = None
    label: str | None = None
    image_size: Literal["auto"] | int = "auto"
    split: str = "stratified"
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    seed: int = 0
    max_bad_fraction: float = 0.05
    thresholds: Mapping[str, Sequence[float]] | None = None

    @property
    def location(self) -> SourceLocation:
        """Where the rows are."""
        return SourceLocation(
            self.source, self.source_key, self.images, self.images_prefix, self.label
        )

    @property
    def split_settings(self) -> SplitSettings:
        """How rows are held out."""
        return SplitSettings(self.split, self.validation_fraction, self.test_fraction, self.seed)
