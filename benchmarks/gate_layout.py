"""`python -m benchmarks.gate_layout COHORT`: the gate's layout check alone, also with fewer pictures than a cohort has.

Fits it on the first training and validation pictures and counts, of the test pictures as they are and turned, and of
phantom femurs, how many it refuses. Needs no run: the check sees no network.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.stats import binomtest

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.errors import RunError
from sightline.inference.gate.layout import compute_uprightness, describe_layout, fit_layout, reduce_picture, turn_by
from sightline.inference.radiographs import read_radiograph
from sightline.structures.case import Case


def reduced(cases: Iterable[Case], most: int | None) -> NDArray[Any]:
    """Reduced pictures of the first cases."""
    return np.array([reduce_picture(read_radiograph(case.image)) for case in list(cases)[:most]])


def main(
    cohort: tyro.conf.Positional[Path], training: int | None = None, validation: int | None = None, femurs: int = 30
) -> int:
    """Measure.

    Args:
        cohort: cohort folder.
        training: pictures to fit on; None: all.
        validation: pictures to set the limit on; None: all.
        femurs: studies of phantom femurs.
    """
    read = read_cohort(cohort)
    known, checked = reduced(read.split("train"), training), reduced(read.split("val"), validation)
    print(f"{len(known)} training, {len(checked)} validation pictures")
    try:
        limits = fit_layout(known, checked)
    except RunError as error:
        print(f"no check: {error.message}")
        return 0
    good = reduced(read.split("test"), None)
    kinds = {"test pictures": good, "mirrored": good[:, :, ::-1], "upside down, mirrored": good[:, ::-1]}
    kinds |= {f"rotated by {turn} degrees": turn_by(good, turn) for turn in (90, 180, 270)}
    with tempfile.TemporaryDirectory() as scratch:
        drawn = write_radiographs(Path(scratch) / "femurs", anatomy="femur", studies=femurs, seed=6)
        kinds["phantom femurs"] = reduced(drawn, None)
    for name, pictures in kinds.items():
        scores = compute_uprightness(describe_layout(pictures), limits.weights, limits.offsets)
        count = int((scores < limits.limit).sum())
        interval = binomtest(count, len(scores)).proportion_ci(method="wilson")
        print(f"{name}: {count} of {len(scores)} refused ({interval.low:.1%} to {interval.high:.1%})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
