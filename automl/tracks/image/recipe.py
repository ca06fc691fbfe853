"""Recipes: all that decides what an image file becomes in a snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from automl.tracks.image.request import ImageRequest
from automl.tracks.image.resize import resize_graph

FINDINGS = 2  # rises when something else is noted of each image


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what an image file becomes.

    Attributes:
        size: side of the images in pixels.
        size_reason: where it comes from; it decides nothing.
        graph: the preprocessing graph, serialised.
        most_pixels: that an image may have before.
        versions: of the libraries and of the graph.
    """

    size: int
    size_reason: str
    graph: bytes
    most_pixels: int
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, request: ImageRequest, size: tuple[int, str], versions: Mapping[str, str]
    ) -> Recipe:
        """Return the recipe for images of a size, which comes with its reason."""
        graph = resize_graph(size[0], request.resize).SerializeToString(deterministic=True)
        sha256 = hashlib.sha256(graph).hexdigest()
        return cls(*size, graph, request.max_pixels, {**versions, "graph_sha256": sha256})

    @property
    def name(self) -> str:
        """Name under which its results are kept, 16 hexadecimal digits."""
        told = json.dumps([FINDINGS, self.most_pixels, dict(self.versions)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]
