"""Which losses bear torch.compile: captured as one graph, with breaks, or not at all, and by how much they then differ.

    python -m benchmarks.compiled_losses [--backend aot_eager]

Each loss is called on the same random maps, marks and labels, as it is and compiled; value and gradient are compared.
Breaks cost time and nothing else: torch goes on in Python there. `aot_eager` traces forward and backward without
generating code, so that no compiler is needed; `inductor` also generates code.

    python -m benchmarks.compiled_losses --step [--size 256] [--pairs 6]

Whether compiling pays on this processor: a training step of a class-map MobileNetV2 on one thread, as it is and
compiled by inductor (which needs a C++ compiler), in turn, and how long compiling took.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo as dynamo
from torch import Tensor
from torch.nn.functional import cross_entropy

from sightline.errors import count_noun
from sightline.explainers.cam import GradCAM
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.cell_focal import CellFocal
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.losses.map_norm import MapNorm
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.cam_classifiers import ClassMapModel
from sightline.papers.fracatlas.learning_curve import build_unguided_recipe
from sightline.structures.evidence import Batch, to_channels_last
from sightline.structures.frame import Frame
from sightline.training.engine import keep_freed_memory

Loss = Callable[[Tensor], Tensor]


def losses() -> dict[str, Loss]:
    """Every loss as a function of maps [b, k, h, w]."""
    torch.manual_seed(0)
    b, k, side = 4, 2, 32
    targets = torch.zeros(b, 1, side, side, dtype=torch.uint8)
    targets[:3, :, 8:20, 4:16] = 1
    guided = torch.tensor([[True, True]] * 3 + [[False, False]])
    labels = torch.tensor([0, 1, 1, 0])
    batch = Batch(torch.zeros(b, 1, side, side), labels, targets.float(), guided, (Frame.of_image((side, side)),) * b,
                  tuple("abcd"))  # fmt: skip
    weights = torch.ones(k)
    guidances = {
        "cross-entropy": None,
        "spatial_nll, at the input": SpatialNLL(),
        "spatial_nll, on the map": SpatialNLL(resolution="map"),
        "cell_focal": CellFocal(),
        "cell_focal, trimmed": CellFocal(trimmed=0.4),
        "map_energy": MapEnergy("softplus"),
        "map_norm": MapNorm(),
    }
    objectives = {
        "gaze_guided": GazeGuided(weights="fixed"),
        "heatmap_match, decoder": HeatmapMatch("decoder"),
        "attribution_prior, energy": AttributionPrior(GradCAM(), "energy"),
        "attribution_prior, outside": AttributionPrior(GradCAM(), "outside"),
    }

    def guidance(loss: object) -> Loss:
        def call(maps: Tensor) -> Tensor:
            if loss is None:
                return cross_entropy(maps.flatten(2).mean(-1), labels)
            return loss(maps, targets, guided, labels).value  # type: ignore[operator]

        return call

    def objective(loss: object) -> Loss:
        def call(maps: Tensor) -> Tensor:
            out = {"logits": maps.flatten(2).mean(-1), "maps": maps, "decoder": maps[:, :1], "explained": maps[:, 1:]}
            return loss(out, batch, weights, ()).value  # type: ignore[operator]

        return call

    return {name: guidance(loss) for name, loss in guidances.items()} | {
        name: objective(loss) for name, loss in objectives.items()
    }


def judge(loss: Loss, backend: str) -> tuple[str, str, str]:
    """Graphs, breaks with the first reason, and the largest difference of value and gradient."""
    maps = torch.randn(4, 2, 8, 8)
    eager = maps.clone().requires_grad_()
    plain = loss(eager)
    plain.backward()  # type: ignore[no-untyped-call]
    dynamo.reset()
    try:
        seen = dynamo.explain(loss)(maps.clone().requires_grad_())
        graphs, reasons = seen.graph_count, [str(r.reason).splitlines()[0] for r in seen.break_reasons]
        dynamo.reset()
        compiled = maps.clone().requires_grad_()
        value = torch.compile(loss, backend=backend)(compiled)
        value.backward()
    except Exception as error:  # what does not compile is what this table is to show
        return "no", f"{type(error).__name__}: {str(error).splitlines()[0][:90]}", "–"
    assert eager.grad is not None and compiled.grad is not None
    gap = max(float((plain - value).abs()), float((eager.grad - compiled.grad).abs().max()))
    word = "as one graph" if not reasons else f"in {graphs} graphs"
    return word, (reasons[0][:100] if reasons else ""), f"{gap:.1e}"


def time_steps(size: int, pairs: int) -> None:
    """Print images a second of processor time of a step, uncompiled and compiled, and the ratio of each pair."""
    model, batch = build_unguided_recipe().model, 8
    assert isinstance(model, ClassMapModel)
    # as trainings do: without it, what compiling saves is memory that is asked for and handed back
    kept = keep_freed_memory()
    plain = replace(model, backbone=replace(model.backbone, weights=None, frozen_stages=0, frozen_precision="32"))
    networks = [to_channels_last(plain.build(2)).train() for _ in range(2)]
    calls: list[Callable[[Tensor], Any]] = [networks[0], torch.compile(networks[1])]
    images, labels = to_channels_last(torch.rand(batch, 1, size, size)), torch.arange(batch) % 2

    def step(which: int) -> float:
        begun = time.process_time()
        cross_entropy(calls[which](images).logits, labels).backward()  # type: ignore[no-untyped-call]
        networks[which].zero_grad(set_to_none=True)
        return time.process_time() - begun

    first = []
    for which in range(2):
        begun = time.perf_counter()
        step(which)
        first.append(time.perf_counter() - begun)
    timed = [(step(0), step(1)) for _ in range(pairs)]
    speeds = [batch / statistics.median(one[which] for one in timed) for which in range(2)]
    ratios = sorted(eager / compiled for eager, compiled in timed)
    print(f"| {size} px, batch {batch}, torch {torch.__version__} | images/s | first step, elapsed s |")
    print("|---|---|---|")
    for name, speed, begun in zip(("uncompiled", "compiled (inductor)"), speeds, first, strict=True):
        print(f"| {name} | {speed:.1f} | {begun:.1f} |")
    memory = "kept" if kept else "handed back"
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}, {count_noun(pairs, 'pair')}; freed memory {memory}"
    print(f"ratio {statistics.median(ratios):.2f} ({spread})")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="aot_eager")
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=6)
    asked = parser.parse_args()
    backend = asked.backend
    torch.set_num_threads(1)
    if asked.step:
        time_steps(asked.size, asked.pairs)
        return
    # breaks are what the table says
    torch._logging.set_logs(dynamo=logging.ERROR)
    print(f"| loss | compiles ({backend}, torch {torch.__version__}) | first break | largest difference |")
    print("|---|---|---|---|")
    for name, loss in losses().items():
        print(f"| {name} | {' | '.join(judge(loss, backend))} |", flush=True)


if __name__ == "__main__":
    main()
