"""`python -m tests.small_chunks STEP`: a step whose preparations are many small tasks."""

from __future__ import annotations

import sys

from automl.steps.__main__ import main
from automl.tracks.image import reading

CHUNK_ROWS, KEPT_ROWS = 5, 7

if __name__ == "__main__":
    reading.CHUNK_ROWS, reading.KEPT_ROWS = CHUNK_ROWS, KEPT_ROWS
    sys.exit(main(sys.argv[1:]))
