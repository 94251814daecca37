"""A search over a recipe's fields with Optuna, on validation alone: the test split is taken away before anything runs.

What a folder holds: `search.json` (what is searched), `search.log` (Optuna's journal: a search that was stopped goes
on), `runs/` (every training), `trials.csv`, and `best/recipe.json`, which `sightline train` and `sightline table` take.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sightline.errors import CohortError, RecipeError, RunError, SightlineError, count_noun
from sightline.evaluation.tables.grids.grid import change_recipe
from sightline.io.files import hold_folder, read_json, read_run_csv, write_bytes, write_text
from sightline.structures.case import Cohort
from sightline.training.engine import Engine, require_one_device
from sightline.training.recipe import Recipe, format_identity_json, format_recipe_json
from sightline.training.run import find_identity
from sightline.training.serialization import Catalogue
from sightline.training.train import train

Measure = Literal["auc", "f1", "loss"]
LOG = "search.log"


@dataclass(frozen=True)
class SearchField:
    """One field that is searched.

    Attributes:
        name: as `recipe.json` nests it, with points between.
        low, high: bounds, both included; whole numbers where both are written so.
        log: drawn on the scale of logarithms.
        choices: words or numbers to choose from, in place of bounds.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """A value, by Optuna."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def read_field(text: str) -> SearchField:
    """A field from `NAME=LOW:HIGH`, `NAME=log:LOW:HIGH` or `NAME=A,B,C`.

    Raises:
        RecipeError: none of these.

    Example:
        >>> read_field("weight=log:0.01:1").log
        True
    """
    name, equals, values = text.partition("=")
    parts = values.split(":")
    log = parts[0] == "log"
    bounds = [_parse_number(part) for part in (parts[1:] if log else parts)]
    if name.strip() and equals and len(parts) == 1 and "," in values:
        return SearchField(name.strip(), choices=tuple(_parse_value(part.strip()) for part in values.split(",")))
    if not (name.strip() and len(bounds) == 2) or bounds[0] is None or bounds[1] is None or bounds[0] >= bounds[1]:
        raise RecipeError(
            f"--field {text} says no range.", "Write NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=A,B,C with LOW < HIGH."
        )
    if log and bounds[0] <= 0:
        raise RecipeError(f"--field {text}: a logarithm needs LOW > 0.", "Raise LOW, or leave log: out.")
    return SearchField(name.strip(), bounds[0], bounds[1], log)


def _parse_number(text: str) -> float | int | None:
    for kind in (int, float):
        try:
            number: float | int = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def _parse_value(text: str) -> Any:
    if text in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text]
    number = _parse_number(text)
    return text if number is None else number


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        recipe: what is changed.
        fields: of the recipe.
        measure: of the validation cases, of the weights that the recipe keeps (`auc`, `f1`: higher; `loss`: lower).
        seeds: trainings a trial, from the recipe's seed on; the trial's value is their mean.
        seed: of Optuna's sampler (TPE).
    """

    recipe: Recipe
    fields: tuple[SearchField, ...]
    measure: Measure = "auc"
    seeds: int = 1
    seed: int = 0


def search_fields(
    search: Search,
    cohort: Cohort,
    out: Path,
    catalogue: Catalogue,
    *,
    trials: int = 20,
    engine: Engine | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Run trials until there are so many, those of an earlier call included; a trial that was cut short goes on.

    Each suggestion depends on the seed, the trial's number and the trials before it, so that a search that was stopped
    finds what one in a single piece would have.

    Returns:
        What was found, in lines.

    Raises:
        RunError: no optuna, or the folder holds another search.
        RecipeError: a field that the recipe does not have.
        CohortError: nothing to validate on.
        SightlineError: what made every trial fail.
    """
    optuna = import_optuna()
    engine = engine or Engine()
    require_one_device(engine, "A search")
    seen = cohort.split(*dict.fromkeys((*search.recipe.train_on, "val")))
    if "test" in search.recipe.train_on or "val" in search.recipe.train_on or not len(seen.split("val")):
        raise CohortError(
            f"A search needs validation cases of {cohort.name!r} that nothing is trained on, and no test cases.",
            "Assign a val split (sightline cohort split), or take a recipe that trains on train alone.",
        )
    if trials < 1 or search.seeds < 1 or not search.fields:
        raise RecipeError("A search needs trials >= 1, seeds >= 1 and a field.", "Use --field weight=0.01:1.")
    names = [field.name for field in search.fields]
    if len(set(names)) < len(names):
        raise RecipeError(f"A field is named twice among {', '.join(names)}.", "Give each --field once.")
    for field in search.fields:
        # a field that is not there is refused before any time is spent
        change_recipe(search.recipe, {field.name: field.choices[0] if field.choices else field.low}, catalogue)
    with hold_folder(out):
        _require_same_search(search, seen, out, catalogue)
        study = _open_study(optuna, search, out)
        last: SightlineError | None = None
        while len(_list_finished(optuna, study)) < trials:
            number, values = _choose_next(optuna, study, search)
            try:
                found = _train(search, values, seen, out, catalogue, engine)
            except SightlineError as error:
                last = error
                say(f"trial {number}, {_describe_values(values)}: failed. {error}")
                study.tell(number, state=optuna.trial.TrialState.FAIL)
                continue
            study.tell(number, found)
            say(f"trial {number}, {_describe_values(values)}: {search.measure} {found:.4f}")
        return _write(optuna, study, search, out, catalogue, last)


def import_optuna() -> Any:
    """Optuna, silent.

    Raises:
        RunError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise RunError(
            "sightline search needs the package optuna, which is not installed.",
            "Install sightline-radiology[search].",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _require_same_search(search: Search, seen: Cohort, out: Path, catalogue: Catalogue) -> None:
    """Write what is searched, or refuse to go on with something else."""
    about = {
        "recipe": json.loads(format_identity_json(format_recipe_json(search.recipe, catalogue, as_typed=True))),
        "fields": [[f.name, f.low, f.high, f.log, list(f.choices)] for f in search.fields],
        "measure": search.measure,
        "trainings a trial": search.seeds,
        "seed": search.seed,
        "cases": seen.fingerprint(),
        "splits": sorted({str(case.split) for case in seen}),
    }
    path = out / "search.json"
    if read_json(path) != about if path.is_file() else (out / LOG).exists():
        raise RunError(f"{out} holds another search.", "Choose another --out, or the fields of search.json.")
    write_text(path, json.dumps(about, indent=2) + "\n")


def _open_study(optuna: Any, search: Search, out: Path) -> Any:
    """The study that the journal holds, or a new one.

    Raises:
        RunError: the journal is damaged.
    """
    path = out / LOG
    direction = "minimize" if search.measure == "loss" else "maximize"
    if path.is_file() and not (kept := path.read_bytes()).endswith(b"\n"):
        # a full disk cut the last line: what it says is found again
        write_bytes(path, kept[: kept.rfind(b"\n") + 1])
    try:
        journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        return optuna.create_study(storage=journal, study_name="search", direction=direction, load_if_exists=True)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error!r}).", "Restore it; or take another --out.") from None


def _list_finished(optuna: Any, study: Any) -> list[Any]:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    return [trial for trial in study.get_trials(deepcopy=False, states=states) if trial.params]


def _choose_next(optuna: Any, study: Any, search: Search) -> tuple[int, dict[str, Any]]:
    """The trial that was cut short, else a new one: number and values."""
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        if len(trial.params) == len(search.fields):
            return int(trial.number), dict(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=(search.seed + len(_list_finished(optuna, study))) % 2**32)
    trial = study.ask()
    return int(trial.number), {field.name: field.suggest(trial) for field in search.fields}


def _train(
    search: Search, values: Mapping[str, Any], seen: Cohort, out: Path, catalogue: Catalogue, engine: Engine
) -> float:
    """The mean over the trainings of a trial."""
    found = []
    changed = change_recipe(search.recipe, values, catalogue)
    for seed in range(search.seeds):
        recipe = replace(changed, seed=search.recipe.seed + seed)
        folder = out / "runs" / find_identity(out / "runs", recipe, recipe.see(seen), catalogue)
        train(recipe, seen, folder, catalogue, engine)
        found.append(read_validation_score(folder / "history.csv", recipe, search.measure))
    return sum(found) / len(found)


def read_validation_score(history: Path, recipe: Recipe, measure: Measure) -> float:
    """What validation said of the weights that a training kept.

    Raises:
        RunError: it said nothing of this measure.
    """
    rows = [row for row in read_run_csv(history) if row.get(f"val_{measure}")]
    if not rows:
        raise RunError(f"{history} has no val_{measure}.", "Choose another --measure, or validate every epoch.")
    kept = rows[-1]
    # without a score to select by, such as an AUC where validation holds one class, the last weights are kept
    chosen = [row for row in rows if row.get(f"val_{recipe.select}")]
    if chosen:
        scores = [float(row[f"val_{recipe.select}"]) * (-1.0 if recipe.select == "loss" else 1.0) for row in chosen]
        kept = chosen[scores.index(max(scores))]
    return float(kept[f"val_{measure}"])


def _describe_values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _write(
    optuna: Any, study: Any, search: Search, out: Path, catalogue: Catalogue, last: SightlineError | None
) -> str:
    names: Sequence[str] = [field.name for field in search.fields]
    finished = _list_finished(optuna, study)
    with (out / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", *names, f"val_{search.measure}", "state"])
        for trial in finished:
            row = [trial.params[name] for name in names]
            writer.writerow([trial.number, *row, trial.value if trial.value is not None else "", trial.state.name])
    if all(trial.value is None for trial in finished):
        raise last or RunError(f"Every trial of {out} failed.", "Choose other fields.")
    best = study.best_trial
    recipe = change_recipe(search.recipe, best.params, catalogue)
    write_text(out / "best" / "recipe.json", format_recipe_json(recipe, catalogue))
    return (
        f"best of {count_noun(len(finished), 'trial')}: {_describe_values(best.params)}; "
        f"{search.measure} {best.value:.4f} on validation, "
        f"which chose it: not what to expect on test.\nwritten to {out / 'best' / 'recipe.json'}"
    )
