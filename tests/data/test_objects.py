"""Small recurring things are found in pixels, and named only where they go with the label."""

import numpy as np
import pytest
from scipy import ndimage

from sightline.data.audit.objects import _compute_fisher_p, find_objects, group_recurring_objects, scale_grey
from sightline.data.phantoms.radiographs.hardware import draw_arrow
from sightline.errors import CohortError


def picture(random, with_arrow):
    """A soft bone on noise, a bright square letter-like plug always, an arrow sometimes."""
    image = ndimage.gaussian_filter(random.normal(size=(240, 200)), 24)
    image = (image - image.min()) / np.ptp(image) * 90 + random.normal(0, 3, (240, 200)) + 30
    row, column = random.integers(10, 40, 2)
    image[row : row + 14, column : column + 14] = 235
    if with_arrow:
        tile = draw_arrow(34, float(random.uniform(0, 360)))
        row, column = random.integers(140, 190), random.integers(110, 150)
        part = image[row : row + tile.shape[0], column : column + tile.shape[1]]
        part[:] = np.maximum(part, 250 * tile[: part.shape[0], : part.shape[1]])
    return image.clip(0, 255)


def study(seed, tie, n=80):
    random = np.random.default_rng(seed)
    labels = [("normal", "fracture")[i % 2] for i in range(n)]
    objects = []
    for i, label in enumerate(labels):
        agrees = random.random() < tie
        objects += find_objects(scale_grey(picture(random, (label == "fracture") == agrees)), i)
    return group_recurring_objects(objects, labels, [f"p{i}" for i in range(n)])


def test_an_object_is_found_where_it_lies():
    image = np.full((100, 80), 60.0)
    image[20:28, 50:58] = 250.0
    (found,) = find_objects(scale_grey(image))
    assert found.start == pytest.approx((0.2, 0.625)) and found.stop == pytest.approx((0.28, 0.725))


def test_a_planted_arrow_is_named_and_says_its_class():
    for seed in range(2):
        first = study(seed, 0.95)[0]
        assert first.named and first.label == "fracture", str(first)
        assert first.place[0] > 0.5 and "patients with fracture" in str(first)


@pytest.mark.slow
def test_nothing_is_named_without_a_tie():
    assert not any(o.named for seed in range(2) for o in study(seed, 0.5))


def test_one_class_alone_is_refused():
    with pytest.raises(CohortError, match="two classes"):
        group_recurring_objects([], ["a", "a"], ["1", "2"])


def test_fishers_p_is_scipys():
    from scipy.stats import fisher_exact

    for table in np.random.default_rng(8).integers(0, 30, (40, 2, 2)).tolist():
        assert _compute_fisher_p(table) == pytest.approx(fisher_exact(table).pvalue, abs=1e-12)
