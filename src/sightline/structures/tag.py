"""What a mark means: its role, the class it speaks for, and who made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sightline.structures.identifiers import normalise_form

Role = Literal["focus", "finding", "organ", "gaze", "ignore"]


@dataclass(frozen=True)
class Tag:
    """What a mark means.

    Attributes:
        role: `focus` where to look (a bone, also when nothing is wrong with it), `finding` the finding itself, `organ`
            anatomy in which a class's finding would lie (the lungs for pneumonia), `gaze` where a reader looked,
            `ignore` where a finding is neither found nor missed (a crowd of them that nobody told apart).
        label: the class the mark speaks for, or None when all classes share it (Liao 2022, section IV-C).
        reader: who marked it, or whose gaze it is.
        name: what it shows, in words, e.g. `superior endplate`; empty where the role says enough.

    Example:
        >>> Tag("finding", "fracture", "reader 1").label
        'fracture'
    """

    role: Role = "focus"
    label: str | None = None
    reader: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """The class in the form in which classes are compared."""
        if self.label is not None:
            object.__setattr__(self, "label", normalise_form(self.label))
