"""Pictures of two femurs become pictures of one: where they are cut, what each half is called and keeps."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.femur_halves import cut_region, halve
from sightline.errors import CohortError, LayoutError
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.tag import Tag

SHAPE = (30, 80)
CLASSES = ("normal", "A1", "B2")


def box(left, label=None, role="finding", width=12):
    return Box((8.0, float(left)), (20.0, float(left + width)), Tag(role, label, "r1"))


def pelvis(place, *regions, label="A1", name="P1", dtype=np.uint8, **fields):
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.png"
    Image.fromarray((np.arange(30 * 80).reshape(SHAPE) * 27 % np.iinfo(dtype).max).astype(dtype)).save(path)
    return Case(name, f"S-{name}", "patient", path, label, regions, "train", **{"view": "AP", "shape": SHAPE, **fields})


def cohort_of(*cases):
    return Cohort("hips", CLASSES, cases)


def halves_of(tmp_path, *regions, **fields):
    return halve(cohort_of(pelvis(tmp_path / "in", *regions, **fields)), tmp_path / "out")


def test_a_picture_of_two_femurs_becomes_two_of_one(tmp_path):
    whole = pelvis(tmp_path / "in", box(10, "A1"), box(50, "normal"), dtype=np.uint16, spacing_mm=(0.2, 0.3))
    made = halve(cohort_of(whole), tmp_path / "out")
    right, left = made
    assert (made.name, made.classes) == ("hips-halves", CLASSES) and "1 picture of" in made.about["halved"]
    # midway between columns 22 and 50
    assert (right.case_id, right.label, right.shape) == ("P1-R", "A1", (30, 36))
    assert (left.case_id, left.label, left.shape) == ("P1-L", "normal", (30, 44))
    before = read_image(whole.image).pixels
    # as stored: 16-bit pictures are spread to their full range when read, each by itself
    stored = [np.asarray(Image.open(case.image)) for case in made]
    assert np.array_equal(stored[0], before[:, :36]) and np.array_equal(stored[1], before[:, 36:])
    assert stored[0].dtype == np.uint16
    assert right.regions == (box(10, "A1"),) and left.regions == (box(14, "normal"),)
    assert right.patient_id == left.patient_id == "patient" and right.study_id != left.study_id
    assert right.split == left.split == "train" and right.spacing_mm == left.spacing_mm == (0.2, 0.3)
    assert (right.facts["side"], left.facts["side"]) == ("R", "L")
    assert read_cohort(tmp_path / "out") == made


def test_pictures_of_one_femur_stay_as_they_are(tmp_path):
    place = tmp_path / "in"
    whole = [
        pelvis(place, box(10, "A1"), name="one box"),
        pelvis(place, name="no box", label="normal"),
        pelvis(place, box(10), box(50), name="lateral", view="lateral"),
        pelvis(place, box(42), box(60), name="both in one half"),
        pelvis(place, box(5), box(25), box(60), name="three boxes"),
        pelvis(place, box(10, width=40), box(45), name="overlapping"),
    ]
    made = halve(cohort_of(*whole, pelvis(place, box(10, "A1"), box(60), name="two")), tmp_path / "out")
    assert [case.case_id for case in made][-2:] == ["two-R", "two-L"] and len(made) == len(whole) + 2
    for old, new in zip(whole, made, strict=False):
        assert (new.case_id, new.study_id, new.label, new.regions, new.shape, new.view) == (
            old.case_id, old.study_id, old.label, old.regions, old.shape, old.view,
        )  # fmt: skip
        assert new.image.read_bytes() == old.image.read_bytes()


@pytest.mark.parametrize(
    ("tags", "label", "expected"),
    [
        (("A1", "B2"), "A1", ["A1", "B2"]),
        ((None, "A1"), "A1", ["normal", "A1"]),  # the known finding is the other's
        (("normal", None), "A1", ["normal", "A1"]),
        ((None, None), "normal", ["normal", "normal"]),
        (("B2", None), "normal", ["B2", "normal"]),
    ],
)
def test_which_half_has_the_fracture(tmp_path, tags, label, expected):
    made = halves_of(tmp_path, box(10, tags[0]), box(50, tags[1]), label=label)
    assert [case.label for case in made] == expected


def test_focus_boxes_will_do_where_findings_are_not_two(tmp_path):
    made = halves_of(tmp_path, box(52, "A1"), box(10, None, "focus"), box(50, "A1", "focus"))
    assert [case.label for case in made] == ["normal", "A1"]
    assert [len(case.regions) for case in made] == [1, 2]


@pytest.mark.parametrize(("left", "expected"), [(50, ["normal", "A1"]), (10, ["A1", "normal"])])
def test_a_fact_says_two_femurs_where_only_one_is_marked(tmp_path, left, expected):
    made = halves_of(tmp_path, box(left), facts={"femurs": "2", "device": "x"})
    assert [case.label for case in made] == expected and [case.shape for case in made] == [(30, 40)] * 2
    assert [sorted(case.facts) for case in made] == [["device", "side"]] * 2
    assert [len(case.regions) for case in made] == [e == "A1" for e in expected]


def test_unmarked_pictures_of_two_sound_femurs_are_cut_in_the_middle(tmp_path):
    made = halves_of(tmp_path, label="normal", facts={"femurs": "2"}, view="", shape=None)
    assert [(c.label, c.shape) for c in made] == [("normal", (30, 40))] * 2


def test_a_fracture_that_could_be_on_either_side_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CohortError, match=r"'P1' \(A1\).*nothing says which") as caught:
        halves_of(tmp_path, box(10), box(50))
    assert "class of that femur" in caught.value.remedy and not (tmp_path / "out").exists()
    with pytest.raises(CohortError, match="nothing says which"):
        halves_of(tmp_path, facts={"femurs": "2"})
    with pytest.raises(CohortError, match="3 finding boxes"):
        halves_of(tmp_path, box(1), box(20), box(60), facts={"femurs": "2"})
    with pytest.raises(CohortError, match="is labelled 'C3'"):
        halves_of(tmp_path, box(10, "C3"), box(50))
    with pytest.raises(CohortError, match="shows two femurs"):
        halves_of(tmp_path, box(10))
    broken = Cohort("b", ("A1", "B2"), (pelvis(tmp_path / "in", box(10, "A1"), box(50)),))
    with pytest.raises(CohortError, match="Add a class called 'normal'"):
        halve(broken, tmp_path / "out")


def test_only_an_empty_folder_is_written_to(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(LayoutError, match="not an empty folder"):
        halves_of(tmp_path, box(10, "A1"), box(50))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_every_kind_of_mark_is_cut_and_moved(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[5:9, 30:45] = True
    path = tmp_path / "mask.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    right, left = halves_of(
        tmp_path, box(10, "A1"), box(50), Mask(path, Tag("focus")),
        Scribble((((4.0, 30.0), (4.0, 50.0)),), 2.0), Polygon((((1.0, 60.0), (1.0, 70.0), (9.0, 70.0)),)),
    )  # fmt: skip
    assert [type(r).__name__ for r in right.regions] == ["Box", "Mask", "Scribble"]
    assert [type(r).__name__ for r in left.regions] == ["Box", "Mask", "Scribble", "Polygon"]
    assert np.array_equal(right.regions[1].pixels(), mask[:, :36])
    assert np.array_equal(left.regions[1].pixels(), mask[:, 36:])
    assert right.regions[2].lines == (((4.0, 30.0), (4.0, 36.0)),)
    assert left.regions[2].lines == (((4.0, 0.0), (4.0, 14.0)),)
    assert left.regions[3].parts == (((1.0, 24.0), (1.0, 34.0), (9.0, 34.0)),)


points = st.lists(st.tuples(st.integers(1, 29), st.integers(1, 79)), min_size=3, max_size=7, unique=True)


@given(points=points, column=st.integers(2, 78))
@settings(max_examples=80, deadline=None)
def test_a_cut_line_is_the_line_on_each_side(points, column):
    """Places along the line, looked up one by one on the pieces."""
    line = tuple((float(r), float(c)) for r, c in points)
    for start, stop in ((0, column), (column, 80)):
        cut = cut_region(Scribble((line,)), start, stop)
        pieces = [] if cut is None else [np.array(piece) for piece in cut.lines]
        for a, b in pairwise(line):
            for t in np.linspace(0.013, 0.987, 7):
                place = (1 - t) * np.array(a) + t * np.array(b)
                distance = min((_away(piece, place - [0, start]) for piece in pieces), default=np.inf)
                if start + 1e-6 < place[1] < stop - 1e-6:
                    assert distance < 1e-6
        for piece in pieces:
            assert (piece[:, 1] >= -1e-9).all() and (piece[:, 1] <= stop - start + 1e-9).all()


def _away(piece, place):
    """Distance of a place from a polyline."""
    if len(piece) == 1:
        return np.linalg.norm(piece[0] - place)
    distances = []
    for a, b in pairwise(piece):
        along = b - a
        t = np.clip((place - a) @ along / max(along @ along, 1e-12), 0, 1)
        distances.append(np.linalg.norm(a + t * along - place))
    return min(distances)


@given(points=points, column=st.integers(2, 78))
@settings(max_examples=60, deadline=None)
def test_a_cut_outline_covers_what_the_whole_one_covered(points, column):
    from skimage.measure import grid_points_in_poly

    ring = tuple((float(r) + 0.25, float(c) + 0.25) for r, c in points)
    whole = grid_points_in_poly((60, 160), np.array(ring) * 2 - 0.31)
    for start, stop in ((0, column), (column, 80)):
        cut = cut_region(Polygon((ring,)), start, stop)
        inside = np.zeros((60, 2 * (stop - start)), bool)
        for part in () if cut is None else cut.parts:
            inside |= grid_points_in_poly(inside.shape, np.array(part) * 2 - 0.31)
        assert (inside != whole[:, 2 * start : 2 * stop]).mean() < 0.02


def test_a_phantom_pelvis_of_two_drawn_hips(tmp_path):
    """Two hips of one patient side by side, as on one film, come apart as they were."""
    from sightline.data.phantoms.radiographs.cohort import write_radiographs

    hips = write_radiographs(tmp_path / "hips", anatomy="femur", studies=2, seed=3, size_px=200)
    right, left = sorted(hips, key=lambda case: case.facts["side"], reverse=True)
    pictures = [np.asarray(Image.open(case.image)) for case in (right, left)]
    rows = min(len(p) for p in pictures)
    film = np.concatenate([p[:rows] for p in pictures], axis=1)
    path = tmp_path / "film.png"
    Image.fromarray(film).save(path)
    squares, shift = [], 0
    for case, pixels in zip((right, left), pictures, strict=True):
        (square,) = [r for r in case.regions if r.tag.role == "finding"]
        (r0, c0), (r1, c1) = square.start, square.stop
        squares.append(Box((r0, c0 + shift), (min(r1, rows), c1 + shift), Tag("finding", case.label)))
        shift += pixels.shape[1]
    label = next(case.label for case in (right, left) if case.label != "normal")
    both = Case("film", "film", "P1", path, label, tuple(squares), "test", "AP", film.shape)
    made = halve(Cohort("film", hips.classes, (both,)), tmp_path / "halves")
    assert [case.label for case in made] == [right.label, left.label]
    assert [case.facts["side"] for case in made] == ["R", "L"]
    for case, square in zip(made, squares, strict=True):
        (kept,) = case.regions
        mine = read_image(case.image).pixels
        seen = Frame.of_image(mine.shape)
        theirs = film[int(square.start[0]) : int(square.stop[0]), int(square.start[1]) : int(square.stop[1])]
        ours = mine[int(kept.start[0]) : int(kept.stop[0]), int(kept.start[1]) : int(kept.stop[1])]
        assert kept.draw(seen).any() and ours.shape == theirs.shape and np.array_equal(ours, theirs)


def test_the_source_is_left_alone(tmp_path):
    case = pelvis(tmp_path / "in", box(10, "A1"), box(50))
    before = {p: p.read_bytes() for p in Path(tmp_path / "in").rglob("*.png")}
    halve(cohort_of(case), tmp_path / "out")
    assert {p: p.read_bytes() for p in Path(tmp_path / "in").rglob("*.png")} == before
