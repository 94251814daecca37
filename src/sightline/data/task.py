"""Which classes to tell apart: derived from labels that are stored once, at the level a task asks for.

Jimenez-Sanchez 2018, Fig. 1: one label an image (normal, A1 to B3) gives tasks of 2 (normal, fracture), 3 (normal, A,
B) and 6 classes (A1 to B3, without the normal ones).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.regions import Region

Level = Literal["present", "type", "group"]
NORMAL, FRACTURE = "normal", "fracture"


@dataclass(frozen=True)
class Task:
    """A level of the hierarchy of labels.

    Attributes:
        level: `present` (normal, fracture), `type` (normal, A, B) or `group` (A1 to B3).
        normals: at the level `group`, whether normal images are kept, as the first class. Other levels keep them.
        several: images with several codes that differ at this level: refused, or left out.
    """

    level: Level = "present"
    normals: bool = False
    several: Literal["refuse", "leave_out"] = "refuse"

    def __post_init__(self) -> None:
        """Refuse levels that do not exist."""
        if self.level not in get_args(Level):
            raise RecipeError(f"Task.level is {self.level!r}.", f"Use one of {', '.join(get_args(Level))}.")

    def apply(self, cohort: Cohort) -> Cohort:
        """The cohort with this task's classes; regions speak for the new classes; left-out cases are gone.

        A cohort that already has them is returned as it is. Classes follow from the cohort's list of classes, not from
        its cases: a part without cases of a class keeps the class.

        Raises:
            CohortError: labels that mean nothing at this level.
        """
        new_name = self._map_names(cohort.classes)
        if self.classes_of(cohort.classes) == cohort.classes and all(old == new for old, new in new_name.items()):
            return cohort
        cases = tuple(_rename_case(case, new_name) for case in cohort if new_name[case.label] is not None)
        merged = "; ".join(f"{new}: {', '.join(olds)}" for new, olds in self.groups(cohort.classes).items())
        return replace(
            cohort,
            classes=self.classes_of(cohort.classes),
            cases=cases,
            about={**cohort.about, "task": f"{self.level} ({merged})"},
        )

    def classes_of(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes that a cohort's become: normal first, then in the order of their codes."""
        names = {name for name in self._map_names(classes).values() if name is not None}
        if self.level == "present":
            return (NORMAL, FRACTURE)  # a cohort of fractures alone lacks normal cases, not the question
        return (*([NORMAL] if NORMAL in names else []), *sorted(names - {NORMAL}))

    def groups(self, classes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The new classes, each with the given ones that it merges, for adding up their probabilities.

        Given classes that the task leaves out are in none.
        """
        merged: dict[str, list[str]] = {name: [] for name in self.classes_of(classes)}
        for old, new in self._map_names(classes).items():
            if new is not None:
                merged[new].append(old)
        return {new: tuple(olds) for new, olds in merged.items()}

    def _map_names(self, classes: Sequence[str]) -> dict[str, str | None]:
        """The new name of every class, None where its cases are left out."""
        codes = {label: read_ao(label) for label in classes if not is_normal(label)}
        if self.level == "present":
            if len(codes) == len(classes) and not all(codes.values()):
                raise CohortError(
                    f"The classes {list(classes)} have no normal one, so a fracture cannot be told from none.",
                    "Call the class without a finding 'normal' or 'no fracture'.",
                )
            return {label: FRACTURE if label in codes else NORMAL for label in classes}
        strange = [label for label, found in codes.items() if not found]
        if strange:
            raise CohortError(
                f"The labels {strange} are no AO codes, so they have no {self.level}.",
                "Label cases like 'A1', '31A1.2' or '23r-M/2.1', or use the level 'present'.",
            )
        with_place = _has_several_places(code for found in codes.values() for code in found or ())
        names: dict[str, str | None] = {}
        for label in classes:
            if label in codes:
                names[label] = self._name(label, codes[label] or (), with_place)
            else:
                names[label] = NORMAL if self.level == "type" or self.normals else None
        return names

    def _name(self, label: str, codes: Sequence[AoCode], with_place: bool) -> str | None:
        depth: Literal["type", "group"] = "type" if self.level == "type" else "group"
        try:
            found = {code.name(depth, with_place=with_place) for code in codes}
        except ValueError:
            raise CohortError(
                f"The label {label!r} has no group, only a type.", "Use the level 'type', or label its group."
            ) from None
        if len(found) > 1 and self.several == "refuse":
            raise CohortError(
                f"The label {label!r} names several {depth}s: {sorted(found)}.",
                "Use the level 'present', or several='leave_out' to leave such images out.",
            )
        return found.pop() if len(found) == 1 else None


def derive_coarser_tasks(classes: Sequence[str]) -> tuple[Task, ...]:
    """The tasks that merge given classes into fewer, but at least two: one prediction answers them all as well."""
    found = []
    for task in (Task("type"), Task("present")):
        try:
            size = sum(len(olds) > 0 for olds in task.groups(classes).values())
        except CohortError:
            continue
        if 2 <= size < len(classes):
            found.append(task)
    return tuple(found)


def _has_several_places(codes: Iterable[AoCode]) -> bool:
    """Whether codes lie in different bones, so that their names must say which.

    Raises:
        CohortError: some say their bone and some do not.
    """
    places = {code.place for code in codes}
    if len(places) > 2 and "" in places:
        raise CohortError(
            f"Some labels name their bone ({', '.join(sorted(places - {''}))}) and some do not.",
            "Write all codes alike.",
        )
    return len(places - {""}) > 1


def _rename_case(case: Case, new_name: Mapping[str, str | None]) -> Case:
    label = new_name[case.label]
    assert label is not None
    regions = tuple(_rename_tag(region, new_name) for region in case.regions)
    return replace(case, label=label, regions=regions)


def _rename_tag(region: Region, new_name: Mapping[str, str | None]) -> Region:
    """A region that speaks for a class speaks for the class it became; one that nobody knows is left to the audit."""
    label = None if region.tag.label is None else new_name.get(region.tag.label)
    return region if label is None else replace(region, tag=replace(region.tag, label=label))


Depth = Literal["type", "group"]

# tables are typed by hand: separators are missing or doubled in a few of 20,000 rows of GRAZPEDWRI-DX
_CODE = re.compile(
    r"(?:(?P<place>\d[RUF]\d?|\d{2}[rutf]?(?:\.\d)*)[\s/.-]*)?"
    r"(?:(?P<adult>[ABCF])|(?P<child>[EMD])/?)"
    r"(?P<group>\d)?(?:\.\d*)*"
    r"(?:\.?\([^()]*\)|[a-z]\b|\*)*"
)


@dataclass(frozen=True, order=True)
class AoCode:
    """One fracture.

    Attributes:
        place: bone and part, e.g. `31` or `23r`; empty where the table leaves it out.
        letter: type: A, B, C (F: scapula), or a child's E, M, D.
        group: digit of the group, or empty.
    """

    place: str
    letter: str
    group: str

    def name(self, depth: Depth, *, with_place: bool) -> str:
        """The code down to a depth: `A`, `31A`, `A1`, `31A1`, `M/2`, `23r-M/2`.

        Raises:
            ValueError: the code has no group.
        """
        child = self.letter in "EMD"
        place = (f"{self.place}-" if child else self.place) if with_place else ""
        if depth == "type":
            return f"{place}{self.letter}"
        if not self.group:
            raise ValueError("no group")
        return f"{place}{self.letter}{'/' if child else ''}{self.group}"


def read_ao(text: str) -> tuple[AoCode, ...] | None:
    """The fractures that a cell names, several divided by semicolons or commas; None where it is no AO code."""
    codes = []
    for part in re.split("[;,]", text):
        found = _CODE.fullmatch(part.strip())
        if found is None:
            return None
        codes.append(AoCode(found["place"] or "", found["adult"] or found["child"], found["group"] or ""))
    return tuple(codes)
