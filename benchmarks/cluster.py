"""Ray's nodes on this machine: the share of their time in which they train, as `--engine ray` prints it.

    python -m benchmarks.cluster COHORT OUT [--nodes 2] [--steps 300] [--seeds 3] [--store URL]

Starts a cluster whose nodes have one core each, and trains two rows of small networks on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sightline.data.datasets.folder.reader import read_cohort
from sightline.evaluation.tables.engines.ray_cluster import RayEngine, import_ray
from sightline.evaluation.tables.engines.run_store import RunStore
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import find_recipe
from sightline.training.engine import Engine


def main() -> None:
    """Train and print the engine's line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("cohort", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--nodes", type=int, default=2)
    words.add_argument("--steps", type=int, default=300)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--store")
    asked = words.parse_args()
    import_ray()
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    changes = Changes(steps=asked.steps, size=96, weights="none")
    rows = tuple(Row(name, apply_changes(find_recipe(f"small-{name}"), changes)) for name in ("unguided", "guided"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(asked.nodes):
        cluster.add_node(num_cpus=1)
    run_table(
        Table("cluster", "cluster", rows),
        read_cohort(asked.cohort),
        asked.out,
        CATALOGUE,
        seeds=range(asked.seeds),
        engine=Engine(device="cpu", quiet=True),
        runs_on=RayEngine(cluster.address, 1, print, None if asked.store is None else RunStore(asked.store)),
    )
    cluster.shutdown()


if __name__ == "__main__":
    main()
