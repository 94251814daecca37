"""A copy of a network whose weights are shuffled, from the head downwards (Adebayo 2018, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline.structures.protocols import find_scorer

BatchNorm = nn.modules.batchnorm._BatchNorm


def list_layers_in_order(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules that hold weights of their own, in the order of first use on the way to the logits.

    A module whose weights are used without calling it stands where the module around it was called; what is never
    used stands first. One forward pass.
    """
    called: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():

        def note(_module: nn.Module, _inputs: object, name: str = name) -> None:
            called.setdefault(name, len(called))

        handles.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            find_scorer(model)(images)
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        while name not in called and name:
            name = name.rpartition(".")[0]
        return called.get(name, -1)

    holders = [
        name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None
    ]
    return sorted(holders, key=place)


def randomise_weights(model: nn.Module, layers: Sequence[str], images: Tensor, generator: torch.Generator) -> None:
    """Put the weights of some layers in random order, in place, each tensor within itself.

    Shuffling keeps every tensor's own distribution, so that no initialisation has to be known. Batch norm of these
    layers takes its running mean and variance anew from the images: with the old ones, or with shuffled ones, values
    would grow or fade from layer to layer, and maps would differ for that reason alone.

    Args:
        model: changed in place; left in evaluation mode.
        layers: names of modules.
        images: [b, c, *s], at least two, for batch norm. One forward pass if there is any.
        generator: of random numbers, on the CPU; no other is used.
    """
    norms: list[BatchNorm] = []
    with torch.no_grad():
        for name in layers:
            module = model.get_submodule(name)
            for weight in module.parameters(recurse=False):
                flat = weight.detach().flatten()
                order = torch.randperm(flat.numel(), generator=generator).to(flat.device)
                weight.copy_(flat[order].view_as(weight))
            if isinstance(module, BatchNorm) and module.running_mean is not None:
                norms.append(module)
        if not norms:
            return
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            # None: the plain mean over what passes, here one batch
            norm.momentum = None
            norm.training = True
        try:
            model(images)
        finally:
            for norm, momentum in zip(norms, kept, strict=True):
                norm.momentum, norm.training = momentum, False
