"""A training in a process of its own, which tests may kill; started from a server that has loaded torch once."""

import time
from multiprocessing import get_context
from pathlib import Path

from sightline.data.datasets.folder.reader import read_cohort
from sightline.papers.catalogue import CATALOGUE
from sightline.training import train as loop
from sightline.training.engine import Engine
from sightline.training.optimization import AdamW
from support.cohorts import tiny_recipe

# a process of its own for all of them, forked before anything was computed
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["sightline.training.train", "sightline.papers.catalogue"])


def launch_training(cohort: Path, out: Path, pause: float):
    """Start it, with a pause before each step and its state kept after each."""
    process = SERVER.Process(target=train_slowly, args=(cohort, out, pause))
    process.start()
    return process


def train_slowly(cohort: Path, out: Path, pause: float) -> None:
    """Train the tiny recipe for four epochs."""
    import torch

    torch.set_num_threads(1)
    step = loop.run_training_step

    def slow(*args):
        time.sleep(pause)
        return step(*args)

    loop.run_training_step = slow
    recipe = tiny_recipe(epochs=4, optimiser=AdamW(), ema_decay=0.9, select="loss", train_on=("train",))
    engine = Engine(device="cpu", quiet=True, state_every_s=0.0)
    loop.train(recipe, read_cohort(cohort), out, CATALOGUE, engine)
