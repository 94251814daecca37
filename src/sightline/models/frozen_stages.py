"""What the frozen stages of a trunk say of an image: computed once, kept, and handed in again in place of the image.

Stages that are not trained say the same of the same image in every epoch, of every training, with every loss. Where
images are drawn a fixed number of times (`View.draws`), that is most of the work of a training on a CPU.

Features are packed, one row an image: the output of the last frozen module at every stride, from fine to coarse, as
bfloat16. A trunk takes packed features [b, n] wherever it takes images [b, c, h, w]; the side of the square image
follows from n.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import group_modules, group_parameters
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.structures.notation import Notation, write_fields

# side of the image that strides are measured on, where a network takes any
PROBE = 128


def freeze_stages(net: nn.Module, n: int) -> tuple[str, ...]:
    """Fix the stem and the first n stages of a timm network; names of every module that now holds only fixed weights.

    Raises:
        RecipeError: there are no more stages than that.
    """
    if n == 0:
        return ()
    if not hasattr(net, "group_matcher"):
        raise RecipeError("timm does not tell this backbone's stages apart.", "Set frozen_stages to 0.")
    # timm's own grouping: first the stem, then one group a stage
    stages: dict[int, list[str]] = group_modules(net, net.group_matcher(coarse=True))  # type: ignore[operator]
    if n >= len(stages):
        raise RecipeError(f"frozen_stages {n} leaves nothing to train: there are {len(stages) - 1} stages.")
    for name in [name for stage in sorted(stages)[: n + 1] for name in stages[stage]]:
        net.get_submodule(name).requires_grad_(False)
    # what belongs to the network itself: class token and position embedding of a transformer
    own = dict(net.named_parameters(recurse=False))
    grouped = group_parameters(net, net.group_matcher(coarse=True)) if own else {}  # type: ignore[operator]
    for name in (name for stage in sorted(grouped)[: n + 1] for name in grouped[stage]):
        if name in own:
            own[name].requires_grad_(False)
    # the blocks around them too, for what has no weights of its own (drop path)
    held = ((name, list(module.parameters())) for name, module in net.named_modules() if name)
    return tuple(name for name, weights in held if weights and not any(w.requires_grad for w in weights))


class _LastStageReached(Exception):  # no error: the rest of the network is not wanted
    """The last frozen module has spoken."""


@dataclass(frozen=True)
class Level:
    """What one frozen module gives.

    Attributes:
        module: its name in the network.
        channels: of its output.
        stride: image pixels per cell.
    """

    module: str
    channels: int
    stride: int

    def notation(self) -> Notation:
        """What names of kept features hold of it."""
        return write_fields("Level", module=self.module, channels=self.channels, stride=self.stride)


class FrozenStages:
    """The frozen stages at the start of a network.

    Args:
        net: a convolutional network whose frozen modules all come before its trained ones.
        frozen: names of the modules whose weights are all fixed, as they run; inner ones may be among them.
        channels: image channels.
        normalisation: mean and standard deviation, a number a channel, that images were brought to before.
        fixed_px: the one side of images that the network takes, or None.

    Raises:
        RecipeError: nothing is frozen, or what is frozen gives no maps [b, c, h, w].
    """

    def __init__(
        self,
        net: nn.Module,
        frozen: Sequence[str],
        channels: int,
        normalisation: tuple[Sequence[float], ...],
        fixed_px: int | None = None,
    ) -> None:
        # a sequence of stages is no module to stop at: timm walks through it stage by stage for a fusion
        frozen = [name for name in frozen if not _is_stages(net.get_submodule(name))]
        names = set(frozen)
        # the outermost frozen modules: what lies inside them never runs apart from them
        self.outer = tuple(n for n in frozen if not any(n.startswith(f"{other}.") for other in names))
        if not self.outer:
            raise RecipeError("This backbone has no frozen stage.", "Set frozen_stages to 1 or more.")
        self.net: Any = net
        self.normalisation = normalisation
        self.levels = self._measure_levels(channels, fixed_px or PROBE)
        if not self.levels:
            raise RecipeError(
                "This backbone's frozen stages give no maps [b, c, h, w] that could be kept.",
                "Set frozen_precision to 32, or choose a convolutional backbone such as resnet50.",
            )

    def _measure_levels(self, channels: int, side: int) -> tuple[Level, ...]:
        """The last frozen module at every stride, fine to coarse: what later stages, or a fusion, can ask for."""
        parameter = next(self.net.parameters())
        probe = torch.zeros(1, channels, side, side, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            outputs = self._run_frozen(probe, self.outer)
        last: dict[int, Level] = {}
        for name in self.outer:
            if name in outputs and isinstance(outputs[name], Tensor) and outputs[name].ndim == 4:
                stride = side // outputs[name].shape[-1]
                last[stride] = Level(name, int(outputs[name].shape[1]), stride)
        return tuple(last[stride] for stride in sorted(last))

    def from_stride(self, stride: int) -> None:
        """Keep only levels at this stride or coarser; the coarsest, which the trained stages begin from, always."""
        self.levels = tuple(level for level in self.levels[:-1] if level.stride >= stride) + self.levels[-1:]

    def digest(self) -> str:
        """Twelve hex digits over the frozen weights and statistics, what images are brought to, and what is kept."""
        kept = tuple(level.notation() for level in self.levels)
        text = hashlib.sha256(repr((kept, *(tuple(map(float, one)) for one in self.normalisation))).encode())
        for name in self.outer:
            for key, tensor in sorted(self.net.get_submodule(name).state_dict().items()):
                text.update(key.encode())
                text.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return text.hexdigest()[:12]

    def of_images(self, images: Tensor) -> Tensor:
        """Packed features [b, n] of normalised images [b, c, s, s].

        Raises:
            GeometryError: images that are not square, or whose side the coarsest stride does not divide.
        """
        side, coarsest = images.shape[-1], self.levels[-1].stride
        if images.shape[-2] != side or side % coarsest:
            raise GeometryError(
                f"Frozen features are kept of square images whose side {coarsest} divides; got "
                f"{tuple(images.shape[-2:])}.",
                f"Choose a view size that is a multiple of {coarsest}.",
            )
        outputs = self._run_frozen(images, [level.module for level in self.levels])
        flat = [outputs[level.module].flatten(1).to(torch.bfloat16) for level in self.levels]
        return torch.cat(flat, dim=1)

    def unpack_features(self, packed: Tensor) -> dict[str, Tensor]:
        """The features of each level, [b, c, h, w], by module.

        Raises:
            GeometryError: a length that no square image gives.
        """
        n = int(packed.shape[1])
        side = round(math.sqrt(n / sum(level.channels / level.stride**2 for level in self.levels)))
        sizes = [level.channels * (side // level.stride) ** 2 for level in self.levels]
        if sum(sizes) != n:
            raise GeometryError(
                f"{n} numbers an image are no features of this network's frozen stages.",
                "They were kept of another network, or by another version: delete the folder of features.",
            )
        parts = torch.split(packed, sizes, dim=1)
        return {
            level.module: part.reshape(len(packed), level.channels, side // level.stride, side // level.stride)
            for level, part in zip(self.levels, parts, strict=True)
        }

    @contextmanager
    def replace_by(self, packed: Tensor) -> Iterator[Tensor]:
        """The network with its frozen modules giving kept features; yields what to call it with."""
        # in the trained stages' own precision; autocast lowers it again, without loss, where it is on
        dtype = next(self.net.parameters()).dtype
        given = {
            name: part.to(dtype).contiguous(memory_format=torch.channels_last)
            for name, part in self.unpack_features(packed).items()
        }
        modules = {name: self.net.get_submodule(name) for name in self.outer}
        try:
            for name, module in modules.items():
                # an instance's own `forward` is called in place of its class's
                module.forward = _make_giving(given.get(name))
            yield given[self.levels[-1].module]
        finally:
            for module in modules.values():
                del module.forward

    def _run_frozen(self, images: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of frozen modules by name; what comes after the last of them is not computed."""
        outputs: dict[str, Tensor] = {}
        hooks = []
        for name in wanted:

            def keep(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output
                if name == wanted[-1]:
                    raise _LastStageReached

            hooks.append(self.net.get_submodule(name).register_forward_hook(keep))
        try:
            self.net(images)
        except _LastStageReached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def _is_stages(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and all(isinstance(part, nn.Sequential) for part in module)


def _make_giving(features: Tensor | None):  # type: ignore[no-untyped-def]  # noqa: ANN202  # a module's forward takes anything
    """A forward that gives kept features, or (None) hands on what it is given."""

    def forward(given: Tensor, *others: object) -> Tensor:
        return given if features is None else features

    return forward
