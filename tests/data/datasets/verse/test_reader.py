"""VerSe trees: both layouts, archives merged, splits kept, grades matched or refused, trouble with one series."""

import gzip
import json
import shutil

import numpy as np
import pytest
from support.paths import DATA as DATA_ROOT

from sightline.data.datasets.verse import reader as verse
from sightline.errors import LayoutError
from sightline.io.nifti import read_volume, write_volume

DATA = DATA_ROOT / "spine_ct"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the sample CTs are not here")
# 1 mm, axes P, I, R
PIR = np.array([[0, 0, 1, -10], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1.0]])
SHAPE = (8, 20, 6)


def centroids(*labels, start=3.0, step=4.0, direction=("P", "I", "R")):
    """A spine straight down the second axis."""
    places = [{"label": n, "X": 3.0, "Y": start + step * i, "Z": 2.0} for i, n in enumerate(labels)]
    return ([{"direction": list(direction)}] if direction else []) + places


def subject(root, name, listed, *, mask=True, patient=None):
    """One series in the subject-based layout."""
    folder = f"sub-{patient or name.split('_')[0]}"
    write_volume(root / "rawdata" / folder / f"sub-{name}_ct.nii.gz", np.full(SHAPE, -1000, np.int16), PIR)
    derived = root / "derivatives" / folder
    derived.mkdir(parents=True, exist_ok=True)
    if mask:
        write_volume(derived / f"sub-{name}_seg-vert_msk.nii.gz", np.zeros(SHAPE, np.uint8), PIR)
    if listed is not None:
        (derived / f"sub-{name}_seg-subreg_ctd.json").write_text(json.dumps(listed))


def challenge(root, name, listed):
    """One series as in the challenge's copy, in a folder of the patient."""
    folder = root / name.split("_")[0]
    write_volume(folder / f"{name}.nii.gz", np.full(SHAPE, -1000, np.int16), PIR)
    write_volume(folder / f"{name}_seg.nii.gz", np.zeros(SHAPE, np.uint8), PIR)
    (folder / f"{name}_iso-ctd.json").write_text(json.dumps(listed))


def table(path, *rows, header="subject,series,label,grade,deformity,foreign,excluded"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_subject_based_layout(tmp_path):
    root = tmp_path / "dataset-verse19training"
    subject(root, "verse004", centroids(18, 19, 28, 20))
    subject(root, "verse401_split-verse253", centroids(20, 21))
    subject(root, "verse401_split-verse254", centroids(22, 23), mask=False)
    subject(tmp_path / "dataset-verse20test", "verse500_dir-ax", centroids(8, 9))
    subject(tmp_path / "dataset-verse20validation", "gl003", centroids(8, 9))
    spines, rejects = verse.read(tmp_path)
    assert rejects == ()
    told = [(s.subject, s.series, s.source, s.split, s.vertebra_mask is not None) for s in spines]
    assert told == [
        ("gl003", "gl003", "verse20", "val", True),
        ("verse004", "verse004", "verse19", "train", True),
        ("verse401", "verse401_split-verse253", "verse19", "train", True),
        ("verse401", "verse401_split-verse254", "verse19", "train", False),
        ("verse500", "verse500_dir-ax", "verse20", "test", True),
    ]
    # T13 (28) stands between T12 and L1
    assert [v.level for v in spines[1].vertebrae] == ["T11", "T12", "T13", "L1"]
    assert spines[1].vertebrae[0].centre == (3.5, 3.5, 2.5)
    assert all(v.grade is None for v in spines[1].vertebrae)


@pytest.mark.parametrize(
    ("folder", "split"),
    [("01_training", "train"), ("02_validation", "val"), ("03_test", "test"), ("training", "train"), ("scans", None)],
)
def test_older_names_of_the_splits(tmp_path, folder, split):
    subject(tmp_path / folder, "verse007", centroids(20))
    spines, _ = verse.read(tmp_path)
    assert [s.split for s in spines] == [split]
    spines, _ = verse.read(tmp_path / folder)
    assert [s.split for s in spines] == [split]


def test_the_challenge_copy(tmp_path):
    root = tmp_path / "verse20_miccai" / "01_training"
    challenge(root, "GL003_CT_ax", centroids(20, 21, direction=None))
    challenge(root, "verse400_verse090_CT-iso", centroids(20, 21, direction=None))
    spines, rejects = verse.read(tmp_path)
    assert rejects == ()
    assert [(s.subject, s.series, s.source, s.split) for s in spines] == [
        ("gl003", "gl003_ct-ax", "verse20", "train"),
        ("verse400", "verse400_verse090_ct-iso", "verse19", "train"),
    ]
    assert spines[0].vertebrae[1].centre == (3.5, 7.5, 2.5)
    assert spines[0].vertebra_mask.name == "GL003_CT_ax_seg.nii.gz"


def test_the_same_scan_in_two_archives_is_read_once(tmp_path):
    subject(tmp_path / "dataset-verse19test", "verse401_split-verse253", centroids(20, 21))
    subject(tmp_path / "dataset-verse19test", "verse012", centroids(20, 21))
    subject(tmp_path / "dataset-verse20training", "verse012", centroids(20, 21))
    # the challenge of 2019 knows the scan under its own number alone
    challenge(tmp_path / "verse19_miccai" / "03_test", "verse253", centroids(20, 21, direction=None))
    challenge(tmp_path / "verse20_miccai" / "01_training", "verse401_verse253_CT-sag", centroids(20, direction=None))
    spines, rejects = verse.read(tmp_path)
    assert [(s.subject, s.series, s.split) for s in spines] == [
        ("verse012", "verse012", "test"),
        ("verse401", "verse401_split-verse253", "test"),
    ]
    assert len(rejects) == 3
    assert all("a copy" in r.reason for r in rejects)


def test_a_series_without_centroids_is_no_copy_of_its_sister(tmp_path):
    subject(tmp_path, "verse510_dir-ax", centroids(20))
    subject(tmp_path, "verse510_dir-sag", None)
    spines, rejects = verse.read(tmp_path)
    assert [s.series for s in spines] == ["verse510_dir-ax"]
    assert [r.file.name for r in rejects] == ["sub-verse510_dir-sag_ct.nii.gz"]
    assert "no centroid file" in rejects[0].reason and "derivatives" in rejects[0].remedy


def test_derivatives_that_lack_the_direction_in_their_name(tmp_path):
    subject(tmp_path, "verse511_dir-ax", None, mask=False)
    subject(tmp_path, "verse511", centroids(20))
    (tmp_path / "rawdata/sub-verse511/sub-verse511_ct.nii.gz").unlink()
    spines, rejects = verse.read(tmp_path)
    assert rejects == ()
    assert spines[0].series == "verse511_dir-ax" and spines[0].vertebra_mask is not None


def test_a_patient_in_two_splits_does_not_leak(tmp_path):
    subject(tmp_path / "01_training", "verse520_split-verse521", centroids(20))
    subject(tmp_path / "03_test", "verse520_split-verse522", centroids(20))
    spines, rejects = verse.read(tmp_path)
    assert [(s.series, s.split) for s in spines] == [("verse520_split-verse522", "test")]
    assert "leak" in rejects[0].reason


def test_trouble_with_one_series_lets_the_rest_go_on(tmp_path):
    subject(tmp_path, "verse001", centroids(20, 21))
    subject(tmp_path, "verse002", None)
    subject(tmp_path, "verse003", centroids(20, 20))
    subject(tmp_path, "verse004", centroids(20, start=50.0))
    subject(tmp_path, "verse005", centroids(20))
    subject(tmp_path, "verse006", centroids(20))
    subject(tmp_path, "verse007", centroids(20))
    subject(tmp_path, "verse008", centroids(20))
    raw = tmp_path / "rawdata"
    write_volume(raw / "sub-verse005/sub-verse005_ct.nii.gz", np.zeros((8, 20, 5), np.int16), PIR)
    (raw / "sub-verse006/sub-verse006_ct.nii.gz").unlink()
    (raw / "sub-verse007/sub-verse007_ct.nii.gz").write_bytes(gzip.compress(b"no header"))
    head = bytearray(gzip.decompress((raw / "sub-verse008/sub-verse008_ct.nii.gz").read_bytes()))
    head[252:256] = bytes(4)  # both codes: orientation unknown
    (raw / "sub-verse008/sub-verse008_ct.nii.gz").write_bytes(gzip.compress(bytes(head)))
    spines, rejects = verse.read(tmp_path)
    assert [s.subject for s in spines] == ["verse001"]
    reasons = {r.file.name.split("_")[0]: r.reason for r in rejects}
    for name, words in {
        "sub-verse002": "no centroid file",
        "sub-verse003": "stands there twice",
        "sub-verse004": "outside the CT",
        "sub-verse005": r"corners lie",
        "sub-verse006": "no CT belongs",
        "sub-verse007": "truncated",
        "sub-verse008": "orientation unknown",
    }.items():
        assert words in reasons[name]
    assert all(r.remedy for r in rejects)


def test_a_folder_without_series_is_refused(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(LayoutError, match="no series"):
        verse.read(tmp_path)
    with pytest.raises(LayoutError, match="no such folder"):
        verse.read(tmp_path / "nowhere")


def test_grades_find_their_vertebrae(tmp_path):
    subject(tmp_path, "verse004", centroids(19, 28, 20))
    subject(tmp_path, "verse401_split-verse253", centroids(20, 21))
    subject(tmp_path, "verse401_split-verse254", centroids(21, 22))
    table(
        tmp_path / "fractures.csv",
        "4,,T12,2,wedge,0,0",
        "sub-verse004,,28,0,,yes,no",
        "verse401,,L2,1,biconcave,,",
        "verse401,verse254,L3,3,crush,,1",
        "verse253,,L1,0,,,",
    )
    spines, rejects = verse.read(tmp_path)
    assert rejects == ()
    told = {(s.series, v.level): (v.grade, v.deformity, v.foreign, v.excluded) for s in spines for v in s.vertebrae}
    assert told == {
        ("verse004", "T12"): (2, "wedge", False, False),
        ("verse004", "T13"): (0, "", True, False),
        ("verse004", "L1"): (None, "", False, False),
        # without a series a row holds for all that show the vertebra; a scan's own number names its series
        ("verse401_split-verse253", "L1"): (0, "", False, False),
        ("verse401_split-verse253", "L2"): (1, "biconcave", False, False),
        ("verse401_split-verse254", "L2"): (1, "biconcave", False, False),
        ("verse401_split-verse254", "L3"): (3, "crush", False, True),
    }


@pytest.mark.parametrize("row", ["verse005,,L1,1,,,", "verse004,,L5,1,,,", "verse004,verse253,L1,1,,,"])
def test_rows_that_match_no_vertebra_stop_the_import(tmp_path, row):
    subject(tmp_path, "verse004", centroids(19, 20))
    with pytest.raises(LayoutError, match=r"1 of 2 rows match no vertebra of the data: row 3 \(verse00[45], L"):
        verse.read(tmp_path, gradings=table(tmp_path / "t.csv", "verse004,,L1,1,,,", row))


def test_rows_that_contradict_each_other_stop_the_import(tmp_path):
    subject(tmp_path, "verse004", centroids(19, 20))
    rows = ("verse004,,L1,1,,,", "verse004,verse004,20,2,,,")
    with pytest.raises(LayoutError, match=r"row 3 .* contradicts row 2"):
        verse.read(tmp_path, gradings=table(tmp_path / "t.csv", *rows))
    spines, _ = verse.read(tmp_path, gradings=table(tmp_path / "t.csv", rows[0], rows[0]))
    assert spines[0].vertebrae[1].grade == 1


def test_rows_of_series_left_out_are_counted(tmp_path):
    subject(tmp_path, "verse004", [*centroids(19), {"label": 20, "X": float("nan"), "Y": float("nan"), "Z": 1.0}])
    subject(tmp_path, "verse005", None)
    rows = ("verse004,,19,1,,,", "verse004,,20,1,,,", "verse005,,20,1,,,")
    spines, rejects = verse.read(tmp_path, gradings=table(tmp_path / "t.csv", *rows))
    assert spines[0].vertebrae[0].grade == 1
    assert spines[0].facts["centroids_skipped"] == "L1"
    assert "2 rows" in rejects[-1].reason


@real
def test_the_real_mask_and_its_centroids(tmp_path):
    """Every centroid lies in its own label; the same holds when the file is written along other axes."""
    real_mask, listed = (DATA / "verse" / name for name in ("sub-verse004_seg-vert_msk.nii.gz", ""))
    labels = read_volume(real_mask, labels=True)
    turned = labels.values[::-1].transpose(1, 0, 2)
    affine = labels.affine[:, [1, 0, 2, 3]] @ np.diag([1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = labels.affine[:3, 3] + labels.affine[:3, 0] * (labels.values.shape[0] - 1)
    for values, place, name in ((labels.values, labels.affine, "a"), (turned, affine, "b")):
        root = tmp_path / name
        (root / "derivatives" / "sub-verse004").mkdir(parents=True)
        shutil.copy(listed / "sub-verse004_seg-subreg_ctd.json", root / "derivatives" / "sub-verse004")
        write_volume(root / "derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz", values, place)
        # the CT itself is not shared, its grid is: the mask stands in for it
        write_volume(root / "rawdata/sub-verse004/sub-verse004_ct.nii.gz", values, place)
        spines, rejects = verse.read(root)
        assert rejects == ()
        mask = read_volume(spines[0].vertebra_mask, labels=True)
        assert [v.level for v in spines[0].vertebrae] == ["T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5"]
        for vertebra in spines[0].vertebrae:
            assert mask.values[tuple(int(c) for c in vertebra.centre)] == vertebra.label
