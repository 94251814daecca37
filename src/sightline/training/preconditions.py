"""The cases a recipe is trained on, or the reason why it cannot be trained on a cohort."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.data.loader import CohortItems, Key
from sightline.data.split import ASSIGN_SPLITS, find_mixed_studies, refuse_leakage
from sightline.data.targets.reader_consensus import list_marking_readers, require_reader
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.frames import refuse_misfit_masks
from sightline.data.views.image_view import View, refuse_unmarked
from sightline.data.views.patches import select_patchable
from sightline.errors import CohortError, RecipeError, RunError, SightlineError, count_noun
from sightline.io.files import fingerprint_file, write_text
from sightline.structures.case import Cohort
from sightline.structures.protocols import accepts_soft_targets, find_watched_column
from sightline.structures.resampling import cache_by_file
from sightline.structures.tag import Role
from sightline.training.recipe import Recipe
from sightline.training.run import FROM_CAPSULE, Run


def require_finished(*runs: Run) -> None:
    """Refuse runs without weights.

    Raises:
        RunError: naming those that are not finished, or that a capsule gave.
    """
    unfinished = [run.folder for run in runs if not run.done]
    if not unfinished:
        return
    if taken := [folder for folder in unfinished if (folder / FROM_CAPSULE).is_file()]:
        raise RunError(
            f"{taken[0]} was taken from a capsule, which holds no weights.", f"Delete {taken[0]} and train it here."
        )
    names = ", ".join(map(str, unfinished))
    raise RunError(f"{names} is not finished.", "Run the same train command again: it resumes.")


def require_same_pictures(run: Run, cohort: Cohort) -> None:
    """Refuse to reuse, or to go on with, a training whose pictures hold something else than when it began.

    Its identity knows names and sizes of files alone; the run kept a digest of each picture (size, first and last
    64 KiB). Test pictures do not matter to a training, and files that are not there are none that changed.

    Raises:
        RunError: naming one.
    """
    kept = run.cohort.get("pictures", {})
    changed = [
        case.case_id
        for case in cohort
        if case.split in ("train", "val")
        and kept.get(case.case_id)
        and _fingerprint_once(case.image) not in ("", kept[case.case_id])
    ]
    if changed:
        verb = "holds" if len(changed) == 1 else "hold"
        raise RunError(
            f"{count_noun(len(changed), 'picture')} that {run.folder} was trained on {verb} something else now, "
            f"e.g. {changed[0]}: the same names and sizes of files, other contents.",
            f"Restore the pictures; or, to train on what is there now, delete {run.folder} or choose another folder.",
        )


_fingerprint_once = cache_by_file(maxsize=20_000)(fingerprint_file)


def require_regions(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a guided recipe on a cohort that has nothing to guide by.

    Says on stderr that marks of several readers are united, where the recipe does not choose among them.

    Raises:
        CohortError: no training case, none with a region of the recipe's role, none of the reader it names, or masks
            of another size than the picture.
        RecipeError: it merges readers for a loss that cannot take that.
    """
    if not recipe.guided_by_regions and not recipe.needs_boxes:
        return
    role: Role = "finding" if recipe.needs_boxes else recipe.regions.role
    training = _require_training_split(recipe, cohort)
    if not any(region.tag.role == role for case in training for region in case.regions):
        raise CohortError(
            f"Cohort {cohort.name!r} has no {role} region in its training split.",
            "Mark regions, or choose a recipe guided by what the cohort has (train: --role, or the recipe unguided).",
        )
    refuse_misfit_masks(training)
    if isinstance(recipe.regions, RegionChoice):
        _require_readers(recipe, recipe.regions, training, role)


def _require_training_split(recipe: Recipe, cohort: Cohort) -> Cohort:
    """The cases of the recipe's training splits; where there are none, that is what is wrong first."""
    training = cohort.split(*recipe.train_on)
    if len(training) == 0:
        raise CohortError(
            f"Cohort {cohort.name!r} has no case in the split {' + '.join(recipe.train_on)}.", ASSIGN_SPLITS
        )
    return training


def _require_readers(recipe: Recipe, choice: RegionChoice, training: Cohort, role: Role) -> None:
    patches = isinstance(recipe.view, View) and recipe.view.patches is not None
    if choice.readers != "union" and (recipe.needs_boxes or patches):
        raise RecipeError(
            f"{recipe.title} learns from {'patches around' if patches else ''} boxes, which region_choice.readers "
            f"({choice.readers!r}) does not merge.".replace("  ", " "),
            "Leave readers at 'union', or merge first: sightline marks export KEEP DEST --readers.",
        )
    guidance = recipe.guidance if recipe.weight > 0.0 else None
    if choice.soft and not (accepts_soft_targets(guidance) and accepts_soft_targets(recipe.objective)):
        raise RecipeError(
            "region_choice.readers 'soft' gives shares of readers, which this recipe's loss takes for plain marks.",
            "Set weigh to 'share' in spatial_nll, use heatmap_match, or let readers be 'majority' or 'staple'.",
        )
    require_reader(training, role, choice.readers)
    names = list_marking_readers(training, role)
    if choice.readers == "union" and len(names) > 1:
        print(
            f"{recipe.title}: {role} marks of {len(names)} readers ({', '.join(map(repr, names))}) are united; "
            "--readers, or `readers` of region_choice, chooses otherwise.",
            file=sys.stderr,
        )


def select_training_cases(recipe: Recipe, cohort: Cohort) -> Cohort:
    """The training cases of a cohort.

    Args:
        recipe: what is trained.
        cohort: as the recipe sees it.

    Raises:
        CohortError: no such split, leakage between splits, nothing marked that has to be, or a single label.
    """
    refuse_leakage(cohort)
    training = _require_training_split(recipe, cohort)
    refuse_unmarked(cohort, recipe.view)
    patches = recipe.view.patches if isinstance(recipe.view, View) else None
    if patches is not None and patches.labels == "marks":
        training = select_patchable(training, recipe.regions)
    absent = [name for name, n in training.counts().items() if n == 0]
    if len(absent) == len(cohort.classes) - 1:
        raise CohortError(
            f"All {count_noun(len(training), 'training case')} of {cohort.name!r} have one label; "
            f"{', '.join(absent)} is absent.",
            "Import cases of every class.",
        )
    if recipe.select != "last" and len(cohort.split("val")) == 0:
        raise CohortError(
            f"select={recipe.select!r} needs a validation split.", f"{ASSIGN_SPLITS} Or use select='last'."
        )
    _require_auc(recipe, cohort)
    _require_watched(recipe, cohort)
    if recipe.classifies and (mixed := find_mixed_studies(cohort)):
        study, labels = next(iter(mixed.items()))
        if recipe.join_views != "none":
            raise CohortError(
                f"The views of study {study!r} are labelled {' and '.join(labels)}; joined views have one answer.",
                "Give every study one label, or every picture a study of its own, or set join_views to none.",
            )
        print(
            f"{recipe.title}: the views of {count_noun(len(mixed), 'study', 'studies')} differ in label, e.g. "
            f"{study!r} "
            f"({' and '.join(labels)}): evaluate judges studies and will refuse them. Give a study one label, or every "
            "image a study of its own.",
            file=sys.stderr,
        )
    return training


def _require_auc(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse to select by an AUC that no epoch can have: the last weights would be kept without a word."""
    if recipe.select != "auc" or not recipe.classifies:
        return
    validation = cohort.split("val")
    absent = [name for name, n in validation.counts().items() if n == 0]
    if absent:
        raise CohortError(
            f"select='auc' needs validation cases of every class; of the {len(validation)} in the split val none is "
            f"{' or '.join(absent)}, so that no epoch has an AUC.",
            "Move cases of every class to val (cohort split), or train with select='loss' or 'last'.",
        )


def _require_watched(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a schedule that waits for a column of the validation that no epoch has: the first epoch would be lost."""
    for schedule in (recipe.schedule, *(recipe.rates.schedules or {}).values()):
        column = find_watched_column(schedule) or ""
        if not column.startswith("val_"):
            continue
        if len(cohort.split("val")) == 0 or "val" in recipe.train_on:
            raise CohortError(
                f"The schedule {type(schedule).__name__} watches {column}, and no case is left to validate on.",
                f"{ASSIGN_SPLITS} Leave val out of train_on, or use a schedule that watches nothing.",
            )
        if recipe.validate == "end":
            raise RecipeError(
                f"The schedule {type(schedule).__name__} watches {column}, and validation is at the end alone.",
                "Set validate to epoch, or use a schedule that watches nothing.",
            )


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
    # few objectives learn through an explainer
    from sightline.explainers.sanity_checks.preflight import run_preflight

    # pictures far apart in the cohort: neighbours may be of one patient
    places = sorted({round(i * (len(items) - 1) / max(1, PICTURES - 1)) for i in range(PICTURES)})
    images = torch.stack([_repeat_channels(torch.from_numpy(items[Key(i, -1)].image.copy())) for i in places]).to(
        device
    )
    try:
        found = run_preflight(network, images, explainer)
    except SightlineError as error:
        write_text(path, f"# {title}: before training through an explainer\n\n{error.message} {error.remedy}\n")
        return
    lines = [f"- **{f.severity}**, {f.kind}: {f.message} {f.remedy}".rstrip() for f in found.findings]
    pictures = count_noun(len(places), "picture")
    head = f"# {title}: before training through an explainer\n\n{pictures}, the network untrained.\n\n"
    write_text(path, head + "\n".join(lines) + "\n")
    for finding in found.findings:
        if finding.severity == "wrong":
            print(f"{title}: pre-flight, {finding}", file=sys.stderr)


def _repeat_channels(planes: torch.Tensor) -> torch.Tensor:
    return planes.expand(3, *planes.shape[1:]) if len(planes) == 1 else planes
