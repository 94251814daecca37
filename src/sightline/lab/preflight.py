"""Pre-flight of an explainer that a training is to learn through: what is wrong is said before the first step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.cohorts.loader import CohortItems, Key
from sightline.errors import SightlineError
from sightline.explain.checks import preflight
from sightline.lab.run import write_text

PICTURES = 4


def check_explainer(
    network: nn.Module, explainer: Any, items: CohortItems, folder: Path, title: str, device: torch.device
) -> None:
    """Write `preflight.md` into a run folder, once, and say on stderr what is wrong.

    The training goes on: a rule that does nothing (guided back-propagation where there is no ReLU to guide) may be the
    very thing that a table is to show.

    Args:
        network: as it is at first.
        explainer: what the objective learns through.
        items: of the training.
        folder: of the run.
        title: of the run.
        device: where the network is.
    """
    path = folder / "preflight.md"
    if path.is_file():
        return
    # pictures far apart in the cohort: neighbours may be of one patient
    places = sorted({round(i * (len(items) - 1) / max(1, PICTURES - 1)) for i in range(PICTURES)})
    images = torch.stack([_three(torch.from_numpy(items[Key(i, -1)].image.copy())) for i in places]).to(device)
    try:
        found = preflight(network, images, explainer)
    except SightlineError as error:
        write_text(path, f"# {title}: before training through an explainer\n\n{error.message} {error.remedy}\n")
        return
    lines = [f"- **{f.severity}**, {f.kind}: {f.message} {f.remedy}".rstrip() for f in found.findings]
    head = f"# {title}: before training through an explainer\n\n{len(places)} pictures, the network untrained.\n\n"
    write_text(path, head + "\n".join(lines) + "\n")
    for finding in found.findings:
        if finding.severity == "wrong":
            print(f"{title}: pre-flight, {finding}", file=sys.stderr)


def _three(planes: torch.Tensor) -> torch.Tensor:
    return planes.expand(3, *planes.shape[1:]) if len(planes) == 1 else planes
