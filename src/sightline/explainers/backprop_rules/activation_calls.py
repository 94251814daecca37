"""Calls of activation functions, recognised in all the ways torch lets one write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# name -> the function, and what may follow its input
_FORMS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "relu": (F.relu, ("inplace",)),
    "relu6": (F.relu6, ("inplace",)),
    "hardtanh": (F.hardtanh, ("min_val", "max_val", "inplace")),
    "silu": (F.silu, ("inplace",)),
    "gelu": (F.gelu, ("approximate",)),
    "hardswish": (F.hardswish, ("inplace",)),
    "mish": (F.mish, ("inplace",)),
    "elu": (F.elu, ("alpha", "inplace")),
    "celu": (F.celu, ("alpha", "inplace")),
    "selu": (F.selu, ("inplace",)),
    "leaky_relu": (F.leaky_relu, ("negative_slope", "inplace")),
    "softplus": (F.softplus, ("beta", "threshold")),
}
_NAMES: dict[Callable[..., Any], str] = {form: name for name, (form, _) in _FORMS.items()} | {
    torch.relu: "relu", Tensor.relu: "relu", torch.celu: "celu", torch.selu: "selu",
}  # fmt: skip
_IN_PLACE: dict[Callable[..., Any], str] = {
    torch.relu_: "relu", Tensor.relu_: "relu", torch.celu_: "celu", torch.selu_: "selu",
    F.hardtanh_: "hardtanh", F.leaky_relu_: "leaky_relu", F.elu_: "elu",
}  # fmt: skip
# max(x, 0) by another name, where the lower bound is 0 and there is no upper one -> whether in place
_CLAMPS: dict[Callable[..., Any], bool] = {
    torch.clamp: False, Tensor.clamp: False, torch.clip: False, Tensor.clip: False,
    torch.clamp_min: False, Tensor.clamp_min: False,
    torch.clamp_: True, Tensor.clamp_: True, Tensor.clip_: True, torch.clamp_min_: True, Tensor.clamp_min_: True,
}  # fmt: skip

SIGMOIDS: frozenset[Callable[..., Any]] = frozenset((torch.sigmoid, Tensor.sigmoid, F.sigmoid))
# a product -> whether in place
PRODUCTS: dict[Callable[..., Any], bool] = {
    torch.mul: False, torch.multiply: False, Tensor.mul: False, Tensor.multiply: False,
    Tensor.__mul__: False, Tensor.__rmul__: False, Tensor.mul_: True, Tensor.__imul__: True,
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        name: of the activation.
        inputs: what it was called on.
        settings: its other arguments.
        in_place: whether the input is to be overwritten.
    """

    name: str
    inputs: Tensor
    settings: Mapping[str, Any]
    in_place: bool = False

    def values(self, inputs: Tensor) -> Tensor:
        """The activation of a tensor, in a place of its own."""
        return _FORMS[self.name][0](inputs, **self.settings)

    def without_inputs(self) -> Call:
        """The same without holding the tensor."""
        return replace(self, inputs=_NONE)


_NONE = torch.empty(0)


def call_of(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> Call | None:
    """The activation that a call of a torch function is, or None."""
    inputs = args[0] if args else given.get("input")
    if not isinstance(inputs, Tensor):
        return None
    if func in _CLAMPS:
        bounds = dict(zip(("min", "max"), args[1:], strict=False)) | {k: v for k, v in given.items() if k != "input"}
        low, high = bounds.get("min"), bounds.get("max")
        zero = isinstance(low, int | float) and low == 0 and high is None
        return Call("relu", inputs, {}, _CLAMPS[func]) if zero else None
    name = _NAMES.get(func) or _IN_PLACE.get(func)
    if name is None:
        return None
    settings = dict(zip(_FORMS[name][1], args[1:], strict=False)) | {k: v for k, v in given.items() if k != "input"}
    in_place = bool(settings.pop("inplace", False)) or func in _IN_PLACE
    return Call(name, inputs, {k: v for k, v in settings.items() if k in _FORMS[name][1]}, in_place)
