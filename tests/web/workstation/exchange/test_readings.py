"""Masks of which only the marked part is kept are the masks that were given."""

import numpy as np

from sightline.web.workstation.exchange.readings import CroppedMasks


def test_a_cropped_mask_is_the_mask_that_was_given():
    rng = np.random.default_rng(0)
    given = {
        f"{shape} {share}": rng.random(shape) < share
        for shape in ((30, 40), (1, 1), (5, 6, 7))
        for share in (0.0, 0.02, 1.0)
    }
    kept = CroppedMasks()
    for key, mask in given.items():
        kept.keep(key, mask)
        mask_before = mask.copy()
        kept[key][:] = True  # what is given out is nobody else's
        assert (mask == mask_before).all()
    assert list(kept) == list(given)
    assert all(kept[key].shape == mask.shape and (kept[key] == mask).all() for key, mask in given.items())
    assert "elsewhere" not in kept
    assert kept.keys() & {"(30, 40) 0.0", "elsewhere"} == {"(30, 40) 0.0"}


def test_memory_is_that_of_the_marks():
    kept, mask = CroppedMasks(), np.zeros((2000, 1800), dtype=bool)
    mask[100:140, 900:1000] = True
    for n in range(50):
        kept.keep(str(n), mask)
    assert sum(part.nbytes for _, _, part in kept._parts.values()) == 50 * 40 * 100
