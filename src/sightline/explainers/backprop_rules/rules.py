"""How gradients pass activations on their way back to the image: vanilla, guided and deconvolution rules.

Nothing is hooked and nothing is replaced: while a rule is on, every call of an activation function on this thread,
from a module or not, is answered by one whose backward follows the rule. Backward is made of differentiable steps, so
that a map made this way can itself be differentiated.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sightline.errors import RecipeError
from sightline.explainers.backprop_rules.activation_calls import PRODUCTS, SIGMOIDS, Call, call_of

Rule = Literal["vanilla", "guided", "deconvolution"]

# piecewise linear: deconvolution has no slope to keep
_STRAIGHT = ("relu", "relu6", "hardtanh")


@dataclass
class RuleRecord:
    """What a rule met.

    Attributes:
        activations: calls on the way to the score that the rule answered, by kind (under `vanilla`: that it left).
        gates: calls inside squeeze gates, left as they are.
        escaped: activations in the graph that the rule did not reach, by kind; filled by `unreached.unreached`.
        ruling: whether gradients that pass now follow the rule. A map made with its graph depends on the weights in
            two ways: by the rule's path from score to image, and by the values met on it (slopes of smooth activations,
            gates), which depend on the weights as they truly do. Whoever made such a map sets this to False before
            differentiating it.
    """

    activations: Counter[str] = field(default_factory=Counter)
    gates: Counter[str] = field(default_factory=Counter)
    escaped: Counter[str] = field(default_factory=Counter)
    ruling: bool = True

    @property
    def total(self) -> int:
        """Calls answered by the rule."""
        return sum(self.activations.values())


@contextmanager
def rewire(
    rule: Rule, *, gates: Literal["plain", "rewired"] = "plain", deconvolution_slope: bool = False
) -> Iterator[RuleRecord]:
    """Activations within this block follow a rule on their way back.

    With x the input of an activation f and g the gradient that arrives (Springenberg 2015; Zeiler and Fergus 2014):

    - vanilla: g f'(x);
    - guided: max(g, 0) f'(x) where x > 0, else 0 (for ReLU: max(g, 0) where x > 0);
    - deconvolution: max(g, 0), whatever x is; with `deconvolution_slope`, max(g, 0) f'(x) for smooth activations.

    For f other than ReLU nobody agrees on rules; these are the spec's defaults. Sigmoids and normalisations pass
    gradients as they are. `x * sigmoid(x)` is met as the SiLU it is; what is fused, scripted or has a backward of its
    own is not met (`unreached.unreached` finds it).

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
    rewired = RuleRecord()
    with _RuleMode(rule, gates == "rewired", deconvolution_slope, rewired):
        yield rewired


class _RuleMode(TorchFunctionMode):
    """Answers calls of activation functions while it is on."""

    def __init__(self, rule: Rule, gates: bool, slope: bool, rewired: RuleRecord) -> None:
        super().__init__()
        self.rule: Rule = rule
        self.gates = gates
        self.slope = slope
        self.rewired = rewired
        # the last sigmoid and what it is of: enough to know x * sigmoid(x) when it comes
        self.sigmoid: tuple[weakref.ref[Tensor], weakref.ref[Tensor], int] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        call = self._recognise_silu(func, args) if func in PRODUCTS else call_of(func, args, given)
        if call is None or not (torch.is_grad_enabled() and call.inputs.requires_grad):
            values = func(*args, **given)
            if func in SIGMOIDS and args:
                self.sigmoid = weakref.ref(values), weakref.ref(args[0]), args[0]._version
            return values
        inputs = call.inputs
        if inputs.ndim > 2 and all(n == 1 for n in inputs.shape[2:]) and not self.gates:
            self.rewired.gates[call.name] += 1
            return func(*args, **given)
        self.rewired.activations[call.name] += 1
        if self.rule == "vanilla":
            return func(*args, **given)
        if not call.in_place:
            return _ActivationByRule.apply(inputs, call, self)
        if call.name == "relu" and not inputs._is_view():
            return _InPlaceReluByRule.apply(inputs, call, self)
        # what came in is overwritten for those who look at it later, but the rule needs what it was
        return _InPlaceActivationByRule.apply(inputs.clone(), inputs, call, self)

    def _recognise_silu(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Call | None:
        """A call of SiLU, if this is x * sigmoid(x), in either order."""
        if self.sigmoid is None or len(args) < 2:
            return None
        gate, source, version = self.sigmoid[0](), self.sigmoid[1](), self.sigmoid[2]
        ours = (args[0] is source and args[1] is gate) or (args[1] is source and args[0] is gate)
        if gate is None or source is None or not ours or source._version != version:
            return None
        in_place = PRODUCTS[func] and args[0] is source
        return None if PRODUCTS[func] and not in_place else Call("silu", source, {}, in_place)


class _ActivationByRule(torch.autograd.Function):
    """The activation's values forward; the rule backward, in steps that can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, call: Call, mode: _RuleMode) -> Tensor:
        values = call.values(inputs)
        # where the output is positive, so was the input of a ReLU, and the output is kept anyway
        ctx.save_for_backward(values if call.name == "relu" else inputs)
        _remember(ctx, call, mode)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _apply_rule(ctx, gradients[0]), None, None


class _InPlaceReluByRule(torch.autograd.Function):
    """The same for a ReLU that overwrites its input."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, call: Call, mode: _RuleMode) -> Tensor:
        values = inputs.relu_()
        ctx.mark_dirty(values)
        ctx.save_for_backward(values)
        _remember(ctx, call, mode)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _apply_rule(ctx, gradients[0]), None, None


class _InPlaceActivationByRule(torch.autograd.Function):
    """The same for any activation that overwrites its input, of which a copy is given too."""

    @staticmethod
    def forward(ctx: Any, copy: Tensor, inputs: Tensor, call: Call, mode: _RuleMode) -> Tensor:
        ctx.mark_dirty(inputs)
        ctx.save_for_backward(copy)
        _remember(ctx, call, mode)
        return inputs.copy_(call.values(copy))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _apply_rule(ctx, gradients[0]), None, None, None


def _remember(ctx: Any, call: Call, mode: _RuleMode) -> None:
    # not the call itself, which holds the input; and nothing by a name that a node of the graph has already
    ctx.call, ctx.rule = call.without_inputs(), mode.rule
    ctx.rewired, ctx.slope = mode.rewired, mode.slope


def _apply_rule(ctx: Any, gradient: Tensor) -> Tensor:
    (saved,) = ctx.saved_tensors
    name, ruling, graph = ctx.call.name, ctx.rewired.ruling, torch.is_grad_enabled()
    guided = ruling and ctx.rule == "guided"
    if guided and name == "silu":
        return compute_guided_silu_step(gradient, saved)
    if guided and name == "relu":
        passed: Tensor = torch.ops.aten.threshold_backward(gradient, saved, 0)
        return passed.clamp(min=0.0) if graph else passed.clamp_(min=0.0)
    if ruling:
        gradient = gradient.clamp(min=0.0)
        if ctx.rule == "deconvolution" and (name in _STRAIGHT or not ctx.slope):
            return gradient
    if name == "relu":
        return torch.ops.aten.threshold_backward(gradient, saved, 0)
    if name == "silu" and not graph:
        return torch.ops.aten.silu_backward(gradient, saved)
    if guided:
        gradient = gradient * (saved > 0)
    # autograd's own step, itself differentiable in gradient and input when this backward is
    with torch.enable_grad():
        x = saved if graph and saved.requires_grad else saved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(ctx.call.values(x), x, gradient, create_graph=graph)
    return slope


def compute_guided_silu_step(gradient: Tensor, x: Tensor) -> Tensor:
    """max(g, 0) f'(x) where x > 0, else 0, for f(x) = x sigmoid(x); differentiable in both, twice."""
    passed: Tensor = _GuidedStep.apply(gradient, x)
    return passed


class _GuidedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor) -> Tensor:
        # what arrives and is kept: positive where x is
        kept = torch.ops.aten.threshold_backward(gradient, x, 0).clamp_(min=0.0)
        ctx.save_for_backward(kept, x)
        return torch.ops.aten.silu_backward(kept, x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        kept, x = ctx.saved_tensors
        (h,) = gradients
        of_gradient = of_x = None
        if ctx.needs_input_grad[0]:
            of_gradient = torch.ops.aten.silu_backward(torch.ops.aten.threshold_backward(h, kept, 0), x)
        if ctx.needs_input_grad[1]:
            # f'' = s (1 - s) (2 + x (1 - 2 s)) with s = sigmoid(x)
            s = torch.sigmoid(x)
            bend = torch.ops.aten.sigmoid_backward(h * kept, s)
            of_x = torch.addcmul(s.new_tensor(2.0), x, s.mul_(-2.0).add_(1.0)).mul_(bend)
        return of_gradient, of_x
