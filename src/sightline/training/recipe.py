"""A recipe says everything a training depends on besides the cohort: plain data, with one digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from sightline.data.hard_negatives import HardNegatives
from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.task import Task
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RecipeError, count_noun
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.io.files import digest_file, parse_json
from sightline.structures.case import SPLITS, Cohort
from sightline.structures.identifiers import BY_CONTENT, find_weights
from sightline.structures.joined_views import JoinViews
from sightline.structures.protocols import (
    GuidanceConfig,
    ModelConfig,
    ObjectiveConfig,
    find_averaged_answers,
    has_deep_maps,
    has_features,
    needs_features,
    predicts_classes,
    tell_judging,
)
from sightline.training.optimization import LayerRates, LinearDecay, Sgd, WeightRelease
from sightline.training.serialization import Catalogue, build_from_plain, restore_former_words, to_plain

# of epochs, steps and images a batch: a training of a step a second would take decades; of rates and weights, too: far
# beyond any that a network has learnt by, and far below where single precision overflows
MOST = 10**9
# Fabric's words for weights of 16 bits
_HALF_WEIGHTS = ("16-true", "bf16-true")


class OptimiserConfig(Protocol):
    """Settings of an optimiser; `clip_value` bounds every number of a gradient, or is None."""

    @property
    def clip_value(self) -> float | None: ...  # noqa: D102
    def build(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer: ...  # noqa: D102


class ScheduleConfig(Protocol):
    """Learning rate by step, and by the rows of the epochs so far.

    A schedule with a method `stops(history) -> bool` may end a training early.
    """

    def rate(  # noqa: D102
        self, step: int, steps: int, steps_per_epoch: int, history: Sequence[Mapping[str, Any]] = ()
    ) -> float: ...


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        title: its name in tables.
        model: the network.
        view: framing and augmentation.
        task: the classes to predict, derived from the cohort's labels; None: the labels themselves.
        objective: the training objective; None: cross-entropy.
        guidance: a guidance loss added to the objective, or None.
        weight: its weight (lambda of Liao 2022, equation 6); with 0 only the model's own changes remain.
        regions: which regions, or whose gaze, guide.
        optimiser: update rule.
        schedule: learning rate by step.
        rates: learning-rate factors by parameter name.
        epochs: passes over the training cases.
        steps: stop after this many steps instead, or None.
        batch_size: images per step (over all devices).
        reweight: for imbalanced classes: `inverse_frequency` weights images by class; `oversample` repeats the images
            of smaller classes, augmented anew each time, until all classes are equally frequent; `undersample` draws
            as many images of each class as the smallest has, anew in every epoch.
        select: weights kept at the end: of the `last` step, or of the epoch best on validation by `auc`, `f1` or
            `loss`.
        train_on: splits used for training.
        boxes: how boxes are read off the class maps of networks that do not predict boxes.
        ema_decay: decay of the exponential moving average (EMA) of the weights, which is then evaluated and saved; 0:
            none.
        precision: Fabric's precision word.
        seed: seed of initialisation, order and augmentation.
        validate: evaluate the validation cases after every `epoch`, or only at the `end`.
        release: how the guidance weight changes over the steps, or None: constant.
        mining: how false positives among the pictures without a finding are drawn more often, or None.
        join_views: train on whole studies: the logits of a study's views are joined by their `mean`, `maximum` or
            `log_sum_exp` (`structures/joined_views.py`), and the study is classified by that, in training and
            prediction; each view has its own maps, guided if it has a mark. `batch_size` then counts studies. `none`:
            every picture is classified by itself.

    Example:
        >>> sl.load_recipe("small-guided", weight=0.5).weight
        0.5
    """

    title: str
    model: ModelConfig
    view: View | VolumeView = field(default_factory=View)
    task: Task | None = None
    objective: ObjectiveConfig | None = None
    guidance: GuidanceConfig | None = None
    weight: float = 0.0
    regions: RegionChoice | GazeChoice = field(default_factory=RegionChoice)
    optimiser: OptimiserConfig = field(default_factory=Sgd)
    schedule: ScheduleConfig = field(default_factory=LinearDecay)
    rates: LayerRates = field(default_factory=LayerRates)
    epochs: int = 100
    steps: int | None = None
    batch_size: int = 16
    reweight: Literal["none", "inverse_frequency", "oversample", "undersample"] = "none"
    select: Literal["last", "auc", "f1", "loss"] = "last"
    train_on: tuple[str, ...] = ("train",)
    boxes: MapBoxes = field(default_factory=MapBoxes)
    ema_decay: float = 0.0
    precision: str = "32-true"
    seed: int = 0
    validate: Literal["epoch", "end"] = field(default="epoch", metadata={"since": "0.2"})
    release: WeightRelease | None = field(default=None, metadata={"since": "0.2"})
    mining: HardNegatives | None = field(default=None, metadata={"since": "0.2"})
    join_views: JoinViews = field(default="none", metadata={"since": "0.2"})

    def __repr__(self) -> str:
        """Title, length and seed, in a line."""
        return f"Recipe({self.title!r}, {count_noun(self.epochs, 'epoch')}, batch {self.batch_size}, seed {self.seed})"

    @property
    def picture_view(self) -> View:
        """The view of a recipe for pictures.

        Raises:
            RecipeError: the recipe is for volumes.
        """
        if isinstance(self.view, View):
            return self.view
        raise RecipeError(f"{self.title} sees volumes; this needs pictures.", "Choose a recipe for pictures.")

    @property
    def guided_by_regions(self) -> bool:
        """Whether the loss uses experts' marks or readers' gaze."""
        added = self.guidance is not None and self.weight > 0.0 and self.guidance.needs_regions
        return added or (self.objective is not None and self.objective.needs_regions)

    @property
    def needs_boxes(self) -> bool:
        """Whether the loss compares boxes."""
        return self.objective is not None and self.objective.needs_boxes

    @property
    def independent(self) -> bool:
        """Whether classes are independent (sigmoid) instead of exclusive (softmax)."""
        return self.objective is not None and self.objective.independent

    @property
    def classifies(self) -> bool:
        """Whether the network classifies, or only localises."""
        return predicts_classes(self.model)

    def see(self, cohort: Cohort) -> Cohort:
        """The cohort with the classes that this recipe predicts; unchanged if it already has them."""
        return cohort if self.task is None else self.task.apply(cohort)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("steps", self.steps, 1),
            ("batch_size", self.batch_size, 2),
        ):
            if value is not None and not least <= value <= MOST:
                why = "Batch norm cannot train on single images." if name == "batch_size" else "Leave it out if unsure."
                raise RecipeError(f"{name} must be {least} or more, and at most {MOST}; got {value}.", why)
        _require_numbers(self)
        _require_optimiser(self.optimiser)
        if not 0.0 <= self.weight < math.inf or not 0.0 <= self.ema_decay < 1.0:
            raise RecipeError(
                f"weight must be >= 0 and ema_decay in [0, 1); got {self.weight}, {self.ema_decay}.",
                "Use for example --weight 1; weight 0 trains without guidance.",
            )
        if self.precision in _HALF_WEIGHTS:
            raise RecipeError(
                f"precision {self.precision} keeps the weights in 16 bits; validation, maps and guidance need 32.",
                "Use bf16-mixed, or 16-mixed on a GPU: layers compute in 16 bits, weights stay in 32.",
            )
        if not 0 <= self.seed < 2**63:
            raise RecipeError(f"seed must be 0 or more, and below 2 ** 63; got {self.seed}.", "Choose another seed.")
        if self.validate == "end" and self.select != "last":
            raise RecipeError(
                f"select={self.select!r} needs to see validation after every epoch.", "Use validate='epoch'."
            )
        if self.weight > 0.0 and self.guidance is None:
            raise RecipeError(f"weight {self.weight} has no guidance to weigh.", "Name a guidance or set weight 0.")
        if find_averaged_answers(self.model) not in (None, self.independent):
            raise RecipeError(
                f"{self.title} averages answers of networks that judge {tell_judging(not self.independent)}, "
                f"and its members judge {tell_judging(self.independent)}.",
                "Put it together anew: sightline ensemble.",
            )
        if has_deep_maps(self.model) and not self.weight > 0.0:
            raise RecipeError("deep_maps are guided alone, and nothing guides here.", "Set deep_maps to false.")
        if needs_features(self.objective) != has_features(self.model):
            raise RecipeError(
                "An objective that compares places and a network with gives_features need each other; one of them is "
                "missing.",
                "Set both, or neither.",
            )
        if self.release is not None and not self.weight > 0.0:
            raise RecipeError("release lets go of a guidance weight, which is 0.", "Set weight, or release to null.")
        if self.mining is not None and not self.classifies:
            raise RecipeError("mining needs a network that classifies.", "Set mining to null.")
        if self.join_views != "none":
            self._check_joined_views()
        if self.select in ("auc", "f1") and not self.classifies:
            raise RecipeError(f"select={self.select!r} needs a network that classifies.", "Use select='loss'.")
        if not self.train_on or len(set(self.train_on)) < len(self.train_on) or not set(self.train_on) <= set(SPLITS):
            raise RecipeError(
                f"train_on is {list(self.train_on)}; different splits of {', '.join(SPLITS)} were expected.",
                'Use ("train",), or ("train", "val") with select=\'last\'.',
            )
        if self.select != "last" and "val" in self.train_on:
            raise RecipeError(
                f"select={self.select!r} chooses on the validation split, which train_on also trains on.",
                "Use select='last' with train_on including val.",
            )

    def _check_joined_views(self) -> None:
        """Refuse settings for single pictures if whole studies are used.

        Raises:
            RecipeError: naming it.
        """
        if self.objective is not None or not self.classifies:
            raise RecipeError(
                "join_views puts together answers that the cross-entropy judges; this recipe has an objective of its "
                "own, or does not classify.",
                "Set objective to null, or join_views to none.",
            )
        if not isinstance(self.view, View) or self.view.patches is not None:
            raise RecipeError(
                "join_views puts together whole pictures; this recipe sees patches or volumes.",
                "Set view.patches to null, or join_views to none.",
            )
        if self.mining is not None:
            raise RecipeError(
                "mining draws pictures one by one, join_views whole studies.", "Set one of them to null or none."
            )


def _require_numbers(part: Any, where: str = "") -> None:
    """Refuse a number, in any part of a recipe, that is not finite or so large that a step would overflow.

    Raises:
        RecipeError: naming its place.
    """
    if is_dataclass(part) and not isinstance(part, type):
        inner: dict[Any, Any] = {f.name: getattr(part, f.name) for f in fields(part) if f.name != "seed"}
    elif isinstance(part, Mapping):
        inner = dict(part)
    elif isinstance(part, tuple | list):
        inner = dict(enumerate(part))
    else:
        if isinstance(part, int | float) and not -MOST <= part <= MOST:
            raise RecipeError(
                f"{where} must be a finite number, at most {MOST:.0e} in size; got {part}.",
                "Use a number that a training can bear: rates are about 1e-5 to 1, weights about 0.01 to 100.",
            )
        return
    for name, value in inner.items():
        _require_numbers(value, f"{where}.{name}" if where else str(name))


def _require_optimiser(config: OptimiserConfig) -> None:
    """Refuse settings that torch's optimiser refuses, before any picture is read.

    Raises:
        RecipeError: with torch's words.
    """
    try:
        config.build([{"params": [torch.nn.Parameter(torch.zeros(1))]}])
    except ValueError as error:
        raise RecipeError(
            f"The optimiser takes no such setting: {error}.",
            "Use weight_decay 0 or more, momentum and betas from 0 to below 1, and nesterov with momentum alone.",
        ) from None


# kinds of networks that may begin with a file of weights, and what the file is called if not by the field `name`
_FROM_FILES = {"backbone": "", "volume_backbone": "", "alexnet": "alexnet"}


def format_recipe_json(recipe: Recipe, catalogue: Catalogue, *, as_typed: bool = False) -> str:
    """The recipe as JSON text; files of initial weights by their content, or `as_typed`."""
    plain = to_plain(recipe, catalogue)
    return json.dumps(plain if as_typed else name_weights_by_content(plain), indent=2) + "\n"


def name_weights_by_content(data: Any, files: dict[str, str] | None = None) -> Any:
    """Plain data in which files of initial weights are named by their content, not by their path.

    Other words (`imagenet`, a missing file) are not changed.

    Args:
        data: plain data of a recipe.
        files: filled with the path of each file, by its new name.

    Example:
        >>> name_weights_by_content({"kind": "backbone", "name": "resnet18", "weights": "imagenet"})["weights"]
        'imagenet'
    """

    def name_file(place: str, name: str) -> str:
        try:
            path = find_weights(place, name)
            facts = path.stat()
        except (RecipeError, OSError):
            return place
        new = f"{BY_CONTENT}{_digest_content(path, facts.st_size, facts.st_mtime_ns)}/{path.name}"
        if files is not None:
            files[new] = str(path.resolve())
        return new

    return _change_weights(data, name_file)


def _change_weights(data: Any, change: Callable[[str, str], str]) -> Any:
    """Plain data with every name of initial weights changed; `change` takes it and the network's name."""
    if isinstance(data, list):
        return [_change_weights(one, change) for one in data]
    if not isinstance(data, Mapping):
        return data
    changed = {key: _change_weights(value, change) for key, value in data.items()}
    kind, place = data.get("kind"), data.get("weights")
    if isinstance(kind, str) and kind in _FROM_FILES and isinstance(place, str) and place != "imagenet":
        changed["weights"] = change(place, _FROM_FILES[kind] or str(data.get("name")))
    return changed


@lru_cache(maxsize=64)
def _digest_content(path: Path, size: int, changed: int) -> str:
    """Digest of a file; size and time of change say whether it has to be read again."""
    return digest_file(path)


def _find_known_files(data: Any, folder: Path) -> Any:
    """Names by content as the paths that a training on this machine noted beside its recipe, if they still hold it."""
    try:
        noted = json.loads((folder / "environment.json").read_text(encoding="utf-8")).get("weights", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return data

    def find_file(place: str, name: str) -> str:
        path = noted.get(place) if isinstance(noted, dict) else None
        if not isinstance(path, str):
            return place
        there = name_weights_by_content({"kind": "backbone", "name": name, "weights": path})["weights"]
        return path if there == place else place

    return _change_weights(data, find_file)


def format_identity_json(recipe: str) -> str:
    """The text that identities are made of, from a recipe as JSON text: in the words of the first version."""
    return json.dumps(restore_former_words(json.loads(recipe)), indent=2) + "\n"


def read_recipe(path: Path, catalogue: Catalogue) -> Recipe:
    """A recipe from a JSON file; executes nothing but the constructors of catalogued dataclasses.

    Raises:
        RecipeError: not JSON, or not a recipe.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"), _refuse_constant)
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist.", "Point at a recipe.json or a run folder.") from None
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise RecipeError(f"{path} is not a JSON recipe ({error}).", "Restore the file.") from None
    try:
        recipe = build_from_plain(_find_known_files(data, path.parent), catalogue, "recipe")
    except RecursionError:
        raise RecipeError(f"{path} holds parts inside each other without end.", "Restore the file.") from None
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{path} holds a {type(recipe).__name__}, not a recipe.", "Restore the file.")
    return recipe


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


def digest_texts(*texts: str) -> str:
    """Twelve hex digits over texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
