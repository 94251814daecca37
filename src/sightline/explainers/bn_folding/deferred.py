"""A convolution that is asked for now and made when somebody looks at it, so that a batch norm can be taken into it.

On running statistics a batch norm is a scale and a shift a channel: alone it reads and writes the whole map, and so do
its gradient and the gradient of that; within the weights of the convolution before it costs nothing. But what follows a
convolution is known only when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

# what can be said of a map that is not there yet
_KNOWN: frozenset[Callable[..., Any]] = frozenset(
    [
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda")
    ]
    + [Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__]
)


class DeferredTensor(Tensor):
    """A map whose values are made at the first look.

    It answers for its shape, number format and place; any other function of torch is given the values in its stead.
    What reads memory without asking torch (scripted code) finds NaN. A function with a backward of its own may take it
    for the values: the gradient that arrives goes where that of the values would.

    Attributes:
        make: gives the values.
        made: the values, once there.
    """

    make: Callable[[], Tensor]
    made: Tensor | None
    convolution: Any

    @classmethod
    def from_promise(cls, promise: Tensor, make: Callable[[], Tensor]) -> DeferredTensor:
        """A map with the shape and the gradient of `promise`, whose values `make` gives."""
        later = promise.as_subclass(cls)
        recorded = torch.is_grad_enabled()

        def make_once() -> Tensor:
            with torch.set_grad_enabled(recorded):
                return make()

        later.make, later.made = make_once, None
        return later

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer with what is known, or with the values in place of the promise."""
        given = dict(kwargs or {})
        if is_known_beforehand(func):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **given)
        return func(*evaluate_deferred(args), **evaluate_deferred(given))


def is_known_beforehand(func: Callable[..., Any]) -> bool:
    """Whether a function of torch asks for what is known beforehand."""
    return func in _KNOWN


def evaluate_deferred(value: Any) -> Any:
    """A tensor as it is, a `DeferredTensor` as its values; in tuples, lists and dicts too."""
    if isinstance(value, DeferredTensor):
        if value.made is None:
            # at the first look within a checkpoint, nothing of it belongs to the checkpoint
            with saved_tensors_hooks(_return_same, _return_same):
                value.made = value.make()
        return value.made
    if type(value) in (tuple, list):
        return type(value)(evaluate_deferred(v) for v in value)
    return {k: evaluate_deferred(v) for k, v in value.items()} if type(value) is dict else value


def _return_same(tensor: Tensor) -> Tensor:
    return tensor
