"""Confusions of a classifier as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Row = dict[str, object]


def confusion_rows(matrix: np.ndarray, labels: Sequence[str], title: str) -> list[Row]:
    """Return a row per true class: its name under `title`, then how often each was predicted.

    Args:
        matrix: counts `[true class, predicted class]`.
        labels: the classes in its order.
        title: names the first column; none of the labels.
    """
    return [
        {title: label, **dict(zip(labels, map(int, counts), strict=True))}
        for label, counts in zip(labels, matrix, strict=True)
    ]


def worst_confusions(matrix: np.ndarray, labels: Sequence[str], most: int) -> list[Row]:
    """Return the most frequent errors, at most so many: true class, predicted class and rows."""
    errors = np.array(matrix)
    np.fill_diagonal(errors, 0)
    worst = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(cell, errors.shape) for cell in worst]
    return [
        {"true": labels[t], "predicted": labels[p], "rows": int(errors[t, p])}
        for t, p in pairs
        if errors[t, p]
    ]
