"""Trainings of a table as tasks of a Ray cluster, over a file system that all nodes and the driver share, or a store.

The run folder is the only memory: a training whose worker or node is lost starts again elsewhere from the state file,
and a driver that is started again finds what its predecessor left. Locks, atomic replacement and fsync keep a run
folder whole on a shared file system (NFS, Lustre, BeeGFS). Where there is none, a `RunStore` carries cohorts, states
and finished runs, and each node works in a folder of its own. Ray itself is imported only here, and only when asked
for.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sightline.errors import FolderHeld, RunError, SightlineError, count_noun
from sightline.evaluation.tables.engines.row_training import RowTraining
from sightline.evaluation.tables.engines.run_store import RunStore, move_cohort
from sightline.io.files import write_text
from sightline.io.progress import show_progress
from sightline.structures.case import Cohort
from sightline.training.run import describe_environment

# a lost worker's training goes elsewhere so many times; what still dies then (out of memory, say) is reported
RETRIES = 20
# the worker of a lost node may hold its run folder for a moment, until the system ends it
HELD_S = 120.0
TOKEN = ".driver"


@dataclass(frozen=True)
class RayEngine:
    """A Ray cluster.

    Attributes:
        address: of a running cluster (`auto` finds one on this machine); None starts Ray here for this table alone.
        cores: cores a training takes, and its threads: other numbers of threads differ in the last bits.
        say: called with what was measured.
        store: carries cohorts and runs between machines that share no files; None: they share them.
    """

    address: str | None = None
    cores: int = 1
    say: Callable[[str], None] = lambda line: None
    store: RunStore | None = None

    def __post_init__(self) -> None:
        """Refuse a training without cores."""
        if self.cores < 1:
            raise RunError(f"A training needs cores >= 1; got {self.cores}.", "Use --cores 1.")

    def run(self, trainings: Sequence[RowTraining]) -> Mapping[str, SightlineError]:
        """Run all of them, each after those that it needs; why rows failed.

        Raises:
            RunError: no ray, no cluster, no node with enough cores or GPUs, another version or no shared files there.
        """
        if not trainings:
            return {}
        ray = import_ray()
        here = not ray.is_initialized()
        if here:
            _connect(ray, self.address)
        token = trainings[0].out / TOKEN
        text = secrets.token_hex(16)
        try:
            gpus = _count_gpus(ray, trainings[0], self.cores)
            if self.store is None:
                write_text(token, text)
                cohorts: dict[str, str] = {}
            else:
                self.store.write_note(f"{TOKEN}-{text}", text)
                cohorts = {str(root): self.store.send_cohort(root) for root in _list_roots(trainings)}
            driver = _Driver(
                str(Path.cwd()), str(token), text, tuple(sys.argv), _collect_versions(), self.cores, cohorts
            )
            return self._submit(ray, trainings, driver, gpus)
        finally:
            token.unlink(missing_ok=True)
            if self.store is not None:
                with suppress(RunError):
                    self.store.delete_note(f"{TOKEN}-{text}")
            if here:
                ray.shutdown()

    def _submit(
        self, ray: Any, trainings: Sequence[RowTraining], driver: _Driver, gpus: int
    ) -> dict[str, SightlineError]:
        task = ray.remote(num_cpus=self.cores, num_gpus=gpus, max_retries=RETRIES)(_run_there)
        # once for all tasks: the cohort in it is large
        shared = ray.put(tuple(trainings))
        begun = time.monotonic()
        waiting: dict[Any, RowTraining] = {}
        by_place: dict[tuple[str, int], Any] = {}
        for index, training in sorted(enumerate(trainings), key=lambda pair: pair[1].depth):
            needed = [by_place[need.row.name, need.seed] for need in training.needs]
            reference = task.remote(shared, index, driver, *needed)
            by_place[training.row.name, training.seed] = reference
            waiting[reference] = training
        failures: dict[str, SightlineError] = {}
        seconds: list[float] = []
        nodes: set[str] = set()
        with show_progress("trainings", len(trainings), quiet=trainings[0].engine.quiet) as advance:
            while waiting:
                (ready, *_), _ = ray.wait(list(waiting))
                training = waiting.pop(ready)
                outcome = _collect_outcome(ray, ready, training)
                if isinstance(outcome.error, _UnfitNode):
                    raise outcome.error
                if outcome.error is not None:
                    failures.setdefault(training.row.name, outcome.error)
                seconds.append(outcome.seconds)
                nodes.add(outcome.node)
                advance(1, training.title)
        wall = time.monotonic() - begun
        slots = min(len(trainings), _count_slots(ray, self.cores, gpus))
        self.say(
            f"Ray: {count_noun(len(trainings), 'training')} on {count_noun(len(nodes), 'node')}, "
            f"{sum(seconds):.0f} s of work in {wall:.0f} s with "
            f"room for {slots} at a time: {sum(seconds) / (wall * slots):.2f} of ideal."
        )
        return failures


class _UnfitNode(RunError):
    """A node that cannot work for this driver: no row's own failure."""


@dataclass(frozen=True)
class _Driver:
    """What a task is told of where it was sent from: folder, a file with its text, command, versions, threads; and the
    names in the store of the cohorts that lie in folders of the driver.
    """

    folder: str
    token: str
    text: str
    command: tuple[str, ...]
    versions: Mapping[str, Any]
    threads: int
    cohorts: Mapping[str, str]


@dataclass(frozen=True)
class _TaskOutcome:
    """What a task says when it ends: seconds of work, its node, and why it failed."""

    seconds: float
    node: str
    error: SightlineError | None = None


def import_ray() -> Any:
    """Ray, told not to report its use to its makers.

    Raises:
        RunError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise RunError(
            "--engine ray needs the package ray, which is not installed.",
            "Install sightline-radiology[ray], or leave --engine out.",
        ) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init("local", include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise RunError(
            f"There is no Ray cluster at {address or 'this machine'}: {' '.join(str(error).split())[:300]}",
            "Start one (ray start --head, then ray start --address HEAD:6379 on the others), or leave --address out.",
        ) from None


def _count_gpus(ray: Any, training: RowTraining, cores: int) -> int:
    """GPUs a training takes.

    Raises:
        RunError: no node has so many, or so many cores.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_gpus = max((int(node.get("GPU", 0)) for node in nodes), default=0)
    device = training.engine.device
    gpus = 1 if device == "cuda" or (device == "auto" and most_gpus) else 0
    if not any(node.get("CPU", 0) >= cores and node.get("GPU", 0) >= gpus for node in nodes):
        raise RunError(
            f"A training asks for {cores} cores and {gpus} GPUs; no node of the Ray cluster has them "
            f"(most: {max((int(n.get('CPU', 0)) for n in nodes), default=0)} cores, {most_gpus} GPUs).",
            "Use fewer --cores, another --device, or add a node.",
        )
    return gpus


def _count_slots(ray: Any, cores: int, gpus: int) -> int:
    """How many trainings find room at a time on the nodes that are there now."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            found = int(node["Resources"].get("CPU", 0)) // cores
            room += min(found, int(node["Resources"].get("GPU", 0)) // gpus) if gpus else found
    return max(1, room)


def _collect_versions() -> dict[str, Any]:
    """What must be the same everywhere for the same bits."""
    facts = describe_environment()
    return {"sightline": facts["sightline"], "code": facts["code"], "torch": facts["packages"].get("torch")}


def _collect_outcome(ray: Any, reference: Any, training: RowTraining) -> _TaskOutcome:
    """What a task left, whatever became of it."""
    try:
        outcome: _TaskOutcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, ImportError):
            raise _UnfitNode(f"A node cannot run sightline ({cause}).", "Install this version on every node.") from None
        raise
    except ray.exceptions.RayError as error:
        lost = f"{training.title}: its worker was lost {RETRIES + 1} times ({type(error).__name__})."
        return _TaskOutcome(0.0, "", RunError(lost, "Give it more memory; the same command resumes."))
    return outcome


def _run_there(trainings: tuple[RowTraining, ...], index: int, driver: _Driver, *needed: _TaskOutcome) -> _TaskOutcome:
    """One training on a node; its own failure is a value, so that Ray does not try it again."""
    import ray

    node = str(ray.get_runtime_context().get_node_id())
    begun = time.monotonic()
    training = trainings[index]
    try:
        _enter_driver(driver, training.store)
        training = replace(training, engine=replace(training.engine, quiet=True))
        if training.store is None:
            _run_when_free(training)
        else:
            training = _move_to_node(training, training.store, driver, Path(tempfile.gettempdir(), f"sightline-{node}"))
            _run_when_free(training)
            # the store has it
            shutil.rmtree(training.folder)
    except SightlineError as error:
        return _TaskOutcome(time.monotonic() - begun, node, error)
    return _TaskOutcome(time.monotonic() - begun, node)


def _enter_driver(driver: _Driver, store: RunStore | None) -> None:
    """Folder, command and threads as the driver has them.

    Raises:
        _UnfitNode: the driver's files or its store cannot be seen from here, or the code is another.
    """
    if store is None:
        _enter_folder(driver)
    else:
        try:
            seen = store.read_note(f"{TOKEN}-{driver.text}") == driver.text
        except RunError as error:
            raise _UnfitNode(f"Node {socket.gethostname()}: {error.message}", error.remedy) from None
        if not seen:
            raise _UnfitNode(
                f"Node {socket.gethostname()} does not see in {store.url} what the driver wrote there.",
                "Name a store that every machine opens by the same URL.",
            )
    if _collect_versions() != driver.versions:
        raise _UnfitNode(
            f"Node {socket.gethostname()} has other code than the driver: {_collect_versions()}, not "
            f"{dict(driver.versions)}.",
            "Install the same versions on every node.",
        )
    # environment.json names the command that was typed
    sys.argv = list(driver.command)
    torch.set_num_threads(driver.threads)


def _enter_folder(driver: _Driver) -> None:
    try:
        os.chdir(driver.folder)
        seen = Path(driver.token).read_text(encoding="utf-8") == driver.text
    except OSError:
        seen = False
    if not seen:
        raise _UnfitNode(
            f"Node {socket.gethostname()} does not see {driver.token} from {driver.folder}.",
            "Keep cohort and --out on a file system that driver and nodes share under one path; or name a --store.",
        )


def _list_roots(trainings: Sequence[RowTraining]) -> list[Path]:
    """Folders of the cohorts that trainings need.

    Raises:
        RunError: a cohort that lies in none.
    """
    cohorts = {id(c): c for training in trainings for c in (training.cohort, *training.tests.values())}
    for cohort in cohorts.values():
        if cohort.root is None:
            raise RunError(f"Cohort {cohort.name!r} lies in no folder that could be sent.", "Use `write_cohort` first.")
    return sorted({cohort.root for cohort in cohorts.values() if cohort.root is not None})


def _move_to_node(training: RowTraining, store: RunStore, driver: _Driver, place: Path) -> RowTraining:
    """The training in folders of this node, with the cohorts' files fetched from the store."""
    roots = {}
    for root, name in driver.cohorts.items():
        roots[Path(root)] = place / "cohorts" / name
        store.fetch_cohort(name, roots[Path(root)])

    def move(cohort: Cohort) -> Cohort:
        return cohort if cohort.root is None else move_cohort(cohort, roots[cohort.root])

    features = None if training.engine.features is None else place / "features"
    return replace(
        training,
        cohort=move(training.cohort),
        tests={name: move(test) for name, test in training.tests.items()},
        out=place / "tables" / driver.text,
        engine=replace(training.engine, features=features),
    )


def _run_when_free(training: RowTraining) -> None:
    """Run it; a folder still held by a worker that is just ending is waited for."""
    until = time.monotonic() + HELD_S
    while True:
        with suppress(FolderHeld):
            training.run()
            return
        if time.monotonic() > until:
            training.run()
            return
        time.sleep(0.5)
