"""Nightly AutoML on Airflow: Bayesian-optimised network morphism, published as one ONNX file.

Importing this package is cheap; the estimators pull in torch on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automl.api import ImageClassifier, load_image_dataset

__all__ = ["ImageClassifier", "load_image_dataset"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        from automl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
