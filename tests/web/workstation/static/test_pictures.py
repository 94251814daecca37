"""What stands on the canvas: equal to the formula, difference 0; reset exact; the eye's own turns change no mark."""

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from sightline.data.datasets.folder.writer import write_cohort
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from tests.support.workstation_page import PATIENCE, running, sign_in, until

SHAPE = (300, 260)


def dicom(path, *, seed, **fields):
    """A computed radiograph of 12 stored bits."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    data.Modality, data.PatientID, data.StudyInstanceUID = "CR", "p", generate_uid(entropy_srcs=["s", str(seed)])
    data.Rows, data.Columns = SHAPE
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    for name, value in fields.items():
        setattr(data, name, value)
    pixels = np.random.default_rng(seed).integers(0, 4096, SHAPE, dtype=np.uint16)
    if "PixelPaddingValue" in fields:
        pixels[:40] = fields["PixelPaddingValue"]
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


def voi_table():
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.add_new("LUTData", "US", [int(4095 * (i / 4095) ** 0.5) for i in range(4096)])
    return [table]


CASES = {
    "window": {"WindowCenter": 1500, "WindowWidth": 1800},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2000, "WindowWidth": 3001},
    "inverse": {"PresentationLUTShape": "INVERSE", "WindowCenter": 2100, "WindowWidth": 900},
    "lut": {"VOILUTSequence": voi_table()},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    "slope": {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 4000},
    "several": {
        "WindowCenter": [1000, 3000],
        "WindowWidth": [500, 700],
        "WindowCenterWidthExplanation": ["SOFT", "HARD"],
    },
    "padding": {"PixelPaddingValue": 0, "WindowCenter": 2000, "WindowWidth": 2500},
    "no window": {},
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory, chromium):
    """A study a case: MONOCHROME1, LUTs, windows, padding; 8 and 16 bits; colour; one row, one pixel, constant."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "cohort" / "images").mkdir(parents=True)
    cases = []
    rng = np.random.default_rng(5)

    def add(name, path, size):
        cases.append(Case(name, name, name, path, "a", (), None, "PA", size))

    for k, (name, fields) in enumerate(CASES.items()):
        path = place / "cohort" / "images" / f"{name}.dcm"
        dicom(path, seed=k, **fields)
        add(name, path, SHAPE)
    for name, pixels in {
        "eight": rng.integers(0, 256, SHAPE, dtype=np.uint8), "sixteen": rng.integers(0, 65536, SHAPE, dtype=np.uint16),
        "colour": rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8), "one pixel": np.full((1, 1), 9, np.uint8),
        "constant": np.full((64, 64), 77, np.uint8), "one row": rng.integers(0, 256, (1, 200), dtype=np.uint8),
    }.items():  # fmt: skip
        path = place / "cohort" / "images" / f"{name}.png"
        Image.fromarray(pixels).save(path)
        add(name, path, pixels.shape[:2])
    # a frame of 100 x 160 pixels twice as high as they are wide
    pixels = np.full((100, 160), 200, np.uint8)
    Image.fromarray(pixels).save(place / "cohort" / "images" / "tall.png", dpi=(200, 100))
    add("tall", place / "cohort" / "images" / "tall.png", pixels.shape)
    write_cohort(Cohort("pictures", ("a", "b"), tuple(cases), place / "cohort"), place / "cohort")
    with running(place, {"ada": "reader"}, {"mark": {"readers": ["ada"]}}, place / "cohort") as station:
        person = sign_in(chromium, station, "ada")
        person.names = [case.case_id for case in cases]
        person.files = {case.case_id: case.image for case in cases}
        yield person
        person.page.context.close()


def expected_grey(path):
    """What an 8-bit screen shows of the picture as it was read."""
    pixels = read_image(path).pixels
    if pixels.ndim == 3 or pixels.dtype == np.uint8:
        return pixels
    return np.floor(pixels / 257.0 + 0.5).astype(np.uint8)


def canvas(person):
    """The picture's canvas as it stands on the screen: [rows, columns, 3]."""
    size, data = person.page.evaluate(
        """() => { const c = document.querySelector('.view canvas.picture');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let s = '';
        for (let i = 0; i < d.length; i += 32768) s += String.fromCharCode(...d.subarray(i, i + 32768));
        return [[c.height, c.width], btoa(s)]; }"""
    )
    import base64

    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(*size, 4)[..., :3]


def at_one_to_one(person, shape):
    """The part of the canvas where the picture stands, a pixel a pixel."""
    person.key("f", "g")
    drawn(person)
    whole = canvas(person)
    top = int(np.floor(whole.shape[0] / 2 - shape[0] / 2 + 0.5))
    left = int(np.floor(whole.shape[1] / 2 - shape[1] / 2 + 0.5))
    return whole[top : top + shape[0], left : left + shape[1]]


def drawn(person):
    """Two frames later all that was asked for is drawn."""
    person.page.evaluate("() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")


def open_case(person, name):
    person.open_read(person.names.index(name), "mark")


# the others differ in what the server makes of a file, which its own tests hold
ON_THE_CANVAS = ("window", "monochrome1", "lut", "sixteen", "colour", "one pixel", "one row")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ON_THE_CANVAS else pytest.mark.slow)
        for name in (*CASES, "eight", "sixteen", "colour", "one pixel", "constant", "one row")
    ],
)
def test_the_canvas_equals_the_picture_as_it_was_read_also_after_reset(shown, name):
    open_case(shown, name)
    grey = expected_grey(shown.files[name])
    wanted = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, 2)
    assert np.abs(at_one_to_one(shown, grey.shape[:2]).astype(int) - wanted).max() == 0
    rng = np.random.default_rng(1)
    actions = ["i", "Alt+ArrowUp", "Alt+ArrowDown", "Alt+ArrowLeft", "Alt+ArrowRight", "Shift+2", "Shift+3", "Shift+4"]
    actions += ["Control+ArrowUp", "Control+ArrowDown", "Shift+r", "ArrowLeft", "ArrowDown", "g", "f"]
    for _ in range(100 if name in ("monochrome1", "lut") else 12):
        shown.key(actions[rng.integers(len(actions))])
    shown.key("0")
    assert np.abs(at_one_to_one(shown, grey.shape[:2]).astype(int) - wanted).max() == 0
    assert shown.faults == []


@pytest.mark.parametrize(
    "name",
    ["monochrome1", "sigmoid", *(pytest.param(n, marks=pytest.mark.slow) for n in ("window", "slope", "padding"))],
)
def test_a_typed_window_is_the_formula_of_the_standard(shown, name):
    open_case(shown, name)
    page = shown.page
    until(lambda: page.locator(".strip select option").count() > 4, "the windows of the file")
    page.get_by_label("Centre of the window").fill("1234.5")
    page.get_by_label("Centre of the window").press("Tab")
    page.get_by_label("Width of the window").fill("777")
    page.get_by_label("Width of the window").press("Tab")
    page.locator(".view").first.focus()
    data = pydicom.dcmread(shown.files[name])
    stored = np.frombuffer(data.PixelData, np.uint16).reshape(SHAPE)
    values = stored * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    if name == "sigmoid":
        part = 1.0 / (1.0 + np.exp(-4.0 * (values - 1234.5) / 777.0))
    else:
        part = np.clip((values - (1234.5 - 0.5)) / (777.0 - 1.0) + 0.5, 0.0, 1.0)
    part = 1.0 - part if name == "monochrome1" else part
    if name == "padding":
        part[stored == 0] = 0.0
    grey = np.floor(np.rint(part * 65535.0) / 257.0 + 0.5).astype(int)
    assert np.abs(at_one_to_one(shown, SHAPE).astype(int)[..., 0] - grey).max() == 0


def test_the_files_windows_stand_by_name(shown):
    open_case(shown, "several")
    page = shown.page
    until(lambda: "HARD" in page.locator(".strip select").first.inner_text(), "the second window")
    page.locator(".strip select").first.select_option(label="HARD")
    until(lambda: page.get_by_label("Centre of the window").input_value() == "3000", "its centre")
    assert page.get_by_label("Width of the window").input_value() == "700"


def test_the_number_under_the_cursor_is_the_files(shown):
    open_case(shown, "slope")
    shown.key("f", "g")
    until(lambda: shown.page.locator(".strip select option").count() > 4, "the stored numbers")
    box = shown.view()
    left, top = round(box["width"] / 2 - SHAPE[1] / 2), round(box["height"] / 2 - SHAPE[0] / 2)
    shown.page.mouse.move(box["x"] + left + 100.5, box["y"] + top + 50.5)
    stored = np.frombuffer(pydicom.dcmread(shown.files["slope"]).PixelData, np.uint16).reshape(SHAPE)
    text = until(lambda: shown.page.locator(".corner.sw").inner_text(), "the number")
    near = {int(stored[50 + a, 100 + b]) * 2 - 1000 for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert int(text.split("  ")[-1]) in near and "row" in text


def test_turning_is_for_the_eye_only(shown):
    row = shown.open_read(shown.names.index("eight"), "mark")
    shown.key("x")
    shown.drag([(0.4, 0.4), (0.5, 0.45)])
    shown.saved()
    before = shown.marks(row["read"])
    shown.key("Shift+r", "Shift+r", "Shift+r")
    shown.drag([(0.4, 0.4), (0.5, 0.45)])
    shown.saved()
    after = shown.marks(row["read"])
    assert after[0] == before[0] and len(after) == 2
    tall = [mark["stop"][0] - mark["start"][0] for mark in after]
    wide = [mark["stop"][1] - mark["start"][1] for mark in after]
    assert wide[0] > tall[0] and wide[1] < tall[1]


# left, top, right and bottom of what is drawn on a canvas, in CSS pixels of the frame: ink, or what is not black
DRAWN = """([name, channel]) => { const c = document.querySelector(`.view canvas.${name}`);
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, x = [], y = [];
    for (let i = 0; i < c.width * c.height; i += 1)
      if (d[4 * i + channel] > 100) { x.push(i % c.width); y.push(Math.floor(i / c.width)); }
    const ends = (v) => [v.reduce((a, b) => Math.min(a, b), 1e9), v.reduce((a, b) => Math.max(a, b), 0) + 1];
    return [ends(x)[0], ends(y)[0], ends(x)[1], ends(y)[1]]; }"""


def extent(person, name):
    drawn(person)
    left, top, right, bottom = person.page.evaluate(DRAWN, [name, 3 if name == "ink" else 0])
    return np.array([left, top, right, bottom])


def test_pixels_that_are_no_squares_have_their_shape_and_marks_lie_under_the_pointer(shown):
    row = shown.open_read(shown.names.index("tall"), "mark")
    left, top, right, bottom = extent(shown, "picture")
    assert (bottom - top) / (right - left) == pytest.approx(2 * 100 / 160, abs=0.01)
    zoom, view = (right - left) / 160, shown.view()

    def at(r, c):
        return view["x"] + left + c * zoom, view["y"] + top + r * zoom * 2

    def drag(*places):
        shown.page.mouse.move(*at(*places[0]))
        shown.page.mouse.down()
        shown.page.mouse.move(*at(*places[1]), steps=3)
        shown.page.mouse.up()

    shown.key("x")
    drag((20, 30), (60, 120))
    shown.key("v")
    # 9 pixels of the screen are within reach of a line, also above it
    row_px = 1 / (2 * zoom)
    shown.page.mouse.click(*at(20 - 13 * row_px, 75))
    assert shown.page.locator(".marks li.selected").count() == 0
    shown.page.mouse.click(*at(20 - 6 * row_px, 75))
    assert shown.page.locator(".marks li.selected").count() == 1
    shown.key("Delete", "u")
    drag((30, 80), (70, 80))
    assert float(shown.toast().split()[0]) == pytest.approx(80, abs=2 / zoom)
    # the brush paints what its rim shows: round in pixels of the source
    shown.key("m")
    shown.page.mouse.move(*at(50, 80))
    rim = extent(shown, "ink")
    drag((50, 80), (50, 80))
    shown.key("v")
    mask = extent(shown, "ink")
    assert rim == pytest.approx(mask, abs=2 * zoom)
    assert (mask[3] - mask[1]) / (mask[2] - mask[0]) == pytest.approx(2, abs=0.1)
    shown.key("Delete", "b")
    drag((50, 40), (50, 100))
    shown.key("v")
    line = extent(shown, "ink")
    shown.saved()
    box, mask, scribble = (op["body"]["mark"] for op in shown.ops(row["read"]) if op["kind"] == "add")
    assert np.array(box["start"] + box["stop"]) == pytest.approx(np.array([20, 30, 60, 120]), abs=1 / zoom)
    assert np.diff([line[1], line[3]])[0] == pytest.approx(scribble["stroke_px"] * 2 * zoom, abs=3)
    assert mask["size"] == [100, 160]


def test_other_screens_show_pixels_that_are_no_squares_too(shown):
    row = shown.open_read(shown.names.index("tall"), "mark")
    shown.key("y", "Enter")
    until(lambda: shown.api(f"/reads/{row['read']}")["state"] == "submitted", "submitted")
    shown.saved()
    shown.open(f"compare/{row['study']}")
    shown.page.locator(".screen.compare[data-settled]").wait_for(timeout=PATIENCE * 1000)
    left, top, right, bottom = extent(shown, "picture")
    assert (bottom - top) / (right - left) == pytest.approx(2 * 100 / 160, abs=0.01)
