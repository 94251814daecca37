"""Gaze wherever a cohort's regions go: into a folder and back, through cuts, audits, choices and styles."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sightline.data.audit.audit import audit
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.femur_halves import cut_region, halve
from sightline.data.targets.drawing_styles import convert_style, dilate
from sightline.data.targets.region_choice import RegionChoice
from sightline.errors import GeometryError, LayoutError, RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

SHAPE = (40, 60)


def some_gaze(seed=0, n=300, reader="Dr. Ü/1", **words):
    rng = np.random.default_rng(seed)
    tag = Tag("gaze", None, reader)
    return Gaze(rng.uniform((-3, -3), (43, 63), (n, 2)), np.sort(rng.uniform(0, 9, n)), rng.random(n), tag=tag, **words)


def cohort_of(root, *regions_of):
    (root / "images").mkdir(parents=True, exist_ok=True)
    cases = []
    for n, regions in enumerate(regions_of):
        path = root / "images" / f"{n}.png"
        Image.fromarray(np.full(SHAPE, 10 * n, np.uint8)).save(path)
        label = ("normal", "sick")[n % 2]
        cases.append(Case(f"c{n}", f"s{n}", f"p{n}", path, label, tuple(regions), "train", "AP", SHAPE))
    return Cohort("gazes", ("normal", "sick"), tuple(cases), root)


def regions_of(cohort):
    return [case.regions for case in cohort]


def test_written_and_read_back_equal(tmp_path):
    one = (some_gaze(), some_gaze(1, kind="fixations", px_per_deg=1 / 3, spread_px=0.1), some_gaze(2, reader=""))
    cohort = cohort_of(tmp_path / "a", one, (), (some_gaze(3, n=0),), (some_gaze(3, reader="dr. ü/1"),) * 2)
    write_cohort(cohort, tmp_path / "b")
    back = read_cohort(tmp_path / "b")
    assert regions_of(back) == regions_of(cohort)
    assert back.fingerprint() == cohort.fingerprint()


def test_a_gaze_that_changes_is_another_cohort(tmp_path):
    a = cohort_of(tmp_path / "a", (some_gaze(),))
    b = cohort_of(tmp_path / "a", (replace(some_gaze(), spread_px=74.0),))
    c = cohort_of(tmp_path / "a", (some_gaze(9),))
    assert len({a.fingerprint(), b.fingerprint(), c.fingerprint()}) == 3


def test_writing_again_leaves_old_files_as_they_are(tmp_path):
    write_cohort(cohort_of(tmp_path / "b", (some_gaze(),), (some_gaze(1),)), tmp_path / "b")
    first = {path.name: path.read_bytes() for path in (tmp_path / "b" / "regions" / "gaze").iterdir()}
    assert len(first) == 2
    write_cohort(read_cohort(tmp_path / "b"), tmp_path / "b")
    assert {p.name: p.read_bytes() for p in (tmp_path / "b" / "regions" / "gaze").iterdir()} == first
    # new gaze gets a file of its own: until the tables are renamed the old ones must hold
    changed = cohort_of(tmp_path / "b", (some_gaze(7),), (some_gaze(1),))
    write_cohort(changed, tmp_path / "b")
    after = {path.name: path.read_bytes() for path in (tmp_path / "b" / "regions" / "gaze").iterdir()}
    assert first.items() <= after.items() and len(after) == 3
    assert regions_of(read_cohort(tmp_path / "b")) == regions_of(changed)


def test_many_samples_stay_practical(tmp_path):
    rng = np.random.default_rng(0)
    n = 50_000
    gaze = Gaze(rng.uniform(0, 3000, (n, 2)), np.arange(n) / 60.0, np.full(n, 1 / 60))
    write_cohort(cohort_of(tmp_path / "a", (gaze,)), tmp_path / "a")
    (file,) = (tmp_path / "a" / "regions" / "gaze").iterdir()
    # 32 bytes a sample: 1.5 million take 48 MB
    assert file.stat().st_size < 32 * n + 200
    assert (tmp_path / "a" / "regions.json").stat().st_size < 400
    assert regions_of(read_cohort(tmp_path / "a")) == [(gaze,)]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "is not a file"),
        (b"", "does not decode"),
        (b"\x93NUMPY half", "does not decode"),
        (np.zeros((3, 3)), "expected float64"),
        (np.zeros((3, 4), np.float32), "expected float64"),
        (np.full((3, 4), np.nan), "finite"),
        (np.array([[1, 1, 2, 0], [1, 1, 1, 0.0]]), "backwards"),
        (np.array([{"a": 1}], dtype=object), "does not decode"),
    ],
)
def test_broken_gaze_files_are_refused(tmp_path, content, match):
    write_cohort(cohort_of(tmp_path / "a", (some_gaze(),)), tmp_path / "a")
    (file,) = (tmp_path / "a" / "regions" / "gaze").iterdir()
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content, allow_pickle=content.dtype == object)
    with pytest.raises(LayoutError, match=match):
        read_cohort(tmp_path / "a")


def test_cut_into_columns_its_density_stays_where_it_was():
    gaze = some_gaze(n=20)
    part = cut_region(gaze, 15, 45)
    whole = gaze.density(Frame.of_image(SHAPE), 4.0)
    assert np.allclose(part.density(Frame.of_image((40, 30)), 4.0), whole[:, 15:45], atol=1e-7)
    assert part.tag == gaze.tag


def test_halves_take_their_gaze_along(tmp_path):
    boxes = (Box((5, 5), (30, 20), Tag("finding", "sick")), Box((5, 40), (30, 55), Tag("finding", "normal")))
    cohort = cohort_of(tmp_path / "a", (), (*boxes, some_gaze(n=20)))
    halved = halve(cohort, tmp_path / "b")
    gazes = [r for case in halved for r in case.regions if isinstance(r, Gaze)]
    assert [len(gaze) for gaze in gazes] == [20, 20]
    assert np.allclose(gazes[1].places, gazes[0].places - [0.0, 30.0])


def test_eyes_may_leave_the_picture_but_not_speak_for_no_class(tmp_path):
    cohort = cohort_of(tmp_path / "a", (some_gaze(),), (replace(some_gaze(), tag=Tag("gaze", "flu", "r")),))
    kinds = [finding.kind for finding in audit(cohort) if finding.kind.startswith("region")]
    assert kinds == ["region-label"]


def test_gaze_is_no_mark(tmp_path):
    gaze = some_gaze()
    for style in ("box", "mask", "scribble"):
        with pytest.raises(GeometryError, match="no outline"):
            convert_style(gaze, style, SHAPE)
    with pytest.raises(GeometryError, match="no outline"):
        dilate(gaze, 3.0, SHAPE)
    with pytest.raises(RecipeError, match="gaze_choice"):
        RegionChoice(role="gaze")
    # a box beside it is used, the gaze is not
    case = cohort_of(tmp_path / "a", (gaze, Box((1, 1), (5, 5))))[0]
    assert RegionChoice("box", "focus").pick(case, SHAPE) == (case.regions[1],)
