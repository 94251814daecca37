"""One training loop, read top to bottom. Device, precision and strategy are Lightning Fabric's; the loop is ours.

Every step is a function of (recipe, cohort, step): the loader is stateless, the learning rate is computed from the
step, and the state file holds weights, optimiser, generators and running sums. A run killed at any moment and started
again therefore ends with the same weights as one that was never killed (bit for bit on a CPU with the same threads).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sightline.case import Cohort
from sightline.cohorts.loader import Balance, CohortItems, batches_per_epoch, test_batches, training_batches
from sightline.cohorts.patches import patchable
from sightline.cohorts.split import refuse_leakage
from sightline.cohorts.transforms import View, refuse_unmarked
from sightline.errors import CohortError, RunError
from sightline.evidence import Batch, Evidence
from sightline.lab.aim import Aim, apart
from sightline.lab.optimise import class_weights, set_rate
from sightline.lab.plain import Catalogue
from sightline.lab.predict import evidence_of, laid_out, probabilities_of
from sightline.lab.preflight import check_explainer
from sightline.lab.progress import progress
from sightline.lab.recipe import Recipe
from sightline.lab.run import Run, open_run, save_weights, start_run, write_history, write_text
from sightline.lab.state import load_state, save_state

STATE_EVERY_S = 60.0
BALANCES: dict[str, Balance] = {"oversample": "most", "undersample": "least"}


@dataclass(frozen=True)
class Engine:
    """Where and how a training runs; none of it changes what is trained.

    Attributes:
        device: `auto`, `cpu`, `cuda` (Fabric's accelerator).
        devices: how many of them.
        strategy: Fabric's strategy word.
        workers: loader processes.
        quiet: no progress.
        state_every_s: seconds between state files within an epoch.
    """

    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    workers: int = 0
    quiet: bool = False
    state_every_s: float = STATE_EVERY_S

    def __post_init__(self) -> None:
        """Refuse numbers of devices and processes that mean nothing."""
        if self.devices < 1 or self.workers < 0:
            raise RunError(
                f"An engine needs devices >= 1 and workers >= 0; got {self.devices} and {self.workers}.",
                "Use --devices 1 --workers 0.",
            )

    def fabric(self, precision: str) -> Fabric:
        """Fabric for this engine.

        Raises:
            RunError: this machine has no such device, or Fabric knows no such precision.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return Fabric(
                    accelerator=self.device,
                    devices=self.devices,
                    strategy=self.strategy,
                    precision=cast(Any, precision),
                )
            except (RuntimeError, ValueError, TypeError, MisconfigurationException) as error:
                raise RunError(
                    f"This machine cannot train on {self.devices} x {self.device!r} in {precision!r}: {error}",
                    "Choose another --device, --devices or --precision; `auto` takes what there is.",
                ) from None


class Plain(nn.Module):
    """A network whose forward returns a dict of tensors, which Fabric can convert (it refuses frozen dataclasses)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and maps, window and extras where there are some."""
        return plain_of(self.network(images))


def plain_of(evidence: Evidence) -> dict[str, Tensor]:
    """All tensors of an evidence by name."""
    named = {"logits": evidence.logits, "maps": evidence.maps, "window": evidence.window, **evidence.extras}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@dataclass
class Sums:
    """Running sums of an epoch, so that a resumed epoch reports the same means."""

    images: int = 0
    loss: float = 0.0
    objective: float = 0.0
    guidance: float = 0.0
    excess: float = 0.0
    guided: int = 0
    correct: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """What the state file says of how far a training is."""

    step: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf


def train(recipe: Recipe, cohort: Cohort, folder: Path, catalogue: Catalogue, engine: Engine | None = None) -> Run:
    """Train a recipe on a cohort into a run folder; resumes a killed run, returns a finished one.

    Args:
        recipe: what to train.
        cohort: cases with splits.
        folder: the run folder.
        catalogue: words for the recipe's parts.
        engine: device and workers.

    Raises:
        CohortError: no split, leakage, a class without training cases.
        RunError: the folder holds another run, or the loss stops being a number.
    """
    engine = engine or Engine()
    cohort = recipe.see(cohort)
    training = _training_cases(recipe, cohort)
    if (folder / "cohort.json").is_file():
        start_run(folder, recipe, cohort, catalogue)
        run = open_run(folder, catalogue)
        if run.done:
            return run
    fabric = engine.fabric(recipe.precision)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        network = laid_out(recipe.model.build(len(cohort.classes)))
    weights = torch.ones(len(cohort.classes))
    if recipe.reweight == "inverse_frequency":
        weights = class_weights((cohort.class_index(c.label) for c in training), len(cohort.classes))
    aim = Aim(recipe, network, weights, fabric.world_size)
    optimizer = recipe.optimiser.build(recipe.rates.groups(network))
    plain, optimizer = fabric.setup(Plain(network), optimizer)
    aim.to(fabric.device)
    # only now: a recipe that cannot be built (a mistyped backbone, say) leaves no folder behind
    start_run(folder, recipe, cohort, catalogue)

    regions = recipe.regions if recipe.guided_by_regions else None
    boxes = recipe.regions if recipe.needs_boxes else False
    items = CohortItems(training, recipe.view, regions, boxes=boxes, seed=recipe.seed)
    if aim.explainer is not None and fabric.is_global_zero:
        check_explainer(network, aim.explainer, items, folder, recipe.title, fabric.device)
    per_rank = max(2, recipe.batch_size // fabric.world_size)
    balance = BALANCES.get(recipe.reweight, "none")
    steps_per_epoch = batches_per_epoch(items.images_per_epoch(balance=balance), per_rank, fabric.world_size)
    steps = recipe.epochs * steps_per_epoch if recipe.steps is None else recipe.steps

    state_path = folder / "state" / "state.safetensors"
    at = Progress()
    copies: dict[str, dict[str, Tensor]] = {}
    if state_path.is_file():
        numbers, copies = load_state(state_path, network, optimizer)
        at = Progress(numbers["step"], Sums(**numbers["sums"]), numbers["history"], numbers["best"])
    elif recipe.average > 0.0:
        copies["average"] = _copy(network)

    def keep_state() -> None:
        if fabric.is_global_zero:
            save_state(state_path, network, optimizer, asdict(at), copies)

    events = _Events(folder / "events", at.step) if fabric.is_global_zero else None
    saved_s = time.monotonic()
    with progress(recipe.title, steps, done=at.step, quiet=engine.quiet or not fabric.is_global_zero) as advance:
        while at.step < steps and not _stops(recipe, at):
            epoch, first_batch = divmod(at.step, steps_per_epoch)
            network.train()
            batches = training_batches(
                items,
                epoch=epoch,
                batch_size=per_rank,
                first_batch=first_batch,
                rank=fabric.global_rank,
                world=fabric.world_size,
                workers=engine.workers,
                balance=balance,
                repeats=items.repeats,
            )
            for batch in batches:
                begun = time.monotonic()
                set_rate(optimizer, recipe.schedule.rate(at.step, steps, steps_per_epoch, at.history))
                loss = _step(fabric, plain, optimizer, batch.to(fabric.device), aim, at)
                if not math.isfinite(loss):
                    raise RunError(
                        f"The loss became {loss} at step {at.step + 1} of {recipe.title}.",
                        "Lower the learning rate or the guidance weight, or train in 32-true precision.",
                    )
                if recipe.average > 0.0:
                    _average(copies["average"], network, recipe.average, at.step)
                at.step += 1
                at.sums.seconds += time.monotonic() - begun
                advance(1, f"loss {at.sums.loss / at.sums.images:.3f}")
                if at.step >= steps or at.step % steps_per_epoch == 0:
                    break
                if time.monotonic() - saved_s > engine.state_every_s:
                    keep_state()
                    saved_s = time.monotonic()
            row = _epoch_row(epoch, at, recipe, steps, steps_per_epoch)
            if at.step % steps_per_epoch == 0 or at.step >= steps:
                row |= _validate(aim, copies, cohort, fabric, engine)
                if recipe.select != "last":
                    score = _negative(row["val_loss"]) if recipe.select == "loss" else row[f"val_{recipe.select}"]
                    if score is not None and score > at.best:
                        at.best = float(score)
                        copies["best"] = _copy(network, copies.get("average"))
                at.history.append(row)
                at.sums = Sums()
                if events is not None:
                    events.write(row, at.step)
                    write_history(folder / "history.csv", at.history)
                if at.step < steps:
                    keep_state()
                    saved_s = time.monotonic()
    if events is not None:
        events.close()
    if fabric.is_global_zero:
        final = copies.get("best") or copies.get("average") or network.state_dict()
        kept, learned = apart(final)
        save_weights(kept, folder / "weights.safetensors")
        if learned:
            save_weights(learned, folder / "objective.safetensors")
        write_text(folder / "DONE", f"{at.step} steps, {datetime.now(UTC).isoformat(timespec='seconds')}\n")
        state_path.unlink(missing_ok=True)
    fabric.barrier()
    return open_run(folder, catalogue)


def _training_cases(recipe: Recipe, cohort: Cohort) -> Cohort:
    refuse_leakage(cohort)
    refuse_unmarked(cohort, recipe.view)
    training = cohort.split(*recipe.train_on)
    if isinstance(recipe.view, View) and recipe.view.patches is not None and len(training):
        training = patchable(training, recipe.regions)
    if len(training) == 0:
        raise CohortError(
            f"Cohort {cohort.name!r} has no case in the split {' + '.join(recipe.train_on)}.",
            "Assign splits when importing the cohort.",
        )
    absent = [name for name, n in training.counts().items() if n == 0]
    if len(absent) == len(cohort.classes) - 1:
        raise CohortError(
            f"All {len(training)} training cases of {cohort.name!r} have one label; {', '.join(absent)} is absent.",
            "Import cases of every class.",
        )
    if recipe.select != "last" and len(cohort.split("val")) == 0:
        raise CohortError(f"select={recipe.select!r} needs a validation split.", "Assign one, or use select='last'.")
    return training


def _stops(recipe: Recipe, at: Progress) -> bool:
    """Whether the schedule ends the training here, between two epochs."""
    stops = getattr(recipe.schedule, "stops", None)
    return stops is not None and at.sums.images == 0 and bool(stops(at.history))


def _step(
    fabric: Fabric, plain: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, aim: Aim, at: Progress
) -> float:
    """One update: the objective plus weighted guidance (Liao 2022, equation 6)."""
    sums, recipe = at.sums, aim.recipe
    out = plain(laid_out(batch.images))
    out["logits"] = out["logits"].float()
    main, _, parts = aim({**out, **aim.explained(batch)}, batch, at.history)
    loss = main
    if recipe.guidance is not None and recipe.weight > 0.0:
        # a penalty without regions still wants to know the input grid
        targets = (
            batch.images.new_zeros(len(batch), 1, *batch.images.shape[2:]) if batch.targets is None else batch.targets
        )
        term = recipe.guidance(out["maps"], targets, batch.guided)
        loss = main + recipe.weight * term.value
        # images without a region count for nothing, also in the log
        sums.guidance += float(term.value.detach()) * term.images
        sums.excess += (float(term.value.detach()) - term.floor) * term.images
        sums.guided += term.images
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if recipe.optimiser.clip_value is not None:
        fabric.clip_gradients(plain, optimizer, clip_val=recipe.optimiser.clip_value)
    optimizer.step()
    value = float(loss.detach())
    sums.images += len(batch)
    sums.loss += value * len(batch)
    sums.objective += float(main.detach()) * len(batch)
    sums.correct += int((out["logits"].detach().argmax(dim=1) == batch.labels).sum())
    for name, part in parts.items():
        sums.parts[name] = sums.parts.get(name, 0.0) + part * len(batch)
    return value


def _epoch_row(epoch: int, at: Progress, recipe: Recipe, steps: int, steps_per_epoch: int) -> dict[str, Any]:
    sums, n = at.sums, max(1, at.sums.images)
    return {
        "epoch": epoch + 1,
        "step": at.step,
        "rate": recipe.schedule.rate(max(0, at.step - 1), steps, steps_per_epoch, at.history),
        "images": sums.images,
        "loss": sums.loss / n,
        ("cross_entropy" if recipe.objective is None else "objective"): sums.objective / n,
        "accuracy": sums.correct / n if recipe.classifies else None,
        **{name: total / n for name, total in sums.parts.items()},
        "guided_images": sums.guided,
        "guidance": sums.guidance / sums.guided if sums.guided else None,
        "guidance_excess": sums.excess / sums.guided if sums.guided else None,
        "seconds": round(sums.seconds, 3),
    }


def _validate(
    aim: Aim, copies: Mapping[str, dict[str, Tensor]], cohort: Cohort, fabric: Fabric, engine: Engine
) -> dict[str, Any]:
    """Loss with its parts, accuracy and AUC on validation, with the averaged weights where there are some."""
    recipe, network = aim.recipe, aim.network
    validation = cohort.split("val")
    if len(validation) == 0 or "val" in recipe.train_on or not fabric.is_global_zero:
        return {"val_loss": None, "val_accuracy": None, "val_auc": None, "val_f1": None}
    from sklearn.metrics import f1_score, roc_auc_score

    kept = _copy(network) if "average" in copies else None
    if kept is not None:
        network.load_state_dict(copies["average"])
    network.eval()
    wanted = recipe.regions if recipe.objective is not None and recipe.objective.needs_regions else None
    items = CohortItems(validation, recipe.view, wanted, boxes=recipe.needs_boxes, seed=recipe.seed)
    logits, labels, loss, counted = [], [], 0.0, 0
    sums: dict[str, float] = {}
    for batch in test_batches(items, batch_size=max(16, recipe.batch_size), workers=engine.workers):
        there = batch.to(fabric.device)
        out = plain_of(evidence_of(network, batch.images, fabric.device))
        out |= {name: tensor.detach() for name, tensor in aim.explained(there).items()}
        with torch.no_grad():
            on_device = {name: tensor.to(fabric.device) for name, tensor in out.items()}
            value, images, parts = aim(on_device, there, (), even=True)
        loss, counted = loss + float(value) * images, counted + images
        for name, part in parts.items():
            sums[name] = sums.get(name, 0.0) + part * images
        logits.append(out["logits"])
        labels.append(batch.labels)
    if kept is not None:
        network.load_state_dict(kept)
    row: dict[str, Any] = {"val_loss": loss / counted if counted else None}
    row |= {"val_accuracy": None, "val_auc": None, "val_f1": None}
    row |= {f"val_{name}": total / counted for name, total in sums.items() if counted}
    if not recipe.classifies:
        return row
    z, y = torch.cat(logits), torch.cat(labels)
    if not bool(z.isfinite().all()):
        raise RunError(
            f"{recipe.title} says nothing finite of the validation images: the training diverged.",
            "Lower the learning rate or the weight of what is added to the cross-entropy.",
        )
    p = probabilities_of(z, independent=recipe.independent)
    called = z.argmax(dim=1)
    row["val_accuracy"] = float((called == y).float().mean())
    # of the second of two classes; of more, the mean over classes
    row["val_f1"] = float(f1_score(y, called, average="binary" if p.shape[1] == 2 else "macro", zero_division=0.0))
    if len(torch.unique(y)) == p.shape[1]:
        row["val_auc"] = float(
            roc_auc_score(y.numpy(), p[:, 1])
            if p.shape[1] == 2
            else np.mean([roc_auc_score(y.numpy() == k, p[:, k]) for k in range(p.shape[1])])
        )
    return row


def _negative(loss: float | None) -> float | None:
    return None if loss is None else -loss


def _copy(network: nn.Module, instead: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    source = network.state_dict() if instead is None else instead
    return {name: tensor.detach().clone() for name, tensor in source.items()}


def _average(average: dict[str, Tensor], network: nn.Module, keep: float, step: int) -> None:
    """Exponential moving average; the first steps average over fewer, so that the start is soon forgotten."""
    share = min(keep, (1.0 + step) / (10.0 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].mul_(share).add_(value.detach(), alpha=1.0 - share)
        else:
            average[name].copy_(value)


class _Events:
    """TensorBoard events; a resumed run purges what the killed one wrote past its state."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: Mapping[str, Any], step: int) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
