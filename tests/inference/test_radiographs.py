"""Predict what a person points at: pictures, DICOM, folders, broken files, awkward names."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cohorts import tiny_recipe
from support.dicom_sources import radiograph
from support.paths import DATA

from sightline.errors import RunError
from sightline.inference import radiographs
from sightline.inference.radiographs import _read_patient, predict_files, read_radiograph
from sightline.inference.results.journal import NAME
from sightline.io.files import hold_folder, make_safe_name
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
pytestmark = pytest.mark.usefixtures("coarse_pictures")


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    return train(tiny_recipe(steps=2), tiny_cohort, tmp_path_factory.mktemp("runs") / "run", CATALOGUE, QUIET)


def rows_of(path):
    return list(csv.DictReader(path.open(newline="", encoding="utf-8")))


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


NOISE = np.random.default_rng(0).integers(0, 255, (60, 40)).astype(np.uint8)


def test_a_row_and_an_overlay_a_picture(run, tiny_cohort, tmp_path):
    out = tmp_path / "out"
    files = [c.image for c in tiny_cohort.split("test")]
    assert predict_files(run, files, out, QUIET) == (12, 0)
    rows = rows_of(out / "predictions.csv")
    assert [r["file"] for r in rows] == [str(f) for f in files]
    for row in rows:
        p = [float(row[f"p({name})"]) for name in run.classes]
        assert sum(p) == pytest.approx(1.0) and row["predicted"] == run.classes[int(np.argmax(p))]
        # the place looked at lies in the padded square around the 40 x 48 file
        assert -4 <= float(row["look_row"]) <= 44 and 0 <= float(row["look_column"]) <= 48
        with Image.open(out / row["overlay"]) as picture:
            assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 1
    assert rows_of(out / "rejects.csv") == []


def test_predictions_are_those_of_evaluate(run, tiny_cohort, tmp_path, no_overlays):
    from sightline.evaluation.evaluate import evaluate

    test = tiny_cohort.split("test")
    predict_files(run, [c.image for c in test], tmp_path, QUIET)
    wanted = evaluate(run, test, "test", out=tmp_path / "e", engine=QUIET).predictions.probabilities[:, 1]
    got = [float(r["p(fracture)"]) for r in rows_of(tmp_path / "predictions.csv")]
    assert got == pytest.approx(wanted.tolist(), abs=1e-5)


def test_broken_files_are_listed_with_reason_and_remedy_and_the_rest_goes_on(run, tmp_path):
    place = tmp_path / "in put ö"
    good = save(place / "good.png", NOISE)
    (place / "cut.png").write_bytes(good.read_bytes()[:200])
    (place / "empty.jpg").write_bytes(b"")
    (place / "letter.dcm").write_text("dear radiologist")
    (place / "notes.txt").write_text("no picture by name or content: not even listed")
    assert predict_files(run, [place], tmp_path / "out", QUIET) == (1, 3)
    rejects = rows_of(tmp_path / "out" / "rejects.csv")
    assert {r["file"].rsplit("/", 1)[-1] for r in rejects} == {"cut.png", "empty.jpg", "letter.dcm"}
    assert all(r["reason"] and r["remedy"] for r in rejects)
    assert not any("Traceback" in r["reason"] for r in rejects)


def test_the_same_name_in_several_folders_keeps_every_overlay(run, tmp_path):
    files = [save(tmp_path / d / "image.png", NOISE) for d in ("a", "b", "c")] + [
        save(tmp_path / "d" / "image_2.png", NOISE)
    ]
    assert predict_files(run, files, tmp_path / "out", QUIET) == (4, 0)
    overlays = [r["overlay"] for r in rows_of(tmp_path / "out" / "predictions.csv")]
    assert len(set(overlays)) == 4 and all((tmp_path / "out" / o).is_file() for o in overlays)


def test_a_file_given_twice_is_predicted_once(run, tmp_path):
    path = save(tmp_path / "in" / "a.png", NOISE)
    assert predict_files(run, [path, path, path.parent], tmp_path / "out", QUIET) == (1, 0)


def test_overlays_of_an_earlier_call_are_not_predicted(run, tmp_path):
    save(tmp_path / "a.png", NOISE)
    for _ in range(2):
        assert predict_files(run, [tmp_path], tmp_path / "out", QUIET) == (1, 0)


@pytest.mark.parametrize(
    "pixels",
    [np.array([[0, 255]], np.uint8), np.tile(np.arange(90, dtype=np.uint8), (3, 10)),
     np.random.default_rng(2).integers(0, 255, (50, 50, 3)).astype(np.uint8),
     np.random.default_rng(1).integers(0, 65535, (64, 48)).astype(np.uint16),
     np.tile(NOISE, (40, 60))],
    ids=["two pixels", "a strip", "colour", "16 bit", "2400 x 2400"],
)  # fmt: skip
def test_odd_pictures(run, tmp_path, pixels):
    assert predict_files(run, [save(tmp_path / "x y.png", pixels)], tmp_path / "out", QUIET) == (1, 0)
    (row,) = rows_of(tmp_path / "out" / "predictions.csv")
    assert np.isfinite(float(row["p(fracture)"]))


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 1)), np.full((30, 40), 255), np.full((30, 40, 3), (10, 200, 90))], ids=str
)
def test_a_picture_of_one_value_is_rejected(run, tmp_path, pixels):
    path = save(tmp_path / "blank.png", pixels.astype(np.uint8))
    assert predict_files(run, [path], tmp_path / "out", QUIET) == (0, 1)
    assert "every pixel looks the same" in rows_of(tmp_path / "out" / "rejects.csv")[0]["reason"]


def test_overlays_of_another_folder_are_rejected_and_not_judged(run, tmp_path):
    save(tmp_path / "in" / "a.png", NOISE)
    predict_files(run, [tmp_path / "in"], tmp_path / "in", QUIET)
    assert predict_files(run, [tmp_path / "in"], tmp_path / "out", QUIET) == (1, 1)
    assert "drawn by sightline" in rows_of(tmp_path / "out" / "rejects.csv")[0]["reason"]


def test_other_formats_and_dangling_links_are_rejected_aloud(run, tmp_path):
    save(tmp_path / "in" / "a.png", NOISE)
    Image.fromarray(NOISE).save(tmp_path / "in" / "b.bmp")
    (tmp_path / "in" / "more").mkdir()
    (tmp_path / "in" / "more" / "c.nii.gz").write_bytes(b"no picture")
    (tmp_path / "in" / "d.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in" / "e.png").symlink_to("e.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    save(tmp_path / "elsewhere" / "f.png", NOISE)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    assert predict_files(run, [tmp_path / "in"], tmp_path / "out", QUIET)[1] == 5
    assert {Path(r["file"]).name for r in rows_of(tmp_path / "out" / "rejects.csv")} == {
        "linked",
        "b.bmp",
        "c.nii.gz",
        "d.png",
        "e.png",
    }


def test_a_name_that_is_no_text_is_written_as_its_bytes(run, tmp_path):
    good = save(tmp_path / "in" / "a.png", NOISE)
    try:
        (tmp_path / "in" / os.fsdecode(b"M\xfcller.png")).write_bytes(good.read_bytes())
        (tmp_path / "in" / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes text alone")
    assert predict_files(run, [tmp_path / "in"], tmp_path / "out", QUIET) == (2, 1)
    assert rows_of(tmp_path / "out" / "predictions.csv")[0]["file"].endswith("M\\udcfcller.png")
    assert rows_of(tmp_path / "out" / "rejects.csv")[0]["file"].endswith("\\udcff.png")


def test_long_names_that_differ_at_the_end_stay_apart():
    one, other, letters = (make_safe_name(text) for text in ("a" * 200 + "1", "a" * 200 + "2", "骨" * 200))
    assert one != other and all(len(name.encode()) <= 120 for name in (one, other, letters))
    assert make_safe_name("..") == "case"


def test_an_absurd_size_is_rejected_before_it_is_read(run, tmp_path):
    """A PNG header that states 60000 x 60000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    (tmp_path / "huge.png").write_bytes(png + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    assert predict_files(run, [tmp_path / "huge.png"], tmp_path / "out", QUIET) == (0, 1)
    assert "million pixels" in rows_of(tmp_path / "out" / "rejects.csv")[0]["reason"]


def test_what_is_not_there_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(RunError, match=r"nope\.png does not exist"):
        predict_files(run, [tmp_path / "nope.png"], tmp_path / "out", QUIET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no file in what was given"):
        predict_files(run, [tmp_path / "empty"], tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(run, tmp_path):
    from sightline.training.run import open_run

    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    with pytest.raises(RunError, match="not finished"):
        predict_files(open_run(tmp_path / "run", CATALOGUE), [save(tmp_path / "a.png", NOISE)], tmp_path / "o", QUIET)


@pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason="the shared DICOM files are not here")
def test_dicom_files_are_read_or_rejected_with_words(run, tmp_path):
    read, rejected = predict_files(run, [DATA / "dicom" / "odd"], tmp_path / "out", QUIET)
    assert read + rejected == 14 and rejected > 0
    assert all(r["reason"] and r["remedy"] for r in rows_of(tmp_path / "out" / "rejects.csv"))


BEFORE_DRAWING = """
import sys
from pathlib import Path
from sightline.inference import radiographs
from sightline.papers.catalogue import CATALOGUE
from sightline.training.run import open_run
drawn = radiographs._draw_overlay
def first(*args):
    radiographs._draw_overlay = drawn
    print(*(name for name in sys.argv[4:] if name in sys.modules), sep=",")
    return drawn(*args)
radiographs._draw_overlay = first
radiographs.predict_files(open_run(Path(sys.argv[1]), CATALOGUE), [Path(sys.argv[2])], Path(sys.argv[3]))
print("matplotlib" in sys.modules)
"""


@pytest.mark.slow
def test_a_radiograph_loads_no_ct_stack_and_no_plots_before_it_draws(run, tmp_path):
    radiograph().save_as(tmp_path / "hand.dcm", enforce_file_format=True)
    heavy = ("matplotlib", "nibabel", "monai", "pandas", "sklearn", "highdicom", "sightline.plots", "sightline.io.ct",
             "sightline.io.nifti", "sightline.io.volume", "sightline.data.spine", "sightline.data.datasets",
             "sightline.inference.ct", "sightline.dissection")  # fmt: skip
    words = [sys.executable, "-c", BEFORE_DRAWING, str(run.folder), str(tmp_path / "hand.dcm"), str(tmp_path), *heavy]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")
    assert said[:2] == ["", "True"]


class TestOneFolder:
    """Two commands in one folder, one that is stopped, and one that changes its mind."""

    def files(self, folder):
        rng = np.random.default_rng(3)
        # two files of one name, so that overlays have to be told apart
        names = ("a/x.png", "b/x.png", "c.png", "d.png", "e.png", "f.png")
        return [save(folder / name, rng.integers(0, 255, (50, 40)).astype(np.uint8)) for name in names]

    def test_a_second_command_is_refused_while_the_first_writes(self, run, tmp_path, no_overlays):
        files = self.files(tmp_path)
        with hold_folder(tmp_path / "out"), pytest.raises(RunError, match="is being written into by process"):
            predict_files(run, files, tmp_path / "out", QUIET)
        assert predict_files(run, files, tmp_path / "out", QUIET) == (6, 0)
        assert not (tmp_path / "out" / ".lock").exists()

    def test_a_stopped_command_goes_on_to_the_same_bytes(self, run, tmp_path, monkeypatch, no_overlays):
        files, out = self.files(tmp_path / "in"), tmp_path / "out"
        predict_files(run, files, tmp_path / "whole", QUIET)
        counted = []

        def stops(path):
            counted.append(path)
            if len(counted) == 5:
                raise KeyboardInterrupt
            return read_radiograph(path)

        monkeypatch.setattr(radiographs, "read_radiograph", stops)
        with pytest.raises(KeyboardInterrupt):
            predict_files(run, files, out, QUIET)
        assert len(rows_of(out / "predictions.csv")) == 4
        # killed in the middle of a line
        journal = out / NAME
        journal.write_text(journal.read_text() + '{"file": "half')
        # one of those that were done has changed since
        save(files[1], NOISE)
        predict_files(run, files[1:2], tmp_path / "one", QUIET)
        counted.clear()
        counted += [None] * 10
        assert predict_files(run, files, out, QUIET) == (6, 0)
        assert counted[10:] == [files[1], *files[4:]]
        whole, again = rows_of(tmp_path / "whole" / "predictions.csv"), rows_of(out / "predictions.csv")
        other = [name for name in whole[0] if name != "overlay"]
        for n, (a, b) in enumerate(zip(whole, again, strict=True)):
            assert a["file"] == b["file"]
            assert n == 1 or all(a[name] == b[name] for name in other)
        assert len({row["overlay"] for row in again}) == 6
        assert rows_of(tmp_path / "one" / "predictions.csv")[0]["predicted"] == again[1]["predicted"]
        assert len(rows_of(out / "studies.csv")) == 6
        assert not journal.exists()


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (60, 40)])
def test_the_place_looked_at_lies_in_the_picture(run, tmp_path, shape):
    pixels = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    predict_files(run, [save(tmp_path / "a.png", pixels)], tmp_path / "out", QUIET)
    (row,) = rows_of(tmp_path / "out" / "predictions.csv")
    assert 0 <= float(row["look_row"]) <= shape[0]
    assert 0 <= float(row["look_column"]) <= shape[1]


def test_what_is_to_be_known_of_a_picture_is_said(run, tmp_path, capsys):
    data = radiograph(PresentationIntentType="FOR PROCESSING")
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    predict_files(run, [tmp_path / "a.dcm"], tmp_path / "out", QUIET)
    assert "FOR PROCESSING" in capsys.readouterr().err
    assert "FOR PROCESSING" in rows_of(tmp_path / "out" / "remarks.csv")[0]["remark"]


def test_of_an_earlier_prediction_nothing_is_left_that_no_row_names(run, tmp_path, capsys):
    first = [save(tmp_path / "in" / f"{name}.png", NOISE) for name in "abc"]
    out, mine = tmp_path / "out", tmp_path / "out" / "overlays" / "mine.png"
    predict_files(run, first, out, QUIET)
    assert "earlier" not in capsys.readouterr().err
    shutil.copy(out / "overlays" / "a.png", mine)  # a person's copy
    save(out / "overlays" / "c.png", NOISE)  # and a picture of theirs that took a place of ours
    predict_files(run, first[1:2], out, QUIET)
    assert "earlier prediction of 3 pictures was replaced; 1 file of it" in capsys.readouterr().err
    assert sorted(path.name for path in mine.parent.iterdir()) == ["b.png", "c.png", "mine.png"]
    predict_files(run, first[1:2], out, QUIET)
    assert sorted(path.name for path in mine.parent.iterdir()) == ["b.png", "c.png", "mine.png"]


def test_a_stopped_prediction_goes_on_without_what_was_there_before_it(run, tmp_path, monkeypatch, capsys):
    first = [save(tmp_path / "in" / f"{name}.png", NOISE) for name in "abcd"]
    out = tmp_path / "out"
    predict_files(run, first[:2], out, QUIET)
    with monkeypatch.context() as patch:
        read = radiographs.read_radiograph
        patch.setattr(radiographs, "read_radiograph", lambda path: 1 / 0 if path.stem == "d" else read(path))
        with pytest.raises(ZeroDivisionError):
            predict_files(run, first[2:], out, QUIET)
    capsys.readouterr()
    assert predict_files(run, first[3:], out, QUIET) == (1, 0)
    assert [path.name for path in (out / "overlays").iterdir()] == ["d.png"]


def test_a_patient_is_an_id_and_whoever_issued_it(tmp_path):
    plain = radiograph()
    plain.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    plain.IssuerOfPatientID = "Clinic"
    plain.save_as(tmp_path / "issued.dcm", enforce_file_format=True)
    patient = _read_patient(tmp_path / "plain.dcm")
    assert patient and _read_patient(tmp_path / "issued.dcm").split()[0] == patient
    assert len(_read_patient(tmp_path / "issued.dcm").split()) == 2
