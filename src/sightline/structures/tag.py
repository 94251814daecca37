"""The meaning of a mark: its role, its class, and who made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sightline.structures.identifiers import normalise_form

Role = Literal["focus", "finding", "organ", "gaze", "ignore"]


@dataclass(frozen=True)
class Tag:
    """The meaning of a mark.

    Attributes:
        role: `focus`: where to look (a bone, also a normal one); `finding`: the finding itself; `organ`: anatomy in
            which findings of a class occur (the lungs for pneumonia); `gaze`: where a reader looked; `ignore`: an area
            that is not scored (several findings that were not marked one by one).
        label: the class of the mark, or None if all classes share it (Liao 2022, section IV-C).
        reader: who marked it, or whose gaze it is.
        name: what it shows, e.g. `superior endplate`; empty if the role is enough.

    Example:
        >>> Tag("finding", "fracture", "reader 1").label
        'fracture'
    """

    role: Role = "focus"
    label: str | None = None
    reader: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Bring the label into the form in which classes are compared."""
        if self.label is not None:
            object.__setattr__(self, "label", normalise_form(self.label))
