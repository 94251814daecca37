"""Which losses bear torch.compile: captured as one graph, with breaks, or not at all, and by how much they then differ.

    python -m benchmarks.compiled_losses [--backend aot_eager]

Each loss is called on the same random maps, marks and labels, as it is and compiled; value and gradient are compared.
Breaks cost time and nothing else: torch goes on in Python there. `aot_eager` traces forward and backward without
generating code, so that no compiler is needed; `inductor` also generates code.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

import torch
import torch._dynamo as dynamo
from torch import Tensor

from sightline.explainers.cam import GradCAM
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.cell_focal import CellFocal
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.losses.map_norm import MapNorm
from sightline.losses.spatial_nll import SpatialNLL
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame

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
                return torch.nn.functional.cross_entropy(maps.flatten(2).mean(-1), labels)
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="aot_eager")
    backend = parser.parse_args().backend
    torch.set_num_threads(1)
    # breaks are what the table says
    torch._logging.set_logs(dynamo=logging.ERROR)
    print(f"| loss | compiles ({backend}, torch {torch.__version__}) | first break | largest difference |")
    print("|---|---|---|---|")
    for name, loss in losses().items():
        print(f"| {name} | {' | '.join(judge(loss, backend))} |", flush=True)


if __name__ == "__main__":
    main()
