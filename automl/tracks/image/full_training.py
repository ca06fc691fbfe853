"""Figures of a full training, apart from what trains: preparation reads them, too."""

from __future__ import annotations

FULL_EPOCHS = 30
STEP_ROWS = 64  # images of a step
