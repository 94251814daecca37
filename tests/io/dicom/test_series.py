"""CT series from DICOM folders: slices written here in every kind of disorder, and a real series."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame
from pydicom.uid import RLELossless
from support.ct_slices import write_slice
from support.paths import DATA as DATA_ROOT

from sightline.errors import UnreadableFile
from sightline.io.ct import read_ct
from sightline.io.dicom.series import read_series
from sightline.io.nifti import read_volume

DATA = DATA_ROOT / "spine_ct"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the sample CTs are not here")
HU = np.random.default_rng(0).integers(-1000, 1500, (6, 4, 5))  # slice, row, column


def series(folder, hu=HU, *, places=None, step=2.0, **words):
    """Slices in an order that neither their names nor their instance numbers give away."""
    for n, pixels in enumerate(hu):
        z = places[n] if places is not None else 10 + step * n
        write_slice(folder / f"IM{(n * 7) % 31:04d}", pixels, (-30.0, -20.0, z), InstanceNumber=99 - n, **words)
    return folder


def test_slices_are_sorted_by_position_and_placed(tmp_path):
    volume = read_series(series(tmp_path / "ct"))
    assert volume.values.dtype == np.int16
    assert np.array_equal(volume.values, HU.transpose(2, 1, 0))
    assert volume.orientation == ("L", "P", "S")
    assert volume.spacing_mm == (0.75, 0.5, 2.0)
    # by PS3.3 C.7.6.2.1.1: column 3, row 2 of slice 4, to the left and to the back in DICOM
    assert np.allclose(volume.affine @ [3, 2, 4, 1], [-(-30 + 3 * 0.75), -(-20 + 2 * 0.5), 10 + 4 * 2.0, 1])
    assert volume.facts["slices"] == "6"
    assert np.array_equal(read_ct(tmp_path / "ct").values, volume.values)


def test_sagittal_and_oblique_series(tmp_path):
    sagittal = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
    for n, pixels in enumerate(HU):
        write_slice(tmp_path / "s" / str(n), pixels, (5 + 3.0 * n, 0, 0), cosines=sagittal)
        turn = np.deg2rad(20)
        oblique = ((1.0, 0.0, 0.0), (0.0, np.cos(turn), np.sin(turn)))
        normal = np.cross(*oblique)
        write_slice(tmp_path / "o" / str(n), pixels, np.round(normal * 2.5 * n, 6), cosines=np.round(oblique, 6))
    flat, tilted = read_series(tmp_path / "s"), read_series(tmp_path / "o")
    # the normal of rows to the back and columns to the feet points to the right: the last slice comes first
    assert flat.orientation == ("P", "I", "R")
    assert np.array_equal(flat.values, HU[::-1].transpose(2, 1, 0))
    assert np.allclose(flat.affine[:3, 3], [-20, 0, 0])
    assert np.allclose(tilted.spacing_mm, (0.75, 0.5, 2.5))
    assert np.linalg.det(tilted.affine[:3, :3]) > 0


def test_slope_intercept_and_padding_of_each_slice(tmp_path):
    for n, (slope, intercept) in enumerate([(1, -1024), (2, -1000), (1, -2000)]):
        hu = (HU[n] // 2) * 2
        write_slice(tmp_path / str(n), hu, (0, 0, n), slope=slope, intercept=intercept, PixelPaddingValue=0)
    volume = read_series(tmp_path)
    for n in range(3):
        even = (HU[n] // 2) * 2
        assert np.array_equal(volume.values[..., n].T, np.where(even == (-1024, -1000, -2000)[n], -1024, even))
    write_slice(tmp_path / "0", HU[0], (0, 0, 0), slope=0.5)
    assert read_series(tmp_path).values.dtype == np.float32
    assert np.array_equal(read_series(tmp_path).values[..., 0].T, HU[0])


def test_compressed_slices(tmp_path):
    series(tmp_path)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    assert np.array_equal(read_series(tmp_path).values, HU.transpose(2, 1, 0))


def test_rounded_positions_are_even_enough(tmp_path):
    # 0.625 mm written with one digit, as some archives do
    places = [round(0.625 * n, 1) for n in range(6)]
    assert np.allclose(read_series(series(tmp_path, places=places)).spacing_mm[2], 0.62)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (
            (0, 2, 4, 8, 10, 12),
            r"1 slice is missing: the distance from IM0014 to IM0021 is 4\.00 mm, elsewhere 2\.00",
        ),
        ((0, 2, 4, 6, 8, 18), "4 slices are missing"),
        ((0, 2, 4, 4, 6, 8), "1 slice stands where another stands already"),
        ((0, 2, 4, 6.5, 8, 10), r"unevenly spaced: from 1\.50 to 2\.50 mm"),
        ((0, 1, 2.2, 3.6, 4.8, 6.5), "unevenly spaced"),
    ],
)
def test_gaps_copies_and_uneven_steps(tmp_path, places, words):
    with pytest.raises(UnreadableFile, match=words) as refusal:
        read_series(series(tmp_path, places=places))
    assert refusal.value.remedy


def test_a_tilted_gantry(tmp_path):
    for n, pixels in enumerate(HU):
        write_slice(tmp_path / str(n), pixels, (0, 2.0 * n * np.tan(np.deg2rad(12)), 2.0 * n))
    with pytest.raises(UnreadableFile, match=r"gantry tilted by 12\.0 degrees"):
        read_series(tmp_path)


def test_several_series_are_named_and_one_can_be_chosen(tmp_path):
    series(tmp_path / "a")
    series(tmp_path / "b", HU[:4], SeriesInstanceUID="1.2.77", SeriesDescription="lung")
    with pytest.raises(UnreadableFile, match=r"2 CT series: 1\.2\.3 \(spine, 6 slices\); 1\.2\.77 \(lung, 4 slices\)"):
        read_series(tmp_path)
    assert read_series(tmp_path, series="1.2.77").values.shape == (5, 4, 4)
    assert read_ct(tmp_path, series=".3").values.shape == (5, 4, 6)
    with pytest.raises(UnreadableFile, match=r"no series whose UID ends in '9'"):
        read_series(tmp_path, series="9")


def test_what_stands_beside_a_series(tmp_path):
    series(tmp_path)
    write_slice(tmp_path / "scout", HU[0], (0, 0, 500), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(tmp_path / "dose.dcm", HU[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "DICOMDIR").write_bytes(bytes(200))
    (tmp_path / ".hidden").write_bytes(b"x")
    volume = read_series(tmp_path)
    assert volume.values.shape == (5, 4, 6)
    assert volume.facts["left_out"].startswith("2 objects")


def test_slices_in_a_linked_folder_are_not_passed_over(tmp_path):
    """Half a series would be read as a whole one; a link to what lies in the folder anyway loses nothing."""
    here = series(tmp_path / "here", HU[:3])
    series(tmp_path / "elsewhere")
    (here / "again").symlink_to(here, target_is_directory=True)
    assert read_series(here).values.shape == (5, 4, 3)
    (here / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(UnreadableFile, match="more: a link to a folder, which is not followed"):
        read_series(here)


@pytest.mark.parametrize("keep", [0, 50, 200, 600, -1, -20])
@pytest.mark.parametrize("which", [0, 3, 5])
def test_one_truncated_slice_and_no_series(tmp_path, keep, which):
    series(tmp_path)
    file = tmp_path / f"IM{(which * 7) % 31:04d}"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UnreadableFile, match=file.name):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"RescaleSlope": None}, "RescaleSlope and RescaleIntercept are absent"),
        ({"RescaleIntercept": None}, "RescaleIntercept are .* and absent"),
        ({"RescaleType": "US"}, "in US, not in Hounsfield units"),
        ({"ImagePositionPatient": None}, "does not state where it lies"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "the directions"),
        ({"PixelSpacing": [0.5, 0.7]}, "a pixel spacing of"),
        ({"Rows": 2, "Columns": 10}, r"\(2, 10\), where .* has \(4, 5\) pixels"),
        ({"NumberOfFrames": 3}, "several frames"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, "of which 0 are described"),
    ],
)
def test_one_odd_slice(tmp_path, elements, words):
    series(tmp_path)
    write_slice(tmp_path / "IM9999", HU[0], (-30.0, -20.0, 22.0), **elements)
    with pytest.raises(UnreadableFile, match=words) as refusal:
        read_series(tmp_path)
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ImagePositionPatient": [float("nan"), 0, 0]}, "no place in space"),
        ({"ImageOrientationPatient": [float("inf"), 0, 0, 0, 1, 0]}, "no place in space"),
        ({"PixelSpacing": [-0.5, 0.75]}, "no place in space"),
        ({"RescaleSlope": -1}, "RescaleSlope"),
        ({"PatientID": "another"}, "2 patients"),
        ({"StudyInstanceUID": "1.2.9"}, "2 studies"),
        ({"FrameOfReferenceUID": "1.2.9"}, "2 frames of reference"),
    ],
)
def test_a_slice_that_says_something_impossible(tmp_path, elements, words):
    series(tmp_path)
    write_slice(tmp_path / "IM0014", HU[2], (-30.0, -20.0, 14.0), InstanceNumber=97, **elements)
    with pytest.raises(UnreadableFile, match=words) as refusal:
        read_series(tmp_path)
    assert refusal.value.remedy


def test_an_unnamed_scout_beside_a_series_is_left_out_and_counted(tmp_path):
    series(tmp_path)
    write_slice(tmp_path / "scout", HU[0], (0, 0, 0), cosines=((1, 0, 0), (0, 0, -1)), SeriesInstanceUID="1.2.9")
    volume = read_series(tmp_path)
    assert np.array_equal(volume.values, HU.transpose(2, 1, 0))
    assert volume.facts["left_out"] == "1 object that is no CT slice"


def test_damage_where_a_name_stands(tmp_path):
    series(tmp_path)
    data = (tmp_path / "IM0014").read_bytes()
    # the type of SeriesInstanceUID's value: unknown, and met only when the value is asked for
    place = data.index(b"\x20\x00\x0e\x00UI")
    (tmp_path / "IM0014").write_bytes(data[: place + 4] + b"U\x00" + data[place + 6 :])
    with pytest.raises(UnreadableFile, match="IM0014"):
        read_series(tmp_path)


def test_folders_that_hold_no_series(tmp_path):
    with pytest.raises(UnreadableFile, match="no such folder"):
        read_series(tmp_path / "none")
    with pytest.raises(UnreadableFile, match="no slices"):
        read_ct(tmp_path)
    series(tmp_path / "one", HU[:1])
    with pytest.raises(UnreadableFile, match="a series of 1 slice"):
        read_series(tmp_path / "one")
    with pytest.raises(UnreadableFile, match="one DICOM slice; a CT is a whole series"):
        read_ct(tmp_path / "one" / "IM0000")
    with pytest.raises(UnreadableFile, match=r"spacing is stated as 0\.75 x 0\.5 x 30 mm"):
        read_series(series(tmp_path / "far", step=30.0))


@real
def test_the_real_series_against_its_own_files():
    """Every voxel and two places, read another way (pydicom's own frame and numbers)."""
    folder = DATA / "totalsegmentator" / "example_ct_dicom"
    volume = read_ct(folder)
    assert volume.values.shape == (512, 512, 20) and volume.orientation == ("L", "P", "S")
    assert np.allclose(volume.spacing_mm, (0.9765625, 0.9765625, 2.0))
    headers = sorted((pydicom.dcmread(f) for f in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    for k in (0, 7, 19):
        assert np.array_equal(volume.values[..., k].T, headers[k].pixel_array.astype(int) - 1024)
        x, y, z = headers[k].ImagePositionPatient
        assert np.allclose(volume.world_of((0.5, 0.5, k + 0.5)), (-x, -y, z))
    assert len(get_frame(headers[0].PixelData, 0, number_of_frames=1)) > 1000  # compressed (JPEG 2000) indeed


@real
def test_the_real_series_lies_as_a_body_does():
    """The stomach's gas on the left, bone at the back: as in the NIfTI torso, which is another patient."""
    torso, series_ = (DATA / "totalsegmentator" / name for name in ("example_ct.nii.gz", "example_ct_dicom"))
    for volume, k in ((read_ct(series_), 2), (read_ct(torso), 105)):
        body = np.argwhere((volume.values[..., k] > 30) & (volume.values[..., k] < 150))
        bone = np.argwhere(volume.values[..., k] > 250)
        place = [volume.world_of(np.column_stack([p, np.full(len(p), k)]) + 0.5).mean(axis=0) for p in (body, bone)]
        assert place[1][1] < place[0][1]  # bone behind soft tissue
        gas = np.argwhere(volume.values[..., k] < -900)
        inside = volume.world_of(np.column_stack([gas, np.full(len(gas), k)]) + 0.5)
        offset = inside - place[0]
        stomach = (np.abs(offset[:, 0]) < 110) & (offset[:, 1] > 0) & (offset[:, 1] < 90)
        assert stomach.sum() > 50
        assert offset[stomach, 0].mean() < -20  # its gas is on the left


@real
def test_a_series_and_its_nifti_twin_agree(tmp_path):
    """The real torso, written as a series and read again, is the same body at the same place."""
    torso = read_volume(DATA / "totalsegmentator" / "example_ct.nii.gz")
    part = torso.values[:, :, 60:72]
    for k in range(part.shape[2]):
        # rows run to the left and columns to the back: both axes of the RAS array turned round
        corner = torso.affine @ [part.shape[0] - 1, part.shape[1] - 1, 60 + k, 1]
        hu = part[::-1, ::-1, k].T.astype(int)
        write_slice(tmp_path / f"{k}", hu, (-corner[0], -corner[1], corner[2]), spacing=(3, 3), intercept=-2000)
    twin = read_series(tmp_path)
    places = np.random.default_rng(1).integers(0, part.shape, (200, 3))
    world = torso.world_of(places + np.array([0, 0, 60]) + 0.5)
    there = np.floor(twin.place_of(world)).astype(int)
    assert np.array_equal(twin.values[tuple(there.T)], part[tuple(places.T)])
    shutil.rmtree(tmp_path)
