"""The image track's part of a request for a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from automl.data.files import SourceStore
from automl.data.request import DatasetRequest
from automl.data.splits import SplitSettings
from automl.domain.specification import SmallClasses, Split
from automl.tracks.image.decode import MOST_PIXELS
from automl.tracks.image.sources import SourceLocation


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """The images to prepare; the fields mean what the study file's `data` section says.

    Attributes:
        name: of the dataset; snapshots lie under it.
        source: store of the source.
        source_key: its key there.
        images: store of the files that a table lists; None: `source`.
        images_prefix: where the table's paths start; None: beside the table.
        label: label column.
        image_size: pixels, or from the rows.
        split: `stratified` or `random`.
        validation_fraction: of all rows.
        test_fraction: of all rows.
        seed: key of the split.
        max_bad_fraction: of rows that may be unusable.
        max_pixels: of an image; those with more are unusable.
        small_classes: what becomes of classes with too few rows for the split.
        thresholds: those of the generation's first snapshot, if there is one.
        locate: opens absolute paths and URIs of a manifest, see `DatasetRequest`; None: it has
            none.
    """

    name: str
    source: SourceStore
    source_key: str
    images: SourceStore | None = None
    images_prefix: str | None = None
    label: str | None = None
    image_size: Literal["auto"] | int = "auto"
    split: Split = Split.STRATIFIED
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    seed: int = 0
    max_bad_fraction: float = 0.05
    max_pixels: int = MOST_PIXELS
    small_classes: SmallClasses = SmallClasses.STOP
    thresholds: Mapping[str, Sequence[float]] | None = None
    locate: Callable[[str], tuple[SourceStore, str]] | None = None

    @classmethod
    def of(cls, request: DatasetRequest) -> ImageRequest:
        """Return what a study asks for.

        Raises:
            DataError: a source does not exist.
        """
        data = request.data
        source, source_key = request.locate(data.source)
        images = (None, None) if data.images is None else request.locate(data.images)
        return cls(
            name=request.name,
            source=source,
            source_key=source_key,
            images=images[0],
            images_prefix=images[1],
            label=data.label,
            image_size=data.image_size,
            split=data.split,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            seed=request.seed,
            max_bad_fraction=data.max_bad_fraction,
            max_pixels=data.max_pixels,
            small_classes=data.small_classes,
            thresholds=request.thresholds,
            locate=request.locate,
        )

    @property
    def location(self) -> SourceLocation:
        """Location of the rows."""
        return SourceLocation(
            self.source, self.source_key, self.images, self.images_prefix, self.label, self.locate
        )

    @property
    def split_settings(self) -> SplitSettings:
        """Settings by which rows are held out."""
        return SplitSettings(self.split, self.validation_fraction, self.test_fraction, self.seed)
