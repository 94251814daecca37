"""OHIF before Orthanc shows box and region where they are. Slow, and only where OHIF's pages are (`support.ohif`)."""

import base64
import io
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.dicom_sources import radiograph
from support.ohif import ohif, require_ohif
from support.pacs import orthanc, request
from support.workstation_page import ARGUMENTS, CHROMIUM, require_chromium, until

from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.io.dicom_results.codes import CodeTable
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.identity import encode_dicom
from sightline.io.dicom_results.objects import ObjectOptions, make_objects
from sightline.io.dicom_results.results import FindingResult, FoundBox, FoundRegion, ImageResult, Maker, StudyResult
from sightline.io.image import read_image

ROWS, COLUMNS, EDGE = 400, 300, 8
# rows and columns: first and one past the last
REGION, BOX = (220, 60, 340, 180), (60.0, 90.0, 180.0, 240.0)
PATIENCE = 600.0


def framed(folder):
    """A phantom's wrist in dark greys inside a white edge, by which its place on the screen can be seen."""
    case = next(iter(write_radiographs(folder, studies=6, seed=4)))
    inside = (COLUMNS - 2 * EDGE, ROWS - 2 * EDGE)
    grey = Image.fromarray(read_image(case.image).pixels).resize(inside)
    pixels = np.full((ROWS, COLUMNS), 4000, np.uint16)
    pixels[EDGE:-EDGE, EDGE:-EDGE] = np.asarray(grey, dtype=np.uint16) * 10 + 100
    # as wide as the window, so that nothing is cut off in between
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    return radiograph(ROWS, COLUMNS, PixelData=pixels.tobytes(), PixelSpacing=[1, 1], **window)


def results(source):
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[REGION[0] : REGION[2], REGION[1] : REGION[3]] = True
    image = ImageResult(
        source,
        (FindingResult("fracture", 0.81, True),),
        (FoundBox("fracture", BOX, 0.7),),
        (FoundRegion("fracture", mask, 0.5),),
    )
    maker = Maker("small-guided", "0123abcd", "f" * 64, "0.1.0", ("operating point=0.5",))
    return make_objects(
        StudyResult((image,), maker, datetime(2026, 1, 2), CodeTable()), ObjectOptions(("marks", "regions"))
    )


def canvas_of(page):
    """What the viewport's canvas shows, as RGB, or None while it shows nothing."""
    url = page.evaluate("() => { const c = document.querySelector('canvas.cornerstone-canvas');"
                        " return c && c.width > 50 ? c.toDataURL('image/png') : ''; }")  # fmt: skip
    if not url:
        return None
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def extent(where):
    """First and last rows and columns of a mask: top, left, bottom, right."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], dtype=float)


def on_image(place, image):
    """A place on the canvas (top, left, bottom, right) in pixels of the image, whose extent on the canvas is known."""
    scale = np.array([ROWS, COLUMNS]) / (image[2:] - image[:2])
    return np.concatenate([(place[:2] - image[:2]) * scale, (place[2:] - image[:2]) * scale])


@pytest.mark.slow
def test_box_and_region_are_drawn_where_they_are(tmp_path):
    require_ohif()
    # OHIF draws by WebGL, and the whole browser alone was tried with it
    require_chromium(CHROMIUM)
    from playwright.sync_api import sync_playwright

    picture = framed(tmp_path / "phantom")
    made = results(build_source_image(picture))
    series = {one.Modality: str(one.SeriesInstanceUID) for one in made}
    shots = Path(os.environ.get("SIGHTLINE_SHOTS", tmp_path))
    with orthanc(tmp_path / "pacs") as pacs, ohif(pacs) as address, sync_playwright() as playwright:
        for one in (picture, *made):
            urllib_post(pacs, encode_dicom(one))
        gl = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
        words = [one for one in ARGUMENTS if one != "--disable-gpu"] + list(gl)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=words)
        try:
            for modality, check in (("SEG", region_is_there), ("SR", box_is_there)):
                page = browser.new_page(viewport={"width": 1100, "height": 800})
                page.set_default_timeout(PATIENCE * 1000)
                study = f"{address}/viewer?StudyInstanceUIDs={picture.StudyInstanceUID}"
                page.goto(f"{study}&initialSeriesInstanceUID={series[modality]}")
                try:
                    until(lambda page=page, check=check: check(page), modality, PATIENCE)
                finally:
                    if page.get_by_text("Skip all").count():
                        page.get_by_text("Skip all").first.click()
                        page.wait_for_timeout(1000)
                    page.screenshot(path=str(shots / f"ohif_{modality.lower()}.png"))
                    page.close()
        finally:
            browser.close()


def region_is_there(page):
    """Whether coloured pixels cover the region, to 1.5 pixels of the image."""
    canvas = canvas_of(page)
    if canvas is None or not (canvas.min(axis=2) > 200).any():
        return False
    coloured = canvas.max(axis=2) - canvas.min(axis=2) > 25
    if not coloured.any():
        return False
    found = on_image(extent(coloured), extent(canvas.min(axis=2) > 200))
    return bool(np.allclose(found, REGION, atol=1.5))


def box_is_there(page):
    """Whether lines are drawn through the box's corners and the middles of its sides, to 1.5 pixels of the image."""
    canvas = canvas_of(page)
    if canvas is None or not (canvas.min(axis=2) > 200).any():
        return False
    points = page.evaluate(
        """() => { const found = [], svg = document.querySelector('svg.svg-layer');
        if (!svg) return found;
        for (const one of svg.querySelectorAll('polyline, polygon, line, path, rect')) {
          if (one.closest('defs') || one.getTotalLength === undefined) continue;
          const n = one.getTotalLength(); if (!(n > 0)) continue;
          for (let i = 0; i <= 2000; i++) { const p = one.getPointAtLength(n * i / 2000); found.push([p.y, p.x]); } }
        const c = document.querySelector('canvas.cornerstone-canvas');
        return found.map(p => [p[0] * c.height / c.clientHeight, p[1] * c.width / c.clientWidth]); }"""
    )
    if not points:
        return False
    image = extent(canvas.min(axis=2) > 200)
    drawn = (np.array(points, dtype=float) - image[:2]) * np.array([ROWS, COLUMNS]) / (image[2:] - image[:2])
    top, left, bottom, right = BOX
    rows, columns = (top, (top + bottom) / 2, bottom), (left, (left + right) / 2, right)
    wanted = [(r, c) for r in rows for c in columns if (r, c) != (rows[1], columns[1])]
    away = [float(np.linalg.norm(drawn - one, axis=1).min()) for one in wanted]
    # and nothing is drawn outside it to the left and above, where no label stands
    return max(away) <= 1.5 and drawn[:, 0].min() > top - 1.5 and drawn[:, 1].min() > left - 1.5


def urllib_post(pacs, body):
    """Store one object by Orthanc's own way in."""
    import urllib.request

    with urllib.request.urlopen(request(f"{pacs.url}/instances", body), timeout=60) as answer:
        assert answer.status == 200
