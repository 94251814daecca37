"""A column of vertebrae: each placed on the disc of the next, leaning as the curves of the spine want it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.data.phantoms.spine.body import VertebraBody
from sightline.data.phantoms.spine.plan import PhantomSubject, VertebraPlan
from sightline.data.phantoms.spine.solids import VertebraPose
from sightline.data.spine.vertebrae import LABELS, RANKS
from sightline.structures.frame import FloatArray

SACRAL_TILT = 38.0
# a disc keeps at least this share of its height at its narrow side
_LEAST_DISC = 0.25


@dataclass(frozen=True, eq=False)
class PlacedVertebra:
    """A vertebra in the column: plan, body, pose; `centre` of its body in the grid's millimetres."""

    plan: VertebraPlan
    body: VertebraBody
    pose: VertebraPose

    @property
    def centre(self) -> FloatArray:
        """Middle of the body between its endplates."""
        upper, lower = self.body.plates(0.0)
        return self.pose.place(np.array([0.0, 0.0, (float(upper) + float(lower)) / 2.0]))

    @property
    def canal(self) -> FloatArray:
        """Middle of the canal behind the body."""
        m = self.plan.measures
        return self.pose.place(np.array([0.0, -(self.body.depth + m.canal_depth) / 2.0, 0.0]))


@dataclass(frozen=True, eq=False)
class Column:
    """The whole spine, head first, and the upper end of the sacrum."""

    vertebrae: tuple[PlacedVertebra, ...]
    sacrum: VertebraPose


def stack_vertebrae(person: PhantomSubject) -> Column:
    """Place a person's vertebrae, the sacrum's upper endplate at the origin."""
    sacral_tilt = SACRAL_TILT * person.lordosis
    sacrum = VertebraPose(_build_axes(sacral_tilt, 0.0, 0.0), np.zeros(3))
    placed: list[PlacedVertebra] = []
    # height and slope of the plate underneath, in the frame of what carries it
    pose, (height, slope), tilt = sacrum, (0.0, 0.0), sacral_tilt
    bent = 0.0
    for number in range(len(person.vertebrae) - 1, -1, -1):
        plan = person.vertebrae[number]
        body = VertebraBody(plan.body)
        upper, lower = body.rims()
        side, turn = _draw_sideways_tilt(person, number)
        wanted = _choose_wanted_tilt(person, plan) + bent
        tilt = _limit_tilt(wanted, tilt, plan.disc_mm, lower[1] - slope, body.depth)
        turned = _build_axes(tilt, side, turn)
        middle = pose.turn[:, 2] + turned[:, 2]
        plate = pose.place(np.array([0.0, 0.0, height]))
        origin = plate + plan.disc_mm * middle / np.linalg.norm(middle) - turned @ np.array([0.0, 0.0, lower[0]])
        pose = VertebraPose(turned, origin)
        placed.append(PlacedVertebra(plan, body, pose))
        height, slope = upper
        # what a wedge takes from the front, the column above follows by half
        front, _, back = (n - h for n, h in zip(plan.body.normal, plan.body.heights, strict=True))
        bent = min(bent + 0.5 * math.degrees(max(front - back, 0.0) / body.depth), 16.0)
    return Column(tuple(reversed(placed)), sacrum)


def _choose_wanted_tilt(person: PhantomSubject, plan: VertebraPlan) -> float:
    rank = RANKS[plan.label]
    if rank <= RANKS[LABELS["T9"]]:
        factor = person.kyphosis
    elif rank >= RANKS[LABELS["L2"]]:
        factor = person.lordosis
    else:
        factor = (person.kyphosis + person.lordosis) / 2.0
    return 0.95 * plan.measures.tilt * factor


def _draw_sideways_tilt(person: PhantomSubject, number: int) -> tuple[float, float]:
    """Tilt to the side and turn about its own axis, degrees, which go together in a scoliosis."""
    bend, start, span = person.scoliosis
    phase = 2.0 * math.pi * (number - 2.0 - start) / span
    return bend * math.sin(phase), 0.55 * bend * math.cos(phase)


def _limit_tilt(wanted: float, below: float, disc_mm: float, slopes: float, depth: float) -> float:
    """The tilt nearest to the one wanted with which the disc keeps some height at both ends."""
    most = (1.0 - _LEAST_DISC) * disc_mm / (0.5 * depth)
    opening = slopes - math.tan(math.radians(wanted - below))
    return below + math.degrees(math.atan(slopes - float(np.clip(opening, -most, most))))


def _build_axes(tilt_deg: float, side_deg: float, turn_deg: float) -> FloatArray:
    """Axes (right, front, head) as columns of a vertebra that leans forward and to the right, and is turned."""
    t, s, r = (math.radians(angle) for angle in (tilt_deg, side_deg, turn_deg))
    forward = np.array([[1.0, 0.0, 0.0], [0.0, math.cos(t), math.sin(t)], [0.0, -math.sin(t), math.cos(t)]])
    sideways = np.array([[math.cos(s), 0.0, math.sin(s)], [0.0, 1.0, 0.0], [-math.sin(s), 0.0, math.cos(s)]])
    about = np.array([[math.cos(r), -math.sin(r), 0.0], [math.sin(r), math.cos(r), 0.0], [0.0, 0.0, 1.0]])
    turned: FloatArray = sideways @ forward @ about
    return turned
