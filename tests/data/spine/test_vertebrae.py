"""Centres of vertebrae must lie in bone or tissue, and apart; names of CTs must not collide."""

import numpy as np
import pytest

from sightline.data.spine.vertebrae import Vertebra, require_in_bone
from sightline.errors import GeometryError
from sightline.inference.ct.inputs import collect_ct_inputs
from sightline.io.volume import Volume

AFFINE = np.diag([2.0, 2.0, -2.0, 1.0])


def spine(hu_at_the_centres, step=10.0):
    """Bodies of 6 voxels along k in a trunk of lung; centres `step` voxels apart."""
    values = np.full((20, 20, 60), -700, np.int16)
    centres = [Vertebra(18 + n, (10.0, 10.0, 5.0 + step * n)) for n in range(len(hu_at_the_centres))]
    for vertebra, hu in zip(centres, hu_at_the_centres, strict=True):
        k = int(vertebra.centre[2])
        values[7:13, 7:13, k - 3 : k + 3] = hu
    return Volume(values, AFFINE), tuple(centres)


def test_bone_and_even_fatty_marrow_pass():
    require_in_bone(*spine([200, 150, -50, 300]), "c.json")


def test_one_body_that_is_not_there_passes_and_most_of_them_do_not():
    require_in_bone(*spine([200, -700, 150]), "c.json")
    with pytest.raises(GeometryError, match=r"c\.json: 2 of 3 vertebrae lie in fat, lung or air .*-700 HU"):
        require_in_bone(*spine([200, -700, -650]), "c.json")


def test_two_vertebrae_in_one_place():
    ct, (a, b) = spine([200, 200])
    require_in_bone(ct, (a, b), "c.json")
    with pytest.raises(GeometryError, match=r"T11 and T12 lie 2\.0 mm apart"):
        require_in_bone(ct, (a, Vertebra(b.label, (10.0, 10.0, 6.0))), "c.json")


def test_centres_at_the_edge_are_judged_by_what_is_there():
    ct, _ = spine([200, 200])
    with pytest.raises(GeometryError, match="1 of 1"):
        require_in_bone(ct, (Vertebra(20, (20.5, 10.0, 60.5)),), "c.json")


def test_cts_whose_names_make_one_file_name_stay_apart(tmp_path):
    paths = [tmp_path / name for name in ("a b_ct.nii.gz", "a_b_ct.nii.gz", "x/a b_ct.nii.gz", "A_B_ct.nii")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    names = [one.name for one in collect_ct_inputs(paths, paths, ())]
    assert len({name.casefold() for name in names}) == 4 and not any("/" in name or " " in name for name in names)
