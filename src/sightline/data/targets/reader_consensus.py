"""Marks of several readers of one picture as what guides its training: one reader's, a merged mask, or shares.

Who read a picture without marking anything on it is not in a cohort: the readers of a picture are those who left a
mark of any role on it. `sightline marks export --readers majority` counts those who marked nothing, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sightline.errors import CohortError
from sightline.metrics.agreement.staple import RULES, Rule, merge_masks
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Mask, Region
from sightline.structures.tag import Role, Tag

Consensus = Literal["union", "intersection", "majority", "staple", "soft"]
# what is no reader's name
CONSENSUS: tuple[str, ...] = get_args(Consensus)


def list_readers(case: Case) -> tuple[str, ...]:
    """Everybody who left a mark of any role on a picture, in order of name; gaze is no mark.

    Example:
        >>> list_readers(Case("i", "s", "p", "x.png", "n", (Box((0, 0), (1, 1), Tag(reader="B")),)))
        ('B',)
    """
    return tuple(sorted({region.tag.reader for region in case.regions if not isinstance(region, Gaze)}))


def list_marking_readers(cohort: Cohort, role: Role) -> tuple[str, ...]:
    """Everybody who marked something of a role in a cohort, in order of name."""
    return tuple(sorted({r.tag.reader for case in cohort for r in case.regions if r.tag.role == role}))


def require_reader(cohort: Cohort, role: Role, readers: str) -> None:
    """Refuse a named reader who marked nothing of a role.

    Raises:
        CohortError: with the names of those who did.
    """
    there = list_marking_readers(cohort, role)
    if readers in CONSENSUS or readers in there:
        return
    names = ", ".join(repr(name) for name in there) or "nobody"
    raise CohortError(
        f"The reader {readers!r} has no {role} mark in the training split of {cohort.name!r}; marked by: {names}.",
        f"Name one of them, or one of {', '.join(CONSENSUS)}.",
    )


def merge_readers(
    marks: Mapping[str, Sequence[Region]], rule: Rule, role: Role, shape: tuple[int, ...], *, by_label: bool
) -> tuple[Mask, ...]:
    """One mask of what several readers marked on a picture, pixel by pixel of the picture.

    Args:
        marks: of each reader of the picture; a reader without any counts as an empty mask.
        rule: union, intersection, majority (more than half of the readers), or STAPLE above one half.
        role: of the marks.
        shape: of the picture.
        by_label: a mask for each class that marks speak for; a mark without a class counts for each of them.
    """
    frame = Frame.of_image(shape)
    labels: list[str | None] = [None]
    if by_label:
        labels = list(dict.fromkeys(region.tag.label for own in marks.values() for region in own))
    made = []
    for label in labels:
        counts: Callable[[Region], bool] = lambda r, label=label: not by_label or r.tag.label in (None, label)  # type: ignore[misc]  # noqa: E731
        votes = np.stack([_unite([r for r in own if counts(r)], frame) for own in marks.values()])
        merged = merge_masks(votes, rule)
        if merged.any():
            made.append(Mask(merged, Tag(role, label, rule)))
    return tuple(made)


def _unite(regions: Sequence[Region], frame: Frame) -> NDArray[np.bool_]:
    inside = np.zeros(frame.shape, dtype=bool)
    for region in regions:
        inside |= region.draw(frame) > 0
    return inside


def parse_rule(readers: str) -> Rule | None:
    """The rule that a word names; None: shares of readers, or a reader's name."""
    return next((rule for rule in RULES if rule == readers), None)
