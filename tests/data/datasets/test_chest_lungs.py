"""Open chest radiographs with lung boxes: the reader, and the phantom's lungs held against real ones."""

import numpy as np
import pytest
from PIL import Image
from support.paths import DATA as DATA_ROOT

from sightline import cli
from sightline.data.datasets import chest_lungs
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.phantoms.chest.anatomy import ChestBody
from sightline.data.phantoms.chest.table_writer import measure_extent
from sightline.errors import LayoutError

REAL = DATA_ROOT / "chest_lungs"
HEADER = "file,patientid,finding,view,sex,age,location,doi,url,license,w,h,right_lung_xywh,left_lung_xywh\n"
ROWS = (
    'a.png,1,COVID-19,PA,F,40,Here,,http://x/a,CC BY 4.0,40,50,"[2, 4.5, 15, 40]","[20, 5, 18.5, 38]"\n',
    'b.png,2,No Finding,AP Supine,M,,,,http://x/b,CC BY 3.0,40,50,"[-0.4, 0, 16, 50.3]","[20, 5, 20, 38]"\n',
    'c.png,2,todo,PA,,,,,http://x/c,CC BY 3.0,40,50,"[2, 4, 15, 40]","[20, 5, 18, 38]"\n',
    'd.png,3,COVID-19,L,,,,,http://x/d,CC BY 3.0,40,50,"[2, 4, 15, 40]","[20, 5, 18, 38]"\n',
    'e.png,4,COVID-19,Axial,,,,,http://x/e,CC BY 3.0,40,50,"[2, 4, 15, 40]","[20, 5, 18, 38]"\n',
)


def source(place, rows=ROWS):
    (place / "images").mkdir(parents=True)
    for name in "abcde":
        Image.fromarray(np.full((50, 40), 90, dtype=np.uint8)).save(place / "images" / f"{name}.png")
    (place / "manifest.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    return place


def test_frontal_images_with_both_lungs(tmp_path):
    cohort = chest_lungs.read(source(tmp_path / "src"))
    assert [(c.case_id, c.label, c.view, c.patient_id) for c in cohort] == [
        ("a", "pneumonia", "PA", "1"), ("b", "other", "AP Supine", "2"), ("c", "other", "PA", "2"),
    ]  # fmt: skip
    right, left = cohort.cases[0].regions
    # x, y, width, height in the table; (row, column) here
    assert (right.start, right.stop) == ((4.5, 2.0), (44.5, 17.0))
    assert (left.start, left.stop) == ((5.0, 20.0), (43.0, 38.5))
    assert {(r.tag.role, r.tag.label) for c in cohort for r in c.regions} == {("organ", "pneumonia")}
    # rounding that leads out of the picture is cut
    assert (cohort.cases[1].regions[0].start, cohort.cases[1].regions[0].stop) == ((0.0, 0.0), (50.0, 15.6))
    facts = cohort.cases[0].facts
    assert facts["licence"] == "CC BY 4.0" and facts["source"] == "http://x/a" and facts["truth_finding"] == "COVID-19"
    assert "age" not in cohort.cases[1].facts
    for counted in ("rows 5", "kept 3", "view L left out 1", "view Axial left out 1", "not stated 1 (other)"):
        assert counted in cohort.about["counts"]
    assert [c.case_id for c in chest_lungs.read(tmp_path / "src", chest_lungs.Options(unknown="leave out"))] == [
        "a",
        "b",
    ]
    write_cohort(cohort, tmp_path / "ours")
    assert [c.regions for c in read_cohort(tmp_path / "ours")] == [c.regions for c in cohort]


@pytest.mark.parametrize(
    ("finding", "label"),
    [
        ("COVID-19", "pneumonia"), ("Pneumonia/Viral/COVID-19", "pneumonia"), ("COVID-19, ARDS", "pneumonia"),
        ("Pneumocystis", "pneumonia"), ("ARDS", "other"), ("No Finding", "other"), ("Pneumothorax", "other"),
    ],
)  # fmt: skip
def test_the_rule_for_the_class(finding, label):
    assert chest_lungs.label_finding(finding) == label


def test_an_infection_in_other_words_is_no_other():
    """`viral pneumonia` was `other`; `no pneumonia` must not become the infection."""
    assert chest_lungs.label_finding("Covid19") == chest_lungs.label_finding("E. coli") == "pneumonia"
    for finding in ("viral pneumonia", "Pneumonia (viral)", "no pneumonia", "COVID-19?; ARDS"):
        with pytest.raises(LayoutError, match="among other words"):
            chest_lungs.label_finding(finding)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.png,1", "../a.png,1", "row 2, column 'file'"),
        ("40,50,", "41,50,", r"row 2, column 'w' and 'h' say 41 x 50; a.png is 40 x 50"),
        ("[2, 4.5, 15, 40]", "[2, 4.5, 15]", r"row 2, column 'right_lung_xywh'.*expected \[x, y, width, height\]"),
        ("[2, 4.5, 15, 40]", "[2, 4.5, 15, 47]", "no box in a picture of 40 x 50"),
        ("[2, 4.5, 15, 40]", "[2, NaN, 15, 40]", "no box in a picture"),
        ("[20, 5, 18.5, 38]", "[20, 5, 0, 38]", "row 2, column 'left_lung_xywh'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, old, new, message):
    place = source(tmp_path / "src", [ROWS[0].replace(old, new), *ROWS[1:]])
    with pytest.raises(LayoutError, match=message):
        chest_lungs.read(place)


def test_from_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["cohort", "import", "chest_lungs", str(source(tmp_path / "src")), str(tmp_path / "ours")])
    assert ended.value.code == 0 and "view L left out 1" in capsys.readouterr().err
    assert len(read_cohort(tmp_path / "ours")) == 3


def test_nothing_frontal_is_refused(tmp_path):
    with pytest.raises(LayoutError, match="no frontal radiograph among 2 rows"):
        chest_lungs.read(source(tmp_path / "src", ROWS[3:]))


@pytest.mark.skipif(not REAL.is_dir(), reason="the open radiographs are not here")
def test_every_real_image_is_read():
    cohort = chest_lungs.read(REAL)
    assert len(cohort) == 113 and cohort.counts() == {"other": 26, "pneumonia": 87}
    assert len({c.patient_id for c in cohort}) > 40
    assert "finding not stated 23" in cohort.about["counts"]


def proportions(right, left, shape):
    """Shares of both lungs' boxes (row start, column start, row stop, column stop)."""
    (height, width), lungs = shape, (right, left)
    tall = [stop - start for start, _, stop, _ in lungs]
    wide = [stop - start for _, start, _, stop in lungs]
    top, bottom = min(b[0] for b in lungs), max(b[2] for b in lungs)
    return {
        "right width by height": wide[0] / tall[0], "left width by height": wide[1] / tall[1],
        "both, width by height": (left[3] - right[1]) / (bottom - top), "both, share of the width":
        (left[3] - right[1]) / width, "both, share of the height": (bottom - top) / height, "left width by right":
        wide[1] / wide[0], "left height by right": tall[1] / tall[0],
        "gap by width": (left[1] - right[3]) / (left[3] - right[1]), "top": top / height,
        "middle, column": (right[1] + left[3]) / 2 / width,
    }  # fmt: skip


@pytest.mark.skipif(not REAL.is_dir(), reason="the open radiographs are not here")
def test_the_phantoms_lungs_lie_within_the_real_ones():
    real = []
    for case in chest_lungs.read(REAL):
        boxes = [(*box.start, *box.stop) for box in case.regions]
        real.append(proportions(*boxes, case.shape))
    drawn = []
    for n in range(40):
        body = ChestBody(np.random.default_rng([5, n]), (256, 210))
        drawn.append(
            proportions(measure_extent(body.lung(left=False)), measure_extent(body.lung(left=True)), body.shape)
        )
    for name in real[0]:
        low, high = np.quantile([p[name] for p in real], [0.025, 0.975])
        values = [p[name] for p in drawn]
        assert low <= np.median(values) <= high, (name, low, np.median(values), high)
        # as many as of the real ones
        assert np.mean([low <= v <= high for v in values]) >= 0.95, (name, low, high, np.round(values, 3))
