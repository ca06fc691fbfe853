"""EfficientNet-Lite0 written down once more, as plain torch calls on its own state."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

State = dict[str, np.ndarray]

# kernel, stride, expansion, channels read and written, of each block
BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24), (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40), (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
)  # fmt: skip


def random_state(rng: np.random.Generator) -> State:
    """Weights of the original's names and shapes, statistics and gains all over the place."""
    state: State = {}

    def layer(name: str, norm: str, width: int, read: int, kernel: int) -> None:
        shape = (width, read, kernel, kernel)
        scale = (1 / (read * kernel**2)) ** 0.5
        state[f"{name}.weight"] = scale * rng.standard_normal(shape)
        state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, width)
        state[f"{norm}.bias"] = rng.normal(0.0, 0.3, width)
        state[f"{norm}.running_mean"] = rng.normal(0.0, 0.2, width)
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2.0, width)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    for number, (kernel, _, expansion, read, written) in enumerate(BLOCKS):
        block, inner = f"_blocks.{number}.", read * expansion
        if expansion > 1:
            layer(f"{block}_expand_conv", f"{block}_bn0", inner, read, 1)
        layer(f"{block}_depthwise_conv", f"{block}_bn1", inner, 1, kernel)
        layer(f"{block}_project_conv", f"{block}_bn2", written, inner, 1)
    layer("_conv_head", "_bn1", 1280, 320, 1)
    return {name: array.astype(np.float32) for name, array in state.items()}


def reference_features(state: State, pixels: np.ndarray) -> np.ndarray:
    """Pooled features of uint8 (n, S, S, 3), float32 (n, 1280), padded as TensorFlow does."""
    w = {name: torch.from_numpy(array) for name, array in state.items()}

    def layer(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        filters = w[f"{name}.weight"]
        kernel, size = filters.shape[-1], x.shape[-1]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before, after = missing // 2, missing - missing // 2
        groups = x.shape[1] // filters.shape[1]
        x = F.conv2d(F.pad(x, (before, after, before, after)), filters, None, stride, 0, 1, groups)
        mean, variance = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-3)

    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    for number, (_, stride, expansion, read, written) in enumerate(BLOCKS):
        block, inner = f"_blocks.{number}.", x
        if expansion > 1:
            inner = F.relu6(layer(inner, f"{block}_expand_conv", f"{block}_bn0"))
        inner = F.relu6(layer(inner, f"{block}_depthwise_conv", f"{block}_bn1", stride))
        inner = layer(inner, f"{block}_project_conv", f"{block}_bn2")
        x = x + inner if stride == 1 and read == written else inner
    features: np.ndarray = F.relu6(layer(x, "_conv_head", "_bn1")).mean(dim=(2, 3)).numpy()
    return features
