"""The image track's part of a request for a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from automl.data.files import FileStore, SourceStore
from automl.data.request import DatasetRequest
from automl.data.splits import SplitSettings
from automl.domain.specification import Resize, SearchSection, SmallClasses, Split
from automl.tracks.image.decode import MOST_PIXELS
from automl.tracks.image.sources import SourceLocation
from automl.tracks.image.tables import FurtherColumn

SIZE_KEYS = ("time_limit", "max_trials", "workers", "resources", "limits")
"""Keys of `search` on which the image size `auto` depends."""


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
        test: store and key of an own sealed test set; None: rows of the source are held out.
        further: column of the source that decides about the split, if one does.
        image_size: pixels, or from the rows.
        search: what the study gives to trainings, on which the size `auto` depends.
        fixed_size: pixels that `auto` has chosen for the generation's first run, if it did.
        resize: how an image of any shape becomes a square.
        split: how rows are held out.
        validation_fraction: of all rows.
        test_fraction: of all rows.
        seed: key of the split.
        max_bad_fraction: of rows that may be unusable.
        max_pixels: of an image; those with more are unusable.
        small_classes: what becomes of classes with too few rows for the split.
        thresholds: those of the generation's first snapshot, if there is one.
        doubted: id of a snapshot that is to be read and checked; None: none is.
        corrections: store and key of a person's corrections; None without any.
        locate: opens absolute paths and URIs of a manifest, see `DatasetRequest`; None: it has
            none.
    """

    name: str
    source: SourceStore
    source_key: str
    images: SourceStore | None = None
    images_prefix: str | None = None
    label: str | None = None
    test: tuple[SourceStore, str] | None = None
    further: FurtherColumn | None = None
    image_size: Literal["auto"] | int = "auto"
    search: SearchSection = field(default_factory=SearchSection)
    fixed_size: int | None = None
    resize: Resize = Resize.STRETCH
    split: Split = Split.STRATIFIED
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    seed: int = 0
    max_bad_fraction: float = 0.05
    max_pixels: int = MOST_PIXELS
    small_classes: SmallClasses = SmallClasses.STOP
    thresholds: Mapping[str, Sequence[float]] | None = None
    doubted: str | None = None
    corrections: tuple[FileStore, str] | None = None
    locate: Callable[[str], tuple[SourceStore, str]] | None = None

    @classmethod
    def of(cls, request: DatasetRequest) -> ImageRequest:
        """Return what a study asks for.

        Raises:
            DataError: a source does not exist.
        """
        data = request.data
        source, source_key = request.locate(data.source)
        fixed = request.facts.get("image_size") if data.image_size == "auto" else None
        further = [
            FurtherColumn(name, f"data.{key}")
            for key, name in (("group", data.group), ("time", data.time))
            if name is not None
        ]
        images, prefix = (None, None) if data.images is None else request.locate(data.images)
        return cls(
            name=request.name,
            source=source,
            source_key=source_key,
            images=images,
            images_prefix=prefix,
            label=data.label,
            test=None if data.test_source is None else request.locate(data.test_source),
            further=further[0] if further else None,
            image_size=data.image_size,
            search=request.search,
            fixed_size=None if fixed is None else int(fixed),
            resize=data.resize,
            split=data.split,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            seed=request.seed,
            max_bad_fraction=data.max_bad_fraction,
            max_pixels=data.max_pixels,
            small_classes=data.small_classes,
            thresholds=request.thresholds,
            doubted=request.doubted,
            corrections=None if data.corrections is None else request.locate(data.corrections),
            locate=request.locate,
        )

    @property
    def size_settings(self) -> object:
        """Settings that decide about the images' size besides the rows, as JSON."""
        if self.image_size == "auto" and self.fixed_size is None:
            return ["auto", self.search.model_dump(mode="json", include=set(SIZE_KEYS))]
        return self.fixed_size or self.image_size

    @property
    def location(self) -> SourceLocation:
        """Location of the rows."""
        return SourceLocation(
            self.source,
            self.source_key,
            self.images,
            self.images_prefix,
            self.label,
            self.further,
            self.locate,
            may_split=self.test is None,
        )

    @property
    def test_location(self) -> SourceLocation | None:
        """Location of the own test set's rows."""
        if self.test is None:
            return None
        store, key = self.test
        return SourceLocation(
            store,
            key,
            self.images,
            self.images_prefix,
            self.label,
            locate=self.locate,
            name="data.test_source",
        )

    @property
    def split_settings(self) -> SplitSettings:
        """Settings by which rows are held out."""
        return SplitSettings(self.split, self.validation_fraction, self.test_fraction, self.seed)
