"""The arrays of the surrogate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]  # one axis
Matrix = npt.NDArray[np.float64]  # two axes
