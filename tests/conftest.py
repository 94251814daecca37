"""What several tests share: tiny cohorts in our layout, and the real data where it is present."""

import gc
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.cohorts import make_cohort

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.structures.case import Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.tag import Tag

# what is imported stays: the collector looks through it once, not hundreds of times while more is imported
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    # at the end all of it goes, or bindings of C++ report leaks
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("tiny") / "cohort")


@pytest.fixture
def few_pictures(monkeypatch):
    """Reports of tables with two studies by each method in place of six: pictures take longer than tiny trainings."""
    monkeypatch.setattr("sightline.plots.html_report.SMALL_BYTES", 1 << 30)
    pictures = "sightline.evaluation.tables.pictures"
    for name, number in {"COMPARED": 2, "IN_FULL": 1, "SHEET": 4}.items():
        monkeypatch.setattr(f"{pictures}.{name}", number)


def draw_coarsely(patch):
    """Drawings at a third of their width and height, and pages without WebP."""
    patch.setattr("sightline.plots.html_report.SMALL_BYTES", 1 << 30)
    for room in ("plots.canvas", "plots.charts", "dissection.figures"):
        patch.setattr(f"sightline.{room}.DPI", 40)


@pytest.fixture
def coarse_pictures(monkeypatch):
    """Coarse drawings: for tests of what else is written."""
    draw_coarsely(monkeypatch)


@pytest.fixture
def no_overlays(monkeypatch):
    """Predictions whose overlays are one dark pixel: for tests of what is said of many pictures."""
    dark = BytesIO()
    Image.new("L", (1, 1)).save(dark, "PNG")
    monkeypatch.setattr("sightline.plots.contact_sheet.draw_overlay", lambda *given, **also: dark.getvalue())


@pytest.fixture(scope="module")
def small_galleries():
    """Galleries of units with two cases in detail and six at a glance, and coarse drawings."""
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch)
        patch.setattr("sightline.dissection.gallery.COLLAGE", 6)
        patch.setattr("sightline.dissection.gallery.STRONGEST", 2)
        yield


@pytest.fixture
def no_charts(monkeypatch):
    """Tables without charts of their numbers."""
    monkeypatch.setattr("sightline.plots.html_report.SMALL_BYTES", 1 << 30)
    report = "sightline.evaluation.tables.report"
    for name in ("draw_forest_chart", "draw_learning_curves", "_build_reliance_section"):
        monkeypatch.setattr(f"{report}.{name}", lambda *given: None)
    monkeypatch.setattr(f"{report}.draw_charts", lambda *given: [])


@pytest.fixture
def no_pictures(monkeypatch, no_charts):
    """Tables without charts and pictures of the networks at work: for tests of what else a table says."""
    monkeypatch.setattr("sightline.evaluation.tables.report.draw_table_pictures", lambda result: None)


@pytest.fixture(scope="session")
def gazed_cohort(tmp_path_factory):
    """30 little chests of as many patients: a wide or a small bright spot or none, and a reader who looked there."""
    place = tmp_path_factory.mktemp("gazed") / "cohort"
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    classes, size, cases = ("Normal", "CHF", "pneumonia"), (48, 40), []
    for p in range(30):
        row, column = rng.uniform((10, 8), (38, 32))
        radius = (0.0, 9.0, 4.0)[p % 3]
        rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
        spot = 150.0 * ((rows - row) ** 2 + (columns - column) ** 2 < radius**2)
        image = place / "images" / f"P{p:02d}.png"
        Image.fromarray((rng.uniform(10, 80, size) + spot).astype(np.uint8)).save(image)
        # whoever sees nothing looks everywhere; every tenth reading was not recorded
        seen = rng.uniform((0, 0), size, (40, 2)) if p % 3 == 0 else rng.normal((row, column), 2.0, (40, 2))
        gaze = Gaze(seen, np.arange(40) / 60, np.full(40, 1 / 60), spread_px=4.0, tag=Tag("gaze", None, "reader"))
        split = ("train", "train", "train", "val", "test")[p // 3 % 5]
        cases.append(
            Case(f"P{p:02d}", f"S{p:02d}", f"P{p:02d}", image, classes[p % 3], () if p % 10 == 9 else (gaze,), split,
                 "AP", size)
        )  # fmt: skip
    write_cohort(Cohort("gazed", classes, tuple(cases), place), place)
    return read_cohort(place)
