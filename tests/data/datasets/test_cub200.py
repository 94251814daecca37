"""CUB-200-2011 in its published layout, on a tiny cohort written here."""

import numpy as np
import pytest
from support.layouts import write_tiny

from sightline.data.datasets import cub200
from sightline.errors import LayoutError
from sightline.structures.frame import Frame


def test_the_official_split_and_all_images(tmp_path):
    cohort = cub200.read(write_tiny(tmp_path))
    assert cohort.classes == ("001.Bird_1", "002.Bird_2", "003.Bird_3")
    assert (len(cohort.split("train")), len(cohort.split("val")), len(cohort.split("test"))) == (18, 0, 6)
    assert cohort[8].label == "002.Bird_2" and cohort[8].case_id == "Bird_2_0000"


def test_few_images_a_class_are_a_seeded_draw_and_the_test_set_is_whole(tmp_path):
    write_tiny(tmp_path)
    drawn = {n: cub200.read(tmp_path, cub200.Options(per_class=n, seed=3)) for n in (2, 4)}
    for n, cohort in drawn.items():
        assert set(cohort.split("train").counts().values()) == {n}
        assert len(cohort.split("test")) == 6
    ids = {n: {case.case_id for case in cohort} for n, cohort in drawn.items()}
    assert ids[2] < ids[4]
    assert ids[2] == {case.case_id for case in cub200.read(tmp_path, cub200.Options(per_class=2, seed=3))}
    assert any(
        ids[2] != {case.case_id for case in cub200.read(tmp_path, cub200.Options(per_class=2, seed=s))}
        for s in range(4, 8)
    )
    with pytest.raises(LayoutError, match=r"per_class is 7, but class '001\.Bird_1' has 6"):
        cub200.read(tmp_path, cub200.Options(per_class=7))


def test_the_region_is_every_pixel_within_the_radius_of_a_visible_part(tmp_path):
    region = cub200.read(write_tiny(tmp_path), cub200.Options(radius_px=15.0))[0].regions[0]
    rows, columns = np.mgrid[:60, :90]
    distance = np.hypot(rows - 20.0, columns - 40.0)  # pixel indices, as the file counts them
    drawn = region.draw(Frame.of_image((60, 90))) > 0
    assert drawn[distance <= 14.9].all() and not drawn[distance > 16.0].any()
    assert region.tag.role == "focus" and region.tag.label is None


def test_an_image_without_visible_parts_has_no_region(tmp_path):
    path = write_tiny(tmp_path) / "parts" / "part_locs.txt"
    path.write_text(path.read_text().replace("1 1 40.0 20.0 1", "1 1 0.0 0.0 0", 1))
    cohort = cub200.read(tmp_path)
    assert cohort[0].regions == () and len(cohort[1].regions) == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("images.txt", "1 001.Bird_1/Bird_1_0000.jpg", "1 ../secret.jpg", "not under images/"),
        ("images.txt", "1 001.Bird_1/Bird_1_0000.jpg", "1", r"images\.txt: line 1 has 1 field, expected 2"),
        ("image_class_labels.txt", "1 1\n", "", r"differ on ids \['1'\]"),
        ("image_class_labels.txt", "1 1\n", "1 9\n", "Image 1 has class 9"),
        ("parts/part_locs.txt", "1 1 40.0", "1 1 x", "line 1 is no part location"),
        ("train_test_split.txt", "1 1\n", "1 1,x\n", "image 1 is '1,x', not 0 or 1"),
        ("parts/part_locs.txt", "1 1 40.0 20.0 1\n1 2 0.0 0.0 0\n", "", "no line of 1 image,"),
        ("parts/part_locs.txt", "1 1 40.0", "99 1 40.0", "line 1 is of image 99"),
        ("images.txt", "2 001", "1 001", "line 2 repeats the id '1'"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path, file, old, new, message):
    path = write_tiny(tmp_path) / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(LayoutError, match=message):
        cub200.read(tmp_path)
    path.unlink()
    with pytest.raises(LayoutError, match="is missing"):
        cub200.read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_that_an_editor_saved_again_are_read(tmp_path, encoding):
    path = write_tiny(tmp_path) / "images.txt"
    path.write_text(path.read_text(), encoding=encoding)
    assert len(cub200.read(tmp_path)) == 24


@pytest.mark.parametrize("radius", [0.0, -5.0, float("nan"), 1e300])
def test_a_radius_of_nothing_is_refused(tmp_path, radius):
    with pytest.raises(LayoutError, match="radius_px must be"):
        cub200.read(write_tiny(tmp_path), cub200.Options(radius_px=radius))
