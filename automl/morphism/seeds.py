"""Seed architectures, sized to the image."""

from __future__ import annotations

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.nodes import conv

WORKING_SIZE = 16  # the stem brings larger images down to this many pixels
WIDE_WORKING_SIZE = 32  # likewise, of the wide seed: what it sees of fewer is not worth its filters
STEM_CHANNELS = 16
DROPOUT = 0.25
MOST_PROMISING = "wide"  # of the seeds, by their accuracy after the same time
INPUT_CHANNELS = 3


def seed_architectures(
    image_size: int, classes: int, channels: int = INPUT_CHANNELS
) -> list[Architecture]:
    """Return three networks of different kinds, canonical, cheapest first; see `named_seeds`."""
    return list(named_seeds(image_size, classes, channels).values())


def named_seeds(
    image_size: int, classes: int, channels: int = INPUT_CHANNELS
) -> dict[str, Architecture]:
    """Return the seed networks by what they are, canonical, cheapest first.

    One has the three blocks of Auto-Keras, one is residual, one plain and wide.

    Args:
        image_size: height and width of the images in pixels.
        classes: number of logits.
        channels: of the images.
    """
    builders = {"three blocks": _three_blocks, "residual": _residual, "wide": _wide}
    seeds = {
        name: build(_Builder(image_size, channels), classes).canonical()[0]
        for name, build in builders.items()
    }
    return dict(sorted(seeds.items(), key=lambda named: named[1].macs))


class _Builder:
    """Appends layers to a graph, each behind the last one unless told otherwise."""

    def __init__(self, image_size: int, channels: int) -> None:
        self.image_size = image_size
        self.channels = channels
        self.size = image_size
        self.nodes = [Node(Op.INPUT)]

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def append(self, op: Op, *inputs: int, **attributes: int | float) -> int:
        self.nodes.append(Node(op, inputs or (self.last,), attributes))
        return self.last

    def conv_norm(self, source: int, channels: int, kernel: int = 3, stride: int = 1) -> int:
        self.nodes.append(conv(source, channels, kernel, stride=stride))
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

    def stem(self, most_px: int = WORKING_SIZE) -> None:
        while self.size > most_px:
            self.block(STEM_CHANNELS, stride=2)

    def residual_block(self, channels: int, stride: int, *, project: bool) -> None:
        start = self.last
        self.block(channels, stride)
        end = self.conv_norm(self.last, channels)
        if project:
            start = self.conv_norm(start, channels, kernel=1, stride=stride)
        self.append(Op.ADD, end, start)
        self.append(Op.RELU)

    def pooled_block(self, channels: int) -> None:
        """Two convolutions, the first pooled before its norm."""
        self.nodes.append(conv(self.last, channels))
        self.pool_above(3)
        self.append(Op.BATCH_NORM)
        self.append(Op.RELU)
        self.block(channels)

    def finish(self, classes: int) -> Architecture:
        self.append(Op.DENSE, units=classes)
        return Architecture(self.image_size, self.channels, tuple(self.nodes))


def _three_blocks(builder: _Builder, classes: int) -> Architecture:
    """Three blocks of 64 filters and a dense layer (arXiv:1806.10282, as released).

    A block starts with its convolution: a ReLU on the image, as Auto-Keras has it, would erase
    every pixel below the mean.
    """
    builder.stem()
    for _ in range(3):
        builder.block(64)
        builder.pool_above(3)
    builder.append(Op.GLOBAL_POOL)
    builder.append(Op.DROPOUT, rate=DROPOUT)
    builder.append(Op.DENSE, units=64)
    builder.append(Op.RELU)
    return builder.finish(classes)


def _residual(builder: _Builder, classes: int) -> Architecture:
    """Three residual blocks (arXiv:1512.03385), the second at half the resolution."""
    builder.stem()
    builder.block(32)
    builder.residual_block(32, 1, project=False)
    builder.residual_block(64, 2 if builder.size > 3 else 1, project=True)
    builder.residual_block(64, 1, project=False)
    builder.append(Op.GLOBAL_POOL)
    builder.append(Op.DROPOUT, rate=DROPOUT)
    return builder.finish(classes)


def _wide(builder: _Builder, classes: int) -> Architecture:
    """A plain wide network in the manner of airbench94 (arXiv:2404.00498, sec. 3.1).

    A narrow first convolution, blocks of two wide ones whose first is pooled before its norm, and a
    maximum over what is left. About half its width, ReLU instead of GELU, the logits unscaled.
    """
    builder.stem(WIDE_WORKING_SIZE)
    builder.block(24)
    builder.pooled_block(48)
    builder.pooled_block(96)
    builder.pooled_block(128)
    builder.append(Op.MAX_POOL, kernel=builder.size, stride=builder.size)
    builder.append(Op.FLATTEN)
    return builder.finish(classes)
