"""FracAtlas: which marks to make next, and how many wrong ones guidance bears. Tables of ours."""

from __future__ import annotations

from sightline.data.targets.mark_errors import MarkError
from sightline.evaluation.tables.engines.suggested_marks import Asking
from sightline.evaluation.tables.table import Row, Table
from sightline.losses.cell_focal import CellFocal
from sightline.papers.fracatlas.learning_curve import FEW, STEPS, build_guided_recipe, build_unguided_recipe
from sightline.papers.liao2022 import Profile

# share of the marks that the first network of `fracatlas/suggest` was shown: of FracAtlas's 371 about 75
FIRST_SHARE = 0.2
NEXT = 50
ORDERS = ("random", "uncertainty", "disagreement", "diversity", "mixed")

# in words, and the shares of marks that are wrong in this way; errors that leave something of the finding: all of them
ERRORS: dict[MarkError, tuple[str, tuple[float, ...]]] = {
    "elsewhere": ("in a wrong place", (0.1, 0.3)),
    "shifted": ("shifted", (0.1, 0.3, 1.0)),
    "enlarged": ("enlarged", (0.1, 0.3, 1.0)),
    "redrawn": ("redrawn", (0.1, 0.3, 1.0)),
    "missing": ("missing", (0.1, 0.3)),
}
# losses that bear wrong marks, and the share of marks on which each is tried, with the errors that it is meant for
LOSSES = {
    "trimmed": CellFocal(trimmed=0.3),
    "bootstrapped": CellFocal(bootstrapped=0.3),
    "ring left out": CellFocal(ring=2),
    "soft edges": CellFocal(soft=1.0),
}
BORNE: tuple[tuple[float, MarkError], ...] = ((0.3, "elsewhere"), (1.0, "shifted"))


def build_suggestion_table(profile: Profile = "recommended") -> Table:
    """Which marks to make next: a network with a fifth of them, and those with fifty more, chosen in five ways."""
    first, more = f"{FIRST_SHARE:.0%} of marks", f"{NEXT} more"
    base = f"{more}, random"
    rows = [
        Row("unguided", build_unguided_recipe(), group="unguided"),
        Row(first, build_guided_recipe(FIRST_SHARE), "unguided", group="guided"),
    ]
    rows += [
        Row(
            f"{more}, {order}",
            build_guided_recipe(),
            first if order == "random" else base,
            teacher=first,
            teaching=Asking(order, NEXT),
            group="marked next",
        )
        for order in ORDERS
    ]
    rows.append(Row("all marks", build_guided_recipe(), base, group="guided"))
    return Table(
        "fracatlas/suggest",
        "FracAtlas: which marks to make next",
        tuple(rows),
        f"All training images have their label. `{first}` is shown the marks of a fifth of the patients; the rows "
        f"below it are shown those and the marks of {NEXT} further fractured pictures, which it chose (every fifth at "
        "random, whatever the order). Each order is compared with a random one, which costs the expert as many marks.",
        metrics=("image-wise AUC", "pointing game (finding)", "image-wise accuracy"),
        leading=("pointing game (finding)", "image-wise AUC"),
        size=512,
    )


def build_wrong_marks_table(profile: Profile = "recommended") -> Table:
    """At 300 images: marks wrong in five ways, and losses that may bear them, on right marks too."""
    # named as in `fracatlas/curve`, so that a capsule of one table gives the other these trainings
    unguided, base = f"unguided mean, {FEW} images", f"guided all marks, {FEW} images"
    rows = [
        Row(unguided, build_unguided_recipe(), train_images=FEW, group="unguided"),
        Row(base, build_guided_recipe(), unguided, train_images=FEW, group="right marks"),
    ]
    names: dict[tuple[float, MarkError], str] = {}
    for kind, (words, shares) in ERRORS.items():
        for share in shares:
            in_curve = f"wrong {share:.0%} of marks, {FEW} images"
            names[share, kind] = in_curve if kind == "elsewhere" else f"{share:.0%} {words}"
            rows.append(
                Row(
                    names[share, kind],
                    build_guided_recipe(),
                    base,
                    train_images=FEW,
                    wrong_marks=share,
                    wrong_kind=kind,
                    group=words,
                )
            )
    for words, loss in LOSSES.items():
        recipe = build_guided_recipe(loss=loss)
        rows.append(Row(f"right marks, {words}", recipe, base, train_images=FEW, group="right marks"))
        rows += [
            Row(
                f"{names[borne]}, {words}",
                recipe,
                names[borne],
                train_images=FEW,
                wrong_marks=borne[0],
                wrong_kind=borne[1],
                group=ERRORS[borne[1]][0],
            )
            for borne in BORNE
        ]
    return Table(
        "fracatlas/wrong_marks",
        "FracAtlas: how many wrong marks guidance bears",
        tuple(rows),
        f"{FEW} training images, {STEPS} steps of 16 pictures; the boxes of a share of the marked pictures are made "
        "wrong, those of a smaller share among those of a larger one. A loss that may bear wrong marks is compared "
        "with the plain one on the same marks.",
        metrics=("image-wise AUC", "pointing game (finding)", "image-wise accuracy"),
        leading=("pointing game (finding)", "image-wise AUC"),
        size=512,
    )
