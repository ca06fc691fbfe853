"""Two fixed recipes to compare a search with: a small ResNet and one in the manner of airbench."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from automl.training.examples import Examples
from benchmarks.arm_training import shifted
from benchmarks.fits import normalization_of

_LARGE_PX = 32  # larger images are read with a stride of 2


class _Normalise(nn.Module):
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        normalization = normalization_of(images)
        self.register_buffer("mean", torch.tensor(normalization.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).reshape(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() - self.mean) / self.std


class SmallResNet:
    """Three stages of 32, 64 and 128 channels, a residual block each (arXiv:1512.03385).

    SGD with Nesterov momentum, one cycle, label smoothing, shifts by an eighth of the image and
    flips where they keep the label.

    Args:
        train: the rows.
        classes: number of logits.
        flips: whether mirrored images keep their label.
        seed: of weights and shifts.
    """

    batch_size = 64
    flips_tests = False
    _PEAK, _DECAY, _SMOOTHING, _WARM_UP = 0.1, 5e-4, 0.1, 0.2
    _WIDTHS = (32, 64, 128)

    def __init__(self, train: Examples, classes: int, *, flips: bool, seed: int) -> None:
        torch.manual_seed(seed)
        self._images = torch.from_numpy(train.images)
        self._flips = flips
        stride = 2 if train.images.shape[1] > _LARGE_PX else 1
        width = self._WIDTHS[0]
        self.module = nn.Sequential(
            _Normalise(train.images),
            *_conv_norm(train.images.shape[3], width, stride),
            nn.ReLU(),
            _Residual(width, width, 1),
            *(_Residual(a, b, 2) for a, b in pairwise(self._WIDTHS)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(self._WIDTHS[-1], classes),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's hints lack it
        self.optimizer = _nesterov(
            [
                {"params": self.module.parameters(), "peak": self._PEAK,
                 "weight_decay": self._DECAY},
            ],
            momentum=0.9,
        )  # fmt: skip

    def begin_epoch(self, epoch: int) -> None:
        """Nothing to do."""

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return shifted and, at random, mirrored images."""
        mirrored = torch.rand(len(rows)) < (0.5 if self._flips else 0.0)
        reach = self._images.shape[1] // 8
        return _moved(self._images[rows], reach, mirrored)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy with smoothed labels."""
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self._SMOOTHING)

    def rate(self, progress: float) -> float:
        """Return a linear warm-up, then a cosine down to nothing."""
        if progress < self._WARM_UP:
            return progress / self._WARM_UP
        return (1 + math.cos(math.pi * (progress - self._WARM_UP) / (1 - self._WARM_UP))) / 2

    def after_step(self, step: int, progress: float) -> None:
        """Nothing to do."""

    def end(self) -> None:
        """Nothing to do: the last weights count."""


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *_conv_norm(inputs, outputs, stride), nn.ReLU(), *_conv_norm(outputs, outputs, 1)
        )
        is_same = inputs == outputs and stride == 1
        self.short = (
            nn.Identity() if is_same else nn.Sequential(*_conv_norm(inputs, outputs, stride, 1))
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.main(values) + self.short(values))


def _conv_norm(inputs: int, outputs: int, stride: int, kernel: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs)]


class Airbench:
    """A network and a training in the manner of airbench94 (arXiv:2404.00498, sec. 3).

    A frozen convolution that whitens patches, blocks of 64, 256 and 256 channels, pooled, GELU,
    batch norms without gain, identity initialisation, scaled logits; decoupled hyperparameters,
    faster biases, lookahead, a triangular schedule, alternating flips, a shift of 2 pixels in 32.
    Batches are of 128 instead of 1,024 examples, so that minutes on a CPU have about as many steps
    as there; images above 32 pixels are whitened with a stride of 2.

    Args:
        train: the rows.
        classes: number of logits.
        flips: whether mirrored images keep their label.
        seed: of weights, flips and shifts.
    """

    batch_size = 128
    _WIDTHS = (64, 256, 256)
    _RATE, _DECAY, _EXAMPLES, _MOMENTUM = 11.5, 0.0153, 1024, 0.85  # rate and decay per 1,024
    _BIAS_SCALE, _SMOOTHING, _LOGIT_SCALE = 64.0, 0.2, 1 / 9
    _START, _PEAK_AT, _END = 0.2, 0.23, 0.07
    _LOOK_EVERY, _LOOK_DECAY, _LOOK_POWER = 5, 0.95, 3
    _WHITENING_BIAS_UNTIL = 0.3  # of the training: 3 epochs of 9.9

    def __init__(self, train: Examples, classes: int, *, flips: bool, seed: int) -> None:
        torch.manual_seed(seed)
        self._images = torch.from_numpy(train.images)
        self.flips_tests = self._flips = flips
        self._whitening = _whitening(train.images)
        widths = (self._whitening.out_channels, *self._WIDTHS)
        self._size = _size_after(self._whitening, train.images.shape[1])
        blocks = [self._block(inputs, outputs) for inputs, outputs in pairwise(widths)]
        self.module = nn.Sequential(
            _Normalise(train.images),
            self._whitening,
            nn.GELU(),
            *(layer for block in blocks for layer in block),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], classes, bias=False),
            _Scale(self._LOGIT_SCALE),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's hints lack it
        self.optimizer = self._optimizer()
        self._average = {name: value.clone() for name, value in self._floats()}

    def _block(self, inputs: int, outputs: int) -> list[nn.Module]:
        pool = nn.MaxPool2d(2) if self._size > 1 else nn.Identity()
        self._size = max(1, self._size // 2)
        return [
            _identity_conv(inputs, outputs), pool, _BiasNorm(outputs), nn.GELU(),
            _identity_conv(outputs, outputs), _BiasNorm(outputs), nn.GELU(),
        ]  # fmt: skip

    def _optimizer(self) -> torch.optim.SGD:
        """Return SGD; momentum does not change its steps, nor the rate its decay."""
        scale = self._EXAMPLES * (1 + 1 / (1 - self._MOMENTUM))
        rate, decay = self._RATE / scale, self._DECAY * self.batch_size / scale
        norms = [m.bias for m in self.module.modules() if isinstance(m, _BiasNorm)]
        known = {id(bias) for bias in norms}
        others = [p for p in self.module.parameters() if p.requires_grad and id(p) not in known]
        groups = [
            {"params": norms, "peak": rate * self._BIAS_SCALE,
             "weight_decay": decay / (rate * self._BIAS_SCALE)},
            {"params": others, "peak": rate, "weight_decay": decay / rate},
        ]  # fmt: skip
        return _nesterov(groups, self._MOMENTUM)

    def begin_epoch(self, epoch: int) -> None:
        """Mirror all images that were not mirrored in the epoch before, and no others."""
        if epoch == 0:
            self._mirrored = torch.rand(len(self._images)) < (0.5 if self._flips else 0.0)
        elif self._flips:
            self._mirrored = ~self._mirrored

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return shifted images."""
        reach = max(1, self._images.shape[1] // 16)
        return _moved(self._images[rows], reach, self._mirrored[rows])

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed cross-entropy with smoothed labels: rates are per example."""
        return nn.functional.cross_entropy(
            logits, labels, label_smoothing=self._SMOOTHING, reduction="sum"
        )

    def rate(self, progress: float) -> float:
        """Return the triangular schedule."""
        return float(np.interp(progress, (0, self._PEAK_AT, 1), (self._START, 1, self._END)))

    def after_step(self, step: int, progress: float) -> None:
        """Freeze the whitening's bias when it is time, and look ahead."""
        assert self._whitening.bias is not None
        self._whitening.bias.requires_grad = progress < self._WHITENING_BIAS_UNTIL
        if step % self._LOOK_EVERY == 0:
            self._look(self._LOOK_DECAY**self._LOOK_EVERY * progress**self._LOOK_POWER)

    def end(self) -> None:
        """Take the averaged weights."""
        self._look(1.0)

    def _look(self, decay: float) -> None:
        with torch.no_grad():
            for name, value in self._floats():
                self._average[name].lerp_(value, 1 - decay)
                value.copy_(self._average[name])

    def _floats(self) -> list[tuple[str, torch.Tensor]]:
        state = self.module.state_dict()
        return [(name, value) for name, value in state.items() if value.is_floating_point()]


class _BiasNorm(nn.BatchNorm2d):
    """A batch norm without gain, whose statistics follow the last few batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self._factor


def _identity_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution whose first filters pass their channel on."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _whitening(images: np.ndarray, patch: int = 2, rows: int = 2000) -> nn.Conv2d:
    """Return a frozen convolution to the whitened patches of images, of either sign, and a bias."""
    stride = 2 if images.shape[1] > _LARGE_PX else 1
    chosen = torch.from_numpy(images)[torch.randperm(len(images))[:rows]].permute(0, 3, 1, 2)
    patches = nn.functional.unfold(_Normalise(images)(chosen), patch, stride=stride)
    flat = patches.transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    filters = (vectors / torch.sqrt(values.clamp(min=0) + 5e-4)).T.reshape(
        -1, chosen.shape[1], patch, patch
    )
    convolution = nn.Conv2d(chosen.shape[1], 2 * len(filters), patch, stride)
    convolution.weight = nn.Parameter(torch.cat([filters, -filters]), requires_grad=False)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def _size_after(convolution: nn.Conv2d, size: int) -> int:
    return (size - convolution.kernel_size[0]) // convolution.stride[0] + 1


def _moved(images: torch.Tensor, reach: int, mirrored: torch.Tensor) -> torch.Tensor:
    shifts = torch.randint(-reach, reach + 1, (2, len(images)))
    return shifted(images, shifts, mirrored).permute(0, 3, 1, 2)


def _nesterov(groups: list[dict[str, object]], momentum: float) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=True)
