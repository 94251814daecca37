"""A pass through a network that explains and leaves no trace: modes, weights and statistics are as before."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.errors import RunError


@contextmanager
def fork_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch, numpy and Python draw from generators seeded alike; afterwards from where they were before."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.default_generator.manual_seed(seed)
            if devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


# what wrappers call the model they wrap: torch.compile, Lightning Fabric
_WRAPPED = ("_orig_mod", "_original_module")


@contextmanager
def frozen_eval(
    model: nn.Module, device: torch.device, *, batch_norm: bool = True, dropout: bool = True, weights: bool = False
) -> Iterator[nn.Module]:
    """Within this block the model can be run to explain a prediction; whatever happens, it is left as it was.

    Gradients are recorded, nothing runs in reduced precision, and what was compiled runs as it was written.

    Args:
        model: wrapped (compiled, distributed, Fabric's) or not.
        device: of the images.
        batch_norm: normalisation uses its running statistics: images do not mix, and the statistics do not move.
        dropout: everything else is in evaluation mode too: nothing is dropped, by module or by function.
        weights: whether the weights take part in the graph; otherwise only gradients of what leads to them cost.

    Yields:
        The model itself, unwrapped.

    Raises:
        RunError: a scripted model.
    """
    network = unwrap_model(model)
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            # a part may be compiled on its own; its double backward would be missing, and no rule reaches into it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_eval_mode(network, batch_norm, dropout))
        if not weights:
            stack.enter_context(_frozen_weights(network))
        else:
            # the fused kernels of attention have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(exact_arithmetic(device, True))
        yield network


@contextmanager
def exact_arithmetic(device: torch.device, graph: bool) -> Iterator[None]:
    """Arithmetic in the format the numbers are in, recorded or not, whatever the surroundings say."""
    with torch.inference_mode(False), torch.set_grad_enabled(graph), torch.autocast(device.type, enabled=False):
        yield


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside what `torch.compile`, a distributed strategy or Fabric made of it; it shares the weights.

    Raises:
        RunError: a scripted or exported model, whose activations cannot be reached.
    """
    original = model
    while True:
        inner = original.module if isinstance(original, nn.parallel.DistributedDataParallel) else None
        for name in _WRAPPED:
            inner = inner if inner is not None else getattr(original, name, None)
        if not isinstance(inner, nn.Module):
            break
        original = inner
    if isinstance(original, torch.jit.ScriptModule):
        raise RunError(
            "A scripted model cannot be explained through its activations: they are compiled in.",
            "Give the model as it was before torch.jit.",
        )
    return original


def cast_to_precision(images: Tensor, network: nn.Module, *, full: bool = False) -> Tensor:
    """A copy of the images in the number format of the weights, cut off from where they came from.

    Args:
        images: float [b, c, *s].
        network: whose first weights decide.
        full: refuse formats of 16 bits.

    Raises:
        RunError: weights in 16 bits where `full` is asked for.
    """
    kinds = (p.dtype for p in network.parameters() if p.is_floating_point())
    dtype = next(kinds, images.dtype if images.dtype == torch.float64 else torch.float32)
    if full and dtype.itemsize < 4:
        raise RunError(
            f"The weights are {dtype}: gradients of the image under- and overflow there.",
            "Explain the model in single precision, model.float().",
        )
    with torch.inference_mode(False):
        return images.detach().to(dtype, copy=True)


@contextmanager
def _eval_mode(network: nn.Module, batch_norm: bool, others: bool) -> Iterator[None]:
    """Modules in evaluation mode, one by one: those that are there already, or frozen, are not touched."""
    norms = nn.modules.batchnorm._NormBase
    changed = [m for m in network.modules() if m.training and (batch_norm if isinstance(m, norms) else others)]
    try:
        for module in changed:
            module.training = False
        yield
    finally:
        for module in changed:
            module.training = True


@contextmanager
def _frozen_weights(network: nn.Module) -> Iterator[None]:
    """Weights take no part in the graph."""
    moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in moving:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
