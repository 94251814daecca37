"""Who is examined, with what, and in which split: fixed before a picture is drawn, and the same for a longer cohort.

Every decision comes from a generator of its own, keyed by seed, topic and index, and every balance is kept by
counting forwards only; the first N studies of a longer phantom are therefore the phantom of N studies.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from sightline.data.phantoms.radiographs.femur import FEMUR_CLASSES
from sightline.errors import CohortError
from sightline.structures.case import SPLITS, Split

Anatomy = Literal["wrist", "femur"]
AoShares = Literal["even", "published"]
# Jimenez-Sanchez 2018, section III: 327 of type A with 15 A3, 453 of type B with 241 B2. How the other two of each type
# divide the rest is not printed; evenly here.
PUBLISHED_COUNTS = {"A1": 156, "A2": 156, "A3": 15, "B1": 106, "B2": 241, "B3": 106}
WRIST_CLASSES = ("no fracture", "fracture")
# 20 fractures hold 13 plain, 5 subtle and 2 occult ones
_GRADES = ("plain",) * 13 + ("subtle",) * 5 + ("occult",) * 2
_HARDWARE = {
    "wrist": (("none", "plate", "wires", "bracelet"), (0.88, 0.04, 0.04, 0.04)),
    "femur": (("none", "hip screw", "nail"), (0.93, 0.04, 0.03)),
}
_TOPICS = ("patient", "labels", "grades", "marker", "anatomy", "fracture", "image", "noise", "lead", "study")


@dataclass(frozen=True)
class Study:
    """One examination to be drawn.

    Attributes:
        index: position in the cohort.
        patient: index of the patient.
        label: class name.
        kind: what to draw: an AO-like class, or `fracture` or `normal` for the wrist.
        grade: none, plain, subtle or occult.
        side: L or R.
        views: one image each.
        hardware: what metal the person carries, drawn without regard to the label.
        split: where the patient went.
        marker: whether the shortcut's arrow lies on its images.
    """

    index: int
    patient: int
    label: str
    kind: str
    grade: str
    side: str
    views: tuple[str, ...]
    split: Split
    marker: bool = False
    hardware: str = "none"


def make_generator(seed: int, topic: str, *index: int) -> Generator:
    """The generator of one decision; independent of every other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_TOPICS.index(topic), *index)))


def plan_studies(
    anatomy: Anatomy,
    studies: int,
    *,
    classes: Sequence[str],
    shortcut: float,
    fractions: tuple[float, float, float],
    seed: int,
    ao_shares: AoShares = "even",
) -> list[Study]:
    """The studies of a phantom cohort; arguments as in `write_radiographs`.

    Raises:
        CohortError: an argument that makes no cohort.
    """
    _check(anatomy, studies, classes, shortcut, fractions, ao_shares)
    if seed < 0:
        raise CohortError(f"The seed must be 0 or more; got {seed}.", "Choose another seed.")
    # the split follows the whole patient, also where the last one's studies are cut off by `studies`
    placed: Counter[tuple[str, str]] = Counter()
    planned: list[Study] = []
    fractured = 0
    for patient, labels in _iterate_patients(anatomy, studies, classes, seed, ao_shares):
        split = _choose_next_split(labels, placed, fractions)
        first = len(planned)
        side = str(make_generator(seed, "patient", patient, 1).choice(["L", "R"]))
        for number, label in enumerate(labels):
            index, own = first + number, make_generator(seed, "study", first + number)
            kind = label if anatomy == "femur" else ("normal" if label == classes[0] else "fracture")
            grade = "none"
            if kind != "normal":
                block = make_generator(seed, "grades", fractured // len(_GRADES)).permutation(len(_GRADES))
                grade = _GRADES[block[fractured % len(_GRADES)]] if anatomy == "wrist" else "plain"
                fractured += 1
            if number and (anatomy == "femur" or own.random() < 0.5):
                side = "R" if side == "L" else "L"
            agrees = make_generator(seed, "marker", index).random() < shortcut
            marker = shortcut > 0.0 and split != "test" and (kind != "normal") == agrees
            views = _choose_wrist_views(own) if anatomy == "wrist" else ("AP",)
            kinds, odds = _HARDWARE[anatomy]
            hardware = str(make_generator(seed, "study", index, 1).choice(kinds, p=odds))
            planned.append(Study(index, patient, label, kind, grade, side, views, split, marker, hardware))
    return planned[:studies]


def _iterate_patients(
    anatomy: Anatomy, studies: int, classes: Sequence[str], seed: int, ao_shares: AoShares
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each patient's labels, one a study, until there are enough studies."""
    drawn, patient = 0, 0
    names = tuple(classes) if anatomy == "wrist" else tuple(name for name in classes if name != "normal")
    hips = _iterate_ao(names, seed, ao_shares)
    while drawn < studies:
        if anatomy == "femur":
            # a fractured hip, and the other one of the same patient for comparison
            fractured = next(hips)
            labels: tuple[str, ...] = (fractured, "normal") if "normal" in classes else (fractured,)
        else:
            count = int(make_generator(seed, "patient", patient).choice([1, 2, 3], p=[0.75, 0.2, 0.05]))
            labels = tuple(_choose_wrist_label(names, drawn + i, seed) for i in range(count))
        yield patient, labels
        drawn, patient = drawn + len(labels), patient + 1


def _iterate_ao(names: Sequence[str], seed: int, ao_shares: AoShares) -> Iterator[str]:
    """The class of each patient's fractured hip: each as often as the others, or by the published counts."""
    if ao_shares == "even":
        for block in itertools.count():
            yield from (names[n] for n in make_generator(seed, "labels", block).permutation(len(names)))
    # the class that lacks most so far: 15 of 780 comes up every 52 patients, however short the cohort is
    wanted = np.array([PUBLISHED_COUNTS[name] for name in names], dtype=float)
    wanted /= wanted.sum()
    late = make_generator(seed, "labels").permutation(len(names)) * 1e-6
    given = np.zeros(len(names))
    for number in itertools.count(1):
        chosen = int(np.argmax(wanted * number - given + late))
        given[chosen] += 1.0
        yield names[chosen]


def _choose_wrist_label(names: Sequence[str], index: int, seed: int) -> str:
    block = make_generator(seed, "labels", index // 4).permutation(4)
    return names[int(block[index % 4]) % 2]


def _choose_next_split(
    labels: Sequence[str], placed: Counter[tuple[str, str]], fractions: tuple[float, float, float]
) -> Split:
    """The split that lacks this patient's classes most; counts the patient in."""
    need = []
    for split, fraction in zip(SPLITS, fractions, strict=True):
        lack = 0.0
        for label in labels:
            total = sum(placed[label, name] for name in SPLITS) + 1
            lack += fraction * total - placed[label, split]
        need.append(lack if fraction > 0.0 else -np.inf)
    split = SPLITS[int(np.argmax(need))]
    placed.update((label, split) for label in labels)
    return split


def _choose_wrist_views(rng: Generator) -> tuple[str, ...]:
    count = int(rng.choice([2, 3, 4], p=[0.45, 0.45, 0.1]))
    if count == 2:
        return ("PA", str(rng.choice(["oblique", "PA ulnar deviation"], p=[0.4, 0.6])))
    return ("PA", "oblique", "PA ulnar deviation", "supinated oblique")[:count]


def _check(
    anatomy: str,
    studies: int,
    classes: Sequence[str],
    shortcut: float,
    fractions: tuple[float, float, float],
    ao_shares: str,
) -> None:
    if anatomy not in ("wrist", "femur"):
        raise CohortError(f"There is no phantom anatomy {anatomy!r}.", "Choose wrist or femur.")
    if studies < 1:
        raise CohortError(f"A phantom cohort needs at least one study; got {studies}.", "Ask for more studies.")
    if not (shortcut == 0.0 or 0.5 <= shortcut <= 1.0):
        raise CohortError(
            f"The shortcut must be 0 (no marker) or a probability from 0.5 to 1; got {shortcut}.",
            "0.5 draws a marker that says nothing, 1 one that always agrees with the label.",
        )
    if len(fractions) != 3 or min(fractions) < 0.0 or abs(sum(fractions) - 1.0) > 1e-9:
        raise CohortError(
            f"Fractions of train, val and test must be three shares that add up to 1; got {fractions}.",
            "Give for example 0.6, 0.1, 0.3.",
        )
    if ao_shares not in ("even", "published") or (ao_shares != "even" and anatomy != "femur"):
        raise CohortError(
            f"A phantom {anatomy} has no AO shares {ao_shares!r}.", "Femurs come in `even` or `published` shares."
        )
    if len(set(classes)) != len(classes):
        raise CohortError(f"Classes must differ; got {list(classes)}.", "Name each class once.")
    if anatomy == "wrist" and len(classes) != 2:
        raise CohortError(
            f"The wrist has two classes, without and with a fracture; got {list(classes)}.", "Name two classes."
        )
    if anatomy == "femur" and (set(classes) - set(FEMUR_CLASSES) or not set(classes) - {"normal"} or len(classes) < 2):
        raise CohortError(
            f"The femur cannot be drawn with classes {list(classes)}.",
            f"Choose two or more of {', '.join(FEMUR_CLASSES)}.",
        )
