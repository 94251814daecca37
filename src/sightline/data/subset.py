"""Parts of a cohort: nested training sets, cases by a fact (a body part, a device), and marks that are wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sightline.errors import CohortError, count_noun
from sightline.structures.case import Case, Cohort

# groups that are looked at before one is taken: more keep the class shares closer, fewer keep the order more random
LOOKED_AT = 8
# how a picture's file is stored, where it is treated as a fact
STORAGE = "file storage"


def draw_nested_subset(cohort: Cohort, images: int | None, seed: int = 0, splits: Sequence[str] = ("train",)) -> Cohort:
    """The cohort with about this many training images, by whole groups; other splits stay as they are.

    Groups (patients) come in an order that depends on the seed alone: of the next few of a random order that are no
    larger than a quarter of what is wanted so far, the one is taken that leaves the class shares nearest to those of
    all training images. The first groups whose images come nearest to `images` are kept, so that a smaller subset of
    one seed lies in every larger one.

    Args:
        cohort: cases with splits.
        images: training images wanted; None, or more than there are, keeps all.
        seed: another number takes other groups.
        splits: what counts as training.

    Raises:
        CohortError: fewer than two images wanted, or nothing to take from.

    Example:
        >>> small = draw_nested_subset(cohort, 300, seed=1)  # doctest: +SKIP
    """
    if images is None:
        return cohort
    training = cohort.split(*splits)
    if images < 2 or not len(training):
        raise CohortError(
            f"A subset needs 2 images or more, and some to take from; got {images} of {len(training)} in "
            f"{' and '.join(splits)}.",
            "Ask for 75, say, of a cohort whose splits are assigned.",
        )
    if images >= len(training):
        return cohort
    order = _draw_group_order(training, seed)
    sizes = Counter(case.patient_id for case in training)
    sums = np.cumsum([sizes[group] for group in order])
    nearest = int(np.argmin(np.abs(sums - images)))
    kept = set(order[: nearest + 1])
    part = cohort.where(lambda case: case.split not in splits or case.patient_id in kept)
    have = {case.label for case in part.split(*splits)}
    missing = sorted({case.label for case in training} - have)
    if missing:
        raise CohortError(
            f"{count_noun(images, 'training image')} of {cohort.name!r} by whole groups leave the "
            f"class {missing[0]!r} out.",
            "Ask for more images, or another seed.",
        )
    return part


def _draw_group_order(training: Cohort, seed: int) -> list[str]:
    """All groups, so that every beginning has about the class shares of the whole."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(training.classes)))
    for case in training:
        counts[case.patient_id][training.class_index(case.label)] += 1.0
    names = sorted(counts)
    names = [names[i] for i in np.random.default_rng([seed, len(names), 75]).permutation(len(names))]
    shares = np.sum(list(counts.values()), axis=0) / len(training)
    sizes = np.array([counts[name].sum() for name in names])
    least, waiting = float(np.median(sizes)), np.ones(len(names), dtype=bool)
    so_far = np.zeros(len(training.classes))
    order = []
    for _ in names:
        # no single group may be most of a small subset
        allowed = max(least, so_far.sum() / 4.0, sizes[waiting].min())
        near = np.flatnonzero(waiting & (sizes <= allowed))[:LOOKED_AT]
        best = min(near, key=lambda i: _compute_distance(so_far + counts[names[i]], shares))
        order.append(names[best])
        so_far = so_far + counts[names[best]]
        waiting[best] = False
    return order


def _compute_distance(counts: np.ndarray, shares: np.ndarray) -> float:
    """How far class counts lie from wanted shares, relative to both (chi-square), per image."""
    total = counts.sum()
    wanted = np.maximum(shares * total, 1e-9)
    return float((((counts - wanted) ** 2) / wanted).sum() / total)


def select_cases_by_facts(
    cohort: Cohort, having: Mapping[str, str] | None = None, lacking: Mapping[str, str] | None = None
) -> Cohort:
    """The cases with all of some facts and with none of others, e.g. to hold one body part or device out.

    Args:
        cohort: cases with facts; `view` counts as one, and `file storage`, which is read from the files where it is
            asked for (as `sightline cohort check` names it).
        having: fact -> value that a case must have.
        lacking: fact -> value that a case must not have.

    Raises:
        CohortError: no case has such a fact or such a value of it, or nothing is left.

    Example:
        >>> hands = select_cases_by_facts(cohort, having={"hand": "1"})  # doctest: +SKIP
    """
    having, lacking = dict(having or {}), dict(lacking or {})
    stored: dict[str, str] = {}
    if STORAGE in having or STORAGE in lacking:
        from sightline.data.audit.image_checks import name_storage

        stored = {case.case_id: name_storage(case.image) for case in cohort}

    def get_facts(case: Case) -> dict[str, str]:
        of_file = {STORAGE: stored[case.case_id]} if stored else {}
        return {**case.facts, **({"view": case.view} if case.view else {}), **of_file}

    for fact, value in (*having.items(), *lacking.items()):
        values = sorted({get_facts(case)[fact] for case in cohort if fact in get_facts(case)})
        if value not in values:
            known = sorted({name for case in cohort for name in get_facts(case)})
            wrong = f"only {values[:12]}" if values else f"no fact {fact!r}, but {known[:20]}"
            raise CohortError(
                f"No case of {cohort.name!r} has {fact}={value}; there is {wrong}.",
                "Give a fact and a value that studies.csv or images.csv holds.",
            )
    part = cohort.where(
        lambda case: (
            all(get_facts(case).get(fact) == value for fact, value in having.items())
            and all(get_facts(case).get(fact) != value for fact, value in lacking.items())
        )
    )
    if not len(part):
        raise CohortError(f"No case of {cohort.name!r} has these facts together.", "Ask for less at once.")
    return part


def exclude_patients_of(cohort: Cohort, other: Cohort, splits: Sequence[str] = ("train", "val")) -> Cohort:
    """The cases of patients that another cohort does not train or choose with.

    Args:
        cohort: to be tested on whole.
        other: trained on.
        splits: of the other cohort that a training sees.

    Raises:
        CohortError: nothing is left.
    """
    seen = {case.patient_id for case in other.split(*splits)}
    part = cohort.where(lambda case: case.patient_id not in seen)
    if not len(part):
        raise CohortError(
            f"All patients of {cohort.name!r} are in the {' and '.join(splits)} split of {other.name!r}.",
            "Hold patients out, not pictures.",
        )
    return part


def keep_marks_of_cases(cohort: Cohort, case_ids: Sequence[str], splits: Sequence[str] = ("train",)) -> Cohort:
    """The cohort in which only some training cases keep their marks: what a training with few marks would have had.

    Args:
        cohort: cases with splits.
        case_ids: whose marks stay.
        splits: what counts as training.

    Raises:
        CohortError: an id that no case has, or no marked case among them.
    """
    unknown = sorted(set(case_ids) - {case.case_id for case in cohort})
    if unknown:
        raise CohortError(
            f"{len(unknown)} of {count_noun(len(set(case_ids)), 'case')} are not in "
            f"{cohort.name!r}, such as {unknown[0]!r}.",
            "Give the csv that was written for this cohort.",
        )
    keep = set(case_ids)
    if not any(case.regions for case in cohort.split(*splits) if case.case_id in keep):
        raise CohortError(
            f"None of the {count_noun(len(keep), 'case')} is a marked training case.", "Choose among marked ones."
        )
    return replace(
        cohort,
        cases=tuple(
            case if case.split not in splits or case.case_id in keep else replace(case, regions=()) for case in cohort
        ),
    )
