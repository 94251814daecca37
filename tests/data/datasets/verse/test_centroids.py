"""VerSe's centroid files: axes turned and turned back, NaN skipped, what is refused."""

import itertools
import json

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from support.paths import DATA as DATA_ROOT

from sightline.data.datasets.verse.centroids import place_vertebrae, read_centroids, reorient_points, write_centroids
from sightline.data.spine.vertebrae import Vertebra
from sightline.errors import GeometryError, LayoutError
from sightline.io.nifti import read_volume_header

DATA = DATA_ROOT / "spine_ct"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the sample CTs are not here")
DIRECTIONS = [
    tuple(("RL", "AP", "SI")[axis][side] for axis, side in zip(order, sides, strict=True))
    for order in itertools.permutations(range(3))
    for sides in itertools.product((0, 1), repeat=3)
]


def listed(path, *entries, direction=("P", "I", "R")):
    path.write_text(json.dumps(([{"direction": list(direction)}] if direction else []) + list(entries)))
    return path


def at(label, x=1.0, y=2.0, z=3.0):
    return {"label": label, "X": x, "Y": y, "Z": z}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_points_move_with_the_voxels(direction):
    """Golden check 18: against an array that nibabel turns, for all 48 orientations, there and back."""
    start, shape = ("P", "I", "R"), (4, 5, 6)
    array = np.arange(120).reshape(shape)
    turned = apply_orientation(array, ornt_transform(axcodes2ornt(start), axcodes2ornt(direction)))
    points = [(0, 0, 0), (3, 1, 5), (2, 4, 0)]
    moved = reorient_points(points, shape, start, direction)
    assert [turned[tuple(p)] for p in moved.astype(int)] == [array[p] for p in points]
    assert np.array_equal(reorient_points(moved, turned.shape, direction, start), points)


def test_a_known_turn():
    # (P, I, R) to (I, P, L): the first two swap, the third is counted from the other end
    moved = reorient_points([(1.5, 2.25, 0.0)], (10, 20, 30), ("P", "I", "R"), ("I", "P", "L"))
    assert moved.tolist() == [[2.25, 1.5, 29.0]]


def test_frames_have_their_origin_at_the_corner(tmp_path):
    file = read_centroids(listed(tmp_path / "c.json", at(20, 0.0, 0.0, 0.0)))
    assert place_vertebrae(file, (4, 5, 6), ("P", "I", "R"), (1, 1, 1))[0].centre == (0.5, 0.5, 0.5)
    assert place_vertebrae(file, (5, 4, 6), ("I", "P", "L"), (1, 1, 1))[0].centre == (0.5, 0.5, 5.5)


def test_the_challenge_copy_is_in_millimetres(tmp_path):
    """The same place in a CT of (L, P, S), 0.5 x 0.25 x 2 mm: by hand."""
    path = listed(tmp_path / "c.json", at(20, 10.0, 30.0, 12.0), direction=None)
    shape, spacing = (80, 100, 50), (0.5, 0.25, 2.0)
    place = place_vertebrae(read_centroids(path), shape, ("L", "P", "S"), spacing)[0].centre
    # X = 10 mm to the back, Y = 30 mm down, Z = 12 mm to the right
    assert place == (80 - 1 - 12 / 0.5 + 0.5, 10 / 0.25 + 0.5, 50 - 1 - 30 / 2 + 0.5)


def test_written_and_read_again(tmp_path):
    spine = (Vertebra(20, (3.75, 12.5, 4.0)), Vertebra(28, (3.5, 8.125, 4.0)), Vertebra(19, (3.5, 3.0, 4.0)))
    write_centroids(tmp_path / "x" / "c.json", spine, ("P", "I", "R"))
    back = place_vertebrae(read_centroids(tmp_path / "x" / "c.json"), (8, 16, 8), ("P", "I", "R"), (1, 1, 1))
    assert back == (spine[2], spine[1], spine[0])
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["c.json"]


def test_missing_numbers_are_skipped_and_counted(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('[{"direction": ["P", "I", "R"]}, {"label": 20, "X": NaN, "Y": 1, "Z": null},')
    path.write_text(path.read_text() + ' {"label": "21", "X": "1.5", "Y": 2, "Z": 3}, {"label": 26, "X": 1, "Y": 1}]')
    file = read_centroids(path)
    assert file.points == {21: (1.5, 2.0, 3.0)}
    assert file.skipped == (20,)


@pytest.mark.parametrize(
    ("entries", "direction", "words"),
    [
        ([], ("P", "I", "R"), "no vertebra has a centroid"),
        ([at(20), at(20)], ("P", "I", "R"), r"label 20 \(L1\) stands there twice"),
        ([at(20, float("nan")), at(20)], ("P", "I", "R"), "twice"),
        ([at(0)], ("P", "I", "R"), "entry 2 has the label 0"),
        ([at(29)], ("P", "I", "R"), "label 29"),
        ([at(2.5)], ("P", "I", "R"), "no whole number"),
        ([at("L1")], ("P", "I", "R"), "no whole number"),
        ([at("2_0")], ("P", "I", "R"), "'2_0', no whole number"),
        ([at(True)], ("P", "I", "R"), "True, no whole number"),
        ([at(None)], ("P", "I", "R"), "None, no whole number"),
        ([at([20])], ("P", "I", "R"), "no whole number"),
        ([at(float("nan"))], ("P", "I", "R"), "nan, no whole number"),
        ([at(20, "left")], ("P", "I", "R"), "X of entry 2 is 'left'"),
        ([at(20, "1_5")], ("P", "I", "R"), "X of entry 2 is '1_5'"),
        ([at(20, "1,5")], ("P", "I", "R"), "X of entry 2 is '1,5'"),
        ([at(20, True)], ("P", "I", "R"), "X of entry 2 is True"),
        ([at(20, [1.0])], ("P", "I", "R"), r"X of entry 2 is \[1.0\]"),
        ([at(20, 10**99)], ("P", "I", "R"), None),
        ([at(20, 10**400)], ("P", "I", "R"), "a whole number of 401 digits"),
        ([at(10**400)], ("P", "I", "R"), "a whole number of 401 digits"),
        ([{"label": 20, "x": 1, "y": 2, "z": 3}], ("P", "I", "R"), "X of entry 2 is 'absent'"),
        ([at(20), at("20.0")], ("P", "I", "R"), "no whole number"),
        ([at(20), at(20.0)], ("P", "I", "R"), "twice"),
        ([at(20, 1e999)], ("P", "I", "R"), "X of entry 2"),
        ([{"label": 20, "X": 1, "Y": 2}], ("P", "I", "R"), "Z of entry 2 is 'absent'"),
        ([at(20)], ("P", "A", "R"), "the direction is"),
        ([at(20)], ("P", "I"), "the direction is"),
        ([{"name": "L1"}], ("P", "I", "R"), "neither label nor direction"),
    ],
)
def test_files_that_are_refused(tmp_path, entries, direction, words):
    path = listed(tmp_path / "c.json", *entries, direction=direction)
    if words is None:  # far outside
        with pytest.raises(GeometryError, match="1 of 1 centroids lie outside"):
            place_vertebrae(read_centroids(path), (4, 5, 6), direction, (1, 1, 1))
        return
    with pytest.raises(LayoutError, match=words) as caught:
        read_centroids(path)
    assert len(str(caught.value).replace(str(path), "")) < 300


@pytest.mark.parametrize("text", ["", "{", '{"label": 20}', "[1, 2]", '[{"direction": 5}, {"label": 20}]'])
def test_documents_that_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(LayoutError, match=r"c\.json"):
        read_centroids(tmp_path / "c.json")


def test_a_centroid_beside_the_image(tmp_path):
    file = read_centroids(listed(tmp_path / "c.json", at(20), at(21, 1.0, 9.0, 3.0)))
    with pytest.raises(GeometryError, match=r"1 of 2 centroids lie outside the CT, e.g. L2 at"):
        place_vertebrae(file, (4, 7, 6), ("P", "I", "R"), (1, 1, 1))
    # cut by the edge of the field of view
    assert len(place_vertebrae(file, (4, 8, 6), ("P", "I", "R"), (1, 1, 1))) == 2


def test_a_spine_upside_down(tmp_path):
    file = read_centroids(listed(tmp_path / "c.json", at(20), at(19, 1.0, 4.0, 3.0)))
    with pytest.raises(GeometryError, match="from foot to head"):
        place_vertebrae(file, (6, 6, 6), ("P", "I", "R"), (1, 1, 1))


@real
def test_the_real_file_round_trips(tmp_path):
    header = read_volume_header(DATA / "verse" / "sub-verse004_seg-vert_msk.nii.gz")
    file = read_centroids(DATA / "verse" / "sub-verse004_seg-subreg_ctd.json")
    placed = place_vertebrae(file, header.shape, header.orientation, header.spacing_mm)
    write_centroids(tmp_path / "c.json", placed, header.orientation)
    assert dict(read_centroids(tmp_path / "c.json").points) == dict(file.points)
