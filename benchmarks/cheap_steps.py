"""Images a second of CPU time of one thread, of a training step and a test pass of the learning curve's network.

    python -m benchmarks.cheap_steps [--size 512] [--toy]

Each row adds one thing: bfloat16 (where the processor has it), strided depthwise convolutions in float32, frozen
stages' features kept. At test what follows the frozen stages computes in float32. The whole is measured in processes
that hand freed memory back to the system, as the C library does, and in processes that keep it, as trainings do; in
turn, `--repeats` times each, and the median is printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from sightline.models.cam_classifiers import ClassMapModel
from sightline.papers.fracatlas.learning_curve import build_unguided_recipe
from sightline.structures.evidence import has_bfloat16, to_channels_last
from sightline.training.engine import compute_strided_in_float32, keep_freed_memory

BATCH, REPEATS = 8, 3
MEMORY = ("returned", "kept")
PEAK = "peak memory of all rows, MiB"


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
    there = has_bfloat16(torch.device("cpu"))
    for name, config, low, mended, kept in (
        ("float32", exact, False, False, False),
        ("bfloat16", exact, True, False, False),
        ("bfloat16, strided depthwise convolutions in float32", half, True, True, False),
        ("the same, features of frozen stages kept", half, there, there, True),
    ):
        if low and not there:
            continue
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


def measure(size: int, *, kept: bool) -> None:
    """Print the rows of one process, and its peak memory."""
    if kept and not keep_freed_memory():
        raise SystemExit("This C library keeps no freed memory, or MALLOC_... is set.")
    torch.set_num_threads(1)
    found = {name: [training, test] for name, training, test in rows(size)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, PEAK: [peak, peak]}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=MEMORY)
    asked = parser.parse_args()
    size = 64 if asked.toy else asked.size
    if asked.child:
        measure(size, kept=asked.child == "kept")
        return
    command = [sys.executable, "-m", "benchmarks.cheap_steps", "--size", str(size), "--child"]
    found: dict[str, list[dict[str, list[float]]]] = {memory: [] for memory in MEMORY}
    for _ in range(1 if asked.toy else asked.repeats):
        for memory, measured in found.items():
            measured.append(json.loads(subprocess.run([*command, memory], stdout=subprocess.PIPE, check=True).stdout))
    print(f"| {size} px, one thread, images/s | step | step, freed memory kept | test pass | the same, kept |")
    print("|---|---|---|---|---|")
    for name in found["returned"][0]:
        medians = [
            statistics.median(one[name][which] for one in found[memory]) for which in (0, 1) for memory in MEMORY
        ]
        shown = " | ".join(f"{value:.1f}" if name != PEAK else f"{value:.0f}" for value in medians)
        print(f"| {name} | {shown} |")


if __name__ == "__main__":
    main()
