"""What a study is worth reading next: how unsure runs are about it, and how much they disagree."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, select

from sightline.web.workstation.store.tables import image, map_


def compute_entropy(probabilities: Sequence[float]) -> float:
    """Entropy of class probabilities in nats.

    Example:
        >>> round(compute_entropy([0.5, 0.5]), 4)
        0.6931
    """
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


def compute_margin(probabilities: Sequence[float]) -> float:
    """1 minus the distance between the two likeliest classes: 1 where they are equal.

    Example:
        >>> compute_margin([0.75, 0.25])
        0.5
    """
    first, second = sorted(probabilities, reverse=True)[:2]
    return 1.0 - (first - second)


def measure_disagreement(each: Sequence[Sequence[float]]) -> float:
    """Jensen-Shannon divergence of several runs' probabilities, in nats; 0 for one run.

    Example:
        >>> measure_disagreement([[1.0, 0.0], [1.0, 0.0]])
        0.0
    """
    mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
    return max(0.0, compute_entropy(mean) - sum(compute_entropy(p) for p in each) / len(each))


def compute_worth(connection: Connection) -> dict[str, float]:
    """Worth of each study that has maps: the entropy of the runs' mean probabilities, of its largest image.

    The entropy of the mean is the mean entropy plus the disagreement (Jensen-Shannon), so both count.
    """
    rows = connection.execute(
        select(image.c.study, map_.c.image, map_.c.probabilities).join(image, image.c.key == map_.c.image)
    )
    runs: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for study_key, image_key, probabilities in rows:
        runs[(study_key, image_key)].append(json.loads(probabilities))
    worth: dict[str, float] = {}
    for (study_key, _), each in runs.items():
        same = [p for p in each if len(p) == len(each[0])]
        mean = [sum(column) / len(same) for column in zip(*same, strict=True)]
        worth[study_key] = max(worth.get(study_key, 0.0), compute_entropy(mean))
    return worth
