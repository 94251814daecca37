"""A run put together from trained runs: each gives the weights of one part of the network, and nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sightline.errors import RunError, count_noun
from sightline.structures.case import Cohort
from sightline.training.preconditions import require_finished, require_same_pictures
from sightline.training.recipe import Recipe
from sightline.training.run import (
    Conclude,
    Run,
    choose_on_validation,
    finish_run,
    load_weights,
    open_run,
    require_each_once,
    save_weights,
    start_run,
)
from sightline.training.serialization import Catalogue


def assemble(
    recipe: Recipe,
    cohort: Cohort,
    parts: Mapping[str, Run],
    folder: Path,
    catalogue: Catalogue,
    *,
    conclude: Conclude | None = None,
) -> Run:
    """Write a run whose network holds the networks of other runs (Sup+UBM of Jimenez-Sanchez 2018, section II-B).

    Args:
        recipe: its model has one submodule for every part, of the part's own architecture.
        cohort: what the parts were trained on.
        parts: submodule name -> trained run.
        folder: run folder to write; the same run in it is reused.
        catalogue: words for the recipe's parts.
        conclude: what is chosen on validation before it counts as done.

    Raises:
        RunError: a run is named twice; a part is not finished, tells other classes apart, has seen cases that are
            now test cases, or its weights do not fit the submodule.
    """
    cohort = recipe.see(cohort)
    require_each_once(list(parts.values()))
    require_finished(*parts.values())
    for run in parts.values():
        _require_same_question(run, cohort)
    identities = {name: run.identity for name, run in parts.items()}
    start_run(folder, recipe, cohort, catalogue, identities)
    run = open_run(folder, catalogue)
    require_same_pictures(run, cohort)
    if run.done:
        return run
    weights: dict[str, Any] = {}
    for name, part in parts.items():
        tensors = load_file(part.folder / "weights.safetensors")
        weights |= {f"{name}.{key}": tensor for key, tensor in tensors.items()}
    path = folder / "weights.safetensors"
    save_weights(weights, path)
    # strictly: a part of another architecture is found now, not when somebody predicts
    load_weights(recipe.model.without_weights().build(len(cohort.classes)), path)
    choose_on_validation(folder, catalogue, conclude)
    finish_run(folder, "assembled")
    return open_run(folder, catalogue)


def _require_same_question(part: Run, cohort: Cohort) -> None:
    """Refuse a part with other classes (their order is that of the logits), or one that saw what is now tested.

    Raises:
        RunError: naming the part.
    """
    if part.recipe.classifies and tuple(part.cohort["classes"]) != cohort.classes:
        raise RunError(
            f"{part.folder} tells {', '.join(part.cohort['classes'])} apart, here the classes are "
            f"{', '.join(cohort.classes)}.",
            "Put together runs of one cohort and task.",
        )
    seen = {name for name, split in part.cohort["split"].items() if split in ("train", "val")}
    leaked = [case.case_id for case in cohort if case.split == "test" and case.case_id in seen]
    if leaked:
        raise RunError(
            f"{part.folder} was trained or tuned on {count_noun(len(leaked), 'case')} that this "
            f"cohort tests on, e.g. {leaked[0]}.",
            "Give the cohort with the splits that all parts were trained on.",
        )
