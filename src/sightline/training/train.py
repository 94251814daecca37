"""One training loop, read top to bottom. Device, precision and strategy are Lightning Fabric's; the loop is ours.

Every step is a function of (recipe, cohort, step): the loader is stateless, the learning rate is computed from the
step, and the state file holds weights, optimiser, generators and running sums. A run killed at any moment and started
again therefore ends with the same weights as one that was never killed (bit for bit on a CPU with the same threads).
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sightline.data.hard_negatives import NegativeMiner
from sightline.data.loader import (
    Balance,
    CohortItems,
    count_batches_per_epoch,
    draw_epoch_blocks,
    iterate_training_batches,
)
from sightline.errors import RunError, count_noun
from sightline.io.files import read_json
from sightline.io.progress import Advance, measure_cpu_seconds, show_progress
from sightline.structures.case import Cohort
from sightline.structures.evidence import Batch, has_bfloat16, to_channels_last
from sightline.structures.joined_views import find_normal_class
from sightline.structures.protocols import accepts_features, find_stopping_rule
from sightline.training.checkpoint import (
    Events,
    MlflowLog,
    clone_weights,
    flatten_flat_settings,
    load_state,
    save_state,
    update_ema,
    write_history,
)
from sightline.training.engine import (
    Engine,
    compute_strided_in_float32,
    deterministic_operations,
    keep_freed_memory,
    sync_batch_norms,
)
from sightline.training.feature_cache import find_encoder, keep_features
from sightline.training.optimization import compute_class_weights, set_rate
from sightline.training.preconditions import check_explainer, require_same_pictures, select_training_cases
from sightline.training.recipe import Recipe
from sightline.training.run import (
    Conclude,
    Run,
    choose_on_validation,
    finish_run,
    hold_run,
    open_run,
    save_weights,
    start_run,
)
from sightline.training.serialization import Catalogue
from sightline.training.step import (
    DictOutput,
    Progress,
    Sums,
    TrainingObjective,
    build_epoch_row,
    read_finding_answers,
    run_training_step,
    split_learned_weights,
)
from sightline.training.validation import NOTHING, validate

BALANCES: dict[str, Balance] = {"oversample": "most", "undersample": "least"}


_NO_BFLOAT16 = (
    "this processor has no bfloat16; computing in float32, which is faster here. Results are alike, not bit for bit "
    "those of a processor that has it."
)


@dataclass(frozen=True)
class Teacher:
    """The run that marked the training cases in place of experts, or chose whose marks are shown.

    Attributes:
        words: its identity, a gap, and how it marked or chose.
        fingerprint: of the cohort before, by which a taught run is named: the marks are not there until the teacher is.
    """

    words: str
    fingerprint: str

    @property
    def parts(self) -> dict[str, str]:
        """What the identity of a taught run holds of it."""
        return {"teacher": self.words}


def train(
    recipe: Recipe,
    cohort: Cohort,
    folder: Path,
    catalogue: Catalogue,
    engine: Engine | None = None,
    *,
    conclude: Conclude | None = None,
    teacher: Teacher | None = None,
) -> Run:
    """Train a recipe on a cohort into a run folder; resumes a killed run, returns a finished one.

    Args:
        recipe: what to train.
        cohort: cases with splits.
        folder: the run folder.
        catalogue: words for the recipe's parts.
        engine: device and workers.
        conclude: what is chosen on validation once the weights are there; before it is, the run does not count as done.
        teacher: the run that marked the cohort, where one did.

    Raises:
        CohortError: no split, leakage, a class without training cases.
        RunError: the folder holds another run, another process trains into it, or the loss stops being a number.
    """
    engine = engine or Engine()
    cohort = recipe.see(cohort)
    parts, before_marks = (None, None) if teacher is None else (teacher.parts, teacher.fingerprint)
    cases = select_training_cases(recipe, cohort)
    if (folder / "cohort.json").is_file():
        start_run(folder, recipe, cohort, catalogue, parts, before_marks)
        run = open_run(folder, catalogue)
        require_same_pictures(run, cohort)
        if run.done:
            return run
    fabric = engine.fabric(recipe.precision)
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if recipe.precision == "bf16-mixed" and not has_bfloat16(fabric.device) and fabric.is_global_zero:
        print(f"{recipe.title}: {_NO_BFLOAT16}", file=sys.stderr)
    network, aim = _build_network(recipe, cohort, cases, fabric)
    optimizer = recipe.optimiser.build(recipe.rates.groups(network))
    plain, optimizer = fabric.setup(DictOutput(network), optimizer)
    aim.to(fabric.device)
    # only now: a recipe that cannot be built (a mistyped backbone, say) leaves no folder behind
    if fabric.is_global_zero:
        start_run(folder, recipe, cohort, catalogue, parts, before_marks)
    fabric.barrier()
    regions = recipe.regions if recipe.guided_by_regions else None
    boxes = recipe.regions if recipe.needs_boxes else False
    # an explainer of the image itself has to see it
    keep_features(network, engine.features if accepts_features(aim.explainer) else None, recipe.view)
    items = CohortItems(
        cases,
        recipe.view,
        regions,
        boxes=boxes,
        seed=recipe.seed,
        encoder=find_encoder(network),
        whole_studies=recipe.join_views != "none",
    )
    if aim.explainer is not None and fabric.is_global_zero:
        check_explainer(network, aim.explainer, CohortItems(cases, recipe.view), folder, recipe.title, fabric.device)
    if fabric.world_size > 1:
        # the others wait for the check, which makes batch norms of a copy learn: only then do they ask all devices
        fabric.barrier()
        sync_batch_norms(network)
    loop = _Loop(folder, cohort, items, engine, fabric, aim, network, plain, optimizer)
    if engine.mlflow is not None and fabric.is_global_zero:
        settings = flatten_flat_settings(read_json(folder / "recipe.json"))
        identity = read_json(folder / "cohort.json")["run_identity"]
        loop.listeners.append(MlflowLog(engine.mlflow, identity, recipe.title, settings))
    with hold_run(folder) if fabric.is_global_zero else nullcontext():
        loop.resume()
        if engine.deterministic:
            with deterministic_operations() as named:
                loop.run()
            if fabric.is_global_zero:
                print(f"{recipe.title}: {_describe_operations(named)}", file=sys.stderr)
        else:
            loop.run()
        if fabric.is_global_zero:
            loop.finish(lambda: choose_on_validation(folder, catalogue, conclude))
    fabric.barrier()
    return open_run(folder, catalogue)


def _describe_operations(named: set[str]) -> str:
    """What a training says of the operations it used."""
    if not named:
        return "every operation was deterministic; the same machine repeats this training bit for bit."
    return f"not deterministic here: {', '.join(sorted(named))}; a second training may differ in its last bits."


def _build_network(
    recipe: Recipe, cohort: Cohort, cases: Cohort, fabric: Fabric
) -> tuple[nn.Module, TrainingObjective]:
    """The untrained network, and what it is to minimise."""
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        network = to_channels_last(recipe.model.build(len(cohort.classes)))
    if fabric.device.type == "cpu" and recipe.precision == "bf16-mixed" and has_bfloat16(fabric.device):
        compute_strided_in_float32(network)
    weights = torch.ones(len(cohort.classes))
    if recipe.reweight == "inverse_frequency":
        weights = compute_class_weights((cohort.class_index(c.label) for c in cases), len(cohort.classes))
    return network, TrainingObjective(recipe, network, weights, find_normal_class(cohort.classes))


@dataclass
class _Loop:
    """A training under way: what it is made of, and how far it is."""

    folder: Path
    cohort: Cohort
    items: CohortItems
    engine: Engine
    fabric: Fabric
    aim: TrainingObjective
    network: nn.Module
    plain: nn.Module
    optimizer: torch.optim.Optimizer
    at: Progress = field(default_factory=Progress)
    copies: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    saved_s: float = field(default_factory=time.monotonic)
    listeners: list[Events | MlflowLog] = field(default_factory=list)

    def __post_init__(self) -> None:
        """How many steps an epoch and the training have."""
        recipe, world = self.aim.recipe, self.fabric.world_size
        self.recipe = recipe
        self.state_path = self.folder / "state" / "state.safetensors"
        self.balance = BALANCES.get(recipe.reweight, "none")
        images = self.items.images_per_epoch(balance=self.balance)
        if min(images, recipe.batch_size) < world:
            raise RunError(
                f"{count_noun(images, 'image')} in batches of {recipe.batch_size} cannot be shared by {world} devices.",
                "Use a larger --batch-size or fewer --devices.",
            )
        self.steps_per_epoch = count_batches_per_epoch(images, recipe.batch_size, world)
        self.steps = recipe.epochs * self.steps_per_epoch if recipe.steps is None else recipe.steps
        self.aim.steps = self.steps
        self.miner = None if recipe.mining is None else NegativeMiner(recipe.mining, self.items.cohort)

    def resume(self) -> None:
        """Go on from the state that a killed run left, if there is one."""
        if self.state_path.is_file():
            numbers, self.copies = load_state(self.state_path, self.network, self.optimizer)
            self.at = Progress(numbers["step"], Sums(**numbers["sums"]), numbers["history"], numbers["best"])
            if self.miner is not None:
                self.miner.restore(numbers["mined"])
        elif self.recipe.ema_decay > 0.0:
            self.copies["average"] = clone_weights(self.network.state_dict())

    def run(self) -> None:
        """Every epoch that is left."""
        first = self.fabric.is_global_zero
        if first:
            self.listeners.append(Events(self.folder / "events", self.at.step))
        quiet = self.engine.quiet or not first
        with show_progress(self.recipe.title, self.steps, done=self.at.step, quiet=quiet) as advance:
            while self.at.step < self.steps and not self._has_stopped():
                epoch = self.at.step // self.steps_per_epoch
                self._run_epoch(epoch, advance)
                if self._is_epoch_over():
                    self._close_epoch(epoch)
        for listener in self.listeners:
            listener.close()

    def finish(self, conclude: Callable[[], None]) -> None:
        """Keep the weights that were asked for, and say that the run is done."""
        final = self.copies.get("best") or self.copies.get("average") or self.network.state_dict()
        kept, learned = split_learned_weights(final)
        save_weights(kept, self.folder / "weights.safetensors")
        if learned:
            save_weights(learned, self.folder / "objective.safetensors")
        conclude()
        finish_run(self.folder, count_noun(self.at.step, "step"))
        self.state_path.unlink(missing_ok=True)

    def _run_epoch(self, epoch: int, advance: Advance) -> None:
        """The steps of an epoch that are left."""
        self.network.train()
        used = measure_cpu_seconds()
        if self.miner is not None:
            self._choose_negatives(self.miner, epoch)
        for batch in self._iterate_batches(epoch):
            self._run_step(batch)
            # reading the batch is part of it
            self.at.sums.cpu_seconds, used = (
                self.at.sums.cpu_seconds + measure_cpu_seconds() - used,
                measure_cpu_seconds(),
            )
            advance(1, f"loss {self.at.sums.loss / self.at.sums.images:.3f}")
            if self._is_epoch_over():
                break
            if time.monotonic() - self.saved_s > self.engine.state_every_s:
                self._keep_state()

    def _iterate_batches(self, epoch: int) -> Iterator[Batch]:
        return iterate_training_batches(
            self.items,
            epoch=epoch,
            batch_size=self.recipe.batch_size,
            first_batch=self.at.step % self.steps_per_epoch,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            workers=self.engine.workers,
            balance=self.balance,
            repeats=self.items.repeats,
            redraw=None if self.miner is None else self.miner.redraw,
        )

    def _choose_negatives(self, miner: NegativeMiner, epoch: int) -> None:
        """Draw this epoch from what was answered up to its first step, and listen to what is answered in it."""
        if self.at.step % self.steps_per_epoch == 0:
            miner.renew()
        # every device knows the whole batch, whose answers are gathered on every device
        blocks = draw_epoch_blocks(
            self.items,
            epoch=epoch,
            batch_size=self.recipe.batch_size,
            world=self.fabric.world_size,
            balance=self.balance,
            repeats=self.items.repeats,
            redraw=miner.redraw,
        )

        def remember_answers(out: Mapping[str, Tensor]) -> None:
            block = blocks[self.at.step % self.steps_per_epoch]
            answers = read_finding_answers(
                out, miner.normal_class, miner.config.by, independent=self.recipe.independent
            )  # fmt: skip
            miner.observe([key.index for key in block], answers)

        self.aim.listener = remember_answers

    def _run_step(self, batch: Batch) -> None:
        recipe, at = self.recipe, self.at
        begun = time.monotonic()
        where = (at.step, self.steps, self.steps_per_epoch, at.history)
        set_rate(self.optimizer, recipe.schedule.rate(*where), recipe.rates.own(*where))
        loss = run_training_step(self.fabric, self.plain, self.optimizer, batch.to(self.fabric.device), self.aim, at)
        if not math.isfinite(loss):
            raise RunError(
                f"The loss became {loss} at step {at.step + 1} of {recipe.title}.",
                "Lower the learning rate or the guidance weight, or train in 32-true precision.",
            )
        if recipe.ema_decay > 0.0:
            update_ema(self.copies["average"], self.network, recipe.ema_decay, at.step)
        at.step += 1
        at.sums.seconds += time.monotonic() - begun

    def _is_epoch_over(self) -> bool:
        return self.at.step >= self.steps or self.at.step % self.steps_per_epoch == 0

    def _has_stopped(self) -> bool:
        """Whether the schedule ends the training here, between two epochs."""
        stops = find_stopping_rule(self.recipe.schedule)
        return stops is not None and self.at.sums.images == 0 and bool(stops(self.at.history))

    def _close_epoch(self, epoch: int) -> None:
        """Validate, write the history, and keep the weights if they are the best so far."""
        at = self.at
        row = build_epoch_row(epoch, at, self.recipe, self.steps, self.steps_per_epoch)
        if self.miner is not None:
            row["hardest_negatives"] = self.miner.answer_of_hardest()
        row |= self._validate_epoch()
        # what one device found on validation may change the rate, or end the training, of all
        row = self.fabric.broadcast(row)
        self._keep_best(row)
        at.history.append(row)
        at.sums = Sums()
        for listener in self.listeners:
            listener.write(row, at.step)
        if self.fabric.is_global_zero:
            write_history(self.folder / "history.csv", at.history)
        if at.step < self.steps:
            self._keep_state()

    def _validate_epoch(self) -> dict[str, Any]:
        if not self.fabric.is_global_zero or (self.recipe.validate == "end" and self.at.step < self.steps):
            return dict(NOTHING)
        ema, workers = self.copies.get("average"), self.engine.workers
        device, history = self.fabric.device, self.at.history
        return validate(self.aim, self.cohort, device, ema_weights=ema, workers=workers, history=history)

    def _keep_best(self, row: dict[str, Any]) -> None:
        select = self.recipe.select
        if select == "last" or row[f"val_{select}"] is None:
            return
        score = -row["val_loss"] if select == "loss" else row[f"val_{select}"]
        if score > self.at.best:
            self.at.best = float(score)
            self.copies["best"] = clone_weights(self.copies.get("average") or self.network.state_dict())

    def _keep_state(self) -> None:
        if self.fabric.is_global_zero:
            if self.miner is not None:
                self.at.mined = self.miner.state()
            save_state(self.state_path, self.network, self.optimizer, asdict(self.at), self.copies)
        self.saved_s = time.monotonic()
