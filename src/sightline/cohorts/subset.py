"""Part of a cohort: the cases from some sources, or few images of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.case import Cohort
from sightline.errors import CohortError


def from_sources(cohort: Cohort, sources: Sequence[str]) -> Cohort:
    """The cases from any of some sources; all of them where none is named.

    Args:
        cohort: whose cases state the fact `source`.
        sources: starts of sources, `verse` for verse19 and verse20; `not verse`: all others.

    Raises:
        CohortError: there is no case from one of them.
    """
    if not sources:
        return cohort
    kept: set[str] = set()
    for word in sources:
        start = word.removeprefix("not ")
        found = {c.case_id for c in cohort if c.facts.get("source", "").startswith(start) is (start == word)}
        if not found:
            have = sorted({case.facts.get("source", "") or "none stated" for case in cohort})
            raise CohortError(
                f"Cohort {cohort.name!r} has no case from {word!r}; its sources are {', '.join(have)}.",
                "Import that data set too, or leave this row out.",
            )
        kept |= found
    return cohort.where(lambda case: case.case_id in kept)


def few_per_class(cohort: Cohort, n: int | None, splits: Sequence[str], seed: int) -> Cohort:
    """The cohort with at most n training images of each class, by a seeded permutation; other splits untouched."""
    if n is None:
        return cohort
    keep: set[str] = set()
    for index, label in enumerate(cohort.classes):
        ids = [case.case_id for case in cohort.split(*splits) if case.label == label]
        keep |= {ids[i] for i in np.random.default_rng([seed, index]).permutation(len(ids))[:n]}
    return cohort.where(lambda case: case.split not in splits or case.case_id in keep)
