"""Who is drawn: a person's size, bone and curve, and each vertebra's heights, deformity and what merely looks so."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from sightline.data.phantoms.spine.body import DEFORMED_AT, MEASURES, BodyPlan, Dent, Measures, Spur, is_thoracic
from sightline.data.spine.vertebrae import LABELS, RANKS

# share of height lost, within each of Genant's grades and clear of their limits (0.20, 0.25, 0.40)
LOSSES = {1: (0.206, 0.244), 2: (0.258, 0.390), 3: (0.412, 0.620)}
_GRADES = (0.48, 0.33, 0.19)
# no vertebra of grade 0 loses more, whatever its shape
MOST_NORMAL = 0.175
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class VertebraPlan:
    """One vertebra.

    Attributes:
        label: VerSe's number.
        body: shape of its body; `body.normal` are the heights it would have without a deformity.
        grade, deformity: Genant's; `deformity` is empty for grade 0.
        loss: share of height lost, by which it is graded.
        fresh: how much healing bone it holds, 0 (old, remodelled) to 1.
        disc_mm: height of the disc below.
        gas: vacuum in that disc.
        worn: degeneration of that disc, 0 to 1.
        cement, screws: foreign material.
        fat: a haemangioma: fat between few thick trabeculae.
        island: a bone island.
        cleft: gas in the fracture.
    """

    label: int
    body: BodyPlan
    grade: int = 0
    deformity: str = ""
    loss: float = 0.0
    fresh: float = 0.0
    disc_mm: float = 6.0
    gas: bool = False
    worn: float = 0.0
    cement: bool = False
    screws: bool = False
    fat: bool = False
    island: bool = False
    cleft: bool = False

    @property
    def measures(self) -> Measures:
        """Of a healthy vertebra of this person."""
        return self.body.measures


@dataclass(frozen=True)
class PhantomSubject:
    """A person.

    Attributes:
        name: e.g. `phantom007`.
        frailty: 0 to 1; thin, poor trabeculae and many deformities go along with it.
        trabecular_hu: mean of the spongy bone.
        kyphosis, lordosis: of the curves, 1 is average.
        scoliosis_deg: greatest tilt to the side; where, and over how many levels, in levels from T1.
        contrast_hu: of the blood in the aorta.
        fatness: 0 to 1.
        calcified: how much of the aorta's wall is.
        vertebrae: from C6 to the last lumbar one.
    """

    name: str
    frailty: float
    trabecular_hu: float
    kyphosis: float
    lordosis: float
    scoliosis: tuple[float, float, float]
    contrast_hu: float
    fatness: float
    calcified: float
    vertebrae: tuple[VertebraPlan, ...]


def plan_person(number: int, seed: int, *, prevalence: float) -> PhantomSubject:
    """Draw a person; the result depends on nothing but the arguments.

    Args:
        number: of the subject; frailty is spread evenly over any run of subjects.
        seed: of the phantom.
        prevalence: expected share of deformed vertebrae.
    """
    rng = np.random.default_rng([seed, 11, number])
    shift = np.random.default_rng([seed, 12]).random()
    rank = (number * _GOLDEN + shift) % 1.0
    frailty = float(np.clip(0.5 * rank + 0.5 * rng.random() + rng.normal(0.0, 0.08), 0.0, 1.0))
    size = float(np.clip(rng.normal(1.02 + 0.05 * rng.choice([-1.0, 1.0]), 0.03), 0.88, 1.14))
    bend = rng.normal(0.0, 1.5) if rng.random() > 0.2 else rng.choice([-1.0, 1.0]) * rng.uniform(5.0, 14.0)
    levels = [LABELS[name] for name in ("C6", "C7")] + list(range(8, 20))
    variant = rng.random()
    levels += [LABELS["T13"]] if variant < 0.05 else []
    levels += list(range(20, 25)) + ([LABELS["L6"]] if variant > 0.96 else [])
    share = _solve_share_scale(prevalence) * _draw_burden(rank)
    vertebrae = tuple(
        _plan_vertebra(label, np.random.default_rng([seed, 13, number, label]), size, frailty,
                       min(0.85, share * DEFORMED_AT.get(label, 0.0))) for label in levels
    )  # fmt: skip
    vertebrae = _add_metal(vertebrae, np.random.default_rng([seed, 14, number]))
    return PhantomSubject(
        f"phantom{number + 1:03d}",
        frailty,
        float(np.clip(225.0 - 165.0 * frailty + rng.normal(0.0, 24.0), 28.0, 260.0)),
        float(np.clip(rng.uniform(0.7, 1.15) + 0.35 * frailty, 0.6, 1.5)),
        float(np.clip(rng.uniform(0.7, 1.2) - 0.2 * frailty, 0.45, 1.2)),
        (float(bend), float(rng.uniform(4.0, 11.0)), float(rng.uniform(11.0, 17.0))),
        float(rng.uniform(120.0, 260.0)) if rng.random() < 0.45 else 42.0,
        float(rng.beta(2.0, 2.0)),
        float(rng.random() * frailty),
        vertebrae,
    )


def _draw_burden(rank: float) -> float:
    """How many deformities a person has relative to the average: most have few, some have many."""
    return 0.12 + 5.3 * rank**5


def _solve_share_scale(prevalence: float) -> float:
    """The factor with which the expected share of deformed vertebrae, T4 to L5, is the prevalence.

    Fields of view seldom reach T1 to T3, where deformities are rare.
    """
    burdens = np.array([_draw_burden((k + 0.5) / 64) for k in range(64)])[:, None]
    weights = np.array([DEFORMED_AT[label] for label in range(11, 25)])[None, :]
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2.0
        below = float(np.minimum(0.85, middle * burdens * weights).mean()) < prevalence
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2.0


def _plan_vertebra(label: int, rng: Generator, size: float, frailty: float, chance: float) -> VertebraPlan:
    m = _personalise(MEASURES[label], size, rng)
    thoracic = is_thoracic(label)
    body = _plan_healthy_body(m, rng, frailty, thoracic)
    worn = float(np.clip(rng.normal(0.25 + 0.25 * frailty, 0.28), 0.0, 1.0))
    narrowed = 1.0 - 0.6 * max(0.0, worn - 0.35) / 0.65
    gas = bool(worn > 0.6 and rng.random() < (0.15 if thoracic else 0.5))
    fat, island = bool(rng.random() < 0.03), bool(rng.random() < 0.03)
    plan = VertebraPlan(label, body, disc_mm=m.disc * narrowed, worn=worn, gas=gas, fat=fat, island=island)
    if rng.random() < chance:
        plan = _deform(plan, rng)
    body = replace(plan.body, dents=_plan_dents(label, m.width_up / 2.0, m.height, rng), spurs=_plan_spurs(worn, rng))
    if plan.grade == 0 and rng.random() < 0.02:
        body = replace(body, limbus_mm=float(rng.uniform(0.15, 0.22) * m.depth_up / 2.0))
    loss = plan.loss or max(1.0 - body.heights[0] / body.heights[2], 1.0 - body.heights[1] / body.heights[2], 0.0)
    return replace(plan, body=body, loss=float(loss))


def _personalise(m: Measures, size: float, rng: Generator) -> Measures:
    def draw(mm: float, spread: float) -> float:
        return float(mm * size * np.clip(rng.normal(1.0, spread), 1.0 - 2.5 * spread, 1.0 + 2.5 * spread))

    # depths as masks of CTs show them at mid-height are a little less than those of endplates
    wide, deep = draw(1.0, 0.03) / size, 0.95 * draw(1.0, 0.03) / size
    return replace(
        m, height=draw(m.height, 0.02),
        width_up=draw(m.width_up * wide, 0.01), width_low=draw(m.width_low * wide, 0.01),
        depth_up=draw(m.depth_up * deep, 0.01), depth_low=draw(m.depth_low * deep, 0.01),
        canal_width=draw(m.canal_width, 0.04), canal_depth=draw(m.canal_depth, 0.05),
        pedicle_width=draw(m.pedicle_width, 0.08), pedicle_height=draw(m.pedicle_height, 0.04), span=draw(m.span, 0.04),
        spine_length=draw(m.spine_length, 0.06), spine_drop=draw(m.spine_drop, 0.1), disc=draw(m.disc, 0.08),
    )  # fmt: skip


def _plan_healthy_body(m: Measures, rng: Generator, frailty: float, thoracic: bool) -> BodyPlan:
    posterior = m.height
    front = m.front * float(np.clip(rng.normal(1.0, 0.022), 0.95, 1.05))
    # mild wedging that is nobody's fracture
    if rng.random() < 0.12:
        front -= rng.uniform(0.02, 0.09)
    anterior = posterior * max(front, 1.0 - MOST_NORMAL)
    hollow = float(np.clip(rng.normal(0.075, 0.018), 0.03, 0.12))
    # hollow endplates of poor bone
    if rng.random() < 0.35 * frailty:
        hollow += rng.uniform(0.02, 0.07)
    middle = (anterior + posterior) / 2.0 - hollow * posterior
    heights = (anterior, max(middle, posterior * (1.0 - MOST_NORMAL)), posterior)
    return BodyPlan(
        m,
        heights,
        heights,
        waist=float(rng.uniform(0.09, 0.15) if thoracic else rng.uniform(0.12, 0.20)),
        thoracic=thoracic,
    )


def _deform(plan: VertebraPlan, rng: Generator) -> VertebraPlan:
    lumbar = RANKS[plan.label] >= RANKS[LABELS["L2"]]
    deformity = str(rng.choice(["wedge", "biconcave", "crush"], p=[0.3, 0.42, 0.28] if lumbar else [0.62, 0.15, 0.23]))
    grade = int(rng.choice([1, 2, 3], p=_GRADES))
    loss = float(rng.uniform(*LOSSES[grade]))
    anterior, middle, posterior = plan.body.normal
    fresh = float(np.clip(rng.beta(1.3, 1.0), 0.05, 1.0))
    central, upper_share = False, float(rng.uniform(0.72, 1.0))
    if deformity == "wedge":
        posterior *= 1.0 - rng.uniform(0.0, 0.04)
        middle = min(middle, posterior * (1.0 - loss * rng.uniform(0.45, 0.85)))
        anterior = posterior * (1.0 - loss)
    elif deformity == "biconcave":
        central, upper_share = True, float(rng.uniform(0.4, 0.65))
        posterior *= 1.0 - rng.uniform(0.0, 0.03)
        anterior = max(min(anterior * (1.0 - rng.uniform(0.0, 0.06)), 1.12 * posterior), 0.84 * posterior)
        middle = posterior * (1.0 - loss)
    else:
        upper_share = float(rng.uniform(0.55, 0.85))
        posterior, anterior = posterior * (1.0 - loss), anterior * (1.0 - loss - rng.uniform(0.0, 0.08))
        middle *= 1.0 - loss - rng.uniform(0.0, 0.08)
    severe = max(0.0, loss - 0.2)
    body = replace(
        plan.body, heights=(float(anterior), float(middle), float(posterior)), upper_share=upper_share,
        step=float(rng.uniform(0.05, 0.4)), lean=float(rng.normal(0.0, 0.12)), central=central,
        buckle_mm=0.0 if central else float(rng.uniform(0.5, 1.2) + 3.0 * severe),
        retropulsion_mm=float(rng.uniform(1.5, 4.5)) if grade == 3 and not central and rng.random() < 0.75 else 0.0,
    )  # fmt: skip
    cement, cleft = bool(grade >= 2 and rng.random() < 0.06), bool(grade == 3 and rng.random() < 0.15)
    return replace(
        plan, body=body, grade=grade, deformity=deformity, loss=loss, fresh=fresh, cement=cement, cleft=cleft
    )


def _plan_dents(label: int, half_width: float, height: float, rng: Generator) -> tuple[Dent, ...]:
    """Schmorl's nodes, away from the line on which heights are measured."""
    common = RANKS[LABELS["T7"]] <= RANKS[label] <= RANKS[LABELS["L3"]]
    return tuple(
        Dent(float(rng.choice([-1.0, 1.0]) * rng.uniform(0.40, 0.58)), float(rng.uniform(-0.45, 0.25)),
             float(rng.uniform(0.14, 0.20) * half_width), float(rng.uniform(0.08, 0.17) * height), upper)
        for upper in (True, False) if rng.random() < (0.07 if common else 0.015)
    )  # fmt: skip


def _plan_spurs(worn: float, rng: Generator) -> tuple[Spur, ...]:
    if worn < 0.3:
        return ()
    many = int(rng.integers(0, 4))
    # in front and at the sides, never into the canal
    return tuple(
        Spur(float(rng.uniform(-0.15, math.pi + 0.15)), float(rng.uniform(1.0, 1.0 + 6.0 * worn)),
             float(rng.uniform(0.22, 0.5)), bool(rng.random() < 0.4)) for _ in range(many)
    )  # fmt: skip


def _add_metal(vertebrae: tuple[VertebraPlan, ...], rng: Generator) -> tuple[VertebraPlan, ...]:
    """Screws and rods in one person of twenty, over two or three levels."""
    if rng.random() > 0.05:
        return vertebrae
    first = int(rng.integers(8, len(vertebrae) - 3))
    held = range(first, first + int(rng.integers(2, 4)))
    return tuple(replace(one, screws=True) if n in held else one for n, one in enumerate(vertebrae))
