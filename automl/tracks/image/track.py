"""The image track: networks that classify pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from automl.data.dask import Runner
from automl.data.files import FileStore, SnapshotStore
from automl.data.request import DatasetRequest
from automl.domain.card import Card
from automl.domain.facts import SpaceFacts
from automl.domain.specification import SearchSection
from automl.onnx import LABEL, PROBABILITIES
from automl.search.memory_model import MemoryBound
from automl.search.pruning import Judging
from automl.search.space import SearchSpace
from automl.tracks.image.card import CARD
from automl.tracks.image.dataset import ImageDataset
from automl.tracks.image.decode import decode_image
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.limits import morphism_space
from automl.tracks.image.memory import ImageMemory
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.pretrained import seed_of, without_pretrained
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.resize import INPUT_NAME
from automl.tracks.image.sample_rows import ImageSamples
from automl.tracks.image.scores import ClassificationScores
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.image.space import REGULARISATION
from automl.tracks.track import Ancestor, Feed, Remarks, Tolerance, Track


class ImageTrack:
    """Learns to tell classes of images apart; see `automl.tracks.track.Track`."""

    @property
    def card(self) -> Card:
        """Card, which is known without loading the track."""
        return CARD

    @property
    def version(self) -> int:
        """Version of the search."""
        return SPACE_VERSION

    @property
    def judging(self) -> Judging:
        """Rules by which its trials may be judged early."""
        return Judging(unjudged=REGULARISATION)

    @property
    def memory(self) -> ImageMemory:
        """Memory that its trainings take."""
        return ImageMemory()

    def prepare(
        self, request: DatasetRequest, store: SnapshotStore, workers: Runner
    ) -> ImageEnvelope:
        """Return the envelope of the source's snapshot, building it unless it exists.

        Raises:
            DataError: the dataset cannot be used; the problems list rows and reasons.
        """
        return prepare_images(ImageRequest.of(request), store, workers)

    def open(self, store: FileStore, dataset: str, snapshot: str) -> ImageDataset:
        """Return a stored snapshot.

        Raises:
            NotFoundError, DamagedDataError, NewerSchemaError: it cannot be read.
        """
        return ImageDataset(ImageSnapshot.open(store, dataset, snapshot))

    def space(
        self, search: SearchSection, facts: SpaceFacts, memory: MemoryBound | None
    ) -> SearchSpace:
        """Return the networks that morphisms reach from the seeds; see `Track.space`."""
        return morphism_space(search, facts, memory)

    @property
    def tolerance(self) -> Tolerance:
        """Tolerance of its files."""
        return Tolerance(max_abs_diff=1e-4, min_gap=2e-4)

    @property
    def scores(self) -> ClassificationScores:
        """Scores and comparisons of its predictions."""
        return ClassificationScores()

    @property
    def samples(self) -> ImageSamples:
        """The format of the images stored with a version."""
        return ImageSamples()

    def remarks(
        self, lineage: Sequence[Ancestor], facts: SpaceFacts | None, search: SearchSection
    ) -> Remarks:
        """Return the seed that a network descends from, and why there was no pretrained one."""
        missing = without_pretrained(facts, search.limits)
        return Remarks({"seed": seed_of(lineage)}, [missing] if missing else [])

    def recognises(self, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        """Return whether a file with these inputs and outputs classifies images."""
        return list(inputs) == [INPUT_NAME] and {LABEL, PROBABILITIES} <= set(outputs)

    def read(self, name: str, data: bytes) -> Iterator[tuple[str, Feed]]:
        """Yield the pixels of an image file.

        Raises:
            DataError: it is none.
        """
        yield name, {INPUT_NAME: decode_image(data)[None]}


TRACK: Track = ImageTrack()
