"""`predict --as dicom` on radiographs: the objects say what the tables say, once, the same again."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from support.cohorts import tiny_recipe
from support.dicom_sources import radiograph
from support.dicom_tools import dciodvfy

from sightline.cli.main import main
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.dicom_results import (
    JudgedView,
    ResultWords,
    build_image_result,
    build_study_results,
    find_study_time,
    join_readings,
    threshold_map,
)
from sightline.inference.file_result import DicomWish, FileResult
from sightline.inference.radiographs import predict_files
from sightline.io.dicom_results.codes import PRESENCE
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.results import FoundMap, Maker
from sightline.io.picture import Picture
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two studies, one of two images, and a picture that is no DICOM file."""
    place = tmp_path_factory.mktemp("studies")
    for name, seed, changes in (
        ("a1", 1, {}),
        ("a2", 2, {"StudyInstanceUID": "1.2.826.0.1.2.1", "PatientID": "P1"}),
        ("b1", 3, {"PatientID": "P2", "PhotometricInterpretation": "MONOCHROME1"}),
    ):
        radiograph(60, 48, seed=seed, **changes).save_as(place / f"{name}.dcm", enforce_file_format=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 48)).astype(np.uint8)).save(place / "c.png")
    return place


@pytest.fixture(scope="module")
def predicted(run, studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert predict_files(run, [studies], out, QUIET, dicom=DicomWish()) == (3, 1)
    return out


def objects(out):
    made = [pydicom.dcmread(path) for path in sorted((out / "dicom").rglob("*.dcm"))]
    return {study: [o for o in made if o.StudyInstanceUID == study] for study in {o.StudyInstanceUID for o in made}}


def test_every_object_is_sound(predicted):
    paths = list((predicted / "dicom").rglob("*.dcm"))
    assert paths
    for path in paths:
        assert dciodvfy(path).errors == (), path.name


def test_a_study_has_one_report_over_all_its_images(predicted, run):
    by_study = objects(predicted)
    assert len(by_study) == 2
    rows = {Path(row["file"]).stem: row for row in csv.DictReader((predicted / "predictions.csv").open())}
    for study, names in (("1.2.826.0.1.2.1", ("a1", "a2")), ("1.2.826.0.1.4.1", ("b1",))):
        (findings,) = [o for o in by_study[study] if o.SeriesDescription.endswith("FINDINGS")]
        groups = hd.sr.Comprehensive3DSR.from_dataset(findings).content.get_image_measurement_groups()
        said = [group.get_measurements()[0].value for group in groups]
        assert said == pytest.approx([100 * float(rows[n]["p(fracture)"]) for n in names], abs=1e-2)
        present = [
            group.get_qualitative_evaluations(hd.sr.CodedConcept(*PRESENCE))[0].value.meaning for group in groups
        ]
        assert present == ["Present" if rows[n]["predicted"] == "fracture" else "Absent" for n in names]
        assert run.identity in str(findings) and "not for diagnosis" in str(findings)
        pictures = [o for o in by_study[study] if o.SeriesDescription.endswith("PICTURE")]
        assert len(pictures) == len(names)


def test_what_is_no_dicom_file_is_rejected_with_a_remedy(predicted):
    (row,) = csv.DictReader((predicted / "rejects.csv").open())
    assert row["file"].endswith("c.png") and "not a DICOM file" in row["reason"] and "--as" in row["remedy"]


def call(words, capsys):
    """The command in this process: what it says on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().err


def start(words, capsys):
    """The command in a process of its own."""
    program = "import sys; from sightline.cli.main import main; main(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True).stderr


# tests/io/dicom_results/test_objects.py compares the objects of two processes
@pytest.mark.parametrize("ask", [call, pytest.param(start, marks=pytest.mark.slow)], ids=["command", "process"])
def test_the_command_writes_the_same_again(predicted, run, studies, tmp_path, capsys, ask):
    words = ["predict", str(run.folder), str(studies), "--out", str(tmp_path / "out"), "--as", "dicom"]
    assert "private one" in ask([*words, "--device", "cpu", "--quiet"], capsys)
    first = {path.name: path.read_bytes() for path in (predicted / "dicom").rglob("*.dcm")}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out" / "dicom").rglob("*.dcm")}


def test_a_call_that_was_stopped_is_marked_and_begins_again(run, studies, tmp_path, capsys):
    others = tmp_path / "others"
    others.mkdir()
    radiograph(60, 48, seed=9, StudyInstanceUID="1.2.826.0.1.9").save_as(others / "z.dcm", enforce_file_format=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sightline.inference.results.found_files.FoundFiles.write_tables", interrupt)
        with pytest.raises(KeyboardInterrupt):
            predict_files(run, [others], tmp_path / "out", QUIET, dicom=DicomWish())
    assert (tmp_path / "out" / ".unfinished").is_file() and len(objects(tmp_path / "out")) == 1
    predict_files(run, [studies], tmp_path / "out", QUIET, dicom=DicomWish())
    assert "begins again" in capsys.readouterr().err
    # of the first call's files nothing is left beside those of the second
    assert "1.2.826.0.1.9" not in objects(tmp_path / "out") and len(objects(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / ".unfinished").exists()


def interrupt(*words):
    raise KeyboardInterrupt


def test_two_people_without_an_id_in_one_study_get_no_report_and_no_answer(run, tmp_path):
    study = {"StudyInstanceUID": "1.2.99", "PatientID": ""}
    for number, name in enumerate(("Alpha^A", "Beta^B")):
        made = radiograph(60, 48, seed=number, PatientName=name, **study)
        made.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    files = [tmp_path / "0.dcm", tmp_path / "1.dcm"]
    assert predict_files(run, files, tmp_path / "out", QUIET, dicom=DicomWish()) == (1, 1)
    assert objects(tmp_path / "out") == {}
    (row,) = csv.DictReader((tmp_path / "out" / "rejects.csv").open())
    assert "belong to 2 patients (PatientName and PatientBirthDate" in row["reason"]
    assert predict_files(run, files, tmp_path / "table", QUIET) == (2, 0)
    (row,) = csv.DictReader((tmp_path / "table" / "studies.csv").open())
    assert row["predicted"] == "" and "patients" in row["remark"]


def test_our_own_results_are_rejected_as_pictures(predicted, run, tmp_path):
    from sightline.data.datasets.dicom_folder import Options, read

    read_count, rejected = predict_files(run, [predicted / "dicom"], tmp_path / "again", QUIET)
    count = len(list((predicted / "dicom").rglob("*.dcm")))
    assert (read_count, rejected) == (0, count)
    rows = list(csv.DictReader((tmp_path / "again" / "rejects.csv").open()))
    assert all("a result that sightline wrote" in row["reason"] and row["remedy"] for row in rows)
    for check in (True, False):
        cohort, rejects = read(predicted / "dicom", Options(check_pixels=check))
        assert len(cohort) == 0 and len(rejects) == count
        assert all("a result that sightline wrote" in reject.reason for reject in rejects)


def test_only_the_objects_that_are_asked_for(run, studies, tmp_path):
    wish = DicomWish(("findings", "picture"), picture_syntax="rle")
    predict_files(run, [studies / "b1.dcm"], tmp_path, QUIET, dicom=wish)
    assert sorted(path.name.split("_")[0] for path in (tmp_path / "dicom").rglob("*.dcm")) == ["findings", "picture"]


def test_a_source_without_uids_or_nowhere_is_rejected_and_the_rest_goes_on(run, studies, tmp_path):
    (tmp_path / "in").mkdir()
    for n, changes in enumerate(({}, {"SOPInstanceUID": ""})):
        image = radiograph(60, 48, seed=9, **changes)
        image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n + 1}"
        image.save_as(tmp_path / "in" / f"{n}.dcm", enforce_file_format=True)
    (tmp_path / "in" / "a.dcm").symlink_to(tmp_path / "gone.dcm")
    assert predict_files(run, [tmp_path / "in"], tmp_path / "out", QUIET, dicom=DicomWish()) == (1, 2)
    assert len(objects(tmp_path / "out")) == 1


def test_a_copy_has_no_results_of_its_own_and_other_pixels_under_its_uid_are_rejected(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name, seed in (("a", 9), ("b", 9), ("c", 10)):
        image = radiograph(60, 48, seed=seed)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
        image.StudyInstanceUID = "1.2.3"
        image.save_as(tmp_path / "in" / f"{name}.dcm", enforce_file_format=True)
    assert predict_files(run, [tmp_path / "in"], tmp_path / "out", QUIET, dicom=DicomWish()) == (2, 1)
    (row,) = csv.DictReader((tmp_path / "out" / "rejects.csv").open())
    assert row["file"].endswith("c.dcm") and "the same SOPInstanceUID as" in row["reason"]
    ((_, made),) = objects(tmp_path / "out").items()
    assert len({one.SOPInstanceUID for one in made}) == len(made) > 2
    # a command that was not asked for DICOM objects says the same
    assert predict_files(run, [tmp_path / "in"], tmp_path / "plain", QUIET) == (2, 1)


def test_options_about_dicom_need_dicom(run, studies, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run.folder), str(studies), "--out", str(tmp_path), "--objects", "map"])
    assert ended.value.code == 2 and "--as dicom" in capsys.readouterr().err


def test_codes_of_the_run_folder_are_used(run, studies, tmp_path):
    codes = tmp_path / "codes.yaml"
    codes.write_text("findings:\n  fracture: {value: '125605004', scheme: SCT, meaning: Fracture of bone}\n")
    predict_files(run, [studies / "b1.dcm"], tmp_path / "out", QUIET, dicom=DicomWish(("findings",), codes=codes))
    ((report,),) = objects(tmp_path / "out").values()
    assert "Fracture of bone" in str(report) and "99SIGHTLINE" not in str(report)


# -- from numbers to what is said ---------------------------------------------------------------------------------

WORDS = ResultWords(("no fracture", "fracture", "cyst"), Maker("m", "r", "w", "v"), MapBoxes())


def reading(probabilities, predicted, named=1):
    frame = Frame.of_image((40, 48)).pad_to_square().resize((24, 24))
    cells = np.zeros((6, 6))
    cells[2, 3] = 4.0
    boxes = (ScoredBox(WORDS.classes[named], 0.5, (10.0, 12.0, 20.0, 30.0)),)
    return FileResult(np.zeros((24, 24), np.float32), frame, probabilities, predicted, boxes, cells, None, named, cells)


def picture():
    return Picture(np.full((40, 48), 100, np.uint8), Frame.of_image((40, 48)))


@pytest.mark.parametrize(
    ("probabilities", "predicted", "independent", "present", "marked"),
    [
        ([0.2, 0.7, 0.1], 1, False, [True, False], True),
        ([0.7, 0.2, 0.1], 0, False, [False, False], False),
        ([0.9, 0.6, 0.55], 0, True, [True, True], True),
        ([0.9, 0.4, 0.3], 0, True, [False, False], False),
    ],
)
def test_presence_follows_the_operating_point_and_marks_follow_presence(
    probabilities, predicted, independent, present, marked
):
    words = ResultWords(WORDS.classes, WORDS.maker, WORDS.boxes, independent)
    source = build_source_image(radiograph())
    result = build_image_result(words, source, picture(), reading(np.array(probabilities), predicted))
    assert [said.label for said in result.said] == ["fracture", "cyst"]
    assert [said.present for said in result.said] == present
    assert bool(result.boxes) == bool(result.regions) == marked
    assert result.map is not None and result.map.label == "fracture"


def test_views_that_are_joined_have_one_answer_and_marks_where_it_shows():
    words = replace(WORDS, join_views="maximum")
    alone = np.array([[0.8, 0.15, 0.05], [0.3, 0.6, 0.1], [0.7, 0.2, 0.1]])
    views = [
        JudgedView(
            build_source_image(radiograph(seed=n, SOPInstanceUID=f"1.2.{n + 1}")),
            picture(),
            replace(reading(p, int(p.argmax())), uncalibrated=p),
        )
        for n, p in enumerate(alone)
    ]
    results = build_study_results(words, views)
    # by hand: odds against the normal class, the greatest of each finding
    odds = np.array([1.0, 0.6 / 0.3, 0.1 / 0.3])
    for result in results:
        assert [said.probability for said in result.said] == pytest.approx(list((odds / odds.sum())[1:]))
        assert [said.present for said in result.said] == [True, False]
    assert [bool(one.boxes) and bool(one.regions) for one in results] == [False, True, False]
    assert "joined" in results[0].notes[0] and "fracture 15%" in results[0].notes[1]
    # what no view calls alone, all of them call together: marked where there is most of it
    summed = join_readings(
        replace(words, join_views="mean"), [replace(views[0].reading, uncalibrated=np.array(p)) for p in
                                            ((0.5, 0.1, 0.4), (0.5, 0.4, 0.1), (0.45, 0.44, 0.11))], ["a", "b", "c"]
    )  # fmt: skip
    assert [one.shows for one in summed] == [True] * 3  # no finding is called
    # the same pixels twice have one vote
    twice = join_readings(replace(words, join_views="mean"), [v.reading for v in views[:2]] * 2, ["a", "b"] * 2)
    once = join_readings(replace(words, join_views="mean"), [v.reading for v in views[:2]], ["a", "b"])
    assert twice[3].probabilities == pytest.approx(once[1].probabilities)
    assert build_study_results(WORDS, views)[0].said[0].probability == 0.15


def test_a_network_that_only_locates_says_nothing_of_presence():
    result = build_image_result(WORDS, build_source_image(radiograph()), picture(), reading(None, 1))
    (said,) = result.said
    assert said.probability is None and said.present is None
    assert result.boxes[0].label == "finding" and result.regions


def test_a_map_lies_where_the_network_saw_it():
    result = build_image_result(
        WORDS, build_source_image(radiograph()), picture(), reading(np.array([0.1, 0.8, 0.1]), 1)
    )
    # a picture of 40 x 48 is padded by 4 rows above; 6 cells cover 48 pixels
    centre = result.map.to_source @ np.array([2.5, 3.5, 1.0])
    assert np.allclose(centre[:2], (2.5 * 8 - 4, 3.5 * 8))
    rows, columns = np.nonzero(result.regions[0].mask)
    assert abs(rows.mean() + 0.5 - centre[0]) < 1 and abs(columns.mean() + 0.5 - centre[1]) < 1


@pytest.mark.parametrize("protocol", [MapBoxes(low=128.0), MapBoxes(scale="maximum", low=60.0), MapBoxes(keep="band")])
def test_a_region_is_what_lies_above_the_level(protocol):
    """Against the level of each pixel, one by one."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(5, 4)).astype(np.float32)
    found = FoundMap("x", values, np.diag([8.0, 10.0, 1.0]))
    mask = threshold_map(found, protocol, (40, 40))
    low, high = values.min(), values.max()
    for row, column in rng.integers(0, 40, (200, 2)):
        r, c = np.clip((row + 0.5) / 8 - 0.5, 0, 4), np.clip((column + 0.5) / 10 - 0.5, 0, 3)
        a, b = min(int(r), 3), min(int(c), 2)
        u, v = r - a, c - b
        value = (1 - u) * (1 - v) * values[a, b] + u * (1 - v) * values[a + 1, b] + (1 - u) * v * values[a, b + 1] \
            + u * v * values[a + 1, b + 1]  # fmt: skip
        level = 255 * (value - low) / (high - low) if protocol.scale == "range" else 255 * value / high
        expected = level > protocol.low and (protocol.keep != "band" or level <= protocol.high)
        if abs(level - protocol.low) > 0.1 and abs(level - protocol.high) > 0.1:
            assert mask[row, column] == expected


def test_a_result_is_dated_by_its_newest_image():
    older = build_source_image(radiograph())
    newer = build_source_image(radiograph(ContentDate="20210203", ContentTime="040506.789"))
    undated = build_source_image(radiograph(ContentDate=None, ContentTime=None, StudyDate="", StudyTime=""))
    assert find_study_time([older, newer, undated]).isoformat() == "2021-02-03T04:05:06"
    assert find_study_time([undated]).year == 2000


@pytest.mark.slow
def test_the_bridge_needs_no_torch():
    """`make test` has it in tests/inference/onnx, where a study is judged without torch and becomes DICOM objects."""
    code = "import sys, sightline.inference.dicom_results; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_objects_of_an_earlier_prediction_go_and_other_files_stay(run, studies, tmp_path, capsys):
    wish = DicomWish(("findings",))
    predict_files(run, [studies / "b1.dcm"], tmp_path, QUIET, dicom=wish)
    (earlier,) = (tmp_path / "dicom").rglob("*.dcm")
    mine = earlier.with_name("mine.dcm")
    mine.write_bytes(earlier.read_bytes())
    # the objects themselves are given: what is read is not removed
    predict_files(run, [earlier], tmp_path, QUIET)
    assert earlier.is_file()
    predict_files(run, [studies / "b1.dcm"], tmp_path, QUIET)
    assert list((tmp_path / "dicom").rglob("*.dcm")) == [mine]
    assert "1 file of it that no row names now went" in capsys.readouterr().err.splitlines()[-1]
