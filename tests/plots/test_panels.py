"""Panels, charts and the report: right place, right size, same bytes, nothing from outside."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from sightline.errors import GeometryError, RunError
from sightline.plots.charts import ForestRow, draw_forest
from sightline.plots.contact_sheet import Overlay, draw_contact_sheet, draw_overlay
from sightline.plots.html_report import ReportPicture, ReportTable, Section, render_report, write_report
from sightline.plots.overlay import FOR, MOST_OPAQUE, blend_heat, blend_signed
from sightline.plots.panels import PanelCase, draw_comparison, draw_panel
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.resampling import upsample_map
from sightline.structures.tag import Tag


def decode(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    assert picture.info["Software"] == "sightline"
    return np.asarray(picture.convert("RGB")).astype(float)


def peak(field: np.ndarray) -> tuple[float, float]:
    """Centroid of the brightest pixels, in corner-origin (row, column)."""
    rows, columns = np.nonzero(field >= field.max() - 1e-9)
    return rows.mean() + 0.5, columns.mean() + 0.5


def hot(shape: tuple[int, int], cell: tuple[int, int], value: float = 1.0) -> np.ndarray:
    cells = np.zeros(shape)
    cells[cell] = value
    return cells


def make_case(
    k: int = 2, shape: tuple[int, int] = (40, 56), regions: tuple = (), label: str | None = "c1"
) -> PanelCase:
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(k, 5, 7))
    weight = np.exp(maps) / np.exp(maps).sum((1, 2), keepdims=True)
    logits = (weight * maps).sum((1, 2))
    return PanelCase(
        title="study <7> $5, view AP",
        pixels=rng.uniform(size=shape),
        frame=Frame.of_image(shape),
        regions=regions,
        classes=tuple(f"c{n}" for n in range(k)),
        maps=maps,
        attention=weight * maps,
        probabilities=np.exp(logits) / np.exp(logits).sum(),
        label=label,
    )


REGIONS = (
    Box((4.0, 6.0), (20.0, 30.0), Tag("focus")),
    Polygon((((5.0, 5.0), (9.0, 14.0), (15.0, 8.0)),), Tag("finding")),
    Scribble((((2.0, 3.0), (30.0, 40.0)),), 3.0, Tag("focus")),
    Mask(np.pad(np.ones((10, 12), dtype=bool), ((5, 25), (6, 38))), Tag("finding")),
)


# -- where things fall -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, cells", [((37, 53), (5, 7)), ((64, 64), (4, 4)), ((41, 90), (3, 9)), ((75, 33), (5, 3))]
)
def test_hot_cell_is_brightest_at_its_own_centre(shape, cells):
    for cell in np.ndindex(cells):
        enlarged = upsample_map(hot(cells, cell), shape)
        centre = [(i + 0.5) * n / m for i, n, m in zip(cell, shape, cells, strict=True)]
        if all(0 < i < m - 1 for i, m in zip(cell, cells, strict=True)):
            # inside, the enlarged cell is symmetric about its centre
            total = np.clip(enlarged, 0.5, None) - 0.5
            rows, columns = (np.arange(n) + 0.5 for n in shape)
            found = (total.sum(1) @ rows / total.sum(), total.sum(0) @ columns / total.sum())
            assert found == pytest.approx(centre, abs=0.35)
        row, column = np.unravel_index(enlarged.argmax(), shape)
        # at the rim the cubic stays flat out to the border: the brightest pixel still lies in the hot cell
        assert (int((row + 0.5) * cells[0] / shape[0]), int((column + 0.5) * cells[1] / shape[1])) == cell


def test_enlarge_agrees_with_a_slow_cubic():
    """Keys' kernel with a = -0.75, half-pixel centres and repeated borders, one pixel at a time."""

    def kernel(t: float, a: float = -0.75) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    cells = np.random.default_rng(0).normal(size=(3, 4))
    shape = (7, 10)
    expected = np.zeros(shape)
    for r, c in np.ndindex(shape):
        y, x = (r + 0.5) * 3 / 7 - 0.5, (c + 0.5) * 4 / 10 - 0.5
        for i in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                expected[r, c] += kernel(y - i) * kernel(x - j) * cells[np.clip(i, 0, 2), np.clip(j, 0, 3)]
    np.testing.assert_allclose(upsample_map(cells, shape), np.clip(expected, cells.min(), cells.max()), atol=1e-6)


def test_overshoot_is_not_drawn_as_evidence_against():
    enlarged = upsample_map(hot((5, 5), (2, 2)), (50, 50))
    assert enlarged.min() == 0.0
    blended = blend_signed(np.full((50, 50), 0.5, dtype=np.float32), hot((5, 5), (2, 2)), 1.0)
    assert (blended[..., 2] <= blended[..., 0] + 1e-6).all()  # nowhere blue


def test_attention_colours_by_sign_and_size():
    grey = np.full((30, 30), 0.5, dtype=np.float32)
    cells = np.zeros((3, 3))
    cells[0, 0], cells[2, 2] = 1.0, -1.0
    blended = blend_signed(grey, cells, 1.0)
    assert blended[0, 0, 0] > blended[0, 0, 2] + 0.3  # yellow: red and green without blue
    assert blended[-1, -1, 2] > blended[-1, -1, 0] + 0.3  # blue
    np.testing.assert_allclose(blended[15, 15], 0.85 * 0.5, atol=0.02)  # clear at zero
    half = blend_signed(grey, cells, 2.0)
    expected = (1 - MOST_OPAQUE / 2) * 0.85 * 0.5 + MOST_OPAQUE / 2 * np.array(FOR)
    np.testing.assert_allclose(half[0, 0], expected, atol=0.02)


def test_flat_maps_leave_the_picture_uncoloured():
    grey = np.random.default_rng(0).uniform(size=(20, 20)).astype(np.float32)
    for blended in (
        blend_heat(grey, np.full((4, 4), 7.3)),
        blend_heat(grey, np.zeros((4, 4))),
        blend_signed(grey, np.zeros((4, 4)), 0.0),
    ):
        assert np.isfinite(blended).all()
        np.testing.assert_allclose(blended, np.repeat(0.85 * grey[..., None], 3, axis=2), atol=1e-6)


def test_outline_surrounds_the_hot_cell_in_the_finished_png():
    """The region drawn through the frame and the map drawn over the grid agree to a pixel of the PNG."""
    cells, grid = (5, 9), (35, 81)
    frame = Frame.of_image((70, 162)).resize(grid)  # the network saw the source at half size
    cell = (3, 2)
    corner = [i * n / m for i, n, m in zip(cell, grid, cells, strict=True)]
    stop = [(i + 1) * n / m for i, n, m in zip(cell, grid, cells, strict=True)]
    region = Box(tuple(frame.map_points(corner)), tuple(frame.map_points(stop)), Tag("finding"))
    png = decode(draw_overlay(np.zeros(grid), hot(cells, cell), (region,), frame, "x"))
    without = decode(draw_overlay(np.zeros(grid), hot(cells, cell), (), frame, "x"))
    # the picture is 6.4 inches wide at 110 dots an inch, 0.15 inch from the top left corner
    height, width = round(6.4 * 110 * 35 / 81), round(6.4 * 110)
    picture = np.s_[17 : 15 + height, 17 : 15 + width]
    warmth = without[picture][..., 0]
    hot_row, hot_column = peak(np.where(warmth > 0.97 * warmth.max(), 1.0, 0.0))
    drawn = png[picture]
    green = (drawn[..., 1] > 200) & (drawn[..., 0] < 190) & (drawn[..., 2] < 120)
    rows, columns = np.nonzero(green)
    assert (rows.min() + rows.max()) / 2 + 0.5 == pytest.approx(hot_row, abs=1.5)
    assert (columns.min() + columns.max()) / 2 + 0.5 == pytest.approx(hot_column, abs=1.5)
    assert np.ptp(columns) == pytest.approx(width / 9, abs=3)


def test_mask_outline_lies_on_the_edge_of_the_mask():
    inside = np.zeros((50, 50), dtype=bool)
    inside[10:40, 20:45] = True
    same = Box((10.0, 20.0), (40.0, 45.0), Tag("finding"))
    frame = Frame.of_image((50, 50))
    args = (np.zeros((50, 50)), np.zeros((2, 2)))
    masked = decode(draw_overlay(*args, (Mask(inside, Tag("finding")),), frame, "x"))
    boxed = decode(draw_overlay(*args, (same,), frame, "x"))
    ends = []
    for image in (masked, boxed):
        rows, columns = np.nonzero((image[:700, :, 1] > 200) & (image[:700, :, 0] < 190) & (image[:700, :, 2] < 120))
        ends.append((rows.min(), rows.max(), columns.min(), columns.max()))
    # 14 dots a mask pixel: half a pixel off would be seven
    np.testing.assert_allclose(ends[0], ends[1], atol=1)


# -- whole pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_panel_has_a_column_for_each_class_up_to_six(k):
    case = make_case(k, regions=REGIONS, label="c0")
    image = decode(draw_panel(case))
    shown = min(k, 6)
    cell = np.clip(10.0 / (1 + shown), 1.6, 2.7)
    height = cell * 40 / 56
    expected = (2.40 + 2 * height, 0.15 + (1 + shown) * (cell + 0.12) + 0.32 + 1.25)
    assert image.shape[:2] == pytest.approx([n * 110 for n in expected], abs=1.5)
    assert image.std() > 20


def test_panel_is_deterministic_and_depends_on_the_attention():
    assert draw_panel(make_case()) == draw_panel(make_case())
    case = make_case()
    other = PanelCase(**{**case.__dict__, "attention": -case.attention})
    assert draw_panel(case) != draw_panel(other)


def test_panel_of_zero_maps_and_without_a_label():
    case = make_case(label=None)
    flat = PanelCase(**{**case.__dict__, "maps": np.zeros((2, 5, 7)), "attention": np.zeros((2, 5, 7))})
    assert decode(draw_panel(flat)).std() > 5


def test_verdict_says_right_and_wrong():
    case = make_case()
    right = case.classes[case.predicted]
    wrong = case.classes[1 - case.predicted]
    assert PanelCase(**{**case.__dict__, "label": right}).verdict().endswith(f"truth is {right}: correct")
    assert PanelCase(**{**case.__dict__, "label": wrong}).verdict().endswith(f"truth is {wrong}: wrong")
    assert "truth" not in make_case(label=None).verdict()


def test_colour_pictures_are_drawn():
    case = make_case()
    colour = PanelCase(**{**case.__dict__, "pixels": np.repeat(case.pixels[..., None], 3, axis=2)})
    assert decode(draw_panel(colour)).shape == decode(draw_panel(case)).shape


@pytest.mark.parametrize(
    "change",
    [
        {"maps": np.full((2, 5, 7), np.nan)},
        {"attention": np.full((2, 5, 7), np.inf)},
        {"maps": np.zeros((0, 5, 7))},
        {"maps": np.zeros((3, 5, 7))},
        {"maps": np.zeros((5, 7))},
        {"probabilities": np.array([0.5, np.nan])},
        {"probabilities": np.array([1.0])},
        {"pixels": np.full((40, 56), np.nan)},
        {"pixels": np.full((40, 56), 255.0)},
        {"pixels": np.zeros((40, 55))},
        {"pixels": np.zeros((40, 56, 4))},
        {"label": "elsewhere"},
    ],
)
def test_cases_that_do_not_fit_are_refused(change):
    with pytest.raises(GeometryError):
        PanelCase(**{**make_case().__dict__, **change})


def test_overlay_refuses_what_cannot_be_drawn():
    frame = Frame.of_image((10, 12))
    with pytest.raises(GeometryError, match="not finite"):
        draw_overlay(np.zeros((10, 12)), np.full((2, 2), np.nan), (), frame, "x")
    with pytest.raises(GeometryError):
        draw_overlay(np.zeros((10, 12)), np.zeros((0, 2)), (), frame, "x")
    with pytest.raises(GeometryError):
        draw_overlay(np.zeros((12, 10)), np.zeros((2, 2)), (), frame, "x")


def test_overlay_keeps_the_aspect_of_long_and_wide_pictures():
    for shape in ((300, 40), (40, 300)):
        image = decode(draw_overlay(np.ones(shape) * 0.5, np.zeros((3, 3)), (), Frame.of_image(shape), "caption"))
        grey = np.abs(image - 255 * 0.5 * 0.85).max(axis=2) < 2
        # lines that are mostly picture, not the rims of letters
        rows, columns = (np.nonzero(grey.sum(axis) > 0.5 * grey.sum(axis).max())[0] for axis in (1, 0))
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(shape[0] / shape[1], rel=0.05)


# between two classes and more than are shown lies four
@pytest.mark.parametrize("k, lines", [(2, 4), pytest.param(4, 4, marks=pytest.mark.slow), (7, 4)])
def test_comparison_has_a_column_for_each_method(k, lines):
    case = make_case(k, regions=REGIONS)
    two = decode(draw_comparison([case, case], ["unguided", "guided"]))
    three = decode(draw_comparison([case, case, case], ["unguided", "guided", "again"]))
    assert three.shape[1] > two.shape[1]
    assert two.shape[0] == pytest.approx(110 * (1.38 + lines * (2.4 * 40 / 56 + 0.32) + 0.46), abs=1.5)


def test_long_names_of_methods_stand_in_two_lines():
    case = make_case(regions=REGIONS)
    long = decode(draw_comparison([case, case], ["cell focal, all boxes, longer", "guided"]))
    cut = decode(draw_comparison([case, case], ["cell focal, all boxes,", "guided"]))
    assert long.shape == cut.shape
    # the line above the first of the names is taken where a name needs it, and by the column that needs it
    above = slice(int(110 * 0.62), int(110 * 0.74))
    inked = np.flatnonzero((long[above] < 128).any(axis=(0, 2)))
    half = long.shape[1] // 2
    assert len(inked) and inked.max() < half + 110
    assert not (cut[above][:, half + 110 :] < 128).any()


def test_comparison_refuses_different_pictures():
    with pytest.raises(GeometryError, match="guided"):
        draw_comparison([make_case(), make_case(shape=(40, 50))], ["unguided", "guided"])
    with pytest.raises(GeometryError):
        draw_comparison([make_case()], [])


def test_contact_sheet_counts_rows_and_columns():
    case = make_case(regions=REGIONS)
    item = Overlay(case.pixels, case.maps[0], case.regions, case.frame, "one\ntwo\nthree\nfour words too many")
    image = decode(draw_contact_sheet([item] * 7, columns=3))
    assert image.shape[:2] == pytest.approx([110 * (0.14 + 3 * 2.62 + 0.5), 110 * (0.14 + 3 * 2.14)], abs=1.5)
    with pytest.raises(GeometryError):
        draw_contact_sheet([])


# -- the report --------------------------------------------------------------------------------------------------------

NASTY = "<script>alert(1)</script> & \"quotes\" 'too'"


class Page(HTMLParser):
    """Collects tags, checks nesting, keeps the text."""

    VOID = frozenset({"meta", "img", "link", "br", "source"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def make_report() -> dict:
    picture = draw_forest([ForestRow("r", 0.05, 0.01, 0.09)])
    table = ReportTable(
        NASTY, ("row", "measured", "Liao 2022"), ((NASTY, "76.1 ± 0.9", "76.4 ± 0.9"), ("b", "1", "2")),
        published=("Liao 2022",), strong=((0, 1),), notes=(NASTY,),
    )  # fmt: skip
    sections = (Section(NASTY, (NASTY,), (table,), (ReportPicture(picture, NASTY, NASTY, picture),)), Section("Second"))
    provenance = {"command": "sightline table x", NASTY: NASTY}
    return {"title": NASTY, "summary": (NASTY, "plain"), "sections": sections, "provenance": provenance}


def test_small_print_of_wider_pictures_keeps_its_size_on_a_phone():
    """A case panel of 1,560 px was shown as wide as one of 900 px, its words half as large."""

    def breadth(pixels):
        png = io.BytesIO()
        Image.new("L", (pixels, 40)).save(png, "PNG")
        pictures = (ReportPicture(png.getvalue(), "c", "a"),)
        page = render_report(title="t", summary=("s",), sections=(Section("x", pictures=pictures),), provenance={})
        return re.search(r'<img class="(\w+)"', page).group(1)

    assert [breadth(n) for n in (600, 1000, 1560)] == ["narrow", "wide", "wider"]
    style = resources.files("sightline.plots").joinpath("report_style.css").read_text()
    widths = {name: int(rem) for name, rem in re.findall(r"figure img\.(wide|wider) { width: (\d+)rem", style)}
    assert widths["wider"] > 1.3 * widths["wide"]


def test_report_nests_escapes_and_loads_nothing():
    text = render_report(**make_report())
    page = Page(text)
    assert page.open == []
    markup = re.sub(r"data:image/(png|webp);base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|//\w|url\(|@import", markup)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "form"} & set(names)
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert re.match(r"data:image/(png|webp);base64,", attributes["src"])
            assert attributes["alt"] == NASTY
        if tag == "source":
            assert (
                re.match(r"data:image/(png|webp);base64,", attributes["srcset"]) and "max-width" in attributes["media"]
            )
        if tag == "a":
            assert attributes["href"].startswith("#")
    assert names.count("source") == names.count("picture") == names.count("img") == 1
    # title 2, summary, contents, section 2, table 3 (caption, row, note), picture, provenance 2: all of them as text
    assert "".join(page.words).count(NASTY) == 2 + 1 + 1 + 2 + 3 + 1 + 2


def test_a_folded_table_keeps_its_caption_and_opens():
    folded = ReportTable("kept words", ("a",), (("1",),), notes=("n",), folded=True)
    page = Page(render_report(title="t", summary="s", sections=(Section("x", tables=(folded,)),), provenance={}))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("details") == 1 and "kept words" in page.words and page.open == []


def test_the_first_sentence_and_the_first_section_stand_before_the_explanations():
    text = render_report(**make_report())
    assert text.index('class="answer"') < text.index('id="section-1"') < text.index("How to read this")


def test_report_contents_lead_to_every_section():
    page = Page(render_report(**make_report()))
    targets = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert targets == sections == ["section-1", "section-2", "section-3"]


def test_report_names_the_published_column():
    page = Page(render_report(**make_report()))
    published = [tag for tag, a in page.tags if "published" in a.get("class", "").split()]
    assert published == ["th", "td", "td"]
    assert "printed in the paper, not measured here" in page.words


def test_report_is_one_file_with_the_same_bytes_twice(tmp_path):
    paths = [tmp_path / "new" / "report.html", tmp_path / "again.html"]
    for path in paths:
        write_report(path, **make_report())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [p.name for p in paths[0].parent.iterdir()] == ["report.html"]


def test_report_refuses_bad_pictures_tables_and_folders(tmp_path):
    bad = Section("s", pictures=(ReportPicture(b"GIF89a", "c", "a"),))
    with pytest.raises(RunError, match="PNG"):
        write_report(tmp_path / "r.html", title="t", summary="s", sections=(bad,), provenance={})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="row 1"):
        ReportTable("t", ("a", "b"), (("1",),))
    with pytest.raises(RunError, match="Liao"):
        ReportTable("t", ("a",), (("1",),), published=("Liao",))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="t", summary="s", sections=(), provenance={})


def test_style_is_packaged_with_the_room():
    style = resources.files("sightline.plots").joinpath("report_style.css").read_text(encoding="utf-8")
    assert "@media print" in style and "http" not in style


def test_photographs_are_small_on_the_page_and_drawings_exact():
    from sightline.plots.html_report import _encode_smallest

    rng = np.random.default_rng(0)
    bones = 128 + 80 * np.sin(np.arange(256) / 30)[:, None] * np.cos(np.arange(256) / 40)
    rough = Image.fromarray((bones + rng.normal(0, 3, (256, 256))).clip(0, 255).astype(np.uint8))
    flat = Image.new("RGB", (256, 256), "white")
    for image, mime in ((rough, "webp"), (flat, "png")):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        found, content = _encode_smallest(image, buffer.getvalue())
        assert found == mime and (mime == "png") == (content == buffer.getvalue())
        with Image.open(io.BytesIO(content)) as shown:
            apart = np.abs(np.asarray(shown.convert("L"), dtype=float) - np.asarray(image.convert("L"), dtype=float))
        assert apart.mean() < 6.0
