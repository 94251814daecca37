"""Convolutions and batch norm whose gradient is cheap to differentiate once more.

A loss on a gradient of the image differentiates every layer twice. Torch's second derivative of a convolution works
group by group (thousands of small convolutions where every channel is a group, as in EfficientNet), and that of batch
norm is written for statistics of the batch. Here the gradient is itself a transposed convolution, or a product, whose
own derivative torch does well; the numbers are the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sightline.explain.rules import Rewired

_AXES: dict[Callable[..., Any], int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


@contextmanager
def cheaply(rewired: Rewired) -> Iterator[None]:
    """Convolutions and batch norm on running statistics within this block are answered as the module says.

    While `rewired.ruling`, only gradients of what goes into a layer are computed, none of weights: for a gradient of
    the image with its graph. Weights learn from what is differentiated after `ruling` is set to False.
    """
    with _Cheaply(rewired):
        yield


class _Cheaply(TorchFunctionMode):
    """Answers calls of convolutions and batch norm while it is on."""

    def __init__(self, rewired: Rewired) -> None:
        super().__init__()
        self.rewired = rewired

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _AXES:
            settings = _settings(_AXES[func], *args, **given)
            # padding by name is torch's affair, and so is a picture without a batch
            if settings is not None and args and args[0].ndim == _AXES[func] + 2:
                return _Convolved.apply(*settings, self.rewired)
        if func is F.batch_norm:
            return _normalised(*args, **given)
        return func(*args, **given)


def _settings(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Any, ...] | None:
    if isinstance(padding, str):
        return None
    each = (_each(stride, axes), _each(padding, axes), _each(dilation, axes))
    return (input, weight, bias, *each, groups)


def _each(value: int | Sequence[int], axes: int) -> list[int]:
    if isinstance(value, int):
        return [value] * axes
    values = [int(v) for v in value]
    return values * axes if len(values) == 1 else values


class _Convolved(torch.autograd.Function):
    """A convolution whose gradient is a transposed convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        rewired: Rewired,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.bias = None if bias is None else list(bias.shape)
        ctx.settings = stride, padding, dilation, groups
        ctx.rewired = rewired
        return torch.convolution(inputs, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inputs, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        nothing = (None,) * 5
        (arriving,) = gradients
        if not ctx.rewired.ruling:
            wanted = [bool(needed) for needed in ctx.needs_input_grad[:3]]
            of_each = torch.ops.aten.convolution_backward(
                arriving, inputs, weight, ctx.bias, stride, padding, dilation, False, [0] * len(stride), groups, wanted
            )
            return *of_each, *nothing
        if not ctx.needs_input_grad[0]:
            return None, None, None, *nothing
        # what a stride left over at the far edge
        spare = [
            inputs.shape[2 + i]
            - ((arriving.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
            for i in range(len(stride))
        ]
        passed = torch.convolution(arriving, weight, None, stride, padding, dilation, True, spare, groups)
        return passed, None, None, *nothing


def _normalised(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    shape = [1, -1, *[1] * (input.ndim - 2)]
    return input * scale.view(shape) + shift.view(shape)
