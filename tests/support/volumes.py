"""What tests of volumes share: a tiny cohort of patches, and a network of milliseconds."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.views.volume_view import VolumeView
from sightline.io.nifti import write_volume
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Evidence
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag
from sightline.training.optimization import LinearDecay
from sightline.training.recipe import Recipe

SIDE, SIZE = 24, 16
# axes from head to feet, front to back, right to left
IPL = np.array([[0, 0, -1.0, 40], [0, -1.0, 0, 30], [-1.0, 0, 0, 20], [0, 0, 0, 1.0]])


class TinyNetwork(nn.Module):
    """Two convolutions; class maps [b, k, 4, 4, 4] of cubes of 16, or none."""

    dissected = "features"

    def __init__(self, n_classes, maps):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv3d(6, n_classes, 1)
        self.maps = maps

    def forward(self, images):
        cells = self.head(self.features(images))
        return Evidence(cells.flatten(2).mean(2), cells if self.maps else None)


@dataclass(frozen=True)
class TinyVolumeNet:
    """Settings of it."""

    maps: bool = True

    def build(self, n_classes):
        return TinyNetwork(n_classes, self.maps)

    def without_weights(self):
        return self


WORDS = {"volume_view": VolumeView, **CATALOGUE, "tiny_volume_net": TinyVolumeNet}


def tiny_volume_recipe(**changes):
    fields = {
        "title": "tiny volumes",
        "model": TinyVolumeNet(),
        "view": VolumeView(size=SIZE, augment="none"),
        "schedule": LinearDecay(1e-2, 1e-4),
        "epochs": 2,
        "batch_size": 4,
    }
    torch.manual_seed(0)
    return Recipe(**(fields | changes))


def tiny_spines(place, n=24, affine=IPL):
    """Cubes of bone in fat; fractured ones are hollow in front, at the head. The front part is marked as finding."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(n):
        label = ("intact", "fractured")[i % 2]
        values = rng.normal(-100, 40, (SIDE,) * 3).astype(np.int16)
        values[8:16, 8:16, 8:16] = 600
        labels = np.zeros((SIDE,) * 3, dtype=np.uint8)
        labels[8:16, 8:16, 8:16] = 20
        image, mask, finding = (place / f"{kind}_{i}.nii.gz" for kind in ("patch", "vert", "finding"))
        regions = [Mask(mask, Tag("focus", name="vertebra"), 20)]
        if label == "fractured":
            values[8:12, 8:12, 8:16] = -100
            found = np.zeros_like(labels)
            found[8:12, 8:12, 8:16] = 1
            write_volume(finding, found, affine)
            regions.append(Mask(finding, Tag("finding", "fractured", name="wedge"), 1))
        write_volume(image, values, affine)
        write_volume(mask, labels, affine)
        split = ("train", "train", "val", "test")[i // 2 % 4]
        facts = {"level": "L1", "grade": str(i % 2 * 2), "deformity": "wedge" if i % 2 else "", "source": "phantom"}
        cases.append(
            Case(f"s{i}__L1", f"s{i}", f"p{i}", image, label, tuple(regions), split, "rigid", (SIDE,) * 3,
                 (1.0, 1.0, 1.0), facts)
        )  # fmt: skip
    cohort = Cohort("tiny spines", ("intact", "fractured"), tuple(cases), place)
    write_cohort(cohort, place)
    return read_cohort(place)
