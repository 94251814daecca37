"""Trainings of a table on this machine: one after the other, or several at a time, each in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from sightline.errors import SightlineError
from sightline.evaluation.tables.engines.row_training import RowTraining
from sightline.evaluation.tables.engines.run_store import RunStore
from sightline.io.progress import open_process_pool, require_processes, show_progress


class TableEngine(Protocol):
    """Runs trainings; what they leave on disk is collected afterwards, alike for every engine."""

    @property
    def store(self) -> RunStore | None:
        """Where runs are kept as well, for machines that share no files."""

    def run(self, trainings: Sequence[RowTraining]) -> Mapping[str, SightlineError]:
        """Run all of them, each after those that it needs; why rows failed, where that is known already."""


@dataclass(frozen=True)
class LocalEngine:
    """Trains on the machine it is called on.

    Attributes:
        parallel: trainings at a time, each with its share of the cores; one alone runs when it is collected.
        store: where runs are kept as well, so that another machine can go on.
    """

    parallel: int = 1
    store: RunStore | None = None

    def __post_init__(self) -> None:
        """Refuse no training at a time, and more than this machine can bear."""
        require_processes("parallel", self.parallel, 1)

    def run(self, trainings: Sequence[RowTraining]) -> Mapping[str, SightlineError]:
        """Run them in fresh processes; a row that fails leaves no DONE and fails again when it is collected."""
        if self.parallel > 1:
            # rows that need others wait until those are there
            for depth in range(max((training.depth for training in trainings), default=0) + 1):
                _run_in_processes([training for training in trainings if training.depth == depth], self.parallel)
        return {}


def _run_in_processes(trainings: Sequence[RowTraining], parallel: int) -> None:
    if not trainings:
        return
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with open_process_pool(parallel, "spawn", torch.set_num_threads, (threads,)) as pool:
        waiting = {pool.submit(_run_quietly, training): training for training in trainings}
        with show_progress("trainings", len(trainings), quiet=trainings[0].engine.quiet) as advance:
            for future in as_completed(waiting):
                future.result()
                advance(1, waiting[future].title)


def _run_quietly(training: RowTraining) -> None:
    # a row's own failure is not this pool's: it is met again when the result is collected
    with suppress(SightlineError):
        replace(training, engine=replace(training.engine, quiet=True)).run()
