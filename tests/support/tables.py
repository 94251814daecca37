"""Tables of boxes with known truth."""

import numpy as np

from sightline.metrics.boxes.table import BoxCase, BoxScores


def case(number, truth=(), found=(), scores=None, patient=None, shape=(100, 120), spacing=None):
    ids = (f"i{number}", f"s{number}", f"p{number if patient is None else patient}")
    scores = np.linspace(0.9, 0.1, len(found)) if scores is None else scores
    return BoxCase(*ids, "fracture" if len(truth) else "normal", truth, found, scores, shape, spacing)


def table(seed=0, images=40, patients=15, truth_seed=0, slip=8.0, method="class map"):
    """Up to two findings an image, a third of images negative; found boxes near them with a slip, and false ones."""
    truths, random = np.random.default_rng(truth_seed), np.random.default_rng([seed, 9])
    cases = []
    for i in range(images):
        corner = truths.uniform(5, 50, (0 if i % 3 == 0 else 1 + i % 2, 2))
        truth = np.concatenate([corner, corner + truths.uniform(10, 35, corner.shape)], axis=1)
        near = truth + random.normal(0, slip, (len(truth), 1)) * [1, 1, 1, 1]
        corner = random.uniform(0, 70, (random.integers(0, 3), 2))
        false = np.concatenate([corner, corner + random.uniform(5, 30, corner.shape)], axis=1)
        found = np.concatenate([near, false])
        scores = np.concatenate([random.normal(1.0, 1, len(near)), random.normal(0.0, 1, len(false))])
        cases.append(case(i, truth, found, scores, patient=i % patients, spacing=(0.2, 0.25)))
    return BoxScores(tuple(cases), method)
