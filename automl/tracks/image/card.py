"""Card of the image track, which is known before the track is loaded."""

from __future__ import annotations

from automl.domain.card import Card
from automl.domain.objective import Objective

CARD = Card(
    task="image_classification",
    objectives=frozenset({Objective.ACCURACY}),
    default_objective=Objective.ACCURACY,
    data_keys=frozenset(
        {
            "source",
            "images",
            "label",
            "image_size",
            "resize",
            "validation_fraction",
            "test_fraction",
            "split",
            "group",
            "time",
            "test_source",
            "max_bad_fraction",
            "max_pixels",
            "small_classes",
        }
    ),
    uses_gpu=True,
    track="automl.tracks.image.track:TRACK",
    samples={"digits": "automl.tracks.image.samples:write_digits"},
    portrait="automl.tracks.image.portrait:portrait",
    reader="automl.tracks.image.arrays:load_image_dataset",
    auditor="automl.tracks.image.audit:audited_rows",
    exhibitor="automl.tracks.image.exhibits:exhibits",
)
