"""What several tests share: tiny cohorts in our layout, and the real data where it is present.

Fixtures import what they need: the process that hands out tests to workers reads this file and runs none of them.
"""

import atexit
import gc
import os
from io import BytesIO

import pytest

# what is imported stays: the collector looks through it once, not hundreds of times while more is imported
gc.disable()
if "PYTEST_XDIST_WORKER" in os.environ:
    # its results are handed over by then: taking down all that was imported takes seconds
    atexit.register(os._exit, 0)


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    # at the end all of it goes, or bindings of C++ report leaks
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory):
    from support.cohorts import make_cohort

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
    from PIL import Image

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
    from support.cohorts import make_gazed_cohort

    return make_gazed_cohort(tmp_path_factory.mktemp("gazed") / "cohort")
