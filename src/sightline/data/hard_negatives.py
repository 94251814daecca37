"""Hard negative mining: pictures without a finding that a network takes for one are drawn more often.


Most pictures without a finding are easy after an epoch and teach nothing more. What the network answered to each of
them when it last trained on it is remembered; from the next epoch on a part of their draws goes to those with the
highest answers (Sung and Poggio 1998; Felzenszwalb 2010; online Shrivastava 2016). It costs no further pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Cohort, is_normal


@dataclass(frozen=True)
class HardNegatives:
    """Hard negative mining: how the pictures without a finding are drawn.

    Attributes:
        share: share of these draws that goes to the hardest pictures; the rest are drawn as usual.
        hardest: share of the pictures without a finding that counts as hardest.
        by: what makes a picture hard: its `answer`, the probability of a finding, or its `peak`, the highest cell of
            the findings' maps.
        after: epochs before the first such draw.

    Example:
        >>> HardNegatives(share=0.5, hardest=0.25).times_as_often
        2.5
    """

    share: float = 0.5
    hardest: float = 0.25
    by: Literal["answer", "peak"] = "answer"
    after: int = 1

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0.0 < self.share <= 1.0 or not 0.0 < self.hardest <= 1.0 or self.after < 1:
            raise RecipeError(
                f"Hard negatives need share and hardest above 0 and up to 1, and after 1 or more; got {self.share}, "
                f"{self.hardest} and {self.after}.",
                "Try share 0.5, hardest 0.25, after 1: nothing is known of a picture before the first epoch.",
            )

    @property
    def times_as_often(self) -> float:
        """How often one of the hardest is drawn, where an ordinary epoch draws it once."""
        return 1.0 - self.share + self.share / self.hardest


class NegativeMiner:
    """What is remembered of the pictures without a finding, and the order of an epoch that follows from it.

    Args:
        config: how draws are shared out.
        cohort: the training cases; positions are theirs.

    Raises:
        CohortError: no class without a finding, or no picture of it.
    """

    def __init__(self, config: HardNegatives, cohort: Cohort) -> None:
        self.config = config
        names = [name for name in cohort.classes if is_normal(name)]
        self.normal: NDArray[np.bool_] = np.array([case.label in names for case in cohort], dtype=bool)
        if not self.normal.any():
            raise CohortError(
                f"Cohort {cohort.name!r} has no training picture without a finding to mine; its classes are "
                f"{', '.join(cohort.classes)}.",
                "Call the class without findings 'normal' or 'no finding', or set mining to null.",
            )
        self.normal_class = cohort.class_index(names[0])
        self._answers = np.full(len(cohort), np.nan)
        # as they were when the epoch began
        self._believed = self._answers.copy()

    def observe(self, positions: Sequence[int], answers: NDArray[np.float64]) -> None:
        """Remember the answers to pictures at these positions; of one that comes twice, the last."""
        for position, answer in zip(positions, answers.tolist(), strict=True):
            if self.normal[position]:
                self._answers[position] = answer

    def renew(self) -> None:
        """Draw from what is known now: called once, before an epoch's first step."""
        self._believed = self._answers.copy()

    def hardest(self) -> NDArray[np.int64]:
        """Positions of the pictures that count as hardest, hardest first; of equal answers the earlier."""
        known = np.flatnonzero(self.normal & np.isfinite(self._believed))
        wanted = math.ceil(self.config.hardest * int(self.normal.sum()))
        ranked: NDArray[np.int64] = known[np.argsort(-self._believed[known], kind="stable")][:wanted]
        return ranked

    def answer_of_hardest(self) -> float | None:
        """Mean of what was answered to them; None before anything is known."""
        hardest = self.hardest()
        return float(self._believed[hardest].mean()) if len(hardest) else None

    def redraw(self, order: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """An epoch's order in which `share` of the draws of pictures without a finding go to the hardest.

        They are taken in turn, in an order drawn anew, so that none comes more than once more than another. A function
        of what is believed, seed and epoch alone.
        """
        hardest = self.hardest()
        if epoch < self.config.after or len(hardest) == 0:
            return order
        # a stream of its own: all other draws stay as they are without
        random = np.random.default_rng([seed, epoch, len(order), 5])
        places = np.flatnonzero(self.normal[order])
        replaced = random.permutation(places)[: round(self.config.share * len(places))]
        mined = order.copy()
        mined[replaced] = np.resize(random.permutation(hardest), len(replaced))
        return mined

    def state(self) -> dict[str, list[float | None]]:
        """What a state file has to hold: a number a case, None where nothing is known."""
        return {
            "answers": [None if np.isnan(a) else float(a) for a in self._answers],
            "believed": [None if np.isnan(a) else float(a) for a in self._believed],
        }

    def restore(self, state: Mapping[str, Sequence[float | None]]) -> None:
        """Go on from `state`."""
        self._answers = np.array([np.nan if a is None else a for a in state["answers"]], dtype=np.float64)
        self._believed = np.array([np.nan if a is None else a for a in state["believed"]], dtype=np.float64)
