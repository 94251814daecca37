"""What calling an explainer leaves behind on a network and on the world's random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class StateSnapshot:
    """How a network was, to say later what is different."""

    def __init__(self, model: nn.Module) -> None:
        """Remember modes, hooks, stored gradients and values."""
        self.model = model
        self.modes = _list_modes(model)
        self.hooks = _list_hooks(model)
        self.asked = {name: weight.requires_grad for name, weight in model.named_parameters()}
        self.gradients = _sum_gradients(model)
        self.values = {name: value.detach().clone() for name, value in _copy_values(model).items()}

    def differences(self) -> tuple[str, ...]:
        """In words, what is no longer as it was; empty if nothing."""
        now = _copy_values(self.model)
        found = {
            "training or evaluation mode": _list_modes(self.model) != self.modes,
            "hooks": _list_hooks(self.model) != self.hooks,
            "which weights are trained": {n: w.requires_grad for n, w in self.model.named_parameters()} != self.asked,
            "gradients stored on weights": _sum_gradients(self.model) != self.gradients,
            "weights or running statistics": now.keys() != self.values.keys()
            or any(not _is_same(now[name], value) for name, value in self.values.items()),
        }
        return tuple(name for name, differs in found.items() if differs)


def _list_modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def _list_hooks(model: nn.Module) -> dict[tuple[str, str], tuple[int, ...]]:
    return {
        (name, kind): tuple(getattr(module, kind, ()))
        for name, module in model.named_modules()
        for kind in _HOOKS
        if getattr(module, kind, ())
    }


def _sum_gradients(model: nn.Module) -> dict[str, float]:
    """Names of weights that hold a gradient, with its sum of squares."""
    return {n: float(w.grad.double().square().sum()) for n, w in model.named_parameters() if w.grad is not None}


def _copy_values(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _is_same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.equal(first.nan_to_num(), second.nan_to_num()))
