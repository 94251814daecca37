"""How gradients pass activations on their way back to the image: vanilla, guided and deconvolution rules.

Nothing is hooked and nothing is replaced: while a rule is on, every call of an activation function on this thread,
from a module or not, is answered by one whose backward follows the rule. Backward is made of differentiable steps, so
that a map made this way can itself be differentiated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sightline.errors import RecipeError

Rule = Literal["vanilla", "guided", "deconvolution"]

# the function as torch calls it -> name; in-place variants are answered out of place
_NAMES: dict[Callable[..., Any], str] = {
    F.relu: "relu", torch.relu: "relu", torch.relu_: "relu", Tensor.relu: "relu", Tensor.relu_: "relu",
    F.relu6: "relu6", F.hardtanh: "hardtanh", F.silu: "silu", F.gelu: "gelu",
    F.hardswish: "hardswish", F.mish: "mish", F.elu: "elu",
    F.leaky_relu: "leaky_relu", F.softplus: "softplus",
}  # fmt: skip
_FORMS: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "hardtanh": F.hardtanh, "silu": F.silu, "gelu": F.gelu,
    "hardswish": F.hardswish, "mish": F.mish,
    "elu": F.elu, "leaky_relu": F.leaky_relu, "softplus": F.softplus,
}  # fmt: skip


_SETTINGS = ("approximate", "alpha", "negative_slope", "beta", "threshold", "min_val", "max_val")
# piecewise linear: deconvolution has no slope to keep
_STRAIGHT = ("relu", "relu6", "hardtanh")


@dataclass
class Rewired:
    """What a rule met.

    Attributes:
        activations: calls answered by the rule, by kind; what it really changed.
        gates: calls inside squeeze gates, left as they are.
        ruling: whether gradients that pass now follow the rule. A map made with its graph depends on the weights in
            two ways: by the rule's path from score to image, and by the values met on it (slopes of smooth activations,
            gates), which depend on the weights as they truly do. Whoever made such a map sets this to False before
            differentiating it.
    """

    activations: Counter[str] = field(default_factory=Counter)
    gates: Counter[str] = field(default_factory=Counter)
    ruling: bool = True

    @property
    def total(self) -> int:
        """Calls answered by the rule."""
        return sum(self.activations.values())


@contextmanager
def rewire(
    rule: Rule, *, gates: Literal["plain", "rewired"] = "plain", deconvolution_slope: bool = False
) -> Iterator[Rewired]:
    """Activations within this block follow a rule on their way back.

    With x the input of an activation f and g the gradient that arrives (Springenberg 2015; Zeiler and Fergus 2014):

    - vanilla: g f'(x);
    - guided: max(g, 0) f'(x) where x > 0, else 0 (for ReLU: max(g, 0) where x > 0);
    - deconvolution: max(g, 0), whatever x is; with `deconvolution_slope`, max(g, 0) f'(x) for smooth activations.

    For f other than ReLU nobody agrees on rules; these are the spec's defaults. Sigmoids and normalisations pass
    gradients as they are.

    Args:
        rule: which rule.
        gates: activations on maps of a single cell (within squeeze-and-excitation) stay `plain` or are `rewired` too.
        deconvolution_slope: whether deconvolution keeps the slope of activations that are not piecewise linear.

    Yields:
        Rewired: what was met so far.

    Raises:
        RecipeError: no such rule.
    """
    if rule not in ("vanilla", "guided", "deconvolution"):
        raise RecipeError(f"There is no rule {rule!r}.", "Use vanilla, guided or deconvolution.")
    rewired = Rewired()
    with _Answering(rule, gates == "rewired", deconvolution_slope, rewired):
        yield rewired


class _Answering(TorchFunctionMode):
    """Answers calls of activation functions while it is on."""

    def __init__(self, rule: Rule, gates: bool, slope: bool, rewired: Rewired) -> None:
        super().__init__()
        self.rule: Rule = rule
        self.gates = gates
        self.slope = slope
        self.rewired = rewired

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        name = _NAMES.get(func)
        if name is None or not args:
            return func(*args, **given)
        inputs: Tensor = args[0]
        if inputs.ndim > 2 and all(n == 1 for n in inputs.shape[2:]) and not self.gates:
            self.rewired.gates[name] += 1
            return func(*args, **given)
        self.rewired.activations[name] += 1
        if self.rule == "vanilla":
            return func(*args, **given)
        given.pop("inplace", None)
        positional = args[1:3] if name in ("elu", "leaky_relu", "hardtanh") else ()
        kept = {key: value for key, value in given.items() if key in _SETTINGS}
        values: Tensor = _FORMS[name](inputs, *positional, **kept)
        return _Passed.apply(inputs, values, name, self.rule, self.slope, positional, kept, self.rewired)


class _Passed(torch.autograd.Function):
    """The activation's values forward; the rule backward, in steps that can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        values: Tensor,
        name: str,
        rule: Rule,
        slope: bool,
        positional: tuple[Any, ...],
        kept: Mapping[str, Any],
        rewired: Rewired,
    ) -> Tensor:
        ctx.rewired = rewired
        ctx.save_for_backward(inputs)
        ctx.name, ctx.rule, ctx.slope, ctx.positional, ctx.kept = name, rule, slope, positional, kept
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inputs,) = ctx.saved_tensors
        nothing = (None,) * 7
        if not ctx.rewired.ruling:
            return gradients[0] * _slope(ctx.name, inputs, ctx.positional, ctx.kept), *nothing
        arriving = gradients[0].clamp(min=0.0)
        if ctx.rule == "guided":
            passed = arriving * _slope(ctx.name, inputs, ctx.positional, ctx.kept) * (inputs > 0)
        elif ctx.slope and ctx.name not in _STRAIGHT:
            passed = arriving * _slope(ctx.name, inputs, ctx.positional, ctx.kept)
        else:
            passed = arriving
        return passed, *nothing


def _slope(name: str, inputs: Tensor, positional: tuple[Any, ...], kept: Mapping[str, Any]) -> Tensor:
    """f'(x), differentiable where the graph is kept."""
    if name == "relu":
        return (inputs > 0).to(inputs.dtype)
    if name == "relu6":
        return ((inputs > 0) & (inputs < 6)).to(inputs.dtype)
    if name == "silu":
        gate = torch.sigmoid(inputs)
        return gate * (1.0 + inputs * (1.0 - gate))
    # any other: autograd's own derivative, kept differentiable when this backward is
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = inputs if inputs.requires_grad and graph else inputs.detach().requires_grad_()
        y = _FORMS[name](x, *positional, **kept)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=graph)
    return slope
