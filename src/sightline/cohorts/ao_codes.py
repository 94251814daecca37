"""AO/OTA fracture codes as written in tables: `31A1.2`, `23-A2`, `A1`, and children's `23r-M/2.1`.

Meinberg et al. 2018 (J Orthop Trauma 32, suppl. 1) for adults, Slongo and Audige 2007 (J Orthop Trauma 21, suppl.) for
children: the bone and its part, the type (a letter), the group (a digit), then finer marks, which are left out here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

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
