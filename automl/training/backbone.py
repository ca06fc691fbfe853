"""The weights that a package brings along, as arrays."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from automl.morphism.pretrained import LITE0_PACKAGE

_LITE0_FILES = "models/*.pth"


def lite0_state() -> dict[str, np.ndarray] | None:
    """Return the arrays of EfficientNet-Lite0 by their original names; None without its package.

    The package comes with the extra `pretrained`.
    """
    found = importlib.util.find_spec(LITE0_PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        return None
    (path,) = Path(found.origin).parent.glob(_LITE0_FILES)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in tensors.items()}
