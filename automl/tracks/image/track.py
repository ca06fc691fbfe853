"""The image track: networks that classify pixels."""

from __future__ import annotations

from automl.data.dask import Workers
from automl.data.files import FileStore, SnapshotStore
from automl.data.request import DatasetRequest
from automl.domain.card import Card
from automl.tracks.image.card import CARD
from automl.tracks.image.dataset import ImageDataset
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot


class ImageTrack:
    """Learns to tell classes of images apart; see `automl.tracks.track.Track`."""

    @property
    def card(self) -> Card:
        """What is known of it without loading it."""
        return CARD

    def prepare(
        self, request: DatasetRequest, store: SnapshotStore, workers: Workers
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


TRACK = ImageTrack()
