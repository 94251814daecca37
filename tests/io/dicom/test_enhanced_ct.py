"""Enhanced CTs, all slices in one file: read frame by frame as the series they stand for."""

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless

from sightline.errors import UnreadableFile
from sightline.io.ct import read_ct
from sightline.io.dicom.series import read_series
from sightline.io.image import is_ct_input

HU = np.random.default_rng(0).integers(-1000, 1500, (6, 4, 5))  # frame, row, column
ORDER = (3, 0, 5, 1, 4, 2)  # frames need not stand in order
UID = "1.2.826.0.1.3680043.8.498.1"


def group(**elements):
    held = Dataset()
    for keyword, value in elements.items():
        setattr(held, keyword, value)
    return Sequence([held])


def write_enhanced(path, *, order=ORDER, apart=("PlanePositionSequence",), slopes=None, types=None, **elements):
    """An Enhanced CT with oblique frames 2.5 mm apart; groups named in `apart` are told a frame at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, EnhancedCTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{UID}.4"
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.StudyInstanceUID, data.SeriesInstanceUID = "CT", f"{UID}.1", f"{UID}.2"
    data.FrameOfReferenceUID, data.SeriesDescription = f"{UID}.3", "spine"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.NumberOfFrames, (data.Rows, data.Columns) = len(order), HU.shape[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    slopes = slopes or [1] * len(order)
    data.PixelData = b"".join(
        np.rint((HU[n] + 1024) / slope).astype(np.uint16).tobytes() for n, slope in zip(order, slopes, strict=True)
    )
    turn = np.deg2rad(20)
    cosines = [1.0, 0.0, 0.0, 0.0, float(np.cos(turn)), float(np.sin(turn))]
    normal = np.cross(cosines[:3], cosines[3:])
    shared, frames = Dataset(), []
    for at, n in enumerate(order):
        told = {
            "PlanePositionSequence": group(ImagePositionPatient=[float(x) for x in np.round(normal * 2.5 * n, 6)]),
            "PlaneOrientationSequence": group(ImageOrientationPatient=[round(x, 8) for x in cosines]),
            "PixelMeasuresSequence": group(PixelSpacing=[0.5, 0.75], SliceThickness=9),
            "PixelValueTransformationSequence": group(
                RescaleSlope=slopes[at], RescaleIntercept=-1024, RescaleType="HU"
            ),
        }
        if types:
            told["CTImageFrameTypeSequence"] = group(FrameType=["ORIGINAL", "PRIMARY", types[at], "NONE"])
        own = Dataset()
        for name, sequence in told.items():
            setattr(own if name in apart or name == "CTImageFrameTypeSequence" else shared, name, sequence)
        frames.append(own)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path


EVERY_GROUP = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"
)  # fmt: skip


@pytest.mark.parametrize("apart", [EVERY_GROUP[:1], EVERY_GROUP])
def test_frames_are_sorted_by_place_wherever_it_is_said(tmp_path, apart):
    path = write_enhanced(tmp_path / "ct", apart=apart)
    volume = read_ct(path)
    assert volume.values.dtype == np.int16
    assert np.array_equal(volume.values, HU.transpose(2, 1, 0))
    assert np.allclose(volume.spacing_mm, (0.75, 0.5, 2.5))
    assert volume.facts["slices"] == "6" and volume.facts["series_uid"] == f"{UID}.2"
    # the same from the folder that holds it
    assert np.array_equal(read_series(tmp_path).values, volume.values)
    assert is_ct_input(path) and is_ct_input(tmp_path)


def test_place_and_numbers_are_highdicoms(tmp_path):
    path = write_enhanced(tmp_path / "ct")
    theirs = highdicom.imread(path).get_volume(apply_real_world_transform=False)
    ours = read_ct(path)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    for index in ((0, 0, 0), (4, 3, 5), (1, 2, 3)):
        place = ours.affine @ [*index, 1]
        back = np.linalg.inv(to_ras @ theirs.affine) @ place
        slice_, row, column = np.rint(back[:3]).astype(int)
        assert np.allclose(back[:3], (slice_, row, column), atol=1e-4)
        assert theirs.array[slice_, row, column] == ours.values[index]


def test_each_frame_has_its_own_slope(tmp_path):
    write_enhanced(tmp_path / "ct", slopes=[1, 1, 2, 1, 1, 1], apart=EVERY_GROUP)
    halved = np.rint((HU[5] + 1024) / 2) * 2 - 1024
    assert np.array_equal(read_series(tmp_path).values[..., 5].T, halved)
    assert np.array_equal(read_series(tmp_path).values[..., 4].T, HU[4])


def test_compressed_frames(tmp_path):
    path = write_enhanced(tmp_path / "ct")
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    assert np.array_equal(read_series(path).values, HU.transpose(2, 1, 0))


def test_a_series_in_several_files(tmp_path):
    # a concatenation: one instance cut into files of some frames each
    write_enhanced(tmp_path / "a", order=(0, 3, 1))
    write_enhanced(tmp_path / "b", order=(5, 2, 4))
    assert np.array_equal(read_series(tmp_path).values, HU.transpose(2, 1, 0))
    with pytest.raises(UnreadableFile, match=r"missing|unevenly"):
        read_series(tmp_path / "b")


def test_localiser_frames_are_left_out(tmp_path):
    write_enhanced(tmp_path / "ct", types=["VOLUME"] * 2 + ["LOCALIZER"] + ["VOLUME"] * 3, apart=EVERY_GROUP)
    volume = read_series(tmp_path)
    # frame 2 of the file is the last slice of the stack
    assert np.array_equal(volume.values, HU[:5].transpose(2, 1, 0))
    assert volume.facts["left_out"].startswith("1 ")


def test_what_is_missing_is_named(tmp_path):
    path = write_enhanced(tmp_path / "twins", order=(0, 1, 1, 2))
    with pytest.raises(UnreadableFile, match="1 slice stands where another"):
        read_ct(path)
    path = write_enhanced(tmp_path / "undescribed", NumberOfFrames=7)
    with pytest.raises(UnreadableFile, match="7 frames, of which 6 are described"):
        read_ct(path)
    path = write_enhanced(tmp_path / "nowhere")
    data = pydicom.dcmread(path)
    del data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    data.save_as(path)
    with pytest.raises(UnreadableFile, match="does not state where it lies"):
        read_ct(path)
    path = write_enhanced(tmp_path / "cut")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UnreadableFile, match=r"slice . of 6"):
        read_ct(path)
