"""A case is one picture of a study of a patient; a cohort is an ordered table of cases."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sightline.errors import CohortError, count_noun
from sightline.structures.frame import is_pixel_size
from sightline.structures.identifiers import clean_text, normalise_form
from sightline.structures.notation import encode_region
from sightline.structures.regions import Region

_NORMAL_WORDS = frozenset(
    {"normal", "no fracture", "no finding", "none", "negative", "healthy", "intact", "without fracture", "n"}
)


def is_normal(label: str) -> bool:
    """Whether a class name means "no finding": `normal`, `no fracture`, `No Finding`, `N`, ..."""
    return label.strip().casefold().replace("_", " ").replace("-", " ") in _NORMAL_WORDS


def order_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The classes of labels whose order nobody stated: normal ones first, as the last of two counts as positive.

    Example:
        >>> order_classes(["fracture", "normal", "fracture"])
        ('normal', 'fracture')
    """
    return tuple(sorted(set(labels), key=lambda name: (not is_normal(name), name)))


def describe_unknown_patients(unknown: int, of: int, column: str) -> str:
    """What a cohort says of itself (`about["patients"]`) where patients are not known; the audit repeats it.

    Args:
        unknown: how many images do not name their patient.
        of: how many there are.
        column: what should name it.
    """
    how_many = "no image names" if unknown == of else f"{unknown} of {of} images do not name"
    return f"WARNING: {how_many} a patient ({column}): their studies count as patients; splits may leak patients"


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Case:
    """One image (one view) with its label and experts' marks.

    Attributes:
        case_id: unique within the cohort.
        study_id: shared by the views of one study; study-wise results average over them.
        patient_id: splits and intervals are grouped by it (or by the closest group a data set offers).
        image: the image file.
        label: class name; one of the cohort's classes.
        regions: experts' marks, in source pixels of the image.
        split: train, val, test, or None if not assigned.
        view: projection as named in the source, e.g. `PA`.
        shape: (rows, columns) of the image, or the size of a volume along its three axes, if the layout states it.
        spacing_mm: size of a pixel or voxel along the same axes in mm, if known.
        facts: acquisition facts by name (`hardware`, `device`, ...), for the shortcut audit.

    Example:
        >>> Case("i1", "s1", "p1", "hand.png", "fracture", split="test").label
        'fracture'
    """

    case_id: str
    study_id: str
    patient_id: str
    image: Path
    label: str
    regions: tuple[Region, ...] = ()
    split: Split | None = None
    view: str = ""
    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Clean ids as tables store them, in the form they are compared in; refuse strange splits and spacings."""
        for name in ("case_id", "view"):
            object.__setattr__(self, name, clean_text(vars(self)[name]))
        for name in ("study_id", "patient_id", "label"):
            object.__setattr__(self, name, normalise_form(vars(self)[name]))
        object.__setattr__(self, "image", Path(self.image))
        if self.split not in (None, *SPLITS):
            raise CohortError(
                f"Image {self.case_id!r} is in the split {self.split!r}.", f"Choose among {', '.join(SPLITS)}, or None."
            )
        if self.spacing_mm is not None and not all(map(is_pixel_size, self.spacing_mm)):
            raise CohortError(
                f"Image {self.case_id!r} states pixels of {' x '.join(map(str, self.spacing_mm))} mm.",
                "Correct the spacing, or leave it out where it is not known.",
            )


# in `Cohort.about`: SHA-256 of the weights, one or more, whose proposals readers accepted or edited into its marks
PROPOSED_BY = "marks proposed by weights"


@dataclass(frozen=True)
class Cohort:
    """An ordered, filterable table of cases that share one list of classes.

    Attributes:
        name: the cohort's name in tables and reports.
        classes: class names; their order is the order of logits.
        cases: the cases, in a fixed order.
        root: folder the cohort was read from.
        about: provenance (layout, source, licence, seed), printed in reports.

    Example:
        >>> case = Case("i1", "s1", "p1", "hand.png", "fracture", split="test")
        >>> cohort = Cohort("hands", ("no fracture", "fracture"), (case,), "cohort")
        >>> len(cohort.split("test")), cohort.counts()["fracture"]
        (1, 1)
    """

    name: str
    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    root: Path | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name, size, classes and splits, in a line."""
        splits = ", ".join(f"{s} {n}" for s in SPLITS if (n := sum(case.split == s for case in self.cases)))
        cases = count_noun(len(self.cases), "case")
        return f"Cohort({self.name!r}, {cases}, {', '.join(self.classes)}; {splits or 'no splits'})"

    def __post_init__(self) -> None:
        """Refuse repeated case ids and labels that are not classes."""
        object.__setattr__(self, "classes", tuple(normalise_form(name) for name in self.classes))
        if "" in self.classes or len(set(self.classes)) < len(self.classes):
            raise CohortError(
                f"Cohort {self.name!r} has the classes {list(self.classes)}: one has no name, or two have the same.",
                "Give every class a name of its own.",
            )
        repeated = [i for i, n in Counter(case.case_id for case in self.cases).items() if n > 1]
        if repeated:
            raise CohortError(
                f"Cohort {self.name!r} has {count_noun(len(repeated), 'repeated case id')}, e.g. {repeated[:3]}.",
                "Give every image its own id.",
            )
        strange = sorted({case.label for case in self.cases} - set(self.classes))
        if strange:
            raise CohortError(
                f"Cohort {self.name!r} has labels {strange} that are not among its classes {list(self.classes)}.",
                "Add the class or mend the label.",
            )

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        """The cases in order."""
        return iter(self.cases)

    def __getitem__(self, index: int) -> Case:
        """The case at a position."""
        return self.cases[index]

    def where(self, keep: Callable[[Case], bool]) -> Cohort:
        """The cohort restricted to the cases for which `keep` is true."""
        return replace(self, cases=tuple(case for case in self.cases if keep(case)))

    def part(self, name: str) -> Cohort:
        """The cases of one split, or with `all` the whole cohort, as in a command's `--split`.

        Raises:
            CohortError: unknown split.
        """
        if name not in ("train", "val", "test", "all"):
            raise CohortError(f"There is no split {name!r}.", "Choose train, val, test or all.")
        return self if name == "all" else self.split(name)

    def split(self, *names: str) -> Cohort:
        """The cohort restricted to the named splits.

        Raises:
            CohortError: another word, of which no case could be.
        """
        if strange := sorted(set(names) - set(SPLITS)):
            raise CohortError(f"There is no split {strange[0]!r}.", f"Choose among {', '.join(SPLITS)}.")
        return self.where(lambda case: case.split in names)

    def class_index(self, label: str) -> int:
        """Position of a class in the logits."""
        return self.classes.index(label)

    def counts(self) -> dict[str, int]:
        """Number of cases per class, in class order."""
        tally = Counter(case.label for case in self.cases)
        return {name: tally[name] for name in self.classes}

    def fingerprint(self) -> str:
        """Digest of everything that results depend on: ids, groups, labels, splits, image names and sizes, regions."""
        digest = hashlib.sha256(json.dumps([self.name, self.classes]).encode())
        for case in self.cases:
            size = case.image.stat().st_size if case.image.is_file() else -1
            row = [case.case_id, case.study_id, case.patient_id, case.label, case.split, case.image.name, size]
            digest.update(json.dumps(row).encode())
            for region in case.regions:
                digest.update(encode_region(region))
        return digest.hexdigest()[:16]
