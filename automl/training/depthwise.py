"""Depthwise convolutions whose backward pass takes no longer than it has to on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.grad import conv2d_input

_MOST_OUTPUT_PX = 4  # height of the maps up to which sums tap by tap are quicker


def depthwise_conv2d(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int
) -> torch.Tensor:
    """Return the convolution of every channel with its own odd kernel, padded by half of it.

    oneDNN's gradient of the weights takes its time per channel and tap, however small the maps are:
    on 2 x 2 pixels 25 times as long as a sum of products for each tap, on 4 x 4 pixels 4 times
    (PyTorch 2.13, AVX-512). Where they are small it is computed in that way.

    Args:
        values: float32 (B, C, H, H).
        weight: float32 (C, 1, k, k).
        bias: (C,), or None.
        stride: of both directions.
    """
    padding = weight.shape[2] // 2
    height = (values.shape[2] - 1) // stride + 1
    if height > _MOST_OUTPUT_PX:
        return nn.functional.conv2d(values, weight, bias, stride, padding, groups=len(weight))
    output: torch.Tensor = _SmallMaps.apply(values, weight, stride)  # type: ignore[no-untyped-call]
    return output if bias is None else output + bias[:, None, None]


class _SmallMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(values, weight)
        ctx.stride = stride
        return nn.functional.conv2d(
            values, weight, None, stride, weight.shape[2] // 2, groups=len(weight)
        )

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, weight = ctx.saved_tensors
        of_values = of_weight = None
        if ctx.needs_input_grad[0]:
            padding = weight.shape[2] // 2
            of_values = conv2d_input(  # type: ignore[no-untyped-call]
                values.shape, weight, gradient, ctx.stride, padding, groups=len(weight)
            )
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(values, gradient, weight.shape[2], ctx.stride)
        return of_values, of_weight, None


def _weight_gradient(
    values: torch.Tensor, gradient: torch.Tensor, kernel: int, stride: int
) -> torch.Tensor:
    """Return the gradient of the weights, (C, 1, k, k)."""
    read, asked = values.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    found = values.new_zeros(kernel, kernel, values.shape[1])
    reach = [
        _reach(tap - kernel // 2, values.shape[2], gradient.shape[2], stride)
        for tap in range(kernel)
    ]
    for down, (rows, from_rows) in enumerate(reach):
        for right, (columns, from_columns) in enumerate(reach):
            product = read[:, from_rows, from_columns] * asked[:, rows, columns]
            found[down, right] = product.sum(dim=(0, 1, 2))
    return found.permute(2, 0, 1)[:, None]


def _reach(offset: int, size: int, count: int, stride: int) -> tuple[slice, slice]:
    """Return which outputs of a line a tap contributes to, and the inputs that it reads for them.

    Args:
        offset: of the tap from the middle of the kernel.
        size: number of inputs.
        count: number of outputs.
        stride: from the middle of one output to the next.
    """
    first = max(0, -(offset // stride))
    last = min(count - 1, (size - 1 - offset) // stride)
    start = first * stride + offset
    stop = start + max(0, last - first + 1) * stride
    return slice(first, max(first, last + 1)), slice(start, stop, stride)
