"""Images a second of CPU time of one thread, of a training step and a test pass of the learning curve's network.

    python -m benchmarks.cheap_steps [--size 512] [--toy]

Each row adds one thing: bfloat16, strided depthwise convolutions in float32, frozen stages' features kept. At test what
follows the frozen stages computes in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from sightline.models.cam_classifiers import ClassMapModel
from sightline.papers.learning_curve import build_unguided_recipe
from sightline.structures.evidence import to_channels_last
from sightline.training.engine import compute_strided_in_float32

BATCH, REPEATS = 8, 3


def images_a_second(what: Callable[[], object]) -> float:
    """Of processor time, after one call that is not counted."""
    what()
    begun = time.process_time()
    for _ in range(REPEATS):
        what()
    return BATCH * REPEATS / (time.process_time() - begun)


def rows(size: int) -> list[tuple[str, float, float]]:
    """Name, images a second in training, and at test."""
    model = build_unguided_recipe().model
    assert isinstance(model, ClassMapModel)
    exact = replace(model, backbone=replace(model.backbone, weights=None, frozen_precision="32"))
    half = replace(model, backbone=replace(model.backbone, weights=None))
    images, labels = to_channels_last(torch.rand(BATCH, 1, size, size)), torch.arange(BATCH) % 2
    found = []
    for name, config, low, mended, kept in (
        ("float32", exact, False, False, False),
        ("bfloat16", exact, True, False, False),
        ("bfloat16, strided depthwise convolutions in float32", half, True, True, False),
        ("the same, features of frozen stages kept", half, True, True, True),
    ):
        network = to_channels_last(config.build(2))
        if mended:
            compute_strided_in_float32(network)
        with torch.no_grad():
            given = network.trunk.frozen_features(images) if kept else images

        def step(network: torch.nn.Module = network, given: torch.Tensor = given, low: bool = low) -> None:
            network.train()
            with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
                logits = network(given).logits
            cross_entropy(logits.float(), labels).backward()
            network.zero_grad(set_to_none=True)

        def look(network: torch.nn.Module = network, given: torch.Tensor = given) -> None:
            network.eval()
            with torch.inference_mode():
                network(given)

        found.append((name, images_a_second(step), images_a_second(look)))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--toy", action="store_true")
    asked = parser.parse_args()
    size = 64 if asked.toy else asked.size
    torch.set_num_threads(1)
    print(
        f"| {size} px, one thread | training step, images/s | test pass (float32 after the frozen stages), images/s |"
    )
    print("|---|---|---|")
    for name, training, test in rows(size):
        print(f"| {name} | {training:.1f} | {test:.1f} |", flush=True)


if __name__ == "__main__":
    main()
