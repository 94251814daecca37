"""A spine in a CT: its vertebrae in order, where each is, and what was said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sightline.case import Split

# VerSe's labels from head to foot: C1-C7 1-7, T1-T12 8-19, T13 28, L1-L6 20-25
LEVELS: dict[int, str] = {
    **{n: f"C{n}" for n in range(1, 8)},
    **{n: f"T{n - 7}" for n in range(8, 20)},
    28: "T13",
    **{n: f"L{n - 19}" for n in range(20, 26)},
}
LABELS: dict[str, int] = {level: label for label, level in LEVELS.items()}
# position from head to foot: T13 stands between T12 and L1
RANKS: dict[int, int] = {label: rank for rank, label in enumerate(LEVELS)}


@dataclass(frozen=True)
class Vertebra:
    """One vertebra.

    Attributes:
        label: VerSe's number, a key of LEVELS.
        centre: place of its body's centre in the CT's own array, voxels with the origin at the corner (a Frame's
            source coordinates).
        grade: Genant's grade 0 to 3, or None where nobody graded it.
        deformity: `wedge`, `biconcave`, `crush` or empty.
        foreign: whether it holds foreign material.
        excluded: whether the grading leaves it out.
    """

    label: int
    centre: tuple[float, float, float]
    grade: int | None = None
    deformity: str = ""
    foreign: bool = False
    excluded: bool = False

    @property
    def level(self) -> str:
        """Its name, e.g. `T12`."""
        return LEVELS[self.label]


@dataclass(frozen=True)
class Spine:
    """One CT series with its vertebrae.

    Attributes:
        subject: the patient; several series may share one.
        series: unique within the data set.
        image: the CT: a NIfTI file, or a folder with one DICOM series.
        vertebrae: from head to foot.
        vertebra_mask: NIfTI of VerSe's labels on the CT's grid, or None.
        subregion_mask: NIfTI of sub-region numbers (SUBREGIONS) on the CT's grid, or None.
        finding_mask: NIfTI whose non-zero voxels are deformed bone (phantoms), or None.
        split: as the data set publishes it.
        source: where the scan comes from (`verse19`, `verse20`, `phantom`): a column that tables select by.
        facts: what else is known, by name.
    """

    subject: str
    series: str
    image: Path
    vertebrae: tuple[Vertebra, ...]
    vertebra_mask: Path | None = None
    subregion_mask: Path | None = None
    finding_mask: Path | None = None
    split: Split | None = None
    source: str = ""
    facts: dict[str, str] = field(default_factory=dict)


# numbers of sub-regions in `..._seg-subreg_msk.nii.gz`, as public spine segmentations use them; 101 to 103 are ours
SUBREGIONS: dict[int, str] = {
    41: "arch",
    42: "spinous process",
    43: "left transverse process",
    44: "right transverse process",
    45: "left superior articular process",
    46: "right superior articular process",
    47: "left inferior articular process",
    48: "right inferior articular process",
    49: "body border",
    50: "body",
    100: "disc",
    101: "superior endplate",
    102: "inferior endplate",
    103: "pedicles",
}

# numbers of finding masks, where a mask tells kinds of deformed bone apart (phantoms)
FINDINGS: dict[int, str] = {
    1: "depressed superior endplate",
    2: "depressed inferior endplate",
    3: "sclerotic band",
    4: "bulged wall",
}
