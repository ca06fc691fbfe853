"""Architectures as torch modules, and their weights as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from automl.errors import DataError, TrainingError
from automl.morphism.architecture import (
    BATCH_NORM_EPS,
    BATCH_NORM_MOMENTUM,
    Architecture,
    Node,
    Op,
    Shape,
)
from automl.training.depthwise import depthwise_conv2d

Weights = dict[str, np.ndarray]

_PREFIX = "nodes."
_UNSTORED = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation of each channel, in units of uint8 values.

    Raises:
        DataError: a standard deviation is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise DataError(
                f"The standard deviations of the channels are {self.std}; each must be above 0.",
                "every image has the same value in one channel: check the images",
            )


class Network(nn.Module):
    """An architecture with weights: uint8 (B, C, S, S) to float32 logits (B, classes).

    Args:
        architecture: the layers.
        normalization: of the images.
        dropout: rate of all dropout nodes, or in front of the logits without any; None for the
            nodes' own rates.
    """

    def __init__(
        self, architecture: Architecture, normalization: Normalization, dropout: float | None = None
    ) -> None:
        super().__init__()
        shapes = architecture.shapes()
        self.nodes = nn.ModuleDict()
        self._inputs: list[tuple[int, ...]] = [node.inputs for node in architecture.nodes]
        self._last_reader = [max(readers, default=-1) for readers in architecture.consumers()]
        for index, node in enumerate(architecture.nodes):
            sources = [shapes[source] for source in node.inputs]
            layer = _Normalise(normalization) if node.op is Op.INPUT else _layer(node, sources)
            if isinstance(layer, Dropout) and dropout is not None:
                layer.p = dropout
            self.nodes[str(index)] = layer
        needs_head = dropout is not None and architecture.dropout is None
        self._head_dropout = Dropout(dropout) if needs_head and dropout else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits; what no later node reads is let go of on the way."""
        outputs: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(self.nodes.values()):
            sources = [outputs[source] for source in self._inputs[index]] or [images]
            if index == len(self._inputs) - 1:
                sources = [self._head_dropout(source) for source in sources]
            outputs[index] = layer(*sources)
            for source in set(self._inputs[index]):
                if self._last_reader[source] == index:
                    del outputs[source]
        return outputs[len(self._inputs) - 1]


class Dropout(nn.Dropout):
    """Dropout that draws from a generator of its own where it has one.

    Threads that drew from the global one would get other numbers each time.
    """

    generator: torch.Generator | None = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, some of them lost and the others larger."""
        if self.generator is None or not self.training or self.p == 0:
            return super().forward(values)
        kept = torch.empty_like(values).bernoulli_(1 - self.p, generator=self.generator)
        return values * kept.div_(1 - self.p)


class _Normalise(nn.Module):
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normalization.mean).float(), persistent=False)
        self.register_buffer("std", torch.tensor(normalization.std).float(), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        # Whole lines at a time: kernels are slow where they broadcast over a few channels.
        lines = images.permute(0, 2, 3, 1).float().reshape(count, height, width * channels)
        values = (lines - self.mean.repeat(width)) / self.std.repeat(width)
        return values.reshape(count, height, width, channels).permute(0, 3, 1, 2)


class _GlobalPool(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(2, 3))


class _Pool(nn.Module):
    """A pool; one that covers its whole image also covers that of a smaller input."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._is_max = node.op is Op.MAX_POOL
        self._kernel, self._stride = node.integer("kernel"), node.integer("stride")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        kernel = min(self._kernel, values.shape[2])
        if self._is_max:
            return nn.functional.max_pool2d(values, kernel, self._stride)
        return nn.functional.avg_pool2d(values, kernel, self._stride)


class _Add(nn.Module):
    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total


class _Concat(nn.Module):
    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(values, dim=1)


class _StridedPointwise(nn.Conv2d):
    """A 1 x 1 convolution with a stride, as one without on the pixels that it reads.

    The backward pass of PyTorch 2.13's own, which oneDNN computes, writes beyond its buffers on
    CPUs for 3 to 6 input channels in channels-last order ("corrupted double-linked list").
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        down, right = self.stride
        read = values[:, :, ::down, ::right].contiguous(memory_format=torch.channels_last)
        return nn.functional.conv2d(read, self.weight, self.bias, groups=self.groups)


class _GroupedConv(nn.Conv2d):
    """A convolution of groups of channels, on CPUs in float32 whatever else computes in.

    oneDNN has no fast backward pass for it in bfloat16: depthwise kernels of 5 x 5, or with a
    stride, take 2 to 15 times as long as in float32 (PyTorch 2.13, AVX512-BF16).
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.device.type != "cpu":
            return super().forward(values)
        with torch.autocast("cpu", enabled=False):
            if self.groups == self.in_channels == self.out_channels:
                return depthwise_conv2d(values.float(), self.weight, self.bias, self.stride[0])
            return super().forward(values.float())


def _layer(node: Node, sources: Sequence[Shape]) -> nn.Module:
    if node.op is Op.CONV:
        kernel = node.integer("kernel")
        is_strided_pointwise = kernel == 1 and node.integer("stride") > 1
        is_grouped = node.integer("groups") > 1
        convolution = nn.Conv2d
        if is_strided_pointwise:
            convolution = _StridedPointwise
        elif is_grouped:
            convolution = _GroupedConv
        return convolution(
            sources[0][0],
            node.integer("channels"),
            kernel,
            stride=node.integer("stride"),
            padding=kernel // 2,
            groups=node.integer("groups"),
            bias=bool(node.integer("bias")),
        )
    if node.op is Op.BATCH_NORM:
        norm = nn.BatchNorm2d if len(sources[0]) == 3 else nn.BatchNorm1d
        return norm(sources[0][0], eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
    if node.op is Op.DENSE:
        return nn.Linear(sources[0][0], node.integer("units"))
    if node.op is Op.DROPOUT:
        return Dropout(float(node.attributes["rate"]))
    if node.op in {Op.MAX_POOL, Op.AVG_POOL}:
        return _Pool(node)
    plain: dict[Op, type[nn.Module]] = {
        Op.RELU: nn.ReLU,
        Op.RELU6: nn.ReLU6,
        Op.GLOBAL_POOL: _GlobalPool,
        Op.FLATTEN: nn.Flatten,
        Op.ADD: _Add,
        Op.CONCAT: _Concat,
    }
    return plain[node.op]()


def build_module(
    architecture: Architecture, normalization: Normalization, dropout: float | None = None
) -> Network:
    """Return the architecture as a module in training mode; its weights are still arbitrary.

    Args:
        architecture: in any order.
        normalization: of the images.
        dropout: as for `Network`.
    """
    channels = architecture.input_channels
    if not len(normalization.mean) == len(normalization.std) == channels:
        raise TrainingError(
            f"The normalisation has {len(normalization.mean)} channels, the architecture "
            f"{channels}.",
            "take both from the same snapshot",
        )
    return Network(architecture, normalization, dropout)


def place(module: Network, device: str, frozen: int = 0) -> None:
    """Put a network where it is trained, channels last.

    Args:
        module: the network.
        device: "cpu" or "cuda".
        frozen: how many of its first nodes are not trained.
    """
    module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in list(module.nodes.values())[:frozen]:
        layer.requires_grad_(requires_grad=False)


def load_weights(module: Network, weights: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into a module.

    Raises:
        TrainingError: keys or shapes are not the module's.
    """
    own = stored_tensors(module)
    if own.keys() != weights.keys():
        differing = sorted(own.keys() ^ weights.keys())
        raise TrainingError(
            f"The weights do not belong to this architecture: {', '.join(differing[:5])}.",
            "use the weights of the same trial",
        )
    with torch.no_grad():
        for key, tensor in own.items():
            shape, found = tuple(tensor.shape), weights[key].shape
            if shape != found:
                raise TrainingError(
                    f"{key} has shape {found}, the architecture needs {shape}.",
                    "use the weights of the same trial",
                )
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[key], dtype=np.float32)))


def extract_weights(module: Network) -> Weights:
    """Return copies of a module's weights as contiguous float32 arrays on the host."""
    return {
        key: np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C", copy=True)
        for key, tensor in stored_tensors(module).items()
    }


def stored_tensors(module: Network) -> dict[str, torch.Tensor]:
    """Return the module's own tensors, parameters and running statistics, by stored key."""
    return {
        key.removeprefix(_PREFIX): tensor
        for key, tensor in module.state_dict(keep_vars=True).items()
        if not key.endswith(_UNSTORED)
    }
