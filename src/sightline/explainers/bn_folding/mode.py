"""The layers between activations in a pass that explains: the same numbers to rounding, at a fair price.

Batch norm on running statistics is taken into the weights of the convolution before (`later`); convolutions are those
of `lean_convolution`; and the mean over a map, in squeeze gates, passes back one number a channel instead of a map.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sightline.explainers.backprop_rules.rules import RuleRecord
from sightline.explainers.bn_folding.convolution import Convolution, build_convolution
from sightline.explainers.bn_folding.deferred import DeferredTensor, evaluate_deferred, is_known_beforehand

T = TypeVar("T")

_AXES: dict[Callable[..., Any], int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
_MEANS: frozenset[Callable[..., Any]] = frozenset((torch.mean, Tensor.mean))


@contextmanager
def bn_folding_mode(rewired: RuleRecord) -> Iterator[None]:
    """Convolutions, means and batch norm on running statistics within this block are answered as the module says.

    While `rewired.ruling`, only gradients of what goes into a layer are computed, none of weights: for a gradient of
    the image, with its graph or without. Weights learn from what is differentiated after `ruling` is set to False.
    """
    with _BnFoldingMode(rewired):
        yield


def try_bn_folding(run: Callable[[bool], tuple[Tensor, T]]) -> tuple[Tensor, T]:
    """What `run(True)` gives, or `run(False)` where that fails or its first part holds NaN.

    Which happens where code that torch cannot look into reads or writes the memory of a convolution's map.
    """
    try:
        result = run(True)
    except RuntimeError:
        return run(False)
    return run(False) if bool(result[0].detach().isnan().any()) else result


class _BnFoldingMode(TorchFunctionMode):
    """Answers calls of convolutions and batch norm while it is on."""

    def __init__(self, rewired: RuleRecord) -> None:
        super().__init__()
        self.rewired = rewired
        # the convolution that was asked for last
        self.waiting: weakref.ref[Tensor] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if is_known_beforehand(func):
            return func(*args, **given)
        waiting = None if self.waiting is None else self.waiting()
        self.waiting = None
        # a checkpoint makes its part again without this mode, and wants the same steps then
        watched = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        if func is F.batch_norm and not watched:
            return self._normalise_batch(waiting, *args, **given)
        # only what comes next may change a convolution: a later step may overwrite what it is of
        evaluate_deferred(waiting)
        args, given = evaluate_deferred(args), evaluate_deferred(given)
        if func in _MEANS and not watched:
            return _sum_as_mean(*args, **given)
        if func in _AXES and not watched:
            asked = build_convolution(_AXES[func], *args, **given)
            if asked is not None:
                later = asked.defer(self.rewired)
                self.waiting = weakref.ref(later)
                return later
        return func(*args, **given)

    def _normalise_batch(
        self,
        waiting: Tensor | None,
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
            evaluate_deferred(waiting)
            return F.batch_norm(
                evaluate_deferred(input), running_mean, running_var, weight, bias, training, momentum, eps
            )
        scale = torch.rsqrt(running_var + eps)
        scale = scale if weight is None else scale * weight
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        if isinstance(input, DeferredTensor) and input is waiting:
            asked: Convolution = input.convolution
            # where weights outnumber what they give, scaling them costs more than scaling the map
            if asked.weight.numel() < 2 * prod(asked.shape):
                return asked.apply_scale(scale, shift).values(self.rewired)
        evaluate_deferred(waiting)
        maps, shape = evaluate_deferred(input), [1, -1, *[1] * (input.ndim - 2)]
        return torch.addcmul(shift.view(shape), maps, scale.view(shape))


def _sum_as_mean(
    input: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, **others: Any
) -> Tensor:
    """A mean over axes as a sum: its gradient is one number a channel, and is not written out cell by cell."""
    axes = (dim,) if isinstance(dim, int) else tuple(dim or ())
    if others or not axes or not input.is_floating_point():
        return torch.mean(input, dim, keepdim, **others) if axes or keepdim else torch.mean(input, **others)
    return input.sum(axes, keepdim) / prod(input.shape[axis] for axis in axes)
