"""All boxes against all findings, as their scores rank them: average precision and FROC, for many weightings at once.

Boxes are taken in the order of their scores, the surest first; each takes the free finding that it fits best
(one-to-one, greedy, as COCO does within an image). A box that gets none is false, on negatives every box is. Which box
gets which finding depends on its image alone, so a bootstrap only weighs images again. Boxes of equal score enter
together, as one threshold cannot part them; COCO takes them in the order of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from sightline.metrics.boxes.geometry import FloatArray, is_centre_inside
from sightline.metrics.boxes.table import BoxCase, Hit
from sightline.metrics.estimate import IntArray
from sightline.metrics.statistics.bootstrap import Resample

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives an image of the FROC score (Setio 2017, LUNA16)."""

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_RECALLS = np.linspace(0.0, 1.0, 101)


def match_boxes(case: BoxCase, hit: Hit) -> IntArray:
    """The finding [f] that each found box gets, -1 for none; computed once for a case and a hit."""
    if hit not in case.matches:
        case.matches[hit] = _match_boxes(case, hit)
    return case.matches[hit]


def _match_boxes(case: BoxCase, hit: Hit) -> IntArray:
    taken = np.full(len(case.found), -1, dtype=np.int64)
    if not len(case.truth) or not len(case.found):
        return taken
    fits = is_centre_inside(case.found, case.truth) if hit == "centre" else case.overlap >= hit
    free = np.ones(len(case.truth), dtype=bool)
    for i in np.argsort(-case.scores, kind="stable"):
        open_to = fits[i] & free
        if open_to.any():
            # the last of equal ones, as COCO
            last = int(len(free) - 1 - np.where(open_to, case.overlap[i], -1.0)[::-1].argmax())
            taken[i], free[last] = last, False
    taken.setflags(write=False)
    return taken


@dataclass(frozen=True, eq=False)
class Ranking:
    """The boxes of many images in falling order of score, grouped so that each group adds a hit.

    Attributes:
        hits: sparse [p, g], true boxes of each patient in each group.
        false: sparse [p, g], false boxes of each patient that come before or with the group and after the one before.
        thresholds: [g], lowest score of each group.
        findings: int [p], true boxes to be found.
        images: int [p].
    """

    hits: csr_array
    false: csr_array
    thresholds: FloatArray
    findings: IntArray
    images: IntArray

    @classmethod
    def rank_boxes(cls, cases: Sequence[BoxCase], patient: IntArray, hit: Hit) -> Ranking:
        """Rank the boxes of images [n] whose patients are numbered [n]."""
        patients = int(patient.max()) + 1
        scores = np.concatenate([case.scores for case in cases])
        right = np.concatenate([match_boxes(case, hit) >= 0 for case in cases])
        owner = np.repeat(patient, [len(case.found) for case in cases])
        levels = np.unique(scores[right])[::-1]
        # a false box belongs to the first group whose scores are not above its own; behind the last it never matters
        group = np.searchsorted(-levels, -scores)
        false = ~right & (group < levels.size)
        shape = (patients, levels.size)
        findings = np.bincount(patient, weights=[len(case.truth) for case in cases], minlength=patients)
        return cls(
            _count_pairs(owner[right], group[right], shape),
            _count_pairs(owner[false], group[false], shape),
            levels,
            findings.astype(np.int64),
            np.bincount(patient, minlength=patients),
        )

    def along(self, resample: Resample) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Hits [r, g] and false boxes [r, g] down to each group, findings [r] and images [r] of every replicate."""
        counts = resample.counts.astype(np.float64)
        hits, false = (np.cumsum((table.T @ counts.T).T, axis=1) for table in (self.hits, self.false))
        return hits, false, counts @ self.findings, counts @ self.images


@dataclass(frozen=True)
class BoxPrecision:
    """Average precision of boxes, mean over IoU thresholds; precision is made to fall with recall first.

    Attributes:
        hits: IoU thresholds (or `centre`).
        interpolation: `101` takes the precision at 101 recalls (COCO, Lin 2014); `all` the area under the steps
            (PASCAL VOC from 2010 on, Everingham 2015).
        name: what the score is called in tables.
    """

    hits: tuple[Hit, ...] = COCO_THRESHOLDS
    interpolation: Literal["101", "all"] = "101"
    name: str = "AP (COCO, mean over IoU 0.5 to 0.95)"

    def is_counted(self, case: BoxCase) -> bool:
        """Every image counts: boxes on negatives are false."""
        return True

    def values(self, cases: Sequence[BoxCase], resample: Resample) -> FloatArray:
        """The score of every replicate [r], NaN without a finding."""
        each = [self._score_ranking(Ranking.rank_boxes(cases, resample.patient, hit), resample) for hit in self.hits]
        mean: FloatArray = np.mean(each, axis=0)
        return mean

    def _score_ranking(self, ranking: Ranking, resample: Resample) -> FloatArray:
        hits, false, findings, _ = ranking.along(resample)
        recall, precision = compute_precision_recall(hits, false, findings)
        if self.interpolation == "101":
            reached = np.searchsorted(_RECALLS, recall, side="right").astype(np.float64)
            steps = np.diff(reached, axis=1, prepend=0.0) / _RECALLS.size
        else:
            steps = np.diff(recall, axis=1, prepend=0.0)
        return np.where(findings > 0, (steps * precision).sum(axis=1), np.nan)


@dataclass(frozen=True)
class FROC:
    """Mean sensitivity at given numbers of false boxes an image (Chakraborty 1989; rates of Setio 2017).

    The sensitivity at a rate is that of the lowest threshold whose false boxes stay within it; nothing is interpolated.
    All images count for the rate, those with findings too.

    Attributes:
        hit: when a box fits a finding.
        rates: false boxes an image.
        name: what the score is called in tables.
    """

    hit: Hit = 0.5
    rates: tuple[float, ...] = RATES
    name: str = "FROC (mean sensitivity at 1/8 to 8 false positives an image)"

    def is_counted(self, case: BoxCase) -> bool:
        """Every image counts."""
        return True

    def values(self, cases: Sequence[BoxCase], resample: Resample) -> FloatArray:
        """The score of every replicate [r], NaN without a finding."""
        hits, false, findings, images = Ranking.rank_boxes(cases, resample.patient, self.hit).along(resample)
        total = np.zeros(len(findings))
        for rate in self.rates:
            within = (false <= rate * images[:, None]).sum(axis=1)
            padded = np.concatenate([np.zeros((len(hits), 1)), hits], axis=1)
            total += padded[np.arange(len(hits)), within] / len(self.rates)
        quotient: FloatArray = np.full(len(findings), np.nan)
        np.divide(total, findings, out=quotient, where=findings > 0)
        return quotient


@dataclass(frozen=True, eq=False)
class RankingCurve:
    """A free-response ROC curve and a precision-recall curve, one point a threshold that adds a hit.

    Attributes:
        threshold: [g], falling.
        sensitivity: [g], share of findings found (recall).
        false_per_image: [g].
        precision: [g], as it is (not made to fall).
    """

    threshold: FloatArray
    sensitivity: FloatArray
    false_per_image: FloatArray
    precision: FloatArray


def compute_ranking_curve(cases: Sequence[BoxCase], hit: Hit = 0.5) -> RankingCurve:
    """The points of the FROC and precision-recall curves of one table, for figures; none without a hit."""
    resample = Resample.draw_once([case.patient_id for case in cases])
    ranking = Ranking.rank_boxes(cases, resample.patient, hit)
    hits, false, findings, images = (values[0] for values in ranking.along(resample))
    return RankingCurve(ranking.thresholds, hits / max(findings, 1.0), false / images, hits / (hits + false))


def compute_precision_recall(
    hits: FloatArray, false: FloatArray, findings: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Recall [r, g], and the highest precision [r, g] at that recall or a larger one."""
    precision, recall = np.zeros(hits.shape), np.zeros(hits.shape)
    np.divide(hits, hits + false, out=precision, where=hits > 0)
    np.divide(hits, findings[:, None], out=recall, where=findings[:, None] > 0)
    return recall, np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _count_pairs(rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(rows.size), (rows, columns)), shape=shape)
