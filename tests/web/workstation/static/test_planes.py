"""A CT in the page: three planes that scroll, values at their voxels, and a box that comes back where it was drawn."""

import re

import numpy as np
import pytest

from sightline.data.datasets.folder.writer import write_cohort
from sightline.io.nifti import write_volume
from sightline.structures.case import Case, Cohort
from tests.support.workstation_page import running, sign_in, until

SHAPE, SPACING = (16, 20, 24), (1.0, 2.0, 3.0)
# every voxel says where it is
VALUES = np.ravel_multi_index(np.indices(SHAPE), SHAPE).astype(np.int16)
SAGITTAL, CORONAL, AXIAL = range(3)


@pytest.fixture
def cohort(tmp_path):
    """One CT whose axes run to the right, the front and the head: every plane hangs turned."""
    place = tmp_path / "cohort"
    write_volume(place / "images" / "ct.nii.gz", VALUES, np.diag([*SPACING, 1.0]))
    case = Case("ct", "s", "p", place / "images" / "ct.nii.gz", "a", (), None, "rigid", SHAPE, SPACING)
    write_cohort(Cohort("ct", ("a", "b"), (case,), place), place)
    return place


@pytest.fixture
def ada(chromium, tmp_path, cohort):
    """A reader before the CT."""
    with running(tmp_path, {"ada": "reader"}, {"mark": {"readers": ["ada"]}}, cohort) as station:
        person = sign_in(chromium, station, "ada")
        yield person
        person.page.context.close()
        assert person.faults == []


def place_of(ada, number, row, column, rows, columns, aspect):
    """Where a pixel of a plane stands on the screen; planes are fitted into their views."""
    box = ada.view(number)
    scale = min(box["width"] / columns, box["height"] / (rows * aspect))
    left, top = box["x"] + (box["width"] - columns * scale) / 2, box["y"] + (box["height"] - rows * aspect * scale) / 2
    return left + column * scale, top + row * aspect * scale


def on_axial(ada, row, column):
    return place_of(ada, AXIAL, row, column, SHAPE[1], SHAPE[0], SPACING[1] / SPACING[0])


def slices(ada):
    """The number of each plane's slice, from 1, as the corners say it."""
    said = ada.page.locator(".view .corner.ne").all_inner_texts()
    return [int(re.search(r"\d+", words)[0]) for words in said]


def draw_box(person, read):
    """A box in the axial slice that hangs there, as the server has it: the only mark of the read."""
    person.key("x")
    person.page.mouse.move(*on_axial(person, 4, 3))
    person.page.mouse.down()
    person.page.mouse.move(*on_axial(person, 9, 10), steps=3)
    person.page.mouse.up()
    person.saved()
    (mark,) = person.marks(read)
    return mark


@pytest.mark.slow
def test_a_box_of_a_slice_comes_back_in_its_slice_and_voxels(ada):
    read = ada.open_read()["read"]
    ada.page.mouse.move(*on_axial(ada, 4.5, 3.5))
    before = slices(ada)
    for _ in range(2):
        ada.page.mouse.wheel(0, 100)
    until(lambda: abs(slices(ada)[AXIAL] - before[AXIAL]) == 2, "two slices on")
    assert slices(ada)[:AXIAL] == before[:AXIAL]
    z = slices(ada)[AXIAL] - 1
    # rows run to the back and columns to the left, against the voxels
    ada.page.mouse.move(*on_axial(ada, 4.5, 3.6))
    value = VALUES[SHAPE[0] - 1 - 3, SHAPE[1] - 1 - 4, z]
    until(lambda: f"{value} HU" in ada.page.locator(".view .corner.sw").nth(AXIAL).inner_text(), "the voxel's value")
    mark = draw_box(ada, read)
    half = 7.0 / SPACING[2] / 2
    wanted = [6, 11, z + 0.5 - half, 13, 16, z + 0.5 + half]
    np.testing.assert_allclose([*mark["start"], *mark["stop"]], wanted, atol=0.2)

    # away from it, then a new page: the list leads back to its middle in every plane
    for _ in range(6):
        ada.page.mouse.wheel(0, 100)
    until(lambda: abs(slices(ada)[AXIAL] - 1 - z) > 3, "far away")
    ada.page.reload()
    ada.ready(read)
    assert ada.marks(read) == [mark]
    ada.page.locator(f'[data-act="pick"][data-mark="{mark["id"]}"]').click()
    until(lambda: slices(ada) == [10, 14, z + 1], "the planes through its middle")
    picked = ada.page.locator(f'[data-act="pick"][data-mark="{mark["id"]}"]')
    ada.key("Escape")
    until(lambda: picked.get_attribute("aria-pressed") == "false", "let go")
    ada.page.mouse.click(*on_axial(ada, 6, 10))
    until(lambda: picked.get_attribute("aria-pressed") == "true", "found by its side")


def test_each_plane_says_which_side_of_the_patient_lies_where_its_columns_begin(ada):
    ada.open_read()
    drawn = ada.page.evaluate(
        """async () => {
          const { Volume } = await import("/static/picture/planes.js");
          const volume = new Volume("", { shape: [16, 20, 24], spacing_mm: [1, 1, 1], orientation: ["R", "A", "S"] });
          return volume.planes.map((plane) => {
            const said = [], own = { fillText: (...words) => said.push(words) };
            const context = new Proxy(own, { get: (_, name) => own[name] || (() => {}), set: () => true });
            const toScreen = ([r, c]) => [c * 10, r * 10], affine = () => [0, 10, 10, 0, 0, 0];
            const read = { rows: 24, columns: 20 };
            volume.paintCross(context, { plane, index: 0, zoom: 10, read, affine, toScreen });
            return [plane.name, ...said[0]];
          });
        }"""
    )
    # R stands left where the patient faces the reader, A where the patient looks to the left
    assert drawn == [["sagittal", "A", 16, 114], ["coronal", "R", 16, 114], ["axial", "R", 16, 114]]


# pixels of a colour in the ink over each view
INKED = """([r, g, b]) => [...document.querySelectorAll('.view')].map((view) => {
  const ink = view.querySelectorAll('canvas')[1];
  const { data } = ink.getContext('2d').getImageData(0, 0, ink.width, ink.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 30) n += 1;
  }
  return n;
})"""


def test_who_decides_on_a_ct_sees_its_planes_and_each_box_where_it_cuts_them(chromium, tmp_path, cohort):
    people = {"ada": "reader", "ben": "reader", "jo": "adjudicator"}
    with running(tmp_path, people, {"mark": {"readers": ["ada", "ben"]}}, cohort) as station:
        middles = []
        for name, scrolled in (("ada", -3), ("ben", 4)):
            reader = sign_in(chromium, station, name)
            read = reader.open_read()["read"]
            reader.page.mouse.move(*on_axial(reader, 4.5, 3.5))
            wanted = slices(reader)[AXIAL] + scrolled
            for _ in range(abs(scrolled)):
                reader.page.mouse.wheel(0, 100 * np.sign(scrolled).item())
            until(lambda wanted=wanted, reader=reader: slices(reader)[AXIAL] == wanted, "the slice")
            mark = draw_box(reader, read)
            middles.append([(a + b) // 2 + 1 for a, b in zip(mark["start"], mark["stop"], strict=True)])
            reader.page.locator(".view").first.focus()
            reader.key("Enter")
            until(lambda read=read, reader=reader: reader.api(f"/reads/{read}")["state"] == "submitted", "submitted")
            reader.page.context.close()
        assert middles[0][AXIAL] != middles[1][AXIAL]

        jo = sign_in(chromium, station, "jo")
        jo.show("adjudicate")
        until(lambda: len(slices(jo)) == 3 and slices(jo) in middles, "the planes through the first box")
        first = middles.index(slices(jo))
        blue, orange = (86, 180, 233), (230, 159, 0)
        jo.page.get_by_role("button", name="B", exact=True).click()
        until(lambda: slices(jo) == middles[1 - first], "those through the other one")
        jo.page.mouse.move(*on_axial(jo, 4.5, 3.5))
        jo.page.mouse.wheel(0, 100)
        until(lambda: slices(jo)[AXIAL] == middles[1 - first][AXIAL] + 1, "a slice on")
        jo.page.locator(".view").nth(AXIAL).focus()
        jo.key("PageUp")
        until(lambda: slices(jo) == middles[1 - first], "and back")
        assert jo.page.evaluate(INKED, blue) == [0, 0, 0]
        assert min(jo.page.evaluate(INKED, orange)) > 0
        # beyond its last slice a box is drawn in the other planes only
        jo.key(*["PageUp"] * 5)
        until(lambda: slices(jo)[AXIAL] == middles[1 - first][AXIAL] - 5, "out of the box")
        until(lambda: jo.page.evaluate(INKED, orange)[AXIAL] == 0, "not cut there")
        assert min(jo.page.evaluate(INKED, orange)[:AXIAL]) > 0
        assert jo.faults == []
        jo.page.context.close()
