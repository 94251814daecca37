"""Slices of a CT as the page gets them are the voxels of its file; a patch is called by its level."""

import json

import numpy as np
import pytest

from sightline.errors import GeometryError, UnreadableFile
from sightline.structures.case import Case
from sightline.web.workstation.pictures.volumes import read_slices, read_volume_facts
from sightline.web.workstation.store.cohort_rows import _build_image_row


@pytest.fixture
def volume(tmp_path):
    import nibabel

    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 40
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "a.nii")
    return tmp_path / "a.nii", values


def test_slices_across_each_axis_are_the_voxels(volume):
    path, values = volume
    facts = read_volume_facts(path)
    assert tuple(facts["shape"]) == values.shape and facts["spacing_mm"] == [1.0, 2.0, 3.0]
    for axis in range(3):
        for index in range(values.shape[axis]):
            np.testing.assert_array_equal(read_slices(path, axis, index, 1), np.take(values, index, axis))
        several = read_slices(path, axis, 1, 2)
        np.testing.assert_array_equal(several, np.moveaxis(values, axis, 0)[1:3])
    for index, count in ((-1, 1), (4, 1), (3, 2)):
        with pytest.raises(GeometryError):
            read_slices(path, 0, index, count)
    with pytest.raises(UnreadableFile):
        read_volume_facts(path.with_name("absent.nii"))


def test_a_patch_is_called_by_its_level_and_a_radiograph_by_its_projection(volume):
    path, _ = volume
    patch = Case("a", "a", "P", path, "x", (), None, "rigid", (96, 96, 96), (1.0, 1.0, 1.0), {"level": "T12"})
    film = Case("b", "b", "P", path, "x", (), None, "PA", (20, 30), None, {"level": "T12"})
    rows = [_build_image_row(case, "aa" * 16, "study", 0, None) for case in (patch, film)]
    assert [row["view"] for row in rows] == ["T12", "PA"]
    assert json.loads(rows[0]["shape"]) == [96, 96, 96] and rows[0]["rows"] is None
