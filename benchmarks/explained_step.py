"""A training step through an explainer's map against the plain step of the same U-Net.

Ours is the step of the project's own loop with `HeatmapMatch` over guided back-propagation: a second pass to the image
and back, and a gradient through both. Theirs is segmentation-models-pytorch's U-Net with its classification head in ten
lines of torch, with the published baseline's loss (Watanabe 2022) and pictures that were normalised beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.explainers.gradients import InputGradient
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.models.backbones import Backbone
from sightline.models.unet import UNet, UNetNetwork
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame
from sightline.training.engine import Engine
from sightline.training.optimization import Adam, set_rate
from sightline.training.recipe import Recipe

# the loop's own step: what a training really pays, not a copy of it
from sightline.training.step import DictOutput, Progress, TrainingObjective, run_training_step

GOAL = 3.0
GAMMA = 0.41731
RATE = 1e-4
CLASSES = 3
Match = Literal["decoder", "set1", "set3"]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        encoders: timm names, each with the stages that are kept, or None.
        matches: what is held against gaze.
        size: side of the images in pixels.
        batch: images a step.
        pairs, warm_up: counted and uncounted pairs of steps.
        device: `cpu` or `cuda`.
    """

    encoders: tuple[tuple[str, int | None], ...] = (("efficientnet_b0", 5), ("resnet34", None))
    matches: tuple[Match, ...] = ("set1", "set3")
    size: int = 224
    batch: int = 4
    pairs: int = 8
    warm_up: int = 2
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings((("test_resnet", None),), ("set1",), size=32, batch=2, pairs=2, warm_up=1, device=device)
    return Settings(batch=32, pairs=30, warm_up=5, device=device) if device == "cuda" else Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios of whole steps."""
    gap = max(check(replace(chosen, size=min(chosen.size, 64), batch=2), encoder) for encoder in chosen.encoders)
    rows: list[Row] = []
    batch = make_batch(chosen)
    for encoder in chosen.encoders:
        for match in chosen.matches:
            network = make_network(encoder).to(chosen.device)
            theirs = plain_step(make_plain(network, encoder), network.trunk.normalise(batch.images), batch)
            a, b = alternate(
                our_step(network, batch, match, chosen.device), theirs,
                pairs=chosen.pairs, warm_up=chosen.warm_up, device=chosen.device,
            )  # fmt: skip
            label = f"{encoder[0]}, batch {chosen.batch}, {chosen.size} px"
            rows.append(
                Row(f"step through a guided map ({match}) / plain step, {label}", a, b, "s", "ours / theirs", GOAL)
            )
    return Result(
        "explained_step",
        asdict(chosen),
        tuple(rows),
        (),
        (
            "Ours: `sightline.training.train`'s own step with `HeatmapMatch` and guided `InputGradient`, optimiser "
            "step included. Plain: `segmentation_models_pytorch.Unet` with `aux_params`, binary cross-entropy of "
            "classes and of the decoder against the same gaze. Same Adam, random weights, no dropout, channels-last, "
            "single precision.",
            f"Checked first: without an explainer, the losses of both sides are the same over three steps "
            f"(largest difference {gap:.1e}).",
        ),
    )  # fmt: skip


def make_batch(chosen: Settings) -> Batch:
    """Noise for pictures and for gaze, labels in turn."""
    rng = torch.Generator().manual_seed(0)
    b, s = chosen.batch, chosen.size
    return Batch(
        images=torch.rand(b, 3, s, s, generator=rng),
        labels=torch.arange(b) % CLASSES,
        targets=torch.rand(b, 1, s, s, generator=rng),
        guided=torch.ones(b, CLASSES, dtype=torch.bool),
        frames=(Frame.of_image((s, s)),) * b,
        case_ids=tuple(f"case {i}" for i in range(b)),
    ).to(chosen.device)


def make_network(encoder: tuple[str, int | None]) -> UNetNetwork:
    """Our U-Net with random weights."""
    torch.manual_seed(0)
    return UNet(Backbone(encoder[0], stages=encoder[1]), dropout=0.0).build(CLASSES)


def make_plain(network: UNetNetwork, encoder: tuple[str, int | None]) -> nn.Module:
    """segmentation-models-pytorch's U-Net with the same weights.

    Raises:
        Unequal: it is another network.
    """
    plain: nn.Module = smp.Unet(
        f"tu-{encoder[0]}", encoder_weights=None, aux_params={"classes": CLASSES, "dropout": None, "pooling": "avg"}
    )
    parts = plain.get_submodule("encoder.model"), plain.get_submodule("decoder")
    for theirs, ours in zip(parts, (network.trunk.net, network.decoder), strict=True):
        wanted, given = theirs.state_dict(), ours.state_dict()
        if lacking := sorted(set(wanted) - set(given)):
            raise Unequal(f"Ours lacks {lacking[:3]}.")
        theirs.load_state_dict({name: given[name] for name in wanted})
    plain.get_submodule("segmentation_head.0").load_state_dict(network.paint.state_dict())
    linear = next(m for m in plain.get_submodule("classification_head").modules() if isinstance(m, nn.Linear))
    linear.load_state_dict(network.head.linear.state_dict())
    return plain.to(next(network.parameters()).device)


def our_step(network: UNetNetwork, batch: Batch, match: Match, device: str) -> Callable[[], float]:
    """One update by our loop; gives the loss."""
    explainer = None if match == "decoder" else InputGradient("guided")
    recipe = Recipe("explained", UNet(), objective=HeatmapMatch(match, explainer, gamma=GAMMA))
    fabric = Engine(device=device).fabric("32-true")
    network = network.to(memory_format=torch.channels_last).train()
    aim = TrainingObjective(recipe, network, torch.ones(CLASSES)).to(torch.device(device))
    plain, optimizer = fabric.setup(DictOutput(network), Adam().build(recipe.rates.groups(network)))
    at = Progress()

    def step() -> float:
        set_rate(optimizer, RATE)
        return run_training_step(fabric, plain, optimizer, batch, aim, at)

    return step


def plain_step(model: nn.Module, images: Tensor, batch: Batch) -> Callable[[], float]:
    """One update of the published baseline as anybody would write it; gives the loss."""
    model = model.to(memory_format=torch.channels_last).train()
    images = images.contiguous(memory_format=torch.channels_last)
    truth, gaze = F.one_hot(batch.labels, CLASSES).float(), batch.targets
    assert gaze is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def step() -> float:
        painted, logits = model(images)
        loss = GAMMA * F.binary_cross_entropy_with_logits(logits, truth)
        loss = loss + (1 - GAMMA) * F.binary_cross_entropy_with_logits(painted, gaze)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def check(chosen: Settings, encoder: tuple[str, int | None], tolerance: float = 1e-4) -> float:
    """Losses of both sides over three steps without an explainer; their largest difference.

    Weights are no measure: Adam moves one whose gradient is nothing but rounding as far as any other.

    Raises:
        Unequal: they differ.
    """
    batch = make_batch(chosen)
    network = make_network(encoder).to(chosen.device)
    plain = make_plain(network, encoder)
    theirs = plain_step(plain, network.trunk.normalise(batch.images), batch)
    ours = our_step(network, batch, "decoder", chosen.device)
    gap = max(abs(ours() - theirs()) for _ in range(3))
    if gap > tolerance:
        raise Unequal(f"Our plain step of {encoder[0]} and theirs differ by {gap:.1e}.")
    return gap
