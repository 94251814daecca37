"""Jimenez-Sanchez et al. 2018, weakly supervised localisation and classification of proximal femur fractures.

Claim: classifying a fracture is helped by localising it; an expert's box helps most, and a network can find much of it
from class labels alone. Every row of Tables II to V by name with the printed value beside it: the whole image (LBM),
the expert's crop (UBM), a supervised localiser before the UBM, spatial transformers, self-transfer learning, and global
pooling. Supervised localisers stand as rows of their own, since the Sup+UBM rows are put together from them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sightline.data.task import Task
from sightline.data.views.crops import Crop, RegionJitter
from sightline.data.views.image_view import View
from sightline.evaluation.tables.table import Figure, PublishedValue, Row, Table
from sightline.losses.box_distance import BoxDistance
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling, Transition
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool
from sightline.models.self_transfer import SelfTransfer
from sightline.models.spatial_transformer import Cascade, SpatialTransformer
from sightline.papers.liao2022 import PYTORCH_WEIGHTS, Profile
from sightline.training.optimization import Adagrad, AdamW, CosineDecay, LayerRates, Sgd, StepDecay
from sightline.training.recipe import Recipe

Cells = dict[str, dict[str, PublishedValue]]
PRINTED_MAP = "printed mAP (share of images above each IoU)"
GROUPS = ("A1", "A2", "A3", "B1", "B2", "B3")


def _build_f1(values: dict[str, float], average: float | None = None) -> dict[str, PublishedValue]:
    cells = {f"image-wise F1 of {name}, test": PublishedValue(value) for name, value in values.items()}
    if average is not None:
        cells["image-wise F1 weighted by support, test"] = PublishedValue(average)
    return cells


def _build_two_class(fracture: float) -> dict[str, PublishedValue]:
    return _build_f1({"fracture": fracture})


def _build_three_class(a: float, b: float, normal: float, average: float | None = None) -> dict[str, PublishedValue]:
    return _build_f1({"A": a, "B": b, "normal": normal}, average)


def _build_six_class(values: tuple[float, ...], average: float) -> dict[str, PublishedValue]:
    return _build_f1(dict(zip(GROUPS, values, strict=True)), average)


def _build_map(value: float) -> dict[str, PublishedValue]:
    return {
        f"{PRINTED_MAP}, test": PublishedValue(value),
        f"{PRINTED_MAP}, boxes as the recipe says, test": PublishedValue(value),
    }


TABLE2: Cells = {
    "2c LBM": _build_two_class(0.83),
    "2c a-STN": _build_two_class(0.92),
    "2c aff-STN": _build_two_class(0.90),
    "2c Sup+UBM": _build_two_class(0.93),
    "2c UBM": _build_two_class(0.94),
    "3c LBM": _build_three_class(0.76, 0.81, 0.89, 0.82),
    "3c a-STN": _build_three_class(0.74, 0.82, 0.88, 0.82),
    "3c aff-STN": _build_three_class(0.80, 0.87, 0.86, 0.84),
    "3c Sup+UBM": _build_three_class(0.81, 0.83, 0.91, 0.85),
    "3c UBM": _build_three_class(0.85, 0.88, 0.88, 0.87),
    "6c LBM CE": _build_six_class((0.26, 0.73, 0.00, 0.40, 0.35, 0.34), 0.41),
    "6c LBM WCE": _build_six_class((0.22, 0.76, 0.00, 0.56, 0.54, 0.53), 0.49),
    "6c a-STN": _build_six_class((0.07, 0.71, 0.00, 0.32, 0.36, 0.16), 0.32),
    "6c aff-STN": _build_six_class((0.33, 0.75, 0.00, 0.50, 0.47, 0.43), 0.48),
    "6c Sup+UBM CE": _build_six_class((0.50, 0.71, 0.00, 0.63, 0.40, 0.63), 0.55),
    "6c Sup+UBM WCE": _build_six_class((0.47, 0.76, 0.00, 0.55, 0.49, 0.38), 0.51),
    "6c UBM CE": _build_six_class((0.19, 0.76, 0.33, 0.55, 0.47, 0.47), 0.48),
    "6c UBM WCE": _build_six_class((0.18, 0.71, 0.00, 0.52, 0.45, 0.24), 0.40),
    # section IV-1, said in the text
    "2c sup. localiser": _build_map(0.71),
    "3c sup. localiser": _build_map(0.71),
    "6c sup. localiser": _build_map(0.71),
}

TABLE3: Cells = {
    "2c STL 0": {**_build_two_class(0.84), **_build_map(0.28)},
    "2c STL 0.3": {**_build_two_class(0.89), **_build_map(0.26)},
    "2c STL 0.6": {**_build_two_class(0.90), **_build_map(0.27)},
    "2c STL 1": {**_build_two_class(0.44), **_build_map(0.19)},
    "3c STL 0": {**_build_three_class(0.74, 0.87, 0.80), **_build_map(0.27)},
    "3c STL 0.3": {**_build_three_class(0.78, 0.82, 0.85), **_build_map(0.30)},
    "3c STL 0.6": {**_build_three_class(0.74, 0.82, 0.88), **_build_map(0.33)},
    "3c STL 1": {**_build_three_class(0.48, 0.03, 0.00), **_build_map(0.24)},
    "6c STL 0 CE": {**_build_f1({}, 0.24), **_build_map(0.26)},
    "6c STL 0 WCE": {**_build_f1({}, 0.35), **_build_map(0.23)},
    "6c STL 0.3 CE": _build_map(0.32),
    "6c STL 0.3 WCE": _build_map(0.32),
    "6c STL 0.6 CE": _build_map(0.35),
    "6c STL 0.6 WCE": _build_map(0.35),
    "6c STL 1 CE": {**_build_f1({}, 0.05), **_build_map(0.23)},
    "6c STL 1 WCE": {**_build_f1({}, 0.09), **_build_map(0.28)},
}

_POOLS = ("MAX", "LSE", "AVG")
_TABLE5_F1 = {
    "LBM": ((0.68, 0.87, 0.89), (0.63, 0.63, 0.78), (0.15, 0.31, 0.33)),
    "a-STN": ((0.84, 0.84, 0.85), (0.78, 0.76, 0.73), (0.26, 0.37, 0.37)),
    "aff-STN": ((0.84, 0.85, 0.84), (0.74, 0.76, 0.79), (0.27, 0.36, 0.36)),
    "UBM": ((0.39, 0.88, 0.93), (0.36, 0.81, 0.84), (0.18, 0.36, 0.46)),
}
# the transformers' 0.32 in every cell is what an unmoved window gets
_TABLE5_MAP = {
    "LBM": ((0.23, 0.23, 0.40), (0.31, 0.26, 0.47), (0.23, 0.23, 0.37)),
    "a-STN": ((0.32, 0.32, 0.32),) * 3,
    "aff-STN": ((0.32, 0.32, 0.32),) * 3,
}


def _build_table5_cells() -> Cells:
    cells: Cells = {}
    for method, scenarios in _TABLE5_F1.items():
        for task, values in zip(("2c", "3c", "6c"), scenarios, strict=True):
            for pool, value in zip(_POOLS, values, strict=True):
                cells[f"{task} {method} {pool}"] = _build_two_class(value) if task == "2c" else _build_f1({}, value)
    for method, scenarios in _TABLE5_MAP.items():
        for task, values in zip(("2c", "3c", "6c"), scenarios, strict=True):
            for pool, value in zip(_POOLS, values, strict=True):
                cells[f"{task} {method} {pool}"] |= _build_map(value)
    return cells


TABLE5: Cells = _build_table5_cells()

SIZE, LARGER = 224, 448
MARGIN = 0.15
Scheme = Literal["CE", "WCE"]
TASKS: dict[str, Task] = {"2c": Task("present"), "3c": Task("type"), "6c": Task("group")}
POOLS: dict[str, MeanPool | MaxPool | LogSumExpPool] = {"MAX": MaxPool(), "LSE": LogSumExpPool(10.0), "AVG": MeanPool()}
METRICS = (
    "image-wise F1 of fracture",
    "image-wise F1 weighted by support",
    PRINTED_MAP,
    f"{PRINTED_MAP}, boxes as the recipe says",
    "IoU of the best box",
    "pointing game of the box",
    "centre distance in mm",
)


def build_base_recipe(profile: Profile = "recommended") -> Recipe:
    """What all rows share: the whole image at 224 px through ResNet-50 (LBM), least validation loss, 80 epochs.

    `paper` takes the printed optimiser, rates and augmentation; `recommended` (and `official_code`, of which there is
    none) AdamW with a cosine, which trains from random weights too.
    """
    paper = profile == "paper"
    view = View(size=SIZE, crop_area=(0.8, 1.0), rotation_deg=15.0, contrast=0.2, brightness=0.1, equalise=True)
    if paper:
        view = View(
            size=SIZE, crop_area=(1.0, 1.0), flip_chance=0.0, rotation_deg=0.0, equalise=True, jitter=RegionJitter()
        )
    return Recipe(
        title="LBM",
        model=ClassMapModel(backbone=_choose_resnet(profile), pool=MeanPool()),
        view=view,
        optimiser=Sgd(momentum=0.9, weight_decay=0.0) if paper else AdamW(weight_decay=1e-2),
        schedule=StepDecay(1e-2, 0.5, 10) if paper else CosineDecay(1e-3),
        epochs=80,
        batch_size=64 if paper else 16,
        select="loss",
    )


def _choose_resnet(profile: Profile) -> Backbone:
    # the paper does not say whose ImageNet weights these are: those of He's recipe, as PyTorch has them, are nearest
    return Backbone(name="resnet50" + (f".{PYTORCH_WEIGHTS}" if profile == "paper" else ""), weights="imagenet")


def _choose_alexnet(profile: Profile) -> AlexNet:
    """Section III: "all models were initialized with pre-trained weights on ImageNet"."""
    return AlexNet(weights="imagenet" if profile == "paper" else None)


def set_task(recipe: Recipe, task: str, scheme: Scheme = "CE") -> Recipe:
    """The recipe for a scenario: its classes, and imbalance met by repeating images (CE) or by weights (WCE)."""
    return replace(recipe, task=TASKS[task], reweight="oversample" if scheme == "CE" else "inverse_frequency")


def build_upper_bound(recipe: Recipe, profile: Profile = "recommended") -> Recipe:
    """UBM: the expert's crop in place of the whole image. `recommended` leaves a margin, so that context is seen."""
    crop = Crop() if profile == "paper" else Crop(margin=MARGIN, jitter=0.1)
    return replace(recipe, title="UBM", view=replace(recipe.picture_view, crop=crop))


def build_supervised_localiser(recipe: Recipe, profile: Profile = "recommended") -> Recipe:
    """AlexNet that regresses the box (eq. 3); in the paper's units its learning rate of 1e-8 is one."""
    paper = profile == "paper"
    return replace(
        recipe,
        title="sup. localiser",
        model=BoxRegression(trunk=_choose_alexnet(profile), input_px=None),
        objective=BoxDistance(units="pixel" if paper else "fraction"),
        schedule=StepDecay(1e-8, 1.0, 10) if paper else CosineDecay(1e-3),
        epochs=recipe.epochs * 200 // 80,
        reweight="none",
    )


def build_supervised_then_upper_bound(recipe: Recipe, profile: Profile = "recommended") -> Recipe:
    """Sup+UBM: never trained, put together from a supervised localiser and a UBM."""
    localiser, classifier = build_supervised_localiser(recipe, profile).model, recipe.model
    assert isinstance(localiser, BoxRegression) and isinstance(classifier, ClassMapModel)
    if profile == "paper":
        return replace(recipe, title="Sup+UBM", model=Cascade(localiser, classifier))
    cascade = Cascade(replace(localiser, input_px=SIZE), classifier, margin=MARGIN, roi_px=SIZE)
    return replace(recipe, title="Sup+UBM", model=cascade, view=replace(recipe.view, size=LARGER))


def build_transformer(
    recipe: Recipe,
    parameters: Literal["similarity", "affine"],
    profile: Profile = "recommended",
    *,
    clamped: bool = False,
) -> Recipe:
    """a-STN and aff-STN. `recommended` samples the window from a larger image, so that it can show more detail."""
    classifier = recipe.model
    assert isinstance(classifier, ClassMapModel | GlobalPooling)
    title = {"similarity": "a-STN", "affine": "aff-STN"}[parameters]
    if profile == "paper":
        square = parameters == "affine"
        model = SpatialTransformer(classifier, _choose_alexnet(profile), parameters, clamped, square_box=square)
        if isinstance(recipe.optimiser, Adagrad):
            # Table V gives one rate, 1e-3, for whole networks; the localiser keeps Table I's share of it
            rates = LayerRates({"localiser.": 1e-4})
        else:
            # Table I: the localisation network and the transformer have a rate, and a decay, of their own
            rates = LayerRates(schedules={"localiser.": StepDecay(1e-6, 0.5, 25)})
        return replace(recipe, title=title, model=model, rates=rates)
    model = SpatialTransformer(
        classifier, _choose_alexnet(profile), parameters, clamped, localiser_px=SIZE, roi_px=SIZE
    )
    view = replace(recipe.view, size=LARGER)
    return replace(recipe, title=title, model=model, view=view, rates=LayerRates({"localiser.": 0.1}))


def build_self_transfer(recipe: Recipe, alpha: float, profile: Profile = "recommended") -> Recipe:
    """STL at 500 px as printed, 448 recommended (a whole number of strides); alpha complemented on a plateau."""
    paper = profile == "paper"
    return replace(
        recipe,
        title=f"STL {alpha:g}",
        model=SelfTransfer(backbone=_choose_resnet(profile)),
        view=replace(recipe.view, size=500 if paper else LARGER),
        objective=SelfTransferLoss(alpha),
        schedule=StepDecay(1e-2, 0.1, 40) if paper else recipe.schedule,
    )


def build_global_pooling(recipe: Recipe, pool: str, profile: Profile = "recommended") -> Recipe:
    """Transition, pooling, prediction; Table V's rows were trained by Adagrad at 1e-3."""
    new = replace(recipe, title=pool, model=GlobalPooling(_choose_resnet(profile), Transition(), POOLS[pool]))
    if profile == "paper":
        new = replace(new, optimiser=Adagrad(), schedule=StepDecay(1e-3, 1.0, 10))
    return new


def _build_row(
    name: str, recipe: Recipe, cells: Cells, reference: str | None, group: str, parts: dict[str, str] | None = None
) -> Row:
    printed: dict[str, PublishedValue] = cells.get(name, {})
    return Row(name=name, recipe=recipe, reference=reference, published=printed, group=group, parts=parts or {})


def build_table2(profile: Profile = "recommended") -> Table:
    """Table II: eighteen rows, and the three supervised localisers that the Sup+UBM rows need."""
    rows: list[Row] = []
    for task in TASKS:
        schemes: tuple[Scheme, ...] = ("CE", "WCE") if task == "6c" else ("CE",)
        first = f"{task} LBM CE" if task == "6c" else f"{task} LBM"
        base = build_base_recipe(profile)
        for scheme in schemes:
            name = f"{task} LBM {scheme}" if task == "6c" else first
            rows.append(
                _build_row(name, set_task(base, task, scheme), TABLE2, None if name == first else first, "whole image")
            )
        # the paper does not say how the six-class transformers were balanced
        stn: Scheme = "WCE" if task == "6c" else "CE"
        for word, parameters in (("a-STN", "similarity"), ("aff-STN", "affine")):
            recipe = set_task(build_transformer(base, parameters, profile), task, stn)  # type: ignore[arg-type]
            rows.append(_build_row(f"{task} {word}", recipe, TABLE2, first, "transformer"))
        localiser = f"{task} sup. localiser"
        recipe = replace(build_supervised_localiser(base, profile), task=TASKS[task])
        rows.append(_build_row(localiser, recipe, TABLE2, None, "localiser"))
        for scheme in schemes:
            end = f" {scheme}" if task == "6c" else ""
            upper = f"{task} UBM{end}"
            rows.append(
                _build_row(
                    upper, set_task(build_upper_bound(base, profile), task, scheme), TABLE2, first, "expert crop"
                )
            )
            both = set_task(build_supervised_then_upper_bound(base, profile), task, scheme)
            parts = {"localiser": localiser, "classifier": upper}
            rows.append(_build_row(f"{task} Sup+UBM{end}", both, TABLE2, first, "predicted crop", parts))
    return _build_table("table2", "Table II: whole image, expert crop, supervised and weak localisation", rows)


def build_table3(profile: Profile = "recommended") -> Table:
    """Tables III and IV: self-transfer learning, four alphas; classification and localisation."""
    rows: list[Row] = []
    for task in TASKS:
        schemes: tuple[Scheme, ...] = ("CE", "WCE") if task == "6c" else ("CE",)
        for scheme in schemes:
            end = f" {scheme}" if task == "6c" else ""
            for alpha in (0.0, 0.3, 0.6, 1.0):
                recipe = set_task(build_self_transfer(build_base_recipe(profile), alpha, profile), task, scheme)
                reference = None if alpha == 0.0 else f"{task} STL 0{end}"
                rows.append(_build_row(f"{task} STL {alpha:g}{end}", recipe, TABLE3, reference, "self-transfer"))
    made = _build_table("table3", "Tables III and IV: self-transfer learning", rows)
    # alpha 0.6 is the paper's best; its figure shows A1, B2 and B3
    title = "Figure 3: self-transfer learning, normal (CE) and weighted (WCE) cross-entropy"
    return replace(made, figures=(Figure(title, ("6c STL 0.6 CE", "6c STL 0.6 WCE"), GROUPS),))


def build_figure4(profile: Profile = "recommended") -> Table:
    """Figure 4: boxes and heat maps of every method on the same image of each class; rows of tables II, III and V."""
    wanted = {
        build_table2: ("3c LBM", "3c a-STN", "3c aff-STN", "3c sup. localiser", "3c UBM", "3c Sup+UBM"),
        build_table3: ("3c STL 0.6",),
        build_table5: ("3c LBM AVG", "3c a-STN AVG"),
    }
    rows = [row for make, names in wanted.items() for row in make(profile).rows if row.name in names]
    first = "3c LBM"
    rows = [replace(r, reference=first if r.recipe.classifies and r.name != first else None) for r in rows]
    shown = ("3c LBM", "3c a-STN", "3c aff-STN", "3c sup. localiser", "3c Sup+UBM", "3c STL 0.6", "3c LBM AVG")
    made = _build_table("figure4", "Figure 4: boxes and heat maps of every method", rows)
    title = "Figure 4: boxes and heat maps by method"
    return replace(made, figures=(Figure(title, (*shown, "3c a-STN AVG"), ("A", "B")),))


def build_table5(profile: Profile = "recommended") -> Table:
    """Table V: three poolings for the whole image, both transformers and the expert's crop."""
    rows: list[Row] = []
    for task in TASKS:
        scheme: Scheme = "WCE" if task == "6c" else "CE"
        for method in ("LBM", "a-STN", "aff-STN", "UBM"):
            for pool in ("AVG", "MAX", "LSE"):
                recipe = build_global_pooling(build_base_recipe(profile), pool, profile)
                if method == "UBM":
                    recipe = build_upper_bound(recipe, profile)
                elif method != "LBM":
                    recipe = build_transformer(recipe, "similarity" if method == "a-STN" else "affine", profile)
                name = f"{task} {method} {pool}"
                reference = None if pool == "AVG" else f"{task} {method} AVG"
                rows.append(_build_row(name, set_task(recipe, task, scheme), TABLE5, reference, pool))
    return _build_table("table5", "Table V: global poolings", rows)


def _build_table(name: str, title: str, rows: list[Row]) -> Table:
    return Table(
        f"jimenez2018/{name}",
        title,
        tuple(rows),
        "Printed values are the paper's closed data, one training a row. F1 is of the fracture class for two classes, "
        "weighted by support for more. Boxes are measured on fractured test images.",
        METRICS,
        leading=("image-wise F1 weighted by support", "image-wise F1 of fracture"),
        size=SIZE,
    )
