"""`sightline predict` on CTs: from a CT and centroids (or a mask) to a table, a page and case panels."""

import csv
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import DATA
from support.volumes import WORDS, tiny_spines, tiny_volume_recipe

from sightline.cli.main import parse_command
from sightline.data.datasets.verse.centroids import write_centroids
from sightline.data.spine.curve import SpineCurve
from sightline.data.spine.patch_cohort import write_patch_cohort
from sightline.data.spine.placement import Placement
from sightline.data.spine.series_patches import Cutting
from sightline.data.spine.vertebrae import LABELS, Spine, Vertebra
from sightline.dissection.case_panel import CasePanel, PanelUnit, draw_case_panel, rank_strongest
from sightline.dissection.concepts import keep_concepts
from sightline.dissection.results import Dissection, UnitRow, open_dissection, write_units
from sightline.errors import GeometryError, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.inference.ct import predict as predict_module
from sightline.inference.ct import report as ct_report
from sightline.inference.ct.inputs import ESTIMATED, collect_ct_inputs, read_vertebrae
from sightline.inference.ct.patches import CutPatch, cut_patches, parse_cutting
from sightline.inference.ct.predict import CtOptions, predict_cts
from sightline.inference.ct.report import ReadVertebra, _build_table
from sightline.inference.ct.units import CaseUnits, digest_weights
from sightline.inference.network_output import collect_facts
from sightline.inference.onnx.export import export_onnx
from sightline.inference.radiographs import predict_files
from sightline.inference.results.journal import NAME
from sightline.io.image import is_ct_input
from sightline.io.nifti import read_volume, write_volume
from sightline.io.volume import Volume, compute_frame_between
from sightline.metrics.calibration.recalibration import FittedRecalibration
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.calibration.scaling import PlattScaling, log_odds
from sightline.plots import canvas
from sightline.plots.planes import Cube, Facing, build_whole_cube
from sightline.plots.spine_overview import AIR_HU, MarkedVertebra, draw_overview, reformat_curved, spread_rows
from sightline.structures.frame import Frame
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
LEVELS = ("T12", "L1", "L2")
# 2 mm voxels; indices grow to the left, to the back and to the head
AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 50], [0, 0, 2.0, -60], [0, 0, 0, 1]])
SHAPE = (44, 50, 70)


def vertebrae():
    """Three bodies, the lower ones more to the right and to the front."""
    return tuple(Vertebra(LABELS[level], (22.0 - 2 * n, 24.0 - 3 * n, 52.0 - 15 * n)) for n, level in enumerate(LEVELS))


def body(one, values, number):
    i, j, k = (round(c) for c in one.centre)
    values[i - 7 : i + 7, j - 6 : j + 6, k - 5 : k + 5] = number
    values[i - 1 : i + 1, j + 6 : j + 18, k - 2 : k + 2] = number


def write_ct_of(place, affine=AFFINE):
    values = np.random.default_rng(0).normal(0, 20, SHAPE).astype(np.int16)
    values[:4] = -1000
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for one in vertebrae():
        body(one, values, 500)
        body(one, mask, one.label)
    place.mkdir(parents=True, exist_ok=True)
    ct, labels, centroids = place / "sub-1_ct.nii.gz", place / "sub-1_vert.nii.gz", place / "sub-1_ctd.json"
    write_volume(ct, values, affine)
    write_volume(labels, mask, affine)
    write_centroids(centroids, vertebrae(), Volume(values, affine).orientation)
    return ct, centroids, labels


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_ct_of(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spines = tiny_spines(tmp_path_factory.mktemp("spines"))
    return train(tiny_volume_recipe(), spines, tmp_path_factory.mktemp("run") / "run", WORDS, QUIET)


def rows_of(out):
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# -- the command --------------------------------------------------------------------------------------------------


def test_a_ct_becomes_a_table_a_page_and_panels(run, scan, tmp_path, coarse_pictures):
    ct, centroids, _ = scan
    assert predict_cts(run, [ct], tmp_path, CtOptions((centroids,), panels="all"), QUIET) == (1, 0)
    rows = rows_of(tmp_path)
    assert [row["vertebra"] for row in rows] == list(LEVELS)
    volume = read_volume(ct)
    for row, one in zip(rows, vertebrae(), strict=True):
        assert row["predicted"] in run.classes and 0 <= float(row["probability"]) <= 1
        assert (row["predicted"] == "fractured") == (float(row["probability"]) > 0.5)
        voxel = [float(row[f"voxel_{a}"]) for a in "ijk"]
        assert voxel == [c - 0.5 for c in one.centre]
        assert np.allclose([float(row[f"{a}_mm"]) for a in "xyz"], volume.world_of(one.centre), atol=0.01)
        assert row["centre"] == "annotated" and (tmp_path / row["panel"]).is_file()
    page = (tmp_path / "sub-1" / "report.html").read_text()
    assert "diagnosis" in page and "<script" not in page and page.count("data:image") == 4
    assert min(Image.open(tmp_path / "sub-1" / "overview.png").size) > 2.7 * canvas.DPI
    # the same patch, predicted by hand
    patch = read_volume(tmp_path / "sub-1" / "patches" / "L1.nii")
    planes, _ = run.recipe.view.test(patch.values)
    with torch.no_grad():
        by_hand = run.network()(torch.from_numpy(planes)[None]).logits.double().softmax(1)[0, 1]
    assert float(rows[1]["probability"]) == pytest.approx(float(by_hand), abs=1e-6)


def test_a_calibrated_run_says_of_a_ct_what_its_evaluation_says(run, scan, tmp_path):
    ct, centroids, _ = scan
    shutil.copytree(run.folder, tmp_path / "run")
    calibrated = open_run(tmp_path / "run", WORDS)
    options = CtOptions((centroids,), panels="none")
    predict_cts(calibrated, [ct], tmp_path / "before", options, QUIET)
    before = [float(row["probability"]) for row in rows_of(tmp_path / "before")]
    # shifted by so much that the first vertebra is called otherwise
    shift = -2.0 * float(log_odds(np.array(before[0])))
    fitted = FittedRecalibration(PlattScaling((1.0,), (shift,)))
    CalibrationRecord(run.identity, run.classes, fitted).write(calibrated.folder)
    predict_cts(calibrated, [ct], tmp_path / "out", options, QUIET)
    rows = rows_of(tmp_path / "out")
    assert [row["predicted"] == "fractured" for row in rows] == [float(row["probability"]) > 0.5 for row in rows]
    assert float(rows[0]["probability"]) == pytest.approx(1.0 - before[0])
    placed = read_vertebrae(collect_ct_inputs([ct], [centroids], [])[0])
    spine = Spine("sub-1", "sub-1", ct, tuple(replace(one, grade=0) for one in placed.every))
    cutting, _ = parse_cutting(run.cohort.get("about", {}), run.recipe.view.size)
    cohort, _ = write_patch_cohort((spine,), tmp_path / "patches", cutting=cutting)
    evaluated = evaluate(calibrated, cohort, "ct", engine=QUIET).predictions.probabilities[:, 1]
    assert [float(row["probability"]) for row in rows] == pytest.approx(evaluated.tolist(), abs=1e-6)


def test_the_page_names_the_finding_of_each_probability(run):
    facts = collect_facts(run)
    of_two = _build_table([ReadVertebra(vertebrae()[0], 0.9, "fractured", True, 0.0, finding="fractured")], facts)
    assert (of_two.columns[2], of_two.rows[0][2]) == ("probability of fractured", "0.900")
    read = [
        ReadVertebra(vertebrae()[n], 0.9, said, True, 0.0, finding=said) for n, said in enumerate(("wedge", "crush"))
    ]
    of_three = _build_table(read, replace(facts, classes=("intact", "wedge", "crush")))
    assert of_three.columns[2] == "probability of the most probable finding"
    assert [row[2] for row in of_three.rows] == ["0.900 wedge", "0.900 crush"]


@pytest.mark.slow
def test_onnxruntime_says_of_a_ct_what_torch_says(run, scan, tmp_path):
    ct, centroids, _ = scan
    folder = str(run.folder)
    export_onnx(run, run.folder / "onnx", WORDS)
    words = ["--centroids", str(centroids), "--panels", "all", "--quiet"]
    command = ["predict", folder, str(ct), "--engine", "onnx", "--out", str(tmp_path / "onnx"), *words]
    assert parse_command(command).run() == 0
    assert predict_cts(run, [ct], tmp_path / "torch", CtOptions((centroids,), panels="all"), QUIET) == (1, 0)
    for one, other in zip(rows_of(tmp_path / "onnx"), rows_of(tmp_path / "torch"), strict=True):
        assert float(one.pop("probability")) == pytest.approx(float(other.pop("probability")), abs=1e-5)
        assert one == other
    assert (tmp_path / "onnx" / "sub-1" / "report.html").is_file()
    with pytest.raises(RunError, match="does not show its units"):
        parse_command([*command, "--dissection", "x"]).run()


def test_panels_are_of_what_is_called(run, scan, tmp_path, coarse_pictures):
    ct, centroids, _ = scan
    for panels in ("called", "none"):
        predict_cts(run, [ct], tmp_path / panels, CtOptions((centroids,), panels=panels), QUIET)
        called = [row for row in rows_of(tmp_path / panels) if row["predicted"] == "fractured"]
        drawn = {path.stem for path in (tmp_path / panels / "sub-1" / "panels").glob("*.png")}
        assert drawn == ({row["vertebra"] for row in called} if panels == "called" else set())


def test_a_mask_gives_estimated_centres(run, scan, tmp_path):
    ct, _, mask = scan
    predict_cts(run, [ct], tmp_path, CtOptions(vertebrae=(mask,)), QUIET)
    for row, one in zip(rows_of(tmp_path), vertebrae(), strict=True):
        away = np.array([float(row[f"voxel_{a}"]) for a in "ijk"]) - (np.array(one.centre) - 0.5)
        assert np.linalg.norm(away * 2.0) < 2.0 and row["centre"] == ESTIMATED
    assert "estimated from the mask" in (tmp_path / "sub-1" / "report.html").read_text()


def test_one_bad_ct_does_not_stop_the_rest(run, scan, tmp_path):
    ct, centroids, _ = scan
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    window = tmp_path / "window.nii.gz"
    write_volume(window, np.full(SHAPE, 30, np.uint8) + np.arange(70, dtype=np.uint8), AFFINE)
    small = tmp_path / "other.nii.gz"
    write_volume(small, read_volume(ct).values[:, :, :30], AFFINE)
    picture = tmp_path / "xray.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(picture)
    inputs = [broken, window, small, picture, ct]
    assert predict_cts(run, inputs, tmp_path / "out", CtOptions((centroids,) * 5), QUIET) == (1, 4)
    assert {row["ct"] for row in rows_of(tmp_path / "out")} == {str(ct)}
    text = (tmp_path / "out" / "rejects.csv").read_text()
    for words in ("Hounsfield", "centroids lie outside the CT", "a picture; this run was trained on patches of CTs"):
        assert words in text, words


def test_a_stopped_command_does_not_ask_for_a_ct_that_is_done_again(run, tmp_path, monkeypatch, coarse_pictures):
    one, two = (write_ct_of(tmp_path / name) for name in "ab")
    cts, options = [one[0], two[0]], CtOptions((one[1], two[1]), panels="none")
    predict_cts(run, cts, tmp_path / "whole", options, QUIET)
    asked = []

    def stops(given):
        asked.append(given.path)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return read_vertebrae(given)

    monkeypatch.setattr(predict_module, "read_vertebrae", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_cts(run, cts, tmp_path / "out", options, QUIET)
    assert predict_cts(run, cts, tmp_path / "out", options, QUIET) == (2, 0)
    assert asked == [one[0], two[0], two[0]]
    tables = [(tmp_path / name / "predictions.csv").read_text() for name in ("whole", "out")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 7
    assert not (tmp_path / "out" / NAME).exists()


def test_of_an_earlier_prediction_of_cts_nothing_is_left_that_no_row_names(run, tmp_path, capsys, coarse_pictures):
    one, two, gone = (write_ct_of(tmp_path / name) for name in "abc")
    out = tmp_path / "out"
    cts = [
        scan[0].rename(scan[0].with_name(f"{name}_ct.nii.gz")) for scan, name in ((one, "a"), (two, "b"), (gone, "c"))
    ]
    options = CtOptions((one[1], two[1], gone[1]), panels="all")
    predict_cts(run, cts, out, options, QUIET)
    assert "earlier" not in capsys.readouterr().err
    shutil.copytree(out / "b", out / "mine")
    (out / "a" / "notes.txt").write_text("mine")
    # fewer vertebrae of the first, no second, and a third that cannot be read any more
    write_centroids(one[1], vertebrae()[:2], read_volume(cts[0]).orientation)
    cts[2].write_bytes(b"cut off")
    again = CtOptions((one[1], gone[1]), panels="none")
    assert predict_cts(run, cts[::2], out, again, QUIET) == (1, 1)
    assert "earlier prediction of 3 CTs was replaced" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["a", "mine"]
    left = sorted(path.relative_to(out / "a").as_posix() for path in (out / "a").rglob("*") if path.is_file())
    assert left == ["notes.txt", "overview.png", "patches/L1.nii", "patches/T12.nii", "report.html"]
    assert (out / "mine" / "panels" / "L2.png").is_file()


def test_what_is_missing_is_said_before_anything_is_read(run, scan, tmp_path):
    ct, centroids, mask = scan
    with pytest.raises(RunError, match="does not say where its vertebrae are") as error:
        predict_cts(run, [ct], tmp_path, CtOptions(), QUIET)
    assert "--centroids" in error.value.remedy and "--vertebrae" in error.value.remedy
    with pytest.raises(RunError, match="Both"):
        predict_cts(run, [ct], tmp_path, CtOptions((centroids,), (mask,)), QUIET)
    with pytest.raises(RunError, match="2 CTs were given and 1 file "):
        predict_cts(run, [ct, ct], tmp_path, CtOptions((centroids,)), QUIET)
    with pytest.raises(RunError, match=r"nowhere\.json does not exist"):
        predict_cts(run, [ct], tmp_path, CtOptions((tmp_path / "nowhere.json",)), QUIET)
    assert not (tmp_path / "predictions.csv").exists()


def test_runs_and_images_of_another_kind_are_refused(run, scan, tmp_path, tiny_cohort):
    from support.cohorts import tiny_recipe

    from sightline.papers.catalogue import CATALOGUE

    flat = train(tiny_recipe(epochs=1, weight=0.0, guidance=None), tiny_cohort, tmp_path / "flat", CATALOGUE, QUIET)
    with pytest.raises(RunError, match="trained on radiographs"):
        predict_cts(flat, [scan[0]], tmp_path, CtOptions((scan[1],)), QUIET)
    with pytest.raises(RunError, match="is a CT; this run was trained on radiographs"):
        predict_files(flat, [scan[0]], tmp_path / "out", QUIET)
    with pytest.raises(RunError, match="trained on patches of CTs"):
        predict_files(run, [tiny_cohort[0].image], tmp_path / "out", QUIET)


def test_vertebrae_of_the_neck_alone_are_no_input(scan, tmp_path):
    ct, _, _ = scan
    neck = tmp_path / "neck.json"
    volume = read_volume(ct)
    write_centroids(neck, [replace(one, label=n + 3) for n, one in enumerate(vertebrae())], volume.orientation)
    with pytest.raises(GeometryError, match="no vertebra from T1 to L6"):
        read_vertebrae(collect_ct_inputs([ct], [neck], [])[0])
    mixed = tmp_path / "mixed.json"
    labels = (7, 8, 9)
    write_centroids(mixed, [replace(v, label=n) for n, v in zip(labels, vertebrae(), strict=True)], volume.orientation)
    placed = read_vertebrae(collect_ct_inputs([ct], [mixed], [])[0])
    assert [v.level for v in placed.vertebrae] == ["T1", "T2"] and "C7 are not predicted" in placed.notes[0]


@pytest.mark.skipif(not (DATA / "spine_ct").is_dir(), reason="shared data not present")
def test_a_dicom_series_is_a_ct_and_radiographs_are_not(tiny_cohort):
    assert is_ct_input(DATA / "spine_ct" / "totalsegmentator" / "example_ct_dicom")
    assert not is_ct_input(tiny_cohort[0].image) and not is_ct_input(tiny_cohort[0].image.parent)


def test_patches_are_those_of_the_importer(run, scan, tmp_path):
    ct, centroids, _ = scan
    placed = read_vertebrae(collect_ct_inputs([ct], [centroids], [])[0])
    spine = Spine("sub-1", "sub-1", ct, tuple(replace(one, grade=0) for one in placed.every))
    for mode in ("rigid", "straightened"):
        cohort, rejects = write_patch_cohort((spine,), tmp_path / mode, cutting=Cutting(mode=mode))
        assert not rejects and len(cohort) == 3
        way, known = parse_cutting(cohort.about, 16)
        assert known and way == Cutting(96, 1.0, mode, False)
        for patch, case in zip(cut_patches(placed, tmp_path / "ours", way), cohort, strict=True):
            theirs = read_volume(case.image)
            assert np.array_equal(patch.volume.values, theirs.values)
            assert np.allclose(patch.volume.affine, theirs.affine, atol=1e-5)
    assert parse_cutting({}, 16) == (Cutting(), False) and parse_cutting({}, 127)[0].side == 128


# -- units on a case ----------------------------------------------------------------------------------------------


def test_the_strongest_units_are_those_of_the_largest_r():
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(12, 2, 3, 4))
    thresholds = rng.uniform(0.5, 1.5, 12)
    thresholds[3] = 99.0
    slowly = {}
    for unit in range(12):
        slowly[unit] = sum(a for a in activations[unit].ravel() if a > thresholds[unit])
    expected = sorted(slowly, key=lambda unit: -slowly[unit])[:5]
    found = rank_strongest(activations, thresholds)
    assert [unit for unit, _ in found] == expected and 3 not in expected
    assert [r for _, r in found] == pytest.approx([slowly[unit] for unit in expected])
    assert rank_strongest(activations, np.full(12, 99.0)) == []
    with pytest.raises(GeometryError, match="12 units have 3 thresholds"):
        rank_strongest(activations, thresholds[:3])


def dissected(folder, layer="features", units=6, weights=""):
    """A dissection of six units; the third is never enabled, the fifth has a name, the first a gallery."""
    rows = tuple(UnitRow(n, 1e9 if n == 2 else 0.0, False, 0.9 - n / 10, 0.5, 0.01, n + 1, 10, 1) for n in range(units))
    about = {"weights": weights}
    write_units(folder, Dissection(folder, layer, "fractured", "positives", rows, about))
    keep_concepts(
        folder / "concepts.yaml", run="run", weights=weights, layer=layer, units=[(n, "") for n in range(units)]
    )
    text = (folder / "concepts.yaml").read_text()
    head, tail = text.split("  4:  #", 1)
    tail = tail.replace('text: ""', 'text: "endplate breach"', 1).replace('author: ""', 'author: "A. Reader"', 1)
    (folder / "concepts.yaml").write_text(head + "  4:  #" + tail)
    (folder / "examples").mkdir()
    Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(folder / "examples" / "unit_000_0.png")
    return folder


def test_units_of_a_case_come_with_names_ranks_and_files_on_the_ct(run, scan, tmp_path, coarse_pictures):
    folder = dissected(tmp_path / "dissection", weights=digest_weights(run))
    ct, centroids, _ = scan
    options = CtOptions((centroids,), dissection=folder, panels="all")
    assert predict_cts(run, [ct], tmp_path / "out", options, QUIET) == (1, 0)
    page = (tmp_path / "out" / "sub-1" / "report.html").read_text()
    # a unit that is never above its threshold is never shown
    assert "Unit " in page and "Unit 2 " not in page
    written = sorted((tmp_path / "out" / "sub-1" / "activations").glob("*.nii.gz"))
    assert written and all(path.name.startswith(LEVELS) for path in written)
    volume, whole = read_volume(written[0]), read_volume(ct)
    assert volume.values.max() > 0
    offset = compute_frame_between(volume, whole).to_source
    assert np.allclose(offset[:3, :3], np.eye(3), atol=1e-5)
    assert np.allclose(offset[:3, 3], np.rint(offset[:3, 3]), atol=1e-4)
    # probabilities do not depend on whether somebody looks at the units
    predict_cts(run, [ct], tmp_path / "plain", CtOptions((centroids,)), QUIET)
    for one, other in zip(rows_of(tmp_path / "out"), rows_of(tmp_path / "plain"), strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-6)


def test_what_is_known_of_a_unit_stands_beside_it(run, scan, tmp_path):
    units = CaseUnits(run.network(), open_dissection(dissected(tmp_path / "d")))
    activations = np.zeros((6, 2, 2, 2))
    activations[4, 1, 0, 0], activations[0, 0, 0, 0], activations[2] = 3.0, 2.0, 100.0
    first, second = units.strongest(activations, Facing(flipped=(True, False, False)))
    assert (first.unit, first.strength, first.name, first.named_by, first.rank) == (
        4, 3.0, "endplate breach", "A. Reader", 5,
    )  # fmt: skip
    assert first.activation[0, 0, 0] == 3.0
    assert (second.unit, second.name, len(second.examples)) == (0, "", 1)
    assert second.words == "not named" and "rank 1 of 6" in second.standing


def test_a_dissection_of_another_network_is_refused(run, scan, tmp_path):
    units = CaseUnits(run.network(), open_dissection(dissected(tmp_path / "nine", units=9)))
    with pytest.raises(RunError, match=r"has 6 units; .* knows 9"):
        units.look(torch.zeros(1, 1, 16, 16, 16))
    options = CtOptions((scan[1],), dissection=dissected(tmp_path / "other", weights="0123"))
    with pytest.raises(RunError, match="dissects the weights 0123"):
        predict_cts(run, [scan[0]], tmp_path / "out", options, QUIET)
    with pytest.raises(RunError, match="no finished dissection"):
        predict_cts(run, [scan[0]], tmp_path / "out", replace(options, dissection=tmp_path), QUIET)


def test_what_a_network_saw_outside_the_ct_is_told(scan):
    placed = read_vertebrae(collect_ct_inputs([scan[0]], [scan[1]], [])[0])
    curve = SpineCurve(placed.ct.world_of([v.centre for v in placed.every]))
    patch = CutPatch(
        placed.every[0],
        Volume(np.zeros((96,) * 3, np.int16), np.eye(4)),
        Placement(96, 1.0, 0.0, curve, "rigid", placed.ct.affine, SHAPE),
    )
    inner = Frame.of_image((96,) * 3).crop((40, 40, 40), (16, 16, 16))
    assert patch.outside(inner) == 0.0
    far = Frame.of_image((96,) * 3).crop((-300, 0, 0), (16, 16, 16))
    assert patch.outside(far) == 1.0 and 0.0 < patch.outside(Frame.of_image((96,) * 3)) < 1.0


def test_the_overview_names_what_was_seen_in_part(run, scan, tmp_path, monkeypatch):
    """It goes to the PACS by itself: the last vertebra of a scan had the highest probability there, and no remark."""
    placed = read_vertebrae(collect_ct_inputs([scan[0]], [scan[1]], [])[0])
    drawn = []
    monkeypatch.setattr(ct_report, "draw_overview", lambda ct, marked, name, notes: drawn.extend(notes) or b"")
    monkeypatch.setattr(ct_report, "write_report", lambda *_, **__: None)
    read = [
        ReadVertebra(v, 0.4, "intact", False, share) for v, share in zip(placed.vertebrae[:2], (0.0, 0.12), strict=True)
    ]
    ct_report.write_ct(tmp_path, "a", placed.ct, read, collect_facts(run), "annotated", ())
    assert drawn[-1] == f"Partly outside the CT, the answer a guess: {read[1].vertebra.level} (12%)."


def test_case_panels_are_drawn_with_and_without_units(coarse_pictures):
    rng = np.random.default_rng(0)
    cube = Cube(rng.random((16, 16, 16), dtype=np.float32), Frame.of_image((16, 16, 16)), Facing(), (1.0, 1.0, 1.0))
    cells = rng.random((4, 4, 4))
    units = tuple(
        PanelUnit(n, 3.0, cells, 0.5, "a long name of many words " * 6 if n else "", rank=n + 1, units=9, c=0.5,
                  contrast=-0.1, examples=(np.zeros((9, 9), np.float32),) if n == 1 else ())
        for n in range(5)
    )  # fmt: skip
    sizes = []
    for of in (units, units[:1], ()):
        panel = CasePanel("case", "fractured", 0.9, "fractured", True, cube, None, of, ("a fact",), "No units.")
        sizes.append(Image.open(io.BytesIO(draw_case_panel(panel))).size)
    assert sizes[0][0] > sizes[1][0] > sizes[2][0] and sizes[0][1] > sizes[1][1]


def test_what_the_network_saw_is_framed_in_the_patch(scan):
    placed = read_vertebrae(collect_ct_inputs([scan[0]], [scan[1]], [])[0])
    whole = build_whole_cube(placed.ct)
    assert whole.grey.shape == tuple(np.array(SHAPE)[[2, 1, 0]]) and whole.side_mm == (2.0, 2.0, 2.0)
    # the bodies lie where they were: bright, at the place of their centres
    for one in vertebrae():
        at = np.floor(whole.frame.unmap_points(one.centre)).astype(int)
        assert whole.grey[tuple(at)] > 0.5


# -- the spine on one page ----------------------------------------------------------------------------------------


def test_a_reformation_follows_the_spine():
    # a curved line of bright voxels to the head: every row of both pictures holds it where its mark is drawn
    values = np.full((60, 60, 100), -1000, dtype=np.int16)
    affine = np.array([[-1.0, 0, 0, 30], [0, -1.0, 0, 30], [0, 0, 1.0, 0], [0, 0, 0, 1]])
    ct = Volume(values, affine)
    k = np.arange(100)
    i, j = 30 + 12 * np.sin(k / 25), 25 + 8 * np.cos(k / 30)
    for a, b, c in zip(i, j, k, strict=True):
        values[round(a) - 1 : round(a) + 2, round(b) - 1 : round(b) + 2, c] = 1000
    centres = ct.world_of(np.stack([i[5::10], j[5::10], k[5::10]], axis=1) + 0.5)
    found = reformat_curved(ct, centres)
    assert found.sagittal.shape[0] == found.coronal.shape[0] == 100
    for world in centres:
        for picture, (row, column) in (
            (found.sagittal, found.on_sagittal(world)),
            (found.coronal, found.on_coronal(world)),
        ):
            assert picture[int(row), int(column)] > 500
            assert picture[int(row), int(column) - 6] < -500
    beyond = reformat_curved(ct, centres[:1])
    assert np.isfinite(beyond.sagittal).all() and beyond.sagittal.min() >= AIR_HU


def test_words_are_moved_apart_as_little_as_may_be():
    assert np.allclose(spread_rows([0.0, 1.0, 2.0], 0.5), [0.0, 1.0, 2.0])
    assert np.allclose(spread_rows([0.0, 0.1, 5.0], 1.0), [-0.45, 0.55, 5.0])
    rng = np.random.default_rng(0)
    rows = np.sort(rng.uniform(0, 3, 17))
    assert (np.diff(spread_rows(rows, 0.2)) >= 0.2 - 1e-9).all()


def test_the_overviews_headline_takes_as_many_lines_as_the_called_vertebrae_need():
    ct = Volume(np.zeros((50, 60, 70), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    tall = []
    for n in (3, 17):
        marks = [MarkedVertebra(f"T{i}", (-25.0, -30.0, 60.0 - 3 * i), 0.5, True) for i in range(n)]
        tall.append(Image.open(io.BytesIO(draw_overview(ct, marks, "spine"))).size[1])
    assert tall[1] > tall[0] + 10


def test_the_overview_shows_called_vertebrae_in_another_colour():
    ct = Volume(np.zeros((50, 60, 70), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    places = [(-25.0, -30.0, 55.0 - 20 * n) for n in range(3)]
    pictures = []
    for called in (False, True):
        marks = [MarkedVertebra(f"L{n}", p, 0.5, called) for n, p in enumerate(places)]
        png = draw_overview(ct, marks, "spine", ["a note"])
        pictures.append(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int))

    def red(picture):
        return ((picture[..., 0] > 220) & (picture[..., 1] < 130) & (picture[..., 2] < 130)).sum()

    assert red(pictures[1]) > red(pictures[0]) + 200
