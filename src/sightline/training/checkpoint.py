"""The state a training resumes from: one safetensors file, replaced atomically, numbers in its metadata."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sightline.errors import RunError
from sightline.training.run import save_weights


def write_history(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """One row an epoch; the columns are the union of all rows' in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


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
    """Put a state back; returns the plain numbers and the further sets of weights, on the network's device.

    Raises:
        RunError: the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        numbers, scalars = json.loads(about["numbers"]), json.loads(about["scalars"])
    except (OSError, SafetensorError, KeyError, ValueError, OverflowError, RecursionError) as error:
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
    own = network.state_dict()
    # files are read into the processor's memory
    return numbers, {
        label: {name: value.to(own[name].device) if name in own else value for name, value in weights.items()}
        for label, weights in groups.items()
    }


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


def clone_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that further training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def update_ema(ema_weights: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Update an exponential moving average (EMA) of weights in place; the first steps decay faster, so that the random
    start is soon forgotten.

    What `torch.optim.swa_utils.AveragedModel` computes, without its second network in memory, with a share that grows
    with the step, and under the names that state files of earlier trainings have.
    """
    share = min(decay, (1.0 + step) / (10.0 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            # a step along the difference: what does not change (frozen weights) stays as it is, bit for bit
            ema_weights[name].lerp_(value.detach(), 1.0 - share)
        else:
            ema_weights[name].copy_(value)


@contextmanager
def swap_weights(network: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The network with other weights for a while; as it is where there are none."""
    if weights is None:
        yield
        return
    own = clone_weights(network.state_dict())
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(own)


class Events:
    """TensorBoard events; a resumed run purges what the killed one wrote past its state."""

    def __init__(self, folder: Path, step: int) -> None:
        """Events of a folder from a step on."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: Mapping[str, Any], step: int) -> None:
        """Every number of an epoch's row."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()


class MlflowLog:
    """An MLflow run that is told what the history says; a resumed training goes on in the same one.

    A server that is lost on the way costs its log and not the training: that is said once.

    Args:
        address: a tracking server, or `sqlite:///FILE`.
        identity: of the run folder, by which the MLflow run is found again.
        title: of the training.
        settings: words and numbers by dotted name.

    Raises:
        RunError: no mlflow, or it cannot be reached.
    """

    def __init__(self, address: str, identity: str, title: str, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise RunError(
                "--mlflow needs the package mlflow-skinny, which is not installed.",
                "Install sightline-radiology[mlflow], or leave --mlflow out.",
            ) from None
        try:
            self._client = MlflowClient(address)
            experiment = self._client.get_experiment_by_name("sightline")
            place = experiment.experiment_id if experiment else self._client.create_experiment("sightline")
            known = self._client.search_runs([place], f"tags.sightline_identity = '{identity}'", max_results=1)
            if known:
                self._run = known[0].info.run_id
            else:
                made = self._client.create_run(place, tags={"sightline_identity": identity}, run_name=title)
                self._run = made.info.run_id
                for name, value in settings.items():
                    # MLflow takes no longer values
                    self._client.log_param(self._run, name, str(value)[:500])
        except (MlflowException, OSError, ImportError) as error:
            raise RunError(
                f"MLflow at {address} cannot be used ({' '.join(str(error).split())[:300]}).",
                "Check the address of the tracking server, or leave --mlflow out.",
            ) from None
        self._lost, self._is_lost, self._words = (MlflowException, OSError), False, f"{title}: MLflow at {address}"

    def write(self, row: Mapping[str, Any], step: int) -> None:
        """Every number of an epoch's row."""
        with self._go_on_without():
            for name, value in row.items():
                if isinstance(value, (int, float)) and name not in ("epoch", "step") and not self._is_lost:
                    word = "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
                    self._client.log_metric(self._run, word, float(value), step=step)

    def close(self) -> None:
        """The training is done."""
        with self._go_on_without():
            if not self._is_lost:
                self._client.set_terminated(self._run)

    @contextmanager
    def _go_on_without(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            self._is_lost = True
            words = " ".join(str(error).split())[:300]
            print(f"{self._words} was lost ({words}); history.csv holds every number.", file=sys.stderr, flush=True)


def flatten_flat_settings(plain: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested settings by dotted name.

    Example:
        >>> flatten_flat_settings({"view": {"size": 64}, "seed": 0})
        {'view.size': 64, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat |= (
            flatten_flat_settings(value, f"{start}{name}.") if isinstance(value, Mapping) else {f"{start}{name}": value}
        )
    return flat
