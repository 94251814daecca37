"""A convolution in a pass that explains, and its gradients: torch's numbers to rounding, at a fair price.

- A gradient of the image needs none of the weights. Torch's second derivative of a convolution works group by group
  (thousands of small convolutions where every channel is a group, as in EfficientNet); here the gradient is itself a
  convolution, whose own derivative torch does well.
- On a processor a cell's channels lie side by side, with which pooling, depthwise convolutions and those of the image
  are several times faster; only on tiny maps each channel lies by itself.
- The gradient that reaches the image has few channels, which fill the processor's kernel for it badly; one convolution
  to all phases of the stride at once does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.explainers.backprop_rules.rules import RuleRecord
from sightline.explainers.bn_folding.deferred import DeferredTensor

# up to this side of a map, kernels of 3 x 3 cells are slower where channels lie side by side (measured on 4 and 8)
_TINY_CELLS = 6
# up to so many channels a map counts as an image
_FEW_CHANNELS = 4


@dataclass(frozen=True)
class Convolution:
    """A convolution with all that it is called with."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def settings(self) -> tuple[Any, ...]:
        """All but the tensors."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it gives."""
        sides = (
            (size + 2 * p - d * (kernel - 1) - 1) // s + 1
            for size, kernel, s, p, d in zip(
                self.inputs.shape[2:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return self.inputs.shape[0], self.weight.shape[0], *sides

    def apply_scale(self, scale: Tensor, shift: Tensor) -> Convolution:
        """Followed by a scale and a shift of each channel."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)

    def values(self, rewired: RuleRecord) -> Tensor:
        """What it gives. While `rewired.ruling` its gradient is that of the inputs alone."""
        made: Tensor = _ConvolutionFunction.apply(self.inputs, self.weight, self.bias, self.settings, rewired)
        return made

    def defer(self, rewired: RuleRecord) -> DeferredTensor:
        """The same when somebody looks, with this convolution as its `convolution`."""
        promise = _DeferredFunction.apply(self.inputs, self.weight, self.bias, self.settings, rewired, self.shape)
        later = DeferredTensor.from_promise(promise, lambda: self.values(rewired))
        later.convolution = self
        return later


def build_convolution(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Convolution | None:
    """The convolution that a call with these arguments asks for; None where it is better left to torch."""
    # padding by name is torch's affair, and so is a picture without a batch
    if isinstance(padding, str) or input.ndim != axes + 2 or input.shape[1] != weight.shape[1] * groups:
        return None
    return Convolution(
        input, weight, bias, _repeat_per_axis(stride, axes), _repeat_per_axis(padding, axes),
        _repeat_per_axis(dilation, axes), groups,
    )  # fmt: skip


def _repeat_per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return values * axes if len(values) == 1 else values


class _ConvolutionFunction(torch.autograd.Function):
    """A convolution whose gradient is a convolution."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, settings: Any, rewired: RuleRecord
    ) -> Any:
        _remember(ctx, inputs, weight, bias, settings, rewired)
        stride, padding, dilation, groups = settings
        inputs, weight = _arrange_for_speed(inputs, weight, groups, max(inputs.shape[2:]) // max(stride))
        return torch.convolution(inputs, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return *_pass_gradients(ctx, gradients[0]), None, None


class _DeferredFunction(torch.autograd.Function):
    """NaN in the shape of a convolution, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        settings: Any,
        rewired: RuleRecord,
        shape: tuple[int, ...],
    ) -> Any:
        _remember(ctx, inputs, weight, bias, settings, rewired)
        return inputs.new_full((), torch.nan).expand(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return *_pass_gradients(ctx, gradients[0]), None, None, None


def _remember(
    ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, settings: Any, rewired: RuleRecord
) -> None:
    # only weights that learn need the inputs
    ctx.save_for_backward(weight, inputs if ctx.needs_input_grad[1] else None)
    ctx.size, ctx.layout = inputs.shape[2:], _get_memory_format(inputs)
    ctx.bias = None if bias is None else list(bias.shape)
    ctx.settings = settings
    ctx.rewired = rewired


def _pass_gradients(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of inputs, weight and bias."""
    weight, inputs = ctx.saved_tensors
    wanted = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    stride, padding, dilation, groups = ctx.settings
    if wanted[1] and not ctx.rewired.ruling:
        inputs, weight = _arrange_for_speed(inputs, weight, groups, max(arriving.shape[2:]))
        passed = torch.ops.aten.convolution_backward(
            arriving, inputs, weight, ctx.bias, stride, padding, dilation, False, [0] * len(stride), groups, wanted
        )
        return _restore_layout(passed[0], ctx.layout), passed[1], passed[2]
    of_bias = arriving.sum([0, *range(2, arriving.ndim)]) if wanted[2] and not ctx.rewired.ruling else None
    if not wanted[0]:
        return None, None, of_bias
    if _is_of_an_image(weight, ctx.settings):
        return (
            _restore_layout(_transpose_by_phases(arriving, weight, stride[0], padding, ctx.size), ctx.layout),
            None,
            of_bias,
        )
    arriving, weight = _arrange_for_speed(arriving, weight, groups, max(arriving.shape[2:]))
    # what a stride left over at the far edge
    spare = [
        n - ((a - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, a, k, s, p, d in zip(
            ctx.size, arriving.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    passed = torch.convolution(arriving, weight, None, stride, padding, dilation, True, spare, groups)
    return _restore_layout(passed, ctx.layout), None, of_bias


def _get_memory_format(inputs: Tensor) -> torch.memory_format:
    if inputs.ndim != 4:
        return torch.preserve_format
    return torch.contiguous_format if inputs.is_contiguous() else torch.channels_last


def _restore_layout(gradient: Tensor | None, layout: torch.memory_format) -> Tensor | None:
    """A gradient in the layout of what it is of: steps between the two are slow where they differ."""
    if gradient is None or layout is torch.preserve_format:
        return gradient
    return gradient.contiguous(memory_format=layout)


def _arrange_for_speed(maps: Tensor, weight: Tensor, groups: int, side: int) -> tuple[Tensor, Tensor]:
    """Maps and weight in the layout that is fastest on a processor, where `side` is that of the coarser map."""
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or maps.ndim != 4:
        return maps, weight
    if groups == 1 and max(weight.shape[2:]) > 1 and side <= _TINY_CELLS:
        return maps.contiguous(), weight.contiguous()
    return maps.contiguous(memory_format=torch.channels_last), weight


def _is_of_an_image(weight: Tensor, settings: Any) -> bool:
    stride, _, dilation, groups = settings
    few = weight.shape[1] <= _FEW_CHANNELS and groups == 1 and weight.device.type == "cpu"
    return few and len(stride) == 2 and stride[0] == stride[1] and set(dilation) == {1}


def _transpose_by_phases(
    arriving: Tensor, weight: Tensor, stride: int, padding: Sequence[int], size: Sequence[int]
) -> Tensor:
    """The gradient [b, c, *size] of what goes into a convolution with few channels c.

    With y(i) the sum over k of w(k) x(s i + k - p), cell s q + r - p of the image gets the sum over t of
    w(r + s t) g(q - t): for each phase r of the stride s a convolution of g with every s-th weight, from last to first.
    """
    out, few, *kernel = weight.shape
    taps = [-(-k // stride) for k in kernel]
    whole = F.pad(weight, (0, taps[1] * stride - kernel[1], 0, taps[0] * stride - kernel[0]))
    whole = whole.view(out, few, taps[0], stride, taps[1], stride).flip(2, 4)
    phases = whole.permute(1, 3, 5, 0, 2, 4).reshape(few * stride * stride, out, *taps)
    cells = F.pixel_shuffle(F.conv2d(arriving, phases, padding=[t - 1 for t in taps]), stride)
    ends = [p + n for p, n in zip(padding, size, strict=True)]
    # cells that no weight reached
    cells = F.pad(cells, (0, max(0, ends[1] - cells.shape[3]), 0, max(0, ends[0] - cells.shape[2])))
    return cells[:, :, padding[0] : ends[0], padding[1] : ends[1]]
