"""How long the trainings of a table take on N GPUs, from step times that somebody measured: arithmetic, no measurement.

    python -m benchmarks.scale liao2022/table3 --seeds 5 --images 898 --step 512=0.20 768=0.42 --gpus 1 8 64

A training costs start + epochs x (steps x step + validation) + test; trainings are handed to the first free GPU, the
longest first, and none is divided. `--step` gives seconds a step of the recipe's batch by picture size; what
`benchmarks/gpu.sh` prints for the machine at hand. Recipes that look through attention modules or explainers cost more:
`--factor WORD=F` multiplies the steps of rows whose name holds the word.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sightline.data.loader import count_batches_per_epoch
from sightline.evaluation.tables.table import Row
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table


@dataclass(frozen=True)
class Costs:
    """Seconds of what a training is made of.

    Attributes:
        step: of one step, by picture size.
        images: of a training set.
        validation: of one look at the validation cases.
        test: of the test cases, scores included.
        start: from the call to the first step: a worker's imports, the network, the first pictures.
        factors: on the steps of rows whose name holds the word.
    """

    step: Mapping[int, float]
    images: int
    validation: float
    test: float
    start: float
    factors: Mapping[str, float]


def seconds_of(row: Row, costs: Costs) -> float:
    """One training of a row.

    Raises:
        SystemExit: no step time of its picture size.
    """
    recipe = row.recipe
    size = recipe.view.size
    if size not in costs.step:
        raise SystemExit(f"{row.name} trains at {size} px: give --step {size}=SECONDS.")
    factor = 1.0
    for word, times in costs.factors.items():
        factor *= times if word in row.name else 1.0
    a_epoch = count_batches_per_epoch(costs.images, recipe.batch_size)
    steps = recipe.steps or recipe.epochs * a_epoch
    looks = 1 if recipe.validate == "end" else max(1, -(-steps // a_epoch))
    return costs.start + steps * costs.step[size] * factor + looks * costs.validation + costs.test


def makespan(seconds: Sequence[float], gpus: int) -> float:
    """When the last of the trainings is done: each goes to the GPU that is free first, the longest first."""
    free = [0.0] * min(gpus, len(seconds))
    heapq.heapify(free)
    for one in sorted(seconds, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def lines(seconds: Sequence[float], gpus: Sequence[int]) -> list[str]:
    """The table: hours by GPUs, and the share of GPU time that trainings fill."""
    total = sum(seconds)
    found = ["| GPUs | hours | GPU-hours held | share of them that trains |", "|---|---|---|---|"]
    for n in gpus:
        wall = makespan(seconds, n)
        found.append(f"| {n} | {wall / 3600:.1f} | {n * wall / 3600:.0f} | {total / (n * wall):.2f} |")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, required=True, help="of a training set")
    parser.add_argument("--step", nargs="+", required=True, metavar="SIZE=SECONDS")
    parser.add_argument("--factor", nargs="*", default=[], metavar="WORD=F")
    parser.add_argument("--validation", type=float, default=10.0, help="seconds")
    parser.add_argument("--test", type=float, default=30.0, help="seconds")
    parser.add_argument("--start", type=float, default=15.0, help="seconds")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    asked = parser.parse_args()
    step = {int(size): float(value) for size, value in (one.split("=") for one in asked.step)}
    factors = {word: float(value) for word, value in (one.split("=") for one in asked.factor)}
    costs = Costs(step, asked.images, asked.validation, asked.test, asked.start, factors)
    rows = find_table(asked.table, "recommended", Changes()).rows
    seconds = [seconds_of(row, costs) for row in rows if not row.parts for _ in range(asked.seeds)]
    longest, shortest = max(seconds) / 3600, min(seconds) / 3600
    print(f"{asked.table}: {len(seconds)} trainings of {shortest:.2f} to {longest:.2f} hours\n")
    print("\n".join(lines(seconds, asked.gpus)))


if __name__ == "__main__":
    main()
