"""How a guided gradient passes a SiLU, with its own derivative in closed form.

EfficientNet has one after two of every three convolutions. Left to autograd, the second derivative that a training
through the map needs is a graph of single steps, each of which reads and writes a whole map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def guided_silu_step(gradient: Tensor, x: Tensor) -> Tensor:
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
