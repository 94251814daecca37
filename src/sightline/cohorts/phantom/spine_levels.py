"""How large the vertebrae of an average adult are, level by level, and how they tilt.

Millimetres. Widths and depths of the endplates, posterior heights, canal, pedicles and the spans of the transverse
processes follow Panjabi et al. (thoracic: Spine 1991;16:888, lumbar: Spine 1992;17:299), thoracic discs Kunkel et al.
(J Anat 2011;219:375), rounded. Anterior by posterior height dips at the thoracolumbar junction (0.89 to 0.92 on MRI of
healthy people, Surg Radiol Anat 2011;33:223). Tilts are those of a person who stands. docs/phantom_spine.md holds the
result against a real mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sightline.cohorts.spine import LABELS, RANKS

SACRUM = 26


@dataclass(frozen=True)
class Measures:
    """One level of an average adult, mm and degrees.

    Attributes:
        height: of the body at its back.
        front: anterior height as a share of it.
        width_up, width_low: of the endplates, from side to side.
        depth_up, depth_low: of the endplates, from front to back.
        canal_width, canal_depth: of the bony canal.
        pedicle_width, pedicle_height: least diameters across.
        span: from tip to tip of the transverse processes.
        spine_length: of the spinous process behind the canal.
        spine_drop: how far its tip lies below the body's middle.
        disc: height of the disc below.
        tilt: how far the body's axis leans to the front, degrees.
    """

    height: float
    front: float
    width_up: float
    width_low: float
    depth_up: float
    depth_low: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    span: float
    spine_length: float
    spine_drop: float
    disc: float
    tilt: float


# height front  width up, low  depth up, low  canal w, d   pedicle w, h  span  spinous l, drop  disc  tilt
_ROWS = {
    "T1": (14.1, 0.97, 24.5, 27.8, 18.5, 19.7, 21.8, 16.4, 8.5, 9.6, 75.0, 22.0, 14.0, 4.5, 30.0),
    "T2": (15.6, 0.96, 24.9, 27.4, 19.6, 21.6, 19.5, 15.9, 8.2, 11.4, 69.0, 21.0, 17.0, 3.8, 27.0),
    "T3": (15.7, 0.95, 24.6, 25.9, 22.7, 23.3, 18.3, 15.8, 6.8, 11.9, 61.0, 20.0, 20.0, 3.6, 23.0),
    "T4": (16.2, 0.95, 24.5, 26.0, 23.3, 24.5, 17.0, 16.1, 5.6, 12.1, 58.0, 20.0, 24.0, 3.6, 18.0),
    "T5": (16.2, 0.94, 24.9, 27.0, 24.3, 25.8, 17.1, 16.2, 5.4, 11.9, 61.0, 20.0, 27.0, 3.7, 12.0),
    "T6": (17.4, 0.93, 26.2, 28.2, 26.0, 26.9, 17.2, 16.4, 5.5, 12.2, 61.0, 20.0, 29.0, 4.0, 7.0),
    "T7": (18.2, 0.93, 27.8, 29.1, 27.4, 28.5, 17.3, 15.9, 5.7, 12.1, 61.0, 20.0, 30.0, 4.3, 2.0),
    "T8": (18.7, 0.93, 29.5, 30.5, 27.9, 29.4, 17.7, 15.8, 5.9, 12.5, 60.0, 20.0, 29.0, 4.7, -3.0),
    "T9": (19.3, 0.94, 30.6, 33.0, 29.3, 31.0, 17.9, 15.8, 6.3, 13.9, 60.0, 19.5, 25.0, 5.0, -7.0),
    "T10": (20.2, 0.94, 31.9, 35.4, 30.5, 31.6, 18.2, 15.5, 7.0, 14.9, 58.0, 19.0, 20.0, 5.5, -10.0),
    "T11": (21.3, 0.92, 34.9, 39.1, 31.9, 31.8, 19.4, 16.1, 8.2, 16.4, 52.0, 18.5, 15.0, 6.0, -12.0),
    "T12": (22.7, 0.92, 39.0, 42.1, 32.8, 33.4, 22.2, 18.1, 8.6, 16.5, 47.0, 18.5, 12.0, 6.8, -13.0),
    "L1": (23.8, 0.94, 41.2, 43.3, 34.1, 35.3, 23.7, 19.0, 8.6, 15.9, 71.2, 23.0, 10.0, 7.8, -13.0),
    "L2": (24.3, 0.98, 42.6, 45.5, 34.6, 34.9, 23.8, 18.2, 8.5, 15.0, 76.1, 25.0, 9.0, 9.0, -8.0),
    "L3": (23.8, 1.03, 44.1, 48.0, 35.2, 34.8, 24.3, 17.5, 10.2, 14.4, 85.7, 25.0, 9.0, 10.0, -1.0),
    "L4": (24.1, 1.06, 46.6, 49.5, 35.5, 33.9, 25.4, 18.6, 13.0, 15.5, 79.4, 23.0, 9.0, 10.8, 9.0),
    "L5": (22.9, 1.16, 47.3, 49.4, 34.7, 33.2, 27.1, 19.7, 18.0, 18.0, 88.0, 17.0, 8.0, 10.0, 23.0),
}
MEASURES: dict[int, Measures] = {LABELS[level]: Measures(*row) for level, row in _ROWS.items()}
# drawn where the field of view ends, never labelled
MEASURES[LABELS["C7"]] = replace(
    MEASURES[LABELS["T1"]], height=13.5, depth_up=16.5, width_up=22.0, span=66.0, disc=5.0, tilt=31.0, spine_drop=10.0
)
MEASURES[LABELS["C6"]] = replace(MEASURES[LABELS["C7"]], depth_up=16.0, span=56.0, spine_length=20.0, tilt=28.0)
# a thirteenth thoracic vertebra has the size of its neighbours, a sixth lumbar one that of the fifth
MEASURES[LABELS["T13"]] = replace(MEASURES[LABELS["T12"]], height=23.2, disc=7.2, span=50.0)
MEASURES[LABELS["L6"]] = replace(MEASURES[LABELS["L5"]], tilt=27.0)

# chance of a deformity relative to the average vertebra: peaks at T7-T8 and T11-L2 (Löffler 2020; Genant 1996)
DEFORMED_AT: dict[int, float] = {
    LABELS[level]: weight
    for level, weight in {
        "T1": 0.10, "T2": 0.12, "T3": 0.25, "T4": 0.45, "T5": 0.75, "T6": 1.05, "T7": 1.55, "T8": 1.55, "T9": 1.0,
        "T10": 0.85, "T11": 1.45, "T12": 2.2, "T13": 2.2, "L1": 2.3, "L2": 1.5, "L3": 1.0, "L4": 0.75, "L5": 0.4,
        "L6": 0.3,
    }.items()
}  # fmt: skip


def is_thoracic(label: int) -> bool:
    """Whether the vertebra bears ribs."""
    return RANKS[LABELS["T1"]] <= RANKS[label] <= RANKS[LABELS["T13"]]
