"""Seed architectures, sized to the image."""

from __future__ import annotations

from automl.morphism.architecture import Architecture, Node, Op

WORKING_SIZE = 16  # the stem brings larger images down to this many pixels
STEM_CHANNELS = 16
DROPOUT = 0.25
INPUT_CHANNELS = 3


def seed_architectures(image_size: int, classes: int) -> list[Architecture]:
    """Return a plain, a residual and a wide convolutional network, canonical, cheapest first.

    Args:
        image_size: height and width of the images in pixels.
        classes: number of logits.
    """
    builders = (_plain, _wide, _residual)
    seeds = [build(_Builder(image_size), classes) for build in builders]
    return sorted((seed.canonical()[0] for seed in seeds), key=lambda seed: seed.flops)


class _Builder:
    """Appends layers to a graph, each behind the last one unless told otherwise."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.size = image_size
        self.nodes = [Node(Op.INPUT)]

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def append(self, op: Op, *inputs: int, **attributes: int | float) -> int:
        self.nodes.append(Node(op, inputs or (self.last,), attributes))
        return self.last

    def conv_norm(self, source: int, channels: int, kernel: int = 3, stride: int = 1) -> int:
        self.append(
            Op.CONV, source, channels=channels, kernel=kernel, stride=stride, groups=1, bias=0
        )
        return self.append(Op.BATCH_NORM)

    def block(self, channels: int, stride: int = 1) -> int:
        self.conv_norm(self.last, channels, stride=stride)
        self.size = (self.size - 1) // stride + 1
        return self.append(Op.RELU)

    def pool_above(self, size: int) -> None:
        """Halve the working resolution unless it is `size` or below."""
        if self.size > size:
            self.append(Op.MAX_POOL, kernel=2, stride=2)
            self.size //= 2

    def stem(self) -> None:
        while self.size > WORKING_SIZE:
            self.block(STEM_CHANNELS, stride=2)

    def residual_block(self, channels: int, stride: int, *, project: bool) -> None:
        start = self.last
        self.block(channels, stride)
        end = self.conv_norm(self.last, channels)
        if project:
            start = self.conv_norm(start, channels, kernel=1, stride=stride)
        self.append(Op.ADD, end, start)
        self.append(Op.RELU)

    def finish(self, classes: int) -> Architecture:
        self.append(Op.DROPOUT, rate=DROPOUT)
        self.append(Op.DENSE, units=classes)
        return Architecture(self.image_size, INPUT_CHANNELS, tuple(self.nodes))


def _plain(builder: _Builder, classes: int) -> Architecture:
    """Three convolutions with pooling where the size allows, as in Auto-Keras."""
    builder.stem()
    builder.block(32)
    builder.pool_above(8)
    builder.block(64)
    builder.pool_above(3)
    builder.block(128)
    builder.append(Op.GLOBAL_POOL)
    return builder.finish(classes)


def _residual(builder: _Builder, classes: int) -> Architecture:
    """Three residual blocks (arXiv:1512.03385), the second at half the resolution."""
    builder.stem()
    builder.block(32)
    builder.residual_block(32, 1, project=False)
    builder.residual_block(64, 2 if builder.size > 3 else 1, project=True)
    builder.residual_block(64, 1, project=False)
    builder.append(Op.GLOBAL_POOL)
    return builder.finish(classes)


def _wide(builder: _Builder, classes: int) -> Architecture:
    """Two wide convolutions, and a dense layer that still sees positions."""
    builder.stem()
    builder.block(64)
    builder.pool_above(8)
    builder.block(128)
    builder.pool_above(4)
    builder.append(Op.FLATTEN)
    builder.append(Op.DENSE, units=128)
    builder.append(Op.RELU)
    return builder.finish(classes)
