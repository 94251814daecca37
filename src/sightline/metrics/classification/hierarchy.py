"""Predictions in coarser classes: one training on fine ones is scored at every level of a hierarchy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import CohortError, RunError
from sightline.metrics.predictions import Predictions

Groups = Mapping[str, Sequence[str]]


def merge_classes(
    predictions: Predictions, groups: Groups, *, left_out: Literal["refuse", "drop"] = "refuse"
) -> Predictions:
    """The same predictions in coarser classes: probabilities of the classes of a group are summed.

    Those of independent classes are joined as independent events: one minus the product of what is left of each. What
    each view says alone is merged in the same way.

    One training on fine classes (A1 to B3, normal) is thus scored at every level of the hierarchy, e.g.
    `{"A": ("A1", "A2", "A3"), "B": ("B1", "B2", "B3"), "normal": ("normal",)}`. The most probable group need not
    hold the most probable class.

    Args:
        predictions: in fine classes.
        groups: new class name to the classes it holds, in the order of the new classes.
        left_out: what becomes of classes in no group. `refuse` them; or `drop` the cases with such a label, and
            divide the other cases' probabilities by what is left: p(group | one of the groups).

    Raises:
        CohortError: a class that is not there, stands in two groups or in none, an empty group, or no case left.
        RunError: a case whose kept classes have no probability, with `drop`.
    """
    classes = predictions.classes
    lacking = _list_ungrouped(classes, groups)
    if lacking and left_out == "refuse":
        raise CohortError(
            f"Classes {lacking} belong to no group; expected each of {list(classes)} in one.",
            "Add them to a group, or say that their cases are to be dropped.",
        )
    group_of = {name: i for i, members in enumerate(groups.values()) for name in members}
    labels = np.array([group_of.get(name, -1) for name in classes])[predictions.labels]
    kept = predictions.select(labels >= 0) if lacking else predictions
    into = np.array([[group_of.get(name) == i for i in range(len(groups))] for name in classes], dtype=float)
    rest = groups if lacking else None
    merged = _merge_columns(kept, kept.probabilities, into, rest)
    alone = None if kept.alone is None else _merge_columns(kept, kept.alone, into, rest)
    return replace(kept, classes=tuple(groups), labels=labels[labels >= 0], probabilities=merged, alone=alone)


def _list_ungrouped(classes: Sequence[str], groups: Groups) -> list[str]:
    """Classes in no group; groups that make no sense are refused."""
    named = [name for members in groups.values() for name in members]
    twice = sorted(name for name, times in Counter(named).items() if times > 1)
    strange = sorted(set(named) - set(classes))
    empty = [group for group, members in groups.items() if not members]
    if twice or strange or empty or any(isinstance(members, str) for members in groups.values()):
        raise CohortError(
            f"Classes {list(classes)} do not merge into {dict(groups)}: unknown {strange}, in two groups "
            f"{twice}, groups without a class {empty}."
        )
    return [name for name in classes if name not in named]


def _merge_columns(
    kept: Predictions, probabilities: NDArray[np.float64], into: NDArray[np.float64], rest: Groups | None
) -> NDArray[np.float64]:
    """Probabilities [n, k] of classes as those of groups [n, g]; `rest`: the groups, where some classes are in none."""
    if kept.independent:
        left = np.where(into[None] > 0, 1.0 - probabilities[:, :, None], 1.0)
        merged = 1.0 - left.prod(axis=1)
    else:
        merged = probabilities @ into
        if rest is not None:
            merged = _condition_on_groups(kept, merged, rest)
    # a sum of many probabilities may end a rounding error above one
    return np.asarray(merged.clip(0.0, 1.0))


def _condition_on_groups(kept: Predictions, merged: NDArray[np.float64], groups: Groups) -> NDArray[np.float64]:
    """p(group | one of the groups)."""
    total = merged.sum(axis=1, keepdims=True)
    nothing = np.flatnonzero(total[:, 0] <= 0.0)
    if nothing.size:
        raise RunError(
            f"Case {kept.case_ids[nothing[0]]!r} has no probability in any of the groups {list(groups)} "
            f"({nothing.size} such cases)."
        )
    return np.asarray(merged / total)
