"""A tracker's own csv: column maps, what was shown where, and recordings that cannot be what they say."""

import csv
import dataclasses
import json
import math
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from sightline import cli
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.datasets.gaze import eye_tracker as tracker
from sightline.data.datasets.gaze.fixations import Viewing
from sightline.data.datasets.gaze.recordings import (
    TRACKERS,
    TrackerColumns,
    compute_time_until_next,
    read_column_map,
    read_recording,
)
from sightline.errors import LayoutError, SightlineError
from sightline.structures.gaze import Gaze

SCREEN = (1080, 1920)
SHAPE = (100, 80)
# the picture stands in the middle of the screen, as high as it: 10.8 screen pixels a source pixel
SHOWN = {"x0": 528, "y0": 0, "x1": 1392, "y1": 1080}


def write_rows(path, rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=separator, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def looks(seed=0, seconds=4.0, rate_hz=60.0):
    """Places on the picture, (row, column) in source pixels, held for half a second each; times in seconds."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    aims = rng.uniform((8, 8), (92, 72), (n, 2))[np.arange(n) // round(rate_hz / 2) * round(rate_hz / 2)]
    return aims + rng.normal(0, 0.2, (n, 2)), np.arange(n) / rate_hz


def on_screen(places):
    return places * 10.8 + [SHOWN["y0"], SHOWN["x0"]]


def plain_rows(places, time, scale=1.0):
    return [
        {"time": f"{t * scale:.9f}", "x": f"{c:.6f}", "y": f"{r:.6f}"}
        for (r, c), t in zip(on_screen(places), time, strict=True)
    ]


def write_tree(root, rows=None, head=None, shown=None, pictures=None, separator=","):
    rows = plain_rows(*looks()) if rows is None else rows
    write_rows(root / "r" / "one.csv", rows, separator)
    for name in ("a", "b"):
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(root / "images" / f"{name}.png")
    (root / "tracker.json").write_text(json.dumps({"screen_px": list(SCREEN), **(head or {})}))
    write_rows(root / "pictures.csv", pictures or [{"image_id": "a", "path": "images/a.png", "label": "sick"}])
    write_rows(root / "shown.csv", shown or [{"recording": "r/one.csv", "reader": "r1", "image_id": "a", **SHOWN}])
    return root


def only_gaze(cohort, case=0):
    (gaze,) = [r for r in cohort[case].regions if isinstance(r, Gaze)]
    return gaze


def test_a_plain_table_becomes_places_on_the_picture(tmp_path):
    places, time = looks()
    cohort = tracker.read(write_tree(tmp_path / "set"))
    gaze = only_gaze(cohort)
    assert np.allclose(gaze.places, places, atol=1e-6)
    assert np.allclose(gaze.start_s, time)
    assert np.allclose(gaze.dwell_s, 1 / 60, atol=1e-6)
    assert gaze.tag.reader == "r1" and gaze.kind == "samples" and gaze.px_per_deg is None
    assert cohort.about["counts"].startswith("recordings 1, showings 1, eyes not found 0, off picture 0, kept 240")


def gazepoint(places, time):
    rows = []
    for i, ((r, c), t) in enumerate(zip(on_screen(places) / SCREEN, time, strict=True)):
        rows.append({"MEDIA_ID": 0, "TIME(2026/01/01 10:00:00.000)": f"{t:.5f}", "BPOGX": c, "BPOGY": r, "BPOGV": 1})
        if i in (3, 4):
            rows[-1] |= {"BPOGX": 0.0, "BPOGY": 0.0, "BPOGV": 0}
    return rows


def tobii(places, time):
    rows = []
    for i, ((r, c), t) in enumerate(zip(on_screen(places), time, strict=True)):
        place = {"Gaze point X [DACS px]": f"{c:.6f}", "Gaze point Y [DACS px]": f"{r:.6f}"}
        if i in (3, 4):
            place = dict.fromkeys(place, "")
        rows.append({"Recording timestamp [μs]": round(t * 1e6), "Sensor": "Eye Tracker", **place})
        if i % 10 == 0:
            rows.append({"Recording timestamp [μs]": round(t * 1e6) + 5, "Sensor": "Mouse"})
    return rows


def pupil(places, time):
    rows = []
    for i, ((r, c), t) in enumerate(zip(on_screen(places) / SCREEN, time, strict=True)):
        place = {"x_norm": c, "y_norm": 1.0 - r, "on_surf": True, "confidence": 0.2 if i in (3, 4) else 0.9}
        rows.append({"world_timestamp": t, "gaze_timestamp": 1000.0 + t, **place})
    return rows


@pytest.mark.parametrize(("word", "rows"), [("gazepoint", gazepoint), ("tobii", tobii), ("pupil", pupil)])
def test_what_trackers_export(tmp_path, word, rows):
    places, time = looks()
    separator = TRACKERS[word].separator
    tree = write_tree(tmp_path / "set", rows(places, time), {"tracker": word}, separator=separator)
    gaze = only_gaze(tracker.read(tree))
    keep = np.ones(len(places), bool)
    keep[3:5] = False
    assert np.allclose(gaze.places, places[keep], atol=1e-4)
    assert np.allclose(gaze.start_s - gaze.start_s[0], time[keep], atol=1e-5)


def test_a_table_of_fixations(tmp_path):
    places, _ = looks()
    rows = [
        {"FPOGX": c, "FPOGY": r, "FPOGS": 0.4 * n, "FPOGD": 0.3, "FPOGV": 1}
        for n, (r, c) in enumerate(on_screen(places[::30]) / SCREEN)
    ]
    tree = write_tree(tmp_path / "set", rows, {"tracker": "gazepoint_fixations"})
    gaze = only_gaze(tracker.read(tree, tracker.Options(gaze="fixations")))
    assert gaze.kind == "fixations" and np.allclose(gaze.dwell_s, 0.3)
    with pytest.raises(LayoutError, match="holds fixations"):
        tracker.read(tree)


def test_zoom_and_pan_and_two_pictures(tmp_path):
    """a for two seconds, then its lower right quarter as large as a was, then b."""
    places, time = looks(seconds=6.0)
    corner = places / 2 + np.array(SHAPE) / 2
    zoomed = (time >= 2.0) & (time < 4.0)
    quarter = {"image_x0": 40, "image_y0": 50, "image_x1": 80, "image_y1": 100}
    base = {"recording": "r/one.csv", "reader": "r1"}
    shown = [
        {**base, "image_id": "a", "start": 0, "stop": 2, **SHOWN},
        {**base, "image_id": "a", "start": 2, "stop": 4, **SHOWN, **quarter},
        {**base, "image_id": "b", "start": 4, **SHOWN},
    ]
    pictures = [{"image_id": n, "path": f"images/{n}.png", "label": n} for n in ("a", "b")]
    head = {"screen_width_mm": 531, "distance_mm": 650}
    tree = write_tree(
        tmp_path / "set", plain_rows(places, time), head, shown, [p | {"split": "train"} for p in pictures]
    )
    cohort = tracker.read(tree)
    true = np.where(zoomed[:, None], corner, places)
    assert np.allclose(only_gaze(cohort).places, true[time < 4.0], atol=1e-6)
    assert np.allclose(only_gaze(cohort, 1).places, places[time >= 4.0], atol=1e-6)
    assert only_gaze(cohort, 1).start_s[0] == pytest.approx(0.0)
    whole = Viewing(SCREEN, 531.0, 650.0).screen_px_per_deg / 10.8
    assert only_gaze(cohort, 1).px_per_deg == pytest.approx(whole)
    assert only_gaze(cohort).px_per_deg == pytest.approx(0.75 * whole)


def test_a_degree_on_the_screen():
    slowly = 1920 / 531.0 * 650.0 * (math.tan(math.radians(0.5)) - math.tan(math.radians(-0.5)))
    assert Viewing(SCREEN, 531.0, 650.0).screen_px_per_deg == pytest.approx(slowly)


def test_fixations_are_found_on_import(tmp_path):
    places, _ = looks()
    head = {"screen_width_mm": 531, "distance_mm": 650, "fixations": {"by": "dispersion", "least_s": 0.2}}
    found = only_gaze(tracker.read(write_tree(tmp_path / "set", head=head), tracker.Options(gaze="fixations")))
    centres = places.reshape(8, 30, 2).mean(axis=1)
    assert found.kind == "fixations" and np.allclose(found.places, centres, atol=0.5)
    with pytest.raises(LayoutError, match="pixels a degree"):
        tracker.read(write_tree(tmp_path / "other"), tracker.Options(gaze="fixations"))
    head = {"fixations": {"by": "velocity", "velocity_px_per_s": 60}}
    assert len(only_gaze(tracker.read(write_tree(tmp_path / "px", head=head), tracker.Options(gaze="fixations")))) >= 6


def test_written_and_read_back(tmp_path):
    cohort = tracker.read(write_tree(tmp_path / "set"))
    write_cohort(cohort, tmp_path / "out")
    assert only_gaze(read_cohort(tmp_path / "out")) == only_gaze(cohort)


def exchanged(rows):
    return [row | {"x": row["y"], "y": row["x"]} for row in rows]


def as_shares(rows):
    return [row | {"x": float(row["x"]) / 1920, "y": float(row["y"]) / 1080} for row in rows]


@pytest.mark.parametrize(
    ("rows", "head", "match"),
    [
        (exchanged(plain_rows(*looks())), {}, "with x and y exchanged"),
        (exchanged(as_shares(plain_rows(*looks()))), {"columns": {"place_unit": "share"}}, "with x and y exchanged"),
        (plain_rows(*looks()), {"columns": {"time_unit": "ms"}}, r"6e\+04 Hz.*s would be 60 Hz"),
        (plain_rows(*looks(), scale=1000), {}, r"0.06 Hz.*ms would be 60 Hz"),
        (plain_rows(*looks(), scale=1e6), {"columns": {"time_unit": "ms"}}, r"us would be 60 Hz"),
        (plain_rows(*looks()), {"columns": {"place_unit": "share"}}, "no shares"),
        (as_shares(plain_rows(*looks())), {}, "no pixels"),
        (plain_rows(*looks()), {"columns": {"time": "x"}}, "name one column|runs backwards"),
        (plain_rows(*looks()), {"columns": {"time": "y", "y": "time"}}, "runs backwards"),
        (plain_rows(*looks()), {"screen_px": [400, 600]}, "of the gaze lies on the screen"),
        ([row | {"x": ""} for row in plain_rows(*looks())], {}, "none of 240 rows"),
        ([row | {"time": ""} for row in plain_rows(*looks())], {}, "is empty"),
        ([row | {"time": "1"} for row in plain_rows(*looks())], {}, "stands still"),
        ([*plain_rows(*looks())[:9], {"time": 9, "x": "right", "y": 2}], {}, "row 11, column 'x' is 'right'"),
        (plain_rows(*looks()), {"columns": {"x": "GX"}}, "no column 'GX'"),
        (plain_rows(*looks()), {"columns": {"colour": "x"}}, "unknown field 'colour'"),
        (plain_rows(*looks()), {"columns": {"time_unit": "h"}}, "'time_unit' is 'h'"),
        (plain_rows(*looks()), {"tracker": "eyelink"}, "expected one of plain"),
        (plain_rows(*looks()), {"fixations": {"by": "magic"}}, "velocity, dispersion"),
        (plain_rows(*looks()), {"fixations": "magic"}, "velocity, dispersion"),
        (plain_rows(*looks()), {"fixations": {"speed": 2}}, "unknown field 'speed'"),
        (plain_rows(*looks()), {"distance_mm": 600}, "both"),
        (plain_rows(*looks()), {"distance_mm": 60, "screen_width_mm": 531}, "Give millimetres"),
        (plain_rows(*looks()), {"screen_px": "1920x1080"}, r"\[rows, columns\]"),
        (plain_rows(*looks()), {"scrren": 1}, "must hold some of"),
    ],
)
def test_what_cannot_be_gaze_is_refused_with_the_reason(tmp_path, rows, head, match):
    with pytest.raises(SightlineError, match=match):
        tracker.read(write_tree(tmp_path / "set", rows, head))


@pytest.mark.parametrize(
    ("shown", "match"),
    [
        ([{"image_id": "z"}], "row 2, column 'image_id' is 'z'"),
        ([{"x1": 500}], "no rectangle"),
        ([{"x0": "", "y0": "", "x1": "", "y1": ""}], "are empty"),
        ([{"start": 3, "stop": 2}], "not after start"),
        ([{"start": 50, "stop": 60}], r"\(50 to 60 s\) meet no row of .* s\)"),
        ([{"stop": 3}, {"start": 2}], "row 3, column 'start' to stop overlaps row 2"),
        ([{"image_x0": 0, "image_y0": 0, "image_x1": 200, "image_y1": 10}], "outside the picture"),
        ([{"recording": "../one.csv"}], "leads out"),
        ([{"recording": "r/two.csv"}], "two.csv is missing"),
        ([{"x0": 0, "x1": 100, "y1": 80}], "of the gaze lies on the place of 'a'"),
    ],
)
def test_showings_that_cannot_be(tmp_path, shown, match):
    base = {"recording": "r/one.csv", "reader": "r1", "image_id": "a", **SHOWN}
    with pytest.raises(SightlineError, match=match):
        tracker.read(write_tree(tmp_path / "set", shown=[base | row for row in shown]))


@pytest.mark.parametrize(
    ("pictures", "match"),
    [
        ([{"image_id": "a", "path": "images/z.png", "label": "x"}], "row 2, column 'path'"),
        ([{"image_id": "a", "path": "images/a.png", "label": "x", "split": "dev"}], "split"),
        ([{"image_id": "a", "path": "images/a.png", "label": ""}], "column 'label' is empty"),
    ],
)
def test_pictures_that_cannot_be(tmp_path, pictures, match):
    with pytest.raises(LayoutError, match=match):
        tracker.read(write_tree(tmp_path / "set", pictures=pictures))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_separates_cells_is_found_or_asked_for(tmp_path, separator):
    path, rows = tmp_path / "one.csv", plain_rows(*looks())
    write_rows(path, rows, ",")
    plain = read_recording(path, TrackerColumns(), SCREEN)
    write_rows(path, rows, separator)
    assert np.array_equal(read_recording(path, TrackerColumns(), SCREEN).places, plain.places)
    with pytest.raises(LayoutError) as refusal:
        read_recording(path, TRACKERS["gazepoint"], SCREEN)
    assert "has no column 'TIME'" in refusal.value.message and "`separator`" in refusal.value.remedy


def test_decimal_commas(tmp_path):
    rows = [{k: v.replace(".", ",") for k, v in row.items()} for row in plain_rows(*looks())]
    path = tmp_path / "one.csv"
    write_rows(path, rows, ";")
    recording = read_recording(path, TrackerColumns(separator=";", decimal=","), SCREEN)
    assert np.allclose(recording.places, on_screen(looks()[0]), atol=1e-5)


def test_a_gap_counts_for_nobody():
    assert compute_time_until_next(np.array([0.0, 0.1, 0.2, 1.2, 1.3])).tolist() == pytest.approx([0.1] * 5)
    assert compute_time_until_next(np.array([5.0])).tolist() == [1.0 / 60.0]


def test_a_map_takes_the_place_of_fields(tmp_path):
    columns = read_column_map({"tracker": "gazepoint", "columns": {"x": "FPOGX", "valid": ["1", "2"]}}, tmp_path)
    assert (columns.x, columns.y, columns.valid) == ("FPOGX", "BPOGY", ("1", "2"))


def test_the_page_on_gaze_works_as_written(tmp_path, monkeypatch):
    """The tables it shows are imported, its column maps are the program's, its snippet runs."""
    text = (ROOT / "docs" / "gaze.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    head = next(body for kind, body in blocks if kind == "json" and "tracker" in body)
    pictures, shown = (body for kind, body in blocks if kind == "csv")
    rows = [
        {k.replace("BPOG", "FPOG"): v for k, v in row.items()} | {"BPOGX": 0, "BPOGY": 0, "BPOGV": 0}
        for row in gazepoint(*looks(seconds=6.0))
    ]
    tree = write_tree(tmp_path / "SRC", rows)
    for name, body in (("tracker.json", head), ("pictures.csv", pictures), ("shown.csv", shown)):
        (tree / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(re.search(r"sightline (cohort import tracker .*)", text).group(1)))
    assert ended.value.code == 0
    names = {}
    exec(next(body for kind, body in blocks if kind == "python"), names)
    assert names["density"].shape == (48, 40) and names["first_seconds"].max() == 1.0
    assert names["gaze"].kind == "fixations" and len(names["gaze"]) >= 6
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \| .* \|$", text, re.MULTILINE)[1:] == list(TRACKERS)
    for field in dataclasses.fields(TrackerColumns):
        assert f"`{field.name}`" in text


def test_rows_that_end_in_a_comma_shift_no_column(tmp_path):
    places, time = looks()
    write_rows(tmp_path / "plain.csv", plain_rows(places, time))
    lines = (tmp_path / "plain.csv").read_text().splitlines()
    (tmp_path / "comma.csv").write_text("\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    plain, comma = (read_recording(tmp_path / f"{n}.csv", TrackerColumns(), SCREEN) for n in ("plain", "comma"))
    assert np.array_equal(plain.places, comma.places)
    (tmp_path / "more.csv").write_text("\n".join([lines[0], f"{lines[1]},7", *lines[2:]]))
    with pytest.raises(LayoutError, match="row 2 has 4 cells"):
        read_recording(tmp_path / "more.csv", TrackerColumns(), SCREEN)


def test_columns_of_what_was_shown_are_known_in_any_case(tmp_path):
    """`Start` that is passed over would give a picture all gaze of the recording, `Image X0` that of all of it."""
    row = {"recording": "r/one.csv", "image_id": "a", **SHOWN, "reader": "anna", "start": 1, "stop": 2}
    row |= {"image_x0": 0, "image_y0": 0, "image_x1": 40, "image_y1": 50}
    plain = only_gaze(tracker.read(write_tree(tmp_path / "plain", shown=[row])))
    titled = [{name.replace("_", " ").title(): value for name, value in row.items()}]
    gaze = only_gaze(tracker.read(write_tree(tmp_path / "titled", shown=titled)))
    assert gaze == plain
    assert (gaze.tag.reader, len(gaze)) == ("anna", 60)
