"""Which activation functions a network calls on the way to its logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline.structures.protocols import find_scorer

# as torch calls them, without the underscore of in-place variants; clamp is how some write ReLU by hand
_KINDS = frozenset(
    {"relu", "relu6", "hardtanh", "silu", "gelu", "hardswish", "mish", "elu", "leaky_relu", "softplus"}
    | {"prelu", "rrelu", "selu", "celu", "glu", "threshold", "tanh", "sigmoid", "hardsigmoid", "logsigmoid"}
    | {"softsign", "tanhshrink", "hardshrink", "softshrink", "clamp", "clamp_min"}
)
# modules without weights that are no activation functions, whatever they compute
_NO_ACTIVATION = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Softmax,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
)


@dataclass
class NetworkActivations:
    """Calls of activation functions in one forward pass, by kind.

    Attributes:
        on_maps: on feature maps (or vectors).
        in_gates: on maps of a single cell, as within squeeze-and-excitation.
        max_pools: calls of max-pooling.
        own: modules that change their input cell by cell by code of their own, by class name: no rule sees inside.
    """

    on_maps: Counter[str] = field(default_factory=Counter)
    in_gates: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)
    max_pools: int = 0


def count_activations(model: nn.Module, images: Tensor) -> NetworkActivations:
    """Counts them in one forward pass of images [b, c, *s], without a graph. Hooks are taken off again."""
    found = NetworkActivations()
    # one entry a module that is running: what activation functions gave in it
    running: list[list[Any]] = []

    def enter(_module: nn.Module, _inputs: Any) -> None:
        running.append([])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        # x * sigmoid(x) calls a sigmoid too, but gives something else
        known = any(output is given for given in running.pop())
        if not known and _is_activation(module, inputs, output):
            found.own[type(module).__name__] += 1

    handles = []
    for module in model.modules():
        if next(module.children(), None) is None and next(module.parameters(), None) is None:
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad(), _CountingMode(found, running):
            find_scorer(model)(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_activation(module: nn.Module, inputs: Any, output: Any) -> bool:
    given = inputs[0] if isinstance(inputs, tuple) and inputs else None
    return (
        not isinstance(module, _NO_ACTIVATION)
        and isinstance(given, Tensor)
        and isinstance(output, Tensor)
        and given.ndim > 2
        and given.shape == output.shape
        and not _is_affine(given, output)
    )


def _is_affine(given: Tensor, output: Tensor) -> bool:
    """Whether output = a input + b with one a and b: a scaling, as of drop path, not an activation."""
    x, y = given.detach().double().flatten(), output.detach().double().flatten()
    if torch.equal(x, y) or float(x.std(correction=0)) == 0.0:
        return True
    centred = x - x.mean()
    slope = (centred * (y - y.mean())).sum() / (centred**2).sum()
    rest = (y - y.mean()) - slope * centred
    return float(rest.norm()) <= 1e-5 * float(y.norm())


class _CountingMode(TorchFunctionMode):
    """Counts calls of activation functions while it is on."""

    def __init__(self, found: NetworkActivations, running: list[list[Any]]) -> None:
        super().__init__()
        self.found = found
        self.running = running

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        values = func(*args, **(kwargs or {}))
        if name in _KINDS and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            inputs = args[0]
            gate = inputs.ndim > 2 and all(n == 1 for n in inputs.shape[2:])
            (self.found.in_gates if gate else self.found.on_maps)[name] += 1
            if self.running:
                self.running[-1].append(values)
        elif "max_pool" in name:
            self.found.max_pools += 1
        return values
