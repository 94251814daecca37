"""The state a training resumes from: one safetensors file, replaced atomically, numbers in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sightline.errors import RunError
from sightline.lab.run import save_weights


def save_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    numbers: Mapping[str, Any],
    copies: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write network, optimiser, generators, further named weights and plain numbers.

    Args:
        path: the state file.
        network: network trained.
        optimizer: its optimiser.
        numbers: JSON data: step, sums, history.
        copies: further sets of weights by name, e.g. the moving average or the best epoch's.
    """
    tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in network.state_dict().items()}
    for label, weights in copies.items():
        tensors |= {f"{label}/{name}": value for name, value in weights.items()}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            elif value is not None:
                scalars.setdefault(str(index), {})[name] = value
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    about = {"numbers": json.dumps(numbers), "scalars": json.dumps(scalars)}
    save_weights(tensors, path, about)


def load_state(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Put a state back; returns the plain numbers and the further sets of weights.

    Raises:
        RunError: the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        numbers, scalars = json.loads(about["numbers"]), json.loads(about["scalars"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}).", "Delete the state folder to train from the start.") from None
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        label, _, rest = name.partition("/")
        groups.setdefault(label, {})[rest] = value
    try:
        network.load_state_dict(groups.pop("network"))
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{path} is not a state of this network ({error}).", "Delete the state folder.") from None
    generators = groups.pop("generator")
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    _load_optimizer(optimizer, groups.pop("optimizer", {}), scalars)
    return numbers, groups


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Mapping[str, Any]]
) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in scalars.items()}
    for name, value in tensors.items():
        index, _, field = name.partition("/")
        like = parameters[int(index)]
        if value.shape == like.shape:
            # same layout in memory as before, so that sums run in the same order
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[field] = value
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
