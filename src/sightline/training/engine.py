"""Where and how a training or an evaluation runs: Lightning Fabric's device, precision and strategy."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.distributed.nn import functional as collectives

from sightline.errors import RunError, require_numbers
from sightline.io.progress import require_processes
from sightline.structures.evidence import Batch, has_bfloat16

STATE_EVERY_S = 60.0


@dataclass(frozen=True)
class Engine:
    """Where and how a training runs; nothing here changes what is trained.

    Attributes:
        device: `auto`, `cpu`, `cuda` (Fabric's accelerator).
        devices: number of devices.
        strategy: Fabric's strategy word.
        workers: number of loader processes.
        quiet: print no progress.
        state_every_s: seconds between saved training states within an epoch.
        features: folder in which the features of frozen stages are cached, shared by all trainings; None: no cache.
        mlflow: address of a tracking server that logs every epoch; None: no logging, and MLflow is not imported.
        deterministic: use torch's deterministic algorithms if there are any, and name the operations without one.
    """

    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    workers: int = 0
    quiet: bool = False
    state_every_s: float = STATE_EVERY_S
    features: Path | None = None
    mlflow: str | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers of devices and processes that mean nothing, or that this machine cannot bear."""
        require_processes("devices", self.devices, 1)
        require_processes("workers", self.workers)
        require_numbers("state_every_s", self.state_every_s)

    def fabric(self, precision: str) -> Fabric:
        """Fabric for this engine; float32 in place of mixed bfloat16 on a processor that would have to emulate it.

        Raises:
            RunError: this machine has no such device, or Fabric knows no such precision.
        """
        # asked first, so that Fabric does not announce a bfloat16 that is not used
        if precision == "bf16-mixed" and not has_bfloat16((exact := self.fabric("32-true")).device):
            return exact
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return Fabric(
                    accelerator=self.device,
                    devices=self.devices,
                    strategy=self.strategy,
                    precision=cast(Any, precision),
                )
            except (RuntimeError, ValueError, TypeError, ImportError, MisconfigurationException) as error:
                raise RunError(
                    f"This machine cannot train on {self.devices} x {self.device!r} in {precision!r}: {error}",
                    "Choose another --device, --devices or --precision; `auto` takes what there is.",
                ) from None

    def find_device(self) -> torch.device:
        """The device that networks run on, as Fabric chooses it.

        Raises:
            RunError: this machine has no such device.
        """
        return _find_device(self.device, self.devices, self.strategy)


def require_one_device(engine: Engine, what: str) -> None:
    """Refuse several devices where one command trains many times: each device is a process that starts it again.

    Args:
        engine: that was asked for.
        what: the command, as `A table`.

    Raises:
        RunError: it asks for more than one.
    """
    if engine.devices > 1:
        raise RunError(
            f"{what} trains on one device at a time; got --devices {engine.devices}.",
            "Leave it out: --parallel or --engine ray of `sightline table` train several rows at a time, and "
            f"`sightline train RECIPE --devices {engine.devices}` trains one recipe on several devices.",
        )


def is_first_process() -> bool:
    """Whether this process speaks for a training on several devices; of one device, it does."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


@cache
def _find_device(device: str, devices: int, strategy: str) -> torch.device:
    # asked once: each new Fabric looks through every installed package
    return Engine(device, devices, strategy).fabric("32-true").device


# of glibc's mallopt
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step, in place of giving it back to the system; whether it does.

    A training step on a CPU frees and asks again for the same large tensors. glibc takes each from the system and hands
    it back, and the system clears every page anew: up to 40% of a step's time. Numbers stay the same, bit for bit. The
    process keeps its largest size until it ends, so nothing that serves does this. Settings of one's own (`MALLOC_...`
    or `GLIBC_TUNABLES`) are left as they are.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        # another C library
        return False
    return all(mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 1 << 26)))


@contextmanager
def deterministic_operations() -> Iterator[set[str]]:
    """Within, torch takes deterministic algorithms where it has them; the set fills with operations that have none.

    It is complete at the end of the block, and warnings of another kind are shown then.
    """
    named: set[str] = set()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # what cuBLAS asks for; it reads this when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings(record=True) as caught:
        # each of them once, not one a step
        warnings.simplefilter("default")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield named
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            named |= {found[1] for one in caught if (found := _NOT_DETERMINISTIC.match(str(one.message)))}
    for one in caught:
        if _NOT_DETERMINISTIC.match(str(one.message)) is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


_NOT_DETERMINISTIC = re.compile(r"(\S+).* does not have a deterministic implementation")


class _InFloat32:
    """Mixed into a convolution's class: computes in float32, also under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        """The convolution of images."""
        with torch.autocast(images.device.type, enabled=False):
            output: Tensor = super().forward(images.float())  # type: ignore[misc]  # the convolution it is mixed into
        return output


def compute_strided_in_float32(network: nn.Module) -> int:
    """Make every strided grouped convolution of a network compute in float32; how many there are.

    For CPUs in bfloat16: oneDNN has no fast kernel there for such a layer's gradient of the image (torch 2.15, AVX512
    with bfloat16: 50 ms in place of 2 for 16 images of 192 x 32 x 32). MobileNetV2 has four of them, and they ate half
    of a step. Names and weights stay as they are.
    """
    changed = 0
    for module in network.modules():
        grouped = isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.stride) > 1
        if grouped and not isinstance(module, _InFloat32):
            kind: type[Any] = type(module)
            # a class of its own in place of a wrapped method: copies of the network keep it
            module.__class__ = type(f"Float32{kind.__name__}", (_InFloat32, kind), {})
            changed += 1
    return changed


def _sum_over_devices(tensor: Tensor) -> Tensor:
    """The sum over devices, with its gradient."""
    return cast(Tensor, collectives.all_reduce(tensor))  # type: ignore[no-untyped-call]


class _SyncedBatchNorm:
    """Mixed into a batch norm's class: in training, mean and variance are those of the images on all devices.

    `torch.nn.SyncBatchNorm` does the same on GPUs alone; the variance is taken about the common mean, in two passes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images [b, c, *s], normalised by channel."""
        norm = cast(nn.BatchNorm2d, self)
        if not norm.training:
            return cast(Tensor, super().forward(x))  # type: ignore[misc]  # the batch norm it is mixed into
        wide = x if x.dtype == torch.float64 else x.float()
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *([1] * (x.ndim - 2)))
        count = wide.new_tensor(float(x.numel() // max(1, x.shape[1])))
        dist.all_reduce(count)
        mean = _sum_over_devices(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = _sum_over_devices(centred.square().sum(axes)) / count
        output = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.weight is not None:
            output = output * norm.weight.view(shape) + norm.bias.view(shape)
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            with torch.no_grad():
                norm.num_batches_tracked.add_(1)
                share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
                norm.running_mean.lerp_(mean, share)
                norm.running_var.lerp_(variance * count / (count - 1.0).clamp(min=1.0), share)
        # timm's batch norms end in a dropout and an activation of their own
        for after in (norm._modules.get("drop"), norm._modules.get("act")):
            output = output if after is None else after(output)
        return output.to(x.dtype)


def sync_batch_norms(network: nn.Module) -> int:
    """Let every batch norm of a network see the images of all devices; how many there are. Names and weights stay."""
    changed = 0
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _SyncedBatchNorm):
            kind: type[Any] = type(module)
            module.__class__ = type(f"Synced{kind.__name__}", (_SyncedBatchNorm, kind), {})
            changed += 1
    return changed


class _Tie(torch.autograd.Function):
    """A loss tied to parameters, whether it depends on them or not; of the tie itself they get no gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        """The loss."""
        ctx.parameters = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The loss's gradient, and none."""
        return gradients[0], *[None] * ctx.parameters


def compute_gradients(fabric: Fabric, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Gradients of a loss on several devices; of parameters that it does not depend on there are none, as on one.

    Devices wait for each other at every parameter (a decoder that only marked images train, say, or a weight of a term
    that a batch lacks), and what they did not find they would take for zeros, by which an optimiser decays weights.

    Args:
        fabric: of the training.
        loss: of the whole batch, on every device.
        parameters: those that are trained.
    """
    reached: set[int] = set()

    def remember(parameter: Tensor) -> None:
        # called at every parameter; devices put their zeros there later
        if parameter.grad is not None:
            reached.add(id(parameter))

    hooks = [
        parameter.register_post_accumulate_grad_hook(remember)  # type: ignore[no-untyped-call]
        for parameter in parameters
    ]
    try:
        fabric.backward(cast(Tensor, _Tie.apply(loss, *parameters)))
    finally:
        for hook in hooks:
            hook.remove()
    found = torch.tensor([float(id(p) in reached) for p in parameters], device=fabric.device)
    dist.all_reduce(found)
    for parameter, devices in zip(parameters, found.tolist(), strict=True):
        if not devices:
            parameter.grad = None


def gather_batch(fabric: Fabric, out: Mapping[str, Tensor], batch: Batch) -> tuple[dict[str, Tensor], Batch]:
    """What the network says of a whole batch, on every device, with gradients, in the order of one device's batch.

    Every loss is then computed on the whole batch, whatever it divides by: a sum over marked images, a share of the
    worst, weights it learns. Devices hold every `world`-th image each, some one fewer than others.

    Args:
        fabric: of the training.
        out: tensors by name; those with a row an image are gathered, others stay.
        batch: this device's share.

    Returns:
        The same names, and a batch without frames and case ids, which no loss looks at.
    """
    world, own = fabric.world_size, len(batch)
    counts = [int(n) for n in fabric.all_gather(torch.tensor(own, device=fabric.device)).reshape(-1)]
    most = max(counts)

    def gather(rows: Tensor) -> Tensor:
        if own < most:
            rows = torch.cat([rows, rows[-1:].detach()])
        shares = fabric.all_gather(rows.contiguous(), sync_grads=rows.is_floating_point())
        # position j of device r is image r + j * world
        whole: Tensor = shares.reshape(world, most, *rows.shape[1:]).transpose(0, 1).flatten(0, 1)
        return whole[: sum(counts)]

    whole = {name: gather(tensor) if len(tensor) == own else tensor for name, tensor in out.items()}
    maybe: Callable[[Tensor | None], Tensor | None] = lambda t: None if t is None else gather(t)  # noqa: E731
    return whole, replace(
        batch,
        images=gather(batch.images),
        labels=gather(batch.labels),
        targets=maybe(batch.targets),
        guided=gather(batch.guided.to(torch.uint8)).bool(),
        boxes=maybe(batch.boxes),
        studies=maybe(batch.studies),
        frames=(),
        case_ids=(),
    )
