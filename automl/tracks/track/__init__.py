"""Tracks: what is learned from what, behind one protocol.

A track turns sources into snapshots, says what is searched, fits and judges candidates, writes the
ONNX file, and scores predictions. How a run proceeds is none of its business: it is handed values
and hooks, and imports nothing of `automl.runs`, `publishing`, `views` or `steps`. These know the
names of this package only, so that they serve every track.

A track is found by its card (`automl.tracks.cards`, where a process enters that must stay light);
`track_of` loads the track itself.
"""

from __future__ import annotations

from automl.tracks.cards import installed_cards
from automl.tracks.track.fitting import (
    Ancestor,
    CrossFit,
    Fitted,
    Fitter,
    Hooks,
    Job,
    Refit,
    Refitted,
    StudyFiles,
    first_whole,
)
from automl.tracks.track.protocol import Dataset, Memory, Samples, Scores, Track, track_of
from automl.tracks.track.values import (
    Checkpoint,
    Feed,
    FileFacts,
    Member,
    Outputs,
    Predictions,
    RawRow,
    Remarks,
    Table,
    Tolerance,
    Truth,
    Use,
    Values,
)

__all__ = [
    "Ancestor",
    "Checkpoint",
    "CrossFit",
    "Dataset",
    "Feed",
    "FileFacts",
    "Fitted",
    "Fitter",
    "Hooks",
    "Job",
    "Member",
    "Memory",
    "Outputs",
    "Predictions",
    "RawRow",
    "Refit",
    "Refitted",
    "Remarks",
    "Samples",
    "Scores",
    "StudyFiles",
    "Table",
    "Tolerance",
    "Track",
    "Truth",
    "Use",
    "Values",
    "first_whole",
    "installed_cards",
    "track_of",
]
