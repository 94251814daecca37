"""A guided training step against the plain cross-entropy step of the same backbone.

Ours is the step of the project's own loop (Fabric, class maps, softmax pooling, spatial loss at input resolution,
running sums); theirs is timm's classifier in ten lines of torch, with pictures that were normalised beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from timm import create_model
from torch import Tensor, nn

from benchmarks.timing import Part, Result, Row, Unequal, alternate, repeat, share
from sightline.losses.spatial_nll import PROFILES
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel, ClassMapNetwork
from sightline.models.pooling import MeanPool, SoftmaxPool
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame
from sightline.training.engine import Engine
from sightline.training.optimization import Sgd, set_rate
from sightline.training.recipe import Recipe

# the loop's own step: what a training really pays, not a copy of it
from sightline.training.step import DictOutput, Progress, TrainingObjective, run_training_step

GOAL = 1.05
RATE = 1e-3
CLASSES = 2


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        backbones: timm names.
        size: side of the images in pixels.
        batch: images a step.
        pairs, warm_up: counted and uncounted pairs of steps.
        precisions: Fabric's words; theirs runs under the matching autocast.
        device: `cpu` or `cuda`.
    """

    backbones: tuple[str, ...] = ("resnet50", "resnet18")
    size: int = 512
    batch: int = 4
    pairs: int = 10
    warm_up: int = 2
    precisions: tuple[str, ...] = ("32-true",)
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings(("test_resnet",), size=64, batch=2, pairs=2, warm_up=1, device=device)
    if device == "cuda":
        return Settings(batch=16, pairs=40, warm_up=5, precisions=("32-true", "bf16-mixed"), device=device)
    return Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios of whole steps, and the parts of ours."""
    gap = check(replace(chosen, size=min(chosen.size, 64), precisions=("32-true",)))
    rows: list[Row] = []
    parts: list[Part] = []
    for name in chosen.backbones:
        for precision in chosen.precisions:
            label = f"{name}, batch {chosen.batch}, {chosen.size} px, {precision}"
            batch = make_batch(chosen)
            network = make_network(name, guided=True).to(chosen.device)
            plain = make_plain(network)
            theirs = plain_step(plain, network.trunk.normalise(batch.images), batch.labels, chosen, precision)
            ours = guided_step(network, batch, chosen, precision)
            a, b = alternate(ours, theirs, pairs=chosen.pairs, warm_up=chosen.warm_up, device=chosen.device)
            rows.append(Row(f"guided / plain step, {label}", a, b, "s", "ours / theirs", GOAL, "low"))
            parts += parts_of(network, batch, chosen, b, label)
    return Result(
        "step",
        asdict(chosen),
        tuple(rows),
        tuple(parts),
        (
            "Guided: `sightline.training.train`'s own step with softmax pooling, `SpatialNLL` (profile `recommended`, "
            "at input resolution, a box on every image, both class maps guided), optimiser step included. Plain: "
            "`timm.create_model`, `F.cross_entropy`, `SGD`; it gets pictures already normalised and in three channels, "
            "ours one grey channel that it normalises and repeats itself. Same SGD, channels-last on both sides.",
            f"Checked first: with mean pooling and no guidance both sides have the same weights after two steps "
            f"(largest difference {gap:.1e} of the largest weight).",
            "Parts are timed alone, in single precision; the share is of the plain step.",
        ),
    )


def make_batch(chosen: Settings) -> Batch:
    """Grey noise, alternating labels, one box shared by the classes of every image."""
    rng = torch.Generator().manual_seed(0)
    b, s = chosen.batch, chosen.size
    targets = torch.zeros(b, 1, s, s, dtype=torch.uint8)
    targets[:, :, s // 4 : s // 2, s // 4 : 3 * s // 4] = 1
    return Batch(
        images=torch.rand(b, 1, s, s, generator=rng),
        labels=torch.arange(b) % CLASSES,
        targets=targets,
        guided=torch.ones(b, CLASSES, dtype=torch.bool),
        frames=(Frame.of_image((s, s)),) * b,
        case_ids=tuple(f"case {i}" for i in range(b)),
    ).to(chosen.device)


def make_network(backbone: str, *, guided: bool) -> ClassMapNetwork:
    """Our network with random weights."""
    torch.manual_seed(0)
    pool = SoftmaxPool() if guided else MeanPool()
    return ClassMapModel(Backbone(name=backbone, channels=3), pool=pool).build(CLASSES)


def make_plain(network: ClassMapNetwork) -> nn.Module:
    """timm's own classifier (global average pooling and a linear layer) with the same weights."""
    plain: nn.Module = create_model(network.trunk.net.default_cfg["architecture"], num_classes=CLASSES)
    plain.load_state_dict(network.trunk.net.state_dict(), strict=False)
    plain.get_classifier().load_state_dict(network.head.linear.state_dict())  # type: ignore[operator]
    return plain.to(next(network.parameters()).device)


def guided_step(
    network: ClassMapNetwork, batch: Batch, chosen: Settings, precision: str, *, weight: float = 0.1
) -> Callable[[], float]:
    """One update by our loop; gives the loss."""
    recipe = Recipe("guided", ClassMapModel(), guidance=PROFILES["recommended"], weight=weight, precision=precision)
    fabric = Engine(device=chosen.device).fabric(precision)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = Sgd().build(recipe.rates.groups(network))
    plain, optimizer = fabric.setup(DictOutput(network), optimizer)
    aim = TrainingObjective(recipe, network, torch.ones(CLASSES)).to(torch.device(chosen.device))
    at = Progress()

    def step() -> float:
        set_rate(optimizer, RATE)
        return run_training_step(fabric, plain, optimizer, batch, aim, at)

    return step


def plain_step(
    model: nn.Module, images: Tensor, labels: Tensor, chosen: Settings, precision: str
) -> Callable[[], float]:
    """One update of a classifier as anybody would write it; gives the loss."""
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    mixed = precision == "bf16-mixed"

    def step() -> float:
        with torch.autocast(chosen.device, dtype=torch.bfloat16) if mixed else nullcontext():
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def check(chosen: Settings, tolerance: float = 1e-3) -> float:
    """Two steps of both sides with mean pooling and no guidance; the largest difference of weights that remains.

    Raises:
        Unequal: the weights differ.
    """
    worst = 0.0
    for name in chosen.backbones:
        batch = make_batch(chosen)
        network = make_network(name, guided=False).to(chosen.device)
        plain = make_plain(network)
        theirs = plain_step(plain, network.trunk.normalise(batch.images), batch.labels, chosen, "32-true")
        ours = guided_step(network, batch, chosen, "32-true", weight=0.0)
        for _ in range(2):
            ours()
            theirs()
        worst = max(worst, difference(network, plain))
    if worst > tolerance:
        raise Unequal(f"Our unguided step and the plain step differ by {worst:.1e} of the largest weight.")
    return worst


def difference(network: ClassMapNetwork, plain: nn.Module) -> float:
    """Largest difference of the two sides' weights, relative to the largest weight of each tensor."""
    theirs = plain.state_dict()
    # the classifier's name differs from network to network, its place at the end does not
    classifier = dict(zip(network.head.linear.state_dict(), list(theirs)[-2:], strict=True))
    pairs = [(value, theirs[key]) for key, value in network.trunk.net.state_dict().items()]
    pairs += [(value, theirs[classifier[key]]) for key, value in network.head.linear.state_dict().items()]
    gaps = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs if a.is_floating_point()]
    return max(gaps)


def parts_of(
    network: ClassMapNetwork, batch: Batch, chosen: Settings, whole: tuple[float, ...], label: str
) -> list[Part]:
    """Seconds of what ours adds to the plain step, each alone."""
    loss = PROFILES["recommended"]
    assert batch.targets is not None
    targets, guided = batch.targets, batch.guided
    with torch.no_grad():
        features = network.features(batch.images).detach()
        maps = network.head(features).detach()
    features.requires_grad_()
    maps.requires_grad_()

    def head_and_pool() -> None:
        drawn = network.head(features)
        network.pool.share(drawn)
        network.pool(drawn).sum().backward()

    def mean_and_linear() -> None:
        network.head.linear(features.mean(dim=(2, 3))).sum().backward()

    def handling() -> Tensor:
        return targets.ne(0).to(maps.dtype).flatten(2).sum(-1)

    def forward() -> Tensor:
        return loss(maps, targets, guided).value

    def both() -> None:
        torch.autograd.grad(forward(), maps)

    def time(call: Callable[[], object]) -> tuple[float, ...]:
        return repeat(call, times=max(5, chosen.pairs), warm_up=chosen.warm_up, device=chosen.device)

    named: list[tuple[str, Callable[[], object]]] = [
        ("class maps and softmax pooling, forward and backward", head_and_pool),
        ("mean pooling and linear layer in their place, forward and backward", mean_and_linear),
        ("targets: bytes to marks and their areas", handling),
        ("spatial loss, forward (targets included)", forward),
        ("spatial loss, forward and backward", both),
        ("normalising the images", lambda: network.trunk.normalise(batch.images)),
    ]
    found = []
    for what, call in named:
        seconds = time(call)
        found.append(Part(f"{what}; {label}", seconds, share(seconds, whole)))
    return found
