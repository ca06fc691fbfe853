"""Depthwise convolutions and their gradients, beside PyTorch's own."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from automl.training.depthwise import depthwise_conv2d

CASES = [
    case
    for case in itertools.product(range(1, 10), (1, 3, 5, 7), (1, 2, 3), (False, True))
    if case[0] < 9 or case[2] > 1
]


@pytest.mark.parametrize(("size", "kernel", "stride", "has_bias"), CASES)
def test_results_and_gradients_are_those_of_the_usual_convolution(
    size: int, kernel: int, stride: int, *, has_bias: bool
) -> None:
    generator = torch.Generator().manual_seed(size)
    values = torch.randn(3, 5, size, size, generator=generator, dtype=torch.float64)
    values = values.to(memory_format=torch.channels_last)
    weight = torch.randn(5, 1, kernel, kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64) if has_bias else None
    inputs = [tensor.requires_grad_() for tensor in (values, weight, bias) if tensor is not None]

    found = depthwise_conv2d(values, weight, bias, stride)
    expected = nn.functional.conv2d(values, weight, bias, stride, kernel // 2, groups=5)

    asked = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, asked),
        torch.autograd.grad(expected, inputs, asked),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_frozen_weights_get_no_gradient() -> None:
    values = torch.randn(2, 3, 2, 2, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3)

    depthwise_conv2d(values, weight, None, 1).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    assert values.grad is not None
    assert weight.grad is None
