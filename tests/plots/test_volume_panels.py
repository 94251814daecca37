"""Evaluation, panels, tables, model cards and audits of volumes."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.volumes import IPL, SIDE, SIZE, WORDS, TinyVolumeNet, tiny_spines, tiny_volume_recipe

from sightline.data.audit.audit import audit
from sightline.data.views.frames import find_case_frame
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RunError
from sightline.evaluation.evaluate import choose_boxes, evaluate
from sightline.evaluation.gallery import build_volume_panel, draw_contact_sheets, write_panels
from sightline.evaluation.report import compute_report, describe_omissions, write_report_of
from sightline.evaluation.scoring.maps import compute_spatial_softmax
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.inference.explanations import explain_cases, explain_files
from sightline.io.nifti import write_volume
from sightline.io.volume import Volume
from sightline.plots import canvas
from sightline.plots.planes import AXIAL, CORONAL, PLANES, SAGITTAL, build_cube, cut_plane, cut_regions, find_facing
from sightline.plots.volume_panels import VolumePanel, draw_volume_panel, find_peak, slice_panel
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Polygon
from sightline.structures.resampling import upsample_map
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.model_card import write_model_card
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def spines(tmp_path_factory):
    return tiny_spines(tmp_path_factory.mktemp("spines"))


@pytest.fixture(scope="module")
def runs(spines, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return {
        maps: train(tiny_volume_recipe(model=TinyVolumeNet(maps)), spines, place / str(maps), WORDS, QUIET)
        for maps in (True, False)
    }


@pytest.fixture(scope="module")
def evaluated(runs, spines):
    return {maps: evaluate(run, spines.split("test"), "test", engine=QUIET) for maps, run in runs.items()}


# -- which way is up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["IPL", "RAS", "PIR", "LPS", "SAR", "ALI"])
def test_a_cube_is_turned_so_that_the_head_is_up_and_the_patients_right_is_left(codes):
    # a volume whose numbers say how far to the feet (100), to the back (10) and to the left (1) a voxel lies
    place = {"I": (2, -1), "S": (2, 1), "A": (1, 1), "P": (1, -1), "R": (0, 1), "L": (0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        world, sign = place[code]
        affine[world, axis] = sign
    shape = (3, 4, 5)
    world = Volume(np.zeros(shape), affine).world_of(np.moveaxis(np.indices(shape), 0, -1) + 0.5)
    values = -100 * world[..., 2] - 10 * world[..., 1] - world[..., 0]
    facing = find_facing(affine)
    turned = facing.turn_array(values)
    assert (np.diff(turned, axis=0) == 100).all()
    assert (np.diff(turned, axis=1) == 10).all()
    assert (np.diff(turned, axis=2) == 1).all()
    assert np.array_equal(facing.turn_back(turned), values)
    # the frame goes with it: every voxel of the turned grid knows where it came from
    frame = facing.frame(Frame.of_image(shape))
    centres = np.moveaxis(np.indices(turned.shape), 0, -1) + 0.5
    origin = np.floor(frame.map_points(centres)).astype(int)
    assert np.array_equal(values[tuple(np.moveaxis(origin, -1, 0))], turned)


def test_a_tilted_patch_keeps_its_axes():
    tilt = np.deg2rad(50)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = IPL.copy()
    affine[:3, :3] = turn @ IPL[:3, :3]
    # by the nearest axes this one would be called something else
    assert find_facing(affine).axes == (0, 1, 2) and not any(find_facing(affine).flipped)


def test_planes_of_a_real_orientation_file(tmp_path):
    # PIR as VerSe's files are: a bright voxel to the feet, at the back, on the patient's left
    values = np.full((SIDE, SIDE, SIDE), -1000, dtype=np.int16)
    values[16, 15, 8] = 1000
    affine = np.array([[0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    path = tmp_path / "pir.nii"
    write_volume(path, values, affine)
    case = type("C", (), {"image": path})()
    cube = build_cube(case, VolumeView(size=SIZE, augment="none"))
    # the view shows 4..20 of each axis; axis 2 grows to the right and is flipped
    at = tuple(int(i) for i in np.unravel_index(cube.grey.argmax(), cube.grey.shape))
    assert at == (15 - 4, 16 - 4, SIZE - 1 - (8 - 4))
    for plane, (row, column) in ((SAGITTAL, at[:2]), (CORONAL, (at[0], at[2])), (AXIAL, at[1:])):
        picture = cut_plane(cube.grey, plane, at)
        assert picture[row, column] == picture.max() > 0.9 and (picture > 0.1).sum() == 1


def test_marks_of_a_slice_are_those_of_the_volume(spines):
    case = spines[1]
    cube = build_cube(case, VolumeView(size=SIZE, augment="none"))
    for plane in PLANES:
        through = (6, 5, 8)
        for mark in cut_regions(case.regions, cube.frame, plane, through, ("focus", "finding")):
            (region,) = [r for r in case.regions if r.tag == mark.tag]
            assert np.array_equal(mark.pixels(), cut_plane(region.draw(cube.frame), plane, through) > 0)
    assert cut_regions(case.regions, cube.frame, AXIAL, (0, 0, 0), ("focus",)) == ()


# -- evaluation ---------------------------------------------------------------------------------------------------


def test_maps_of_volumes_are_scored_in_three_axes(evaluated, spines, runs):
    evaluation = evaluated[True]
    scores = evaluation.scores_for("finding")
    test = spines.split("test")
    assert {row.case_id for row in scores.rows} == {c.case_id for c in test if c.label == "fractured"}
    view = runs[True].recipe.view
    for row in scores.rows:
        at = [c.case_id for c in test].index(row.case_id)
        case = test[at]
        # slowly: enlarge the softmax map, draw the mask, and look where the maximum is
        cells = compute_spatial_softmax(evaluation.maps.maps[at, 1])
        grown = upsample_map(cells, (SIZE,) * 3)
        inside = case.regions[1].draw(find_case_frame(case, view)) > 0
        assert inside.sum() == 4 * 4 * 8
        peak = grown == grown.max()
        assert row.score.pointing == pytest.approx(inside[peak].mean())
        assert row.score.energy == pytest.approx(grown[inside].sum() / grown.sum())
        assert row.score.pointing_chance == pytest.approx(inside.mean())
    assert evaluation.box_scores is None and evaluation.gaze_scores is None


def test_enlarging_in_three_axes_is_trilinear():
    cells = np.random.default_rng(0).normal(size=(3, 4, 2))
    grown = upsample_map(cells, (6, 8, 4))
    # the centre of voxel (2, 3, 1) lies a quarter of a cell before the centres of cell (1, 1.., ..)
    place = (np.array([2, 3, 1]) + 0.5) / 2 - 0.5
    low = np.floor(place).astype(int)
    expected = 0.0
    for corner in np.ndindex(2, 2, 2):
        share = np.prod([f if c else 1 - f for c, f in zip(corner, place - low, strict=True)])
        expected += share * cells[tuple(low + corner)]
    assert grown[2, 3, 1] == pytest.approx(expected)
    assert grown.min() >= cells.min() and grown.max() <= cells.max()


def test_reports_of_volumes_say_what_they_leave_out(evaluated, runs, tmp_path):
    for maps in (True, False):
        notes = describe_omissions(runs[maps].recipe.view, evaluated[maps])
        write_report_of(compute_report(evaluated[maps], replicates=20), tmp_path, "volumes", notes)
        text = (tmp_path / "metrics.md").read_text()
        assert "Boxes, gaze and windows" in text and ("sightline dissect" in text) is not maps
        names = [row["name"] for row in json.loads((tmp_path / "metrics.json").read_text())]
        assert any("AUC" in name for name in names)
        assert any(name.startswith("pointing game") for name in names) is maps
        assert not any("box" in name.lower() for name in names)


def test_an_evaluation_of_volumes_is_read_again(evaluated, runs, spines):
    again = evaluate(runs[True], spines.split("test"), "test", engine=QUIET)
    assert np.array_equal(again.maps.maps, evaluated[True].maps.maps)
    assert again.map_scores.rows == evaluated[True].map_scores.rows


def test_no_boxes_are_chosen_on_volumes(runs, spines):
    assert choose_boxes(runs[True], spines, WORDS, engine=QUIET) is runs[True]
    assert not (runs[True].folder / "boxes.json").exists()


# -- pictures -----------------------------------------------------------------------------------------------------


def picture_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_panels_are_drawn_with_and_without_maps(evaluated, spines, runs, tmp_path, coarse_pictures):
    for maps in (True, False):
        out = tmp_path / str(maps)
        written = write_panels(evaluated[maps], spines.split("test"), runs[maps].recipe.view, out, most=2)
        names = {path.stem for path in written}
        assert len([n for n in names if n.startswith("s")]) == 2
        assert ({"best_maps", "worst_maps"} <= names) is maps
        for path in written:
            assert min(Image.open(path).size) > 2.7 * canvas.DPI
    sheets = draw_contact_sheets(evaluated[True], spines.split("test"), runs[True].recipe.view, by="boxes")
    assert sheets == {}


def test_the_planes_meet_where_the_map_is_greatest(evaluated, spines, runs):
    test = spines.split("test")
    panel = build_volume_panel(evaluated[True], 0, test[0], runs[True].recipe.view)
    assert panel.maps.shape == (2, 4, 4, 4)
    cell = np.unravel_index(panel.maps[panel.predicted].argmax(), (4, 4, 4))
    assert panel.through == tuple(4 * c + 2 for c in cell)
    assert find_peak(np.eye(3)[:, :, None] * np.array([0.0, 1.0]), (9, 9, 4)) == (1, 1, 3)
    sliced = slice_panel(panel, panel.through)
    whole = upsample_map(panel.maps[0], panel.cube.grey.shape)
    assert np.array_equal(sliced.maps[0], whole[:, :, panel.through[2]])


def test_a_map_is_drawn_where_it_is_hot_and_nowhere_else(spines):
    cube = build_cube(spines[0], VolumeView(size=SIZE, augment="none"))
    maps = np.zeros((2, 4, 4, 4))
    maps[1, 1, 1, 1] = 1.0
    fields = {"title": "hot", "cube": cube, "regions": (), "classes": ("intact", "fractured")}
    said = {"probabilities": np.array([0.2, 0.8]), "maps": maps, "attention": maps}
    hot = picture_of(draw_volume_panel(VolumePanel(**fields, **said)))
    flat = {"probabilities": np.array([0.2, 0.8]), "maps": 0 * maps, "attention": 0 * maps}
    cold = picture_of(draw_volume_panel(VolumePanel(**fields, **flat)))

    def orange(picture):
        red, green, blue = np.moveaxis(picture, -1, 0)
        return ((red > 180) & (green > 60) & (green < 190) & (blue < 110)).sum()

    assert orange(hot) > orange(cold) + 500


def test_the_model_card_of_volumes_speaks_of_voxels(runs):
    text = write_model_card(runs[True]).read_text()
    assert "16 x 16 x 16 voxels" in text and "-1000 to 1000 HU" in text and "square" not in text


# -- tables and audits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", [True, False])
def test_tables_of_volumes_are_written(spines, tmp_path, few_pictures, no_charts, coarse_pictures, maps):
    recipes = [tiny_volume_recipe(title=t, model=TinyVolumeNet(maps), weight=0.0) for t in ("one", "two")]
    rows = (Row("one", recipes[0]), Row("two", recipes[1], reference="one"))
    table = Table("volumes", "Volumes", rows, "Two rows.", ("image-wise accuracy",))
    result = run_table(table, spines, tmp_path, WORDS, seeds=[0], engine=QUIET)
    write_table(result, tmp_path, replicates=20)
    page = (tmp_path / "report.html").read_text()
    assert ("Where the networks looked" in page) is maps
    assert ("sightline dissect" in page) is not maps
    pictures = [path.name for path in (tmp_path / "pictures").glob("*.png")]
    assert any("sagittal" in name for name in pictures) is maps
    assert any("three-planes" in name for name in pictures) is not maps


def test_the_audit_reads_volumes(spines):
    findings = audit(spines)
    assert not [f for f in findings if f.severity == "error"], findings
    # the grade is the label in finer words: no shortcut
    assert "grade" not in " ".join(f.message for f in findings)


def test_the_audit_finds_copies_sizes_and_marks_of_volumes(spines, tmp_path):
    cohort = tiny_spines(tmp_path, n=16)
    cases = list(cohort.cases)
    # case 1 (fractured) becomes a copy of case 0 (intact); another has a wrong size; a third a box outside and a ring
    shutil.copy(cases[0].image, cases[1].image)
    cases[2] = replace(cases[2], shape=(9, 9, 9))
    ring = Polygon((((1, 1), (2, 2), (1, 2)),), Tag("finding"))
    box = Box((20.0, 0.0, 0.0), (28.0, 8.0, 8.0), Tag("finding"))
    cases[4] = replace(cases[4], regions=(ring, box))
    cases[6].image.write_bytes(b"no volume")
    found = {f.kind: f for f in audit(replace(cohort, cases=tuple(cases)))}
    assert set(found["duplicate-labels"].cases) == {cases[0].case_id, cases[1].case_id}
    assert found["size"].cases == (cases[2].case_id,) and "24 x 24 x 24" in found["size"].message
    assert found["region-size"].cases == (cases[4].case_id,)
    assert "50.0% of a box" in found["region-partly-outside"].message
    assert found["unreadable"].cases == (cases[6].case_id,)


# -- explanations -------------------------------------------------------------------------------------------------


def test_explanations_of_volumes_are_drawn_in_three_planes(runs, spines, tmp_path):
    names = ("cam", "gradient", "grad_cam")
    assert explain_cases(runs[True], spines.split("test"), tmp_path, names, most=2, engine=QUIET) == 2
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2
    text = (tmp_path / "preflight.md").read_text()
    assert "## class map" in text and "**not shown**" in text.split("## Grad-CAM")[1]
    with pytest.raises(RunError, match="one a vertebra"):
        explain_files(runs[True], [spines[0].image], tmp_path, names, QUIET)
