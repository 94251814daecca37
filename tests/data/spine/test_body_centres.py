"""Centres of vertebral bodies from masks, held against annotated ones and against shapes whose centre is known."""

from dataclasses import replace

import numpy as np
import pytest
from support.paths import DATA

from sightline.data.datasets.verse.centroids import place_vertebrae, read_centroids
from sightline.data.spine.vertebrae import find_centres_from_mask
from sightline.errors import GeometryError
from sightline.io.nifti import read_volume
from sightline.io.volume import Volume

LPI = np.diag([-1.0, -1.0, -1.0, 1.0])
SPINE = DATA / "spine_ct"


def vertebra(values, label, top, height):
    """A body (24 wide, 20 deep, `height` high), two pedicles and an arch, from the front (axis 1 grows to the back)."""
    values[18:42, 10:30, top : top + height] = label
    values[20:26, 30:40, top + 2 : top + height - 2] = label
    values[34:40, 30:40, top + 2 : top + height - 2] = label
    values[18:42, 40:48, top : top + height] = label
    values[28:32, 48:70, top + 4 : top + 12] = label


def spine(heights=(20, 20, 8), labels=(19, 28, 20)):
    values = np.zeros((60, 80, 100), dtype=np.uint8)
    top, centres = 4, []
    for label, height in zip(labels, heights, strict=True):
        vertebra(values, label, top, height)
        centres.append((30.0, 20.0, top + height / 2))
        top += height + 8
    return Volume(values, LPI), centres


def test_the_centre_is_the_bodys_also_when_it_is_crushed():
    mask, centres = spine()
    ct = Volume(np.zeros(mask.values.shape, np.int16), LPI)
    found, left_out = find_centres_from_mask(mask, ct, "mask")
    assert [v.level for v in found] == ["T12", "T13", "L1"] and left_out == ()
    for one, centre in zip(found, centres, strict=True):
        assert np.abs(np.array(one.centre) - centre).max() < 1.0
        # the centre of mass is not it
        inside = np.argwhere(mask.values == one.label) + 0.5
        assert np.linalg.norm(inside.mean(axis=0) - centre) > 5.0


def test_places_are_the_cts_whatever_the_masks_grid():
    mask, centres = spine()
    # a CT of 2 mm with other axes, shifted: (head to feet, right to left, front to back)
    affine = np.array([[0, -2.0, 0, 7], [0, 0, -2.0, 5], [-2.0, 0, 0, 3], [0, 0, 0, 1]])
    ct = Volume(np.zeros((60, 60, 60), np.int16), affine)
    found, _ = find_centres_from_mask(mask, ct, "mask")
    for one, centre in zip(found, centres, strict=True):
        assert np.abs(ct.world_of(one.centre) - mask.world_of(centre)).max() < 1.0


def test_what_cannot_be_the_mask_of_this_ct_is_refused():
    mask, _ = spine()
    ct = Volume(np.zeros(mask.values.shape, np.int16), LPI)
    far = ct.affine.copy()
    far[0, 3] = 500.0
    with pytest.raises(GeometryError, match=r"3 of 3 vertebrae lie outside the CT: T12, T13, L1"):
        find_centres_from_mask(mask, replace(ct, affine=far), "mask")
    with pytest.raises(GeometryError, match="do not run from head to foot"):
        find_centres_from_mask(spine(labels=(22, 21, 20))[0], ct, "mask")
    with pytest.raises(GeometryError, match="no vertebra under VerSe's labels"):
        find_centres_from_mask(Volume(np.where(mask.values > 0, 50, 0), LPI), ct, "mask")
    crumbs = mask.values.copy()
    crumbs[0:2, 0:2, 90:92] = 24
    crumbs[0, 0, 0] = 99
    found, left_out = find_centres_from_mask(Volume(crumbs, LPI), ct, "mask")
    assert len(found) == 3 and "L5 is cut off" in left_out[1] and "[99]" in left_out[0]


@pytest.mark.skipif(not SPINE.is_dir(), reason="shared data not present")
def test_centres_of_a_real_mask_are_near_the_annotated_ones():
    (path,) = SPINE.glob("verse/*seg-vert_msk.nii.gz")
    (centroids,) = SPINE.glob("verse/*_ctd.json")
    mask = read_volume(path, labels=True)
    annotated = place_vertebrae(read_centroids(centroids), mask.values.shape, mask.orientation, mask.spacing_mm)
    found, _ = find_centres_from_mask(mask, mask, path.name)
    assert [v.level for v in found] == [v.level for v in annotated]
    away = [
        np.linalg.norm(mask.world_of(a.centre) - mask.world_of(b.centre)) for a, b in zip(found, annotated, strict=True)
    ]
    assert max(away) < 1.7


@pytest.mark.skipif(not SPINE.is_dir(), reason="shared data not present")
def test_centres_of_a_second_mask_are_those_of_its_bodies():
    (vertebrae,) = SPINE.glob("tptbox/*seg-vert*")
    (subregions,) = SPINE.glob("tptbox/*seg-subreg*")
    mask, parts = read_volume(vertebrae, labels=True), read_volume(subregions, labels=True)
    found = {v.level: v for v in find_centres_from_mask(mask, mask, vertebrae.name)[0]}
    body = np.isin(parts.values, (49, 50)) & (mask.values == 22)
    centre = mask.world_of(np.argwhere(body).mean(axis=0) + 0.5)
    assert np.linalg.norm(mask.world_of(found["L3"].centre) - centre) < 1.0
