"""Engstler et al. 2022, Interpretable Vertebral Fracture Diagnosis: a 3D U-Net's encoder on patches along the spine.

Claim: trained on enough CTs, its units respond to what clinicians can name. Table 1 is the classifier, trained and
tested on VerSe, on VerSe and the authors' own CTs, or trained on both and tested on VerSe; tables 2 and 3 dissect it.

Profiles: `paper` follows the text (batch norm as every library means it, dropout 0.3, augmentations that run, patience
50); `official_code` what the released code does (batch statistics also at test time, no dropout, no augmentation,
patience 40); `recommended` is the paper's, with batches augmented by a shift too. The input is 64 voxels wide in all of
them: the released configuration, app and unit levels agree on that, and only the text says 96.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.volume_view import VolumeView
from sightline.dissection.case_panel import describe_case, draw_case_panel
from sightline.dissection.dissect import DissectionOptions, dissect
from sightline.dissection.results import Dissection
from sightline.errors import RunError, count_noun
from sightline.evaluation.tables.table import PublishedValue, Row, Table, TableResult
from sightline.inference.ct.units import build_case_panel
from sightline.io.files import write_text
from sightline.losses.spatial_nll import SpatialNLL
from sightline.metrics.predictions import Predictions
from sightline.models.pooling import SoftmaxPool
from sightline.models.volume_networks import VolumeUNet
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.liao2022 import Profile
from sightline.training.engine import Engine
from sightline.training.optimization import Adam, AdamW, CosineDecay, Steady
from sightline.training.recipe import Recipe
from sightline.training.run import open_run

F1, RECALL = "image-wise F1 of fractured", "image-wise recall for fractured"
AUC, PRECISION = "image-wise AUC", "image-wise average precision"


def _build_row(*cells: tuple[float, float]) -> dict[str, PublishedValue]:
    """F1, "Acc.", AUC, AP; each mean and deviation over five trainings, in percent."""
    return {
        f"{metric}, test": PublishedValue(mean, std)
        for metric, (mean, std) in zip((F1, RECALL, AUC, PRECISION), cells, strict=True)
    }


TABLE1: dict[str, dict[str, PublishedValue]] = {
    "VerSe -> VerSe": _build_row((71.2, 10.8), (78.2, 12.0), (84.5, 9.1), (76.4, 14.5)),
    "all -> VerSe": _build_row((86.1, 2.6), (90.9, 1.6), (96.2, 0.9), (94.1, 1.6)),
    "all -> all": _build_row((88.0, 0.7), (88.0, 0.4), (94.7, 0.5), (95.0, 0.4)),
}

# Table 2: units of the paper's network (released numbering; its text exchanges 22 and 424) and what experts named them
RANKS_OF_RELEASE = (88, 156, 113, 382, 127, 213, 265, 429, 479, 223)

# the top share of a unit's activations: 0.5% in the text, the 0.99 quantile in the code
TOP: dict[Profile, float] = {"paper": 0.005, "official_code": 0.01, "recommended": 0.005}

SIZE = 64
# what the paper does not say: how long to train at most
EPOCHS = 400
# sources: VerSe'19 and VerSe'20, and with them whatever else the cohort holds
VERSE, ALL = ("verse",), ("verse", "not verse")
SMALL_WIDTH, SMALL_SIZE, SMALL_EPOCHS = 8, 48, 12


def build_base_recipe(profile: Profile = "recommended") -> Recipe:
    """The published network and training: Adam 1e-3, batches of 16, classes in balance, the epoch of the best F1."""
    code = profile == "official_code"
    return Recipe(
        title="3D U-Net",
        model=VolumeUNet(size=SIZE, norm="batch_always" if code else "batch", dropout=0.0 if code else 0.3),
        view=VolumeView(
            size=SIZE,
            augment="none" if code else "published",
            shift_mm=4.0 if profile == "recommended" else 0.0,
        ),
        optimiser=Adam(),
        schedule=Steady(1e-3, patience=40 if code else 50),
        epochs=EPOCHS,
        batch_size=16,
        reweight="undersample",
        select="f1",
    )


def build_map_recipe() -> Recipe:
    """Ours: class maps, pooled where they are high, in place of the head of convolutions."""
    model = VolumeUNet(size=SIZE, head="maps", pool=SoftmaxPool())
    return replace(build_base_recipe(), title="3D class map", model=model)


def build_guided_recipe(recipe: Recipe | None = None) -> Recipe:
    """Ours: the fracture's map is trained to look at the deformed bone (Liao 2022, equation 6, in 3D)."""
    return replace(
        recipe or build_map_recipe(),
        title="3D class map, guided",
        guidance=SpatialNLL(resolution="map"),
        weight=0.1,
        regions=RegionChoice("mask", role="finding", classes="tagged"),
    )


def build_vertebra_recipe() -> Recipe:
    """Ours: both maps are trained to look at the vertebra in the middle, fractured or not."""
    choice = RegionChoice("mask", role="focus", classes="all")
    return replace(build_guided_recipe(), title="3D class map, guided by the vertebra", regions=choice)


def shrink_recipe(recipe: Recipe) -> Recipe:
    """A quarter of the channels, cubes of 48 voxels and a short training with the last weights, for CPUs."""
    assert isinstance(recipe.model, VolumeUNet)
    return replace(
        recipe,
        title=f"small {recipe.title}",
        model=replace(recipe.model, width=SMALL_WIDTH, size=SMALL_SIZE),
        view=replace(recipe.view, size=SMALL_SIZE),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(2e-3, warm_up=0.06),
        epochs=SMALL_EPOCHS,
        select="last",
    )


def build_table1(profile: Profile = "recommended") -> Table:
    """Table 1: trained and tested on VerSe, trained on all and tested on VerSe, and all for all."""
    recipe = build_base_recipe(profile)
    rows = (
        Row("VerSe -> VerSe", recipe, published=TABLE1["VerSe -> VerSe"], trained_on=VERSE, tested_on=VERSE),
        Row(
            "all -> VerSe",
            recipe,
            "VerSe -> VerSe",
            published=TABLE1["all -> VerSe"],
            trained_on=ALL,
            tested_on=VERSE,
        ),
        Row("all -> all", recipe, published=TABLE1["all -> all"], trained_on=ALL),
    )
    return Table(
        "engstler2022/table1",
        "Vertebral fractures, trained and tested on VerSe and on more",
        rows,
        "The printed column Acc. is very likely recall and stands beside ours. Five trainings; percent.",
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        leading=("image-wise AUC",),
        size=SIZE,
    )


def build_table2(profile: Profile = "recommended") -> Table:
    """Table 2: the ten units that go most with fractures, with galleries and experts' names."""
    return Table(
        "engstler2022/table2",
        "The units of a 3D U-Net that go most with vertebral fractures",
        (Row("all", build_base_recipe(profile)),),
        "Trained on all of the cohort's sources; the first training is dissected.",
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        size=SIZE,
        units="ranking",
        top=TOP[profile],
    )


def build_table3(profile: Profile = "recommended") -> Table:
    """Table 3: one case that was called right, and the units that respond most to it."""
    title = "One fractured vertebra and the units that respond most to it"
    return replace(build_table2(profile), name="engstler2022/table3", title=title, units="case")


def build_unit_table(profile: Profile = "recommended") -> Table:
    """Tables 2 and 3 of the small network: for CPUs, and for the phantom."""
    title = "The units of a small 3D U-Net that go most with vertebral fractures, and one case"
    rows = (Row("class maps", shrink_recipe(build_map_recipe())),)
    return replace(build_table2(profile), name="spine/units", title=title, rows=rows, size=SMALL_SIZE, units="case")


def build_phantom_table(profile: Profile = "recommended") -> Table:
    """Small networks on the phantom spine: the published head, class maps, and class maps that are guided (ours)."""
    head, maps = "convolutions", "class maps"
    rows = (
        Row(head, shrink_recipe(build_base_recipe(profile))),
        Row(maps, shrink_recipe(build_map_recipe()), head),
        Row("class maps, guided by the deformed bone", shrink_recipe(build_guided_recipe()), maps),
        Row("class maps, guided by the vertebra", shrink_recipe(build_vertebra_recipe()), maps),
    )
    return Table(
        "spine/phantom",
        "Phantom spine: the published head, class maps, and maps that are told where to look",
        rows,
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        leading=("image-wise AUC",),
        size=SMALL_SIZE,
    )


# as many as the paper looks at
UNITS = 10


def write_unit_findings(result: TableResult, out: Path, engine: Engine) -> str:
    """What a table shows of units besides its rows: `units.md` and `case.png` of its first row's first training.

    Args:
        result: a table that ran.
        out: its folder.
        engine: the device.

    Returns:
        What was written, in words; empty for tables without units, and where the row did not run.
    """
    row = result.rows[0]
    if not result.table.units or row.why_not is not None:
        return ""
    run = open_run(row.folders[0], CATALOGUE)
    found = dissect(
        run,
        result.cohort,
        out / "dissection",
        options=DissectionOptions(units=UNITS, top=result.table.top),
        engine=engine,
    )
    write_text(out / "units.md", format_units(found, result.table.title))
    written = f"{out / 'units.md'} and {found.folder / 'report.html'}"
    if result.table.units == "case":
        case_id = find_surest(row.evaluations["test"][0].predictions, found.positive)
        case = next(case for case in result.cohort if case.case_id == case_id)
        panel = build_case_panel(run, case, found, engine)
        (out / "case.png").write_bytes(draw_case_panel(panel))
        write_text(out / "case.md", f"# {case_id}\n\n![case panel](case.png)\n\n{describe_case(panel)}\n")
        written = f"{out / 'case.png'}, {written}"
    return f"units: {written}"


def format_units(found: Dissection, title: str) -> str:
    """The first units by rank as markdown, with what experts call them (Table 2)."""
    lines = [
        f"# {title}",
        "",
        f"Layer `{found.layer}`, {count_noun(len(found.units), 'unit')}; c over "
        f"{found.over.replace('_', ' ')} of `{found.positive}` "
        f"in the split {found.about['split']}, n {found.units[0].n_pos}; a unit is enabled above the top "
        f"{float(found.about['top']):.1%} of its activations. Names come from "
        f"`{found.folder.name}/concepts.yaml`: open the galleries, write what a unit responds to, and run this again.",
        "",
        "| rank | unit | c | contrast with negatives | p, over all units | AUC of r | ties | what experts call it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found.ranked[:UNITS]:
        concept = found.concepts.get(row.unit)
        name = f"{concept.text} ({concept.signed})" if concept is not None else "not named"
        contrast = "" if row.contrast is None else f"{row.contrast:+.3f}"
        p = "" if row.p is None else f"{row.p:.3f}"
        auc = "" if row.auc is None else f"{row.auc:.3f}"
        lines.append(
            f"| {row.rank} | [{row.unit}]({found.folder.name}/galleries/unit_{row.unit:03d}.png) | {row.c:.3f} | "
            f"{contrast} | {p} | {auc} | {row.ties} | {name} |"
        )
    return "\n".join([*lines, ""])


def find_surest(predictions: Predictions, positive: str) -> str:
    """The case of the positive class that the network is surest of: the sample of Table 3.

    Raises:
        RunError: no case of the class is called so.
    """
    k = predictions.class_index(positive)
    probabilities = predictions.probabilities
    right = (predictions.labels == k) & (probabilities.argmax(axis=1) == k)
    if not right.any():
        raise RunError(f"The network calls no {positive} case {positive}.", "Train it longer before it is dissected.")
    best = max((float(probabilities[i, k]), -i) for i in right.nonzero()[0].tolist())
    return predictions.case_ids[-best[1]]
