"""What the tests of architectures and moves share: networks, weights, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op
from automl.morphism.moves import Limits
from automl.morphism.seeds import seed_architectures
from automl.training.module import (
    Network,
    Normalization,
    build_module,
    extract_weights,
    load_weights,
)

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-5
LIMITS = Limits(parameters=60_000, depth=40, macs=1_500_000)
SEEDS = st.integers(0, 2**32 - 1)


def quick(examples: int) -> settings:
    """Settings of a property test: always the same examples, however slow the machine is."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def evaluate(  # noqa: C901 - one case per operation
    architecture: Architecture,
    weights: Mapping[str, Array],
    images: Array,
    *,
    training: bool = False,
) -> Array:
    """Reference evaluation, independent of the platform's modules; nothing is dropped out.

    Images are normalised, float32 (B, C, S, S). In training mode batch norms use the statistics of
    the batch.
    """
    w = {key: torch.from_numpy(array) for key, array in weights.items()}
    values: list[torch.Tensor] = []
    for index, node in enumerate(architecture.nodes):
        read = [values[source] for source in node.inputs]
        name = f"{index}."
        size = {key: int(value) for key, value in node.attributes.items()}
        match node.op:
            case Op.INPUT:
                value = torch.from_numpy(images)
            case Op.CONV:
                value = F.conv2d(
                    read[0], w[name + "weight"], w.get(name + "bias"), size["stride"],
                    size["kernel"] // 2, 1, size["groups"],
                )  # fmt: skip
            case Op.BATCH_NORM:
                known = None if training else w[name + "running_mean"]
                spread = None if training else w[name + "running_var"]
                value = F.batch_norm(
                    read[0], known, spread, w[name + "weight"], w[name + "bias"], training,
                    eps=BATCH_NORM_EPS,
                )  # fmt: skip
            case Op.RELU:
                value = F.relu(read[0])
            case Op.RELU6:
                value = read[0].clamp(0, 6)
            case Op.MAX_POOL:
                value = F.max_pool2d(read[0], size["kernel"], size["stride"])
            case Op.AVG_POOL:
                value = F.avg_pool2d(read[0], size["kernel"], size["stride"])
            case Op.GLOBAL_POOL:
                value = read[0].mean(dim=(2, 3))
            case Op.FLATTEN:
                value = read[0].flatten(1)
            case Op.DENSE:
                value = F.linear(read[0], w[name + "weight"], w[name + "bias"])
            case Op.DROPOUT:
                value = read[0]
            case Op.ADD:
                value = torch.stack(read).sum(dim=0)
            case Op.CONCAT:
                value = torch.cat(read, dim=1)
        assert tuple(value.shape[1:]) == architecture.shapes()[index]
        values.append(value)
    result: Array = values[-1].numpy()
    return result


def random_weights(architecture: Architecture, rng: np.random.Generator) -> dict[str, Array]:
    """Batch-norm statistics, gains and biases all over the place."""
    weights = {}
    for key, shape in architecture.weight_shapes().items():
        index, name = key.split(".")
        if name == "running_var":
            array = rng.uniform(0.1, 1.5, shape)
        elif name == "weight" and architecture.nodes[int(index)].op is Op.BATCH_NORM:
            array = rng.normal(1.0, 0.5, shape)
        elif len(shape) == 1:
            array = rng.normal(0.1, 0.5, shape)
        else:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        weights[key] = array.astype(np.float32)
    return weights


def random_images(architecture: Architecture, count: int, rng: np.random.Generator) -> Array:
    """Normalised images, float32 (B, C, S, S), each of its own brightness in each channel."""
    size, channels = architecture.input_size, architecture.input_channels
    noise = rng.standard_normal((count, channels, size, size), dtype=np.float32)
    return 2 * (noise + rng.standard_normal((count, channels, 1, 1), dtype=np.float32))


def gap(left: Array, right: Array) -> float:
    """The largest difference, relative to the outputs where they exceed 1."""
    return float(np.abs(left - right).max() / max(1.0, float(np.abs(left).max())))


def module_of(architecture: Architecture, weights: Mapping[str, Array]) -> Network:
    """The platform's module, in training mode; images are the pixels themselves."""
    channels = architecture.input_channels
    module = build_module(architecture, Normalization((0.0,) * channels, (1.0,) * channels))
    load_weights(module, weights)
    return module


def train_steps(module: Network, images: Array, steps: int, rng: np.random.Generator) -> None:
    """Take steps of SGD on random labels."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    module.train()
    classes = module(torch.from_numpy(images)).shape[1]
    for _ in range(steps):
        labels = torch.from_numpy(rng.integers(0, classes, len(images)))
        optimizer.zero_grad()
        loss = F.cross_entropy(module(torch.from_numpy(images)), labels)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimizer.step()
        assert torch.isfinite(loss)


def slim(architecture: Architecture, divisor: int) -> Architecture:
    """The same network with fewer channels, so that tests of it are quick."""
    nodes = []
    for node in architecture.nodes[:-1]:
        for name in ("channels", "units", "groups"):
            if node.attributes.get(name, 1) > 1:
                node = node.having(**{name: max(2, node.integer(name) // divisor)})
        nodes.append(node)
    return replace(architecture, nodes=(*nodes, architecture.nodes[-1])).canonical()[0]


@lru_cache(maxsize=256)
def trained(
    which: int, size: int, channels: int, draw: int
) -> tuple[Architecture, dict[str, Array]]:
    """A slim seed network whose batch norms and biases are random, trained for three steps."""
    rng = np.random.default_rng([which, size, channels, draw])
    architecture = slim(seed_architectures(size, 4, channels)[which], divisor=16)
    module = module_of(architecture, random_weights(architecture, rng))
    train_steps(module, random_images(architecture, 6, rng), 3, rng)
    return architecture, extract_weights(module)


def relabelled(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """The same graph in another random topological order, additions read in another order."""
    order: list[int] = []
    while len(order) < len(architecture.nodes):
        done = set(order)
        ready = [
            index
            for index, node in enumerate(architecture.nodes)
            if index not in done and done.issuperset(node.inputs)
        ]
        order.append(ready[int(rng.integers(len(ready)))])
    place = {old: new for new, old in enumerate(order)}
    nodes = []
    for old in order:
        node = architecture.nodes[old]
        inputs = [place[source] for source in node.inputs]
        if node.op is Op.ADD:
            inputs = [inputs[i] for i in rng.permutation(len(inputs))]
        nodes.append(replace(node, inputs=tuple(inputs)))
    return replace(architecture, nodes=tuple(nodes))


class Sketch:
    """Appends random blocks to a small network."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes = [Node(Op.INPUT)]
        self.size = 8
        self.width = 0
        self.plain(int(rng.integers(2, 4)) * 2)

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def append(self, op: Op, *inputs: int, **attributes: float) -> int:
        self.nodes.append(Node(op, inputs or (self.last,), attributes))
        return self.last

    def conv(self, source: int, width: int, kernel: int, groups: int = 1) -> int:
        bias = int(self.rng.integers(2))
        self.append(
            Op.CONV, source, channels=width, kernel=kernel, stride=1, groups=groups, bias=bias
        )
        self.width = width
        return self.append(Op.BATCH_NORM) if self.rng.random() < 0.7 else self.last

    def rectify(self, *inputs: int) -> int:
        return self.append(Op.RELU6 if self.rng.random() < 0.4 else Op.RELU, *inputs)

    def plain(self, width: int) -> None:
        self.conv(self.last, width, 3)
        self.rectify()

    def grouped(self) -> None:
        self.conv(self.last, self.width, 3, groups=2)
        self.rectify()

    def depthwise(self) -> None:
        self.conv(self.last, self.width, 3, groups=self.width)
        self.rectify()

    def residual(self) -> None:
        start, width = self.last, self.width
        self.plain(width)
        self.append(Op.ADD, self.conv(self.last, width, 3), start)
        if self.rng.random() < 0.7:
            self.rectify()

    def concatenated(self) -> None:
        start, width = self.last, self.width
        first = self.conv(start, 4, 1)
        second = self.conv(start, 2, 3)
        if self.rng.random() < 0.5:
            second = self.rectify(second)
        self.append(
            Op.CONCAT, *([first, start, second] if self.rng.random() < 0.5 else [second, first])
        )
        self.width = 6 + width if len(self.nodes[-1].inputs) == 3 else 6

    def concatenated_and_added(self) -> None:
        start = self.last
        self.concatenated()
        self.append(Op.ADD, self.last, self.conv(start, self.width, 1))

    def pool(self) -> None:
        if self.size > 2:
            self.append(Op.MAX_POOL if self.rng.random() < 0.5 else Op.AVG_POOL, kernel=2, stride=2)
            self.size //= 2

    def finished(self) -> Architecture:
        self.rectify()
        self.append(Op.GLOBAL_POOL if self.rng.random() < 0.5 else Op.FLATTEN)
        if self.rng.random() < 0.5:
            self.append(Op.DENSE, units=6)
            self.rectify()
        self.append(Op.DROPOUT, rate=0.5)
        self.append(Op.DENSE, units=3)
        return Architecture(8, 3, tuple(self.nodes)).canonical()[0]


def random_network(rng: np.random.Generator, blocks: int = 4) -> Architecture:
    """A small network of random blocks: grouped, residual, concatenated, pooled."""
    sketch = Sketch(rng)
    kinds = (
        lambda: sketch.plain(4), sketch.grouped, sketch.depthwise, sketch.residual,
        sketch.concatenated, sketch.concatenated_and_added, sketch.pool,
    )  # fmt: skip
    for _ in range(int(rng.integers(1, blocks + 1))):
        kinds[int(rng.integers(len(kinds)))]()
    return sketch.finished()
