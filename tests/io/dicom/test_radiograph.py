"""DICOM: real files, odd files, and each step of the grey-scale path on files written here."""

import math
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from support.paths import DATA as DATA_ROOT

from sightline.errors import UnreadableFile
from sightline.io.dicom.greyscale import apply_window
from sightline.io.dicom.radiograph import read_dicom, read_header, require_radiograph
from sightline.io.image import read_image

DATA = DATA_ROOT / "dicom"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the sample DICOM files are not here")
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16  # 0 to 4080, 12 bits


def write(path, pixels=RAMP, *, bits=12, **elements):
    """A radiograph with the given stored pixels and elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.StudyInstanceUID = "CR", "P1", "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path


def shown(path):
    """Pixels as read, 0 to 1."""
    return read_dicom(path).pixels / 65535.0


def table(descriptor, data):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, data
    return Sequence([item])


# -- real files -------------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    ("name", "tolerance"), [("J2KR", 0), ("RLE", 0), ("JPLL", 0), ("JLSN", 4), ("JPLY", 110), ("UNC", 0)]
)
def test_six_encodings_of_one_hip_agree(name, tolerance):
    reference = pydicom.dcmread(DATA / "radiographs" / "RG2_UNC.dcm")
    picture = read_image(DATA / "radiographs" / f"RG2_{name}.dcm")
    # the grey-scale path restated by pydicom: the file has no modality step, and one linear window
    expected = apply_voi_lut(reference.pixel_array, reference) / 1023.0
    error = np.abs(picture.pixels / 65535.0 - expected) * 1023.0
    assert error.max() <= tolerance + 0.51
    if name == "JPLY":  # 12-bit JPEG at 1:35 changes single pixels, not the picture
        assert error.mean() < 5
    assert picture.frame.spacing_mm == (0.2, 0.2)
    assert picture.facts["body_part"] == "HIP"
    assert picture.facts["grey_scale"] == "window 511/1024 LINEAR"
    require_radiograph(picture)


@real
def test_bone_is_bright_in_the_real_leg_stored_with_white_as_zero():
    picture = read_image(DATA / "radiographs" / "RG3_J2KR.dcm")
    assert picture.facts["photometric"] == "MONOCHROME1"
    assert picture.frame.spacing_mm is None
    # columns of the tibia's shaft, of the calf beside it, and of the air beside the leg
    bone, calf, air = (float(np.median(picture.pixels[400:600, column])) for column in (850, 730, 540))
    assert bone > 1.2 * calf > 2 * air


@real
@pytest.mark.parametrize(
    ("name", "modality", "shape", "transfer_syntax", "grey_scale"),
    [
        ("J2K_pixelrep_mismatch", "CT", (512, 512), "JPEG 2000", "window 40/100 LINEAR"),
        ("JPGExtended", "NM", (1024, 256), "JPEG Extended", "full range 0 to 264"),
        ("MR_small_padded", "MR", (64, 64), "Explicit VR Little Endian", "window 600/1600 LINEAR"),
        ("bad_sequence", "CT", (512, 512), "JPEG Lossless", "window 40/350 LINEAR"),
        ("explicit_VR-UN", "CT", (512, 512), "JPEG 2000", "full range -1024 to 1186"),
    ],
)
def test_odd_files_that_are_images_are_read_but_are_no_radiographs(name, modality, shape, transfer_syntax, grey_scale):
    path = DATA / "odd" / f"{name}.dcm"
    picture = read_image(path)
    assert picture.pixels.shape == shape == read_header(path).shape
    assert picture.pixels.dtype == np.uint16
    assert picture.pixels.max() == 65535
    assert picture.facts["grey_scale"] == grey_scale
    assert picture.facts["transfer_syntax"].startswith(transfer_syntax)
    with pytest.raises(UnreadableFile, match=f"{name}.dcm: the modality is {modality}, not a radiograph"):
        require_radiograph(picture, path)


@real
def test_known_values_of_the_twelve_bit_jpeg():
    # two pixels that pydicom's own suite states for this file
    pixels = read_dicom(DATA / "odd" / "JPGExtended.dcm").pixels
    assert pixels[420, 140] == round(244 / 264 * 65535)
    assert pixels[230, 120] == round(95 / 264 * 65535)


@real
@pytest.mark.parametrize("size", [300, 400, 700, 1200])
def test_an_image_cut_in_its_header_is_called_cut(size, tmp_path):
    path = tmp_path / "cut.dcm"
    path.write_bytes((DATA / "radiographs" / "RG2_UNC.dcm").read_bytes()[:size])
    with pytest.raises(UnreadableFile, match="truncated"):
        read_image(path)


@real
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ExplVR_BigEndNoMeta", "the mark 'DICM' and the file meta information are missing"),
        ("no_meta", "the mark 'DICM' and the file meta information are missing"),
        ("meta_missing_tsyntax", "does not state its transfer syntax"),
        ("UN_sequence", "ends before its pixels"),
        ("emri_small_jpeg_2k_lossless_too_short", "ends before its pixels"),
        ("parametric_map_float", "floating-point numbers"),
        ("rtplan", "not an image but RT Plan Storage (modality RTPLAN)"),
        ("test-SR", "not an image but Comprehensive SR Storage (modality SR)"),
        ("waveform_ecg", "not an image but 12-lead ECG Waveform Storage (modality ECG)"),
    ],
)
def test_odd_files_that_are_no_images_are_refused_with_file_cause_and_remedy(name, reason):
    path = DATA / "odd" / f"{name}.dcm"
    with pytest.raises(UnreadableFile) as caught:
        read_image(path)
    assert str(path) in caught.value.message
    assert reason in caught.value.message
    assert caught.value.remedy


@real
def test_every_sample_file_has_an_expectation_here():
    text = Path(__file__).read_text()
    assert all(f'"{path.stem}"' in text for path in (DATA / "odd").glob("*.dcm"))


@real
@pytest.mark.parametrize("name", ["J2KR", "RLE", "JPLL", "JLSN", "JPLY", "UNC"])
def test_a_radiograph_cut_anywhere_is_refused(tmp_path, name):
    data = (DATA / "radiographs" / f"RG2_{name}.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for share in (0.00005, 0.0003, 0.001, 0.5, 0.95):
        path.write_bytes(data[: max(int(len(data) * share), 140)])
        with pytest.raises(UnreadableFile, match=r"cut\.dcm"):
            read_image(path)


@real
@pytest.mark.parametrize("name", ["J2KR", "RLE", "JPLL", "JLSN", "JPLY"])
def test_a_cut_code_stream_in_a_whole_file_is_refused(tmp_path, name):
    data = pydicom.dcmread(DATA / "radiographs" / f"RG2_{name}.dcm")
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    data.save_as(tmp_path / "cut.dcm")
    with pytest.raises(UnreadableFile, match="truncated"):
        read_image(tmp_path / "cut.dcm")


# -- the grey-scale path, step by step --------------------------------------------------------------------------------


def linear(x, c, w):
    """PS3.3, C.11.2.1.2.1, as written there, with an output from 0 to 1."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x, c, w):
    """PS3.3, C.11.2.1.3.2."""
    return 0.0 if x <= c - w / 2 else 1.0 if x > c + w / 2 else (x - c) / w + 0.5


def sigmoid(x, c, w):
    """PS3.3, C.11.2.1.3.1."""
    exponent = -4.0 * (x - c) / w
    return 0.0 if exponent > 700 else 1.0 / (1.0 + math.exp(exponent))


@pytest.mark.parametrize(
    ("function", "formula"), [("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)]
)
@pytest.mark.parametrize(("centre", "width"), [(2000, 1500), (40.5, 1), (0, 4096), (4000, 10)])
def test_windows_follow_the_formulas_of_the_standard(tmp_path, function, formula, centre, width):
    path = write(tmp_path / "a.dcm", WindowCenter=[centre, 1], WindowWidth=[width, 2], VOILUTFunction=function)
    expected = np.vectorize(lambda x: formula(x, centre, width), otypes=[float])(RAMP.astype(float))
    assert np.abs(shown(path) - expected).max() < 1e-5
    assert read_dicom(path).facts["grey_scale"] == f"window {centre:g}/{width:g} {function}"


def test_a_very_narrow_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert apply_window(np.array([0.0, 65535.0]), 100.0, 0.01, "SIGMOID").round(6).tolist() == [0.0, 1.0]


def test_slope_comes_before_the_window_and_inversion_comes_last(tmp_path):
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000, "WindowWidth": 2000}
    plain = shown(write(tmp_path / "2.dcm", **elements))
    inverted = shown(write(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1", **elements))
    expected = np.vectorize(lambda x: linear(2.0 * x - 1000, 1000, 2000), otypes=[float])(RAMP.astype(float))
    assert np.abs(plain - expected).max() < 1e-5
    assert np.abs(inverted - (1.0 - expected)).max() < 1e-5
    # had the window been applied after inversion, the ends would lie elsewhere
    assert inverted.ravel()[0] == 1.0
    assert inverted.ravel()[-1] == 0.0
    assert (inverted == 0).sum() == (plain == 1).sum() > 60


def test_functional_groups_of_one_frame_are_read(tmp_path):
    """Enhanced XA and RF keep window and pixel size in groups; what stands in the image itself goes before."""

    def group(**macros):
        made = Dataset()
        for name, elements in macros.items():
            inner = Dataset()
            for keyword, value in elements.items():
                setattr(inner, keyword, value)
            setattr(made, name, Sequence([inner]))
        return Sequence([made])

    shared = group(
        FrameVOILUTSequence={"WindowCenter": 2000, "WindowWidth": 1000},
        FramePixelDataPropertiesSequence={"ImagerPixelSpacing": [0.4, 0.2]},
    )
    own = group(FrameVOILUTSequence={"WindowCenter": 1000, "WindowWidth": 500})
    path = write(tmp_path / "e.dcm", NumberOfFrames=1, SharedFunctionalGroupsSequence=shared)
    picture = read_dicom(path)
    assert picture.facts["grey_scale"] == "window 2000/1000 LINEAR"
    assert (picture.frame.spacing_mm, picture.frame.aspect) == ((0.4, 0.2), 2.0)
    assert read_header(path).spacing_mm == (0.4, 0.2)
    both = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": own}
    assert read_dicom(write(tmp_path / "p.dcm", **both)).facts["grey_scale"] == "window 1000/500 LINEAR"
    plain = write(tmp_path / "w.dcm", WindowCenter=100, WindowWidth=50, **both)
    assert read_dicom(plain).facts["grey_scale"] == "window 100/50 LINEAR"


@pytest.mark.parametrize(
    ("photometric", "shape", "first"),
    [
        ("MONOCHROME2", "IDENTITY", 0.0),
        ("MONOCHROME2", "INVERSE", 1.0),
        ("MONOCHROME1", "INVERSE", 1.0),
        ("MONOCHROME1", None, 1.0),
    ],
)
def test_polarity_is_turned_once(tmp_path, photometric, shape, first):
    elements = {} if shape is None else {"PresentationLUTShape": shape}
    pixels = shown(write(tmp_path / "a.dcm", PhotometricInterpretation=photometric, **elements))
    assert pixels.ravel()[0] == first
    assert pixels.ravel()[-1] == 1.0 - first


def test_signed_pixels_keep_their_sign(tmp_path):
    stored = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    path = write(tmp_path / "a.dcm", stored, bits=12)
    assert np.abs(shown(path) - RAMP / 4080.0).max() < 1e-5
    assert read_dicom(path).facts["grey_scale"] == "full range -2048 to 2032"


def test_what_stands_above_the_stored_bits_is_not_pixel(tmp_path):
    overlay = RAMP | np.uint16(0xF000)
    assert np.array_equal(shown(write(tmp_path / "a.dcm", overlay)), shown(write(tmp_path / "b.dcm")))
    negative = ((RAMP.astype(np.int32) - 2048) & 0x0FFF).astype(np.int16)  # the sign is bit 11, not bit 15
    signed = write(tmp_path / "c.dcm", negative, bits=12)
    assert read_dicom(signed).facts["grey_scale"] == "full range -2048 to 2032"


def test_the_high_bit_says_where_the_stored_bits_stand(tmp_path):
    shifted = write(tmp_path / "a.dcm", RAMP << np.uint16(4), HighBit=15)
    assert read_dicom(shifted).facts["grey_scale"] == "full range 0 to 4080"


def test_eight_bit_pixels(tmp_path):
    pixels = np.arange(255, dtype=np.uint8).reshape(15, 17)  # an odd number of bytes, so padded by one
    path = write(tmp_path / "a.dcm", pixels, bits=8, PixelData=pixels.tobytes() + b"\x00")
    assert np.abs(shown(path) - pixels / 254.0).max() < 1e-5


def test_without_a_window_padding_does_not_spoil_the_range(tmp_path):
    pixels = RAMP.copy() // 2 + 500
    pixels[:3] = 4095
    path = write(tmp_path / "a.dcm", pixels, PixelPaddingValue=4095)
    real_pixels = pixels[3:].astype(float)
    expected = (real_pixels - real_pixels.min()) / np.ptp(real_pixels)
    assert not shown(path)[:3].any()
    assert np.abs(shown(path)[3:] - expected).max() < 1e-5


def test_padding_may_be_a_range_and_stays_black_when_inverted(tmp_path):
    elements = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 160, "PhotometricInterpretation": "MONOCHROME1"}
    pixels = shown(write(tmp_path / "a.dcm", **elements)).ravel()
    assert not pixels[:11].any()
    assert pixels[11] == 1.0
    assert pixels[-1] == 0.0


def test_negative_padding_of_signed_pixels(tmp_path):
    pixels = RAMP.astype(np.int16) - 1000
    pixels[0] = -2048
    path = write(tmp_path / "a.dcm", pixels, bits=13, PixelPaddingValue=-2048)
    assert not shown(path)[0].any()
    assert read_dicom(path).facts["grey_scale"] == f"full range {pixels[1:].min()} to {pixels[1:].max()}"


def test_a_picture_of_padding_alone_is_black(tmp_path):
    assert not shown(write(tmp_path / "a.dcm", np.full((4, 4), 9, np.uint16), PixelPaddingValue=9)).any()


def test_a_constant_picture_is_black_and_not_a_number_nowhere(tmp_path):
    assert not shown(write(tmp_path / "a.dcm", np.full((4, 4), 9, np.uint16))).any()


def test_a_window_of_no_width_is_no_window(tmp_path):
    path = write(tmp_path / "a.dcm", WindowCenter=100, WindowWidth=0)
    assert read_dicom(path).facts["grey_scale"] == "full range 0 to 4080"


@pytest.mark.parametrize("first", [0, 1000, -100])
def test_a_voi_table_is_looked_up_and_preferred_to_a_window(tmp_path, first):
    entries = (np.sqrt(np.arange(2048) / 2047.0) * 1023).round().astype(np.uint16)
    signed = first < 0
    stored = RAMP.astype(np.int16) - 2048 if signed else RAMP
    sequence = table([2048, first, 10], entries.tobytes())
    sequence[0]["LUTDescriptor"].VR = "SS" if signed else "US"
    sequence[0]["LUTData"].VR = "OW"
    path = write(tmp_path / "a.dcm", stored, VOILUTSequence=sequence, WindowCenter=1, WindowWidth=1)
    expected = [entries[min(max(int(x) - first, 0), 2047)] / 1023.0 for x in stored.ravel()]
    assert np.abs(shown(path).ravel() - expected).max() < 1e-5
    data = pydicom.dcmread(path)
    assert np.abs(shown(path) - apply_voi_lut(data.pixel_array, data) / 1023.0).max() < 1e-5
    assert read_dicom(path).facts["grey_scale"] == "VOI LUT"


def test_a_modality_table_comes_before_the_window(tmp_path):
    entries = (np.arange(4096)[::-1] * 2).astype(np.uint16)  # turns the scale and doubles it
    sequence = table([4096, 0, 16], entries.tobytes())
    sequence[0]["LUTDescriptor"].VR, sequence[0]["LUTData"].VR = "US", "OW"
    sequence[0].ModalityLUTType = "US"
    path = write(tmp_path / "a.dcm", ModalityLUTSequence=sequence, WindowCenter=4096, WindowWidth=8192)
    data = pydicom.dcmread(path)
    values = apply_modality_lut(data.pixel_array, data)
    assert values.ravel()[0] == 8190  # the restatement itself does what is meant
    expected = np.vectorize(lambda x: linear(x, 4096, 8192), otypes=[float])(values.astype(float))
    assert np.abs(shown(path) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("elements", "spacing", "source"),
    [
        ({"PixelSpacing": [0.1, 0.2]}, (0.1, 0.2), "PixelSpacing"),
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [1, 1]}, (0.1, 0.2), "PixelSpacing"),
        (
            {"PixelSpacing": [0.1, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.1, 0.2),
            "PixelSpacing (FIDUCIAL)",
        ),
        ({"ImagerPixelSpacing": [0.15, 0.3]}, (0.15, 0.3), "ImagerPixelSpacing"),
        (
            {"ImagerPixelSpacing": [0.15, 0.3], "EstimatedRadiographicMagnificationFactor": 1.5},
            (0.1, 0.2),
            "ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor",
        ),
        ({"PixelSpacing": [0, 0]}, None, None),
        ({}, None, None),
    ],
)
def test_spacing_and_where_it_comes_from(tmp_path, elements, spacing, source):
    picture = read_dicom(write(tmp_path / "a.dcm", **elements))
    assert picture.frame.spacing_mm == (None if spacing is None else pytest.approx(spacing))
    assert picture.facts.get("spacing_source") == source


def test_facts_and_header_are_texts_and_keep_the_patient_apart(tmp_path):
    path = write(
        tmp_path / "a.dcm", Laterality="R", ViewPosition="PA", BodyPartExamined="WRIST", BurnedInAnnotation="NO"
    )
    header = read_header(path)
    assert header.patient_id == "P1"
    expected = {"modality": "CR", "laterality": "R", "view_position": "PA", "body_part": "WRIST", "study_uid": "1.2.3"}
    assert expected.items() <= header.facts.items()
    assert header.facts["burned_in_annotation"] == "NO"
    assert all(isinstance(text, str) and text for text in header.facts.values())
    assert "P1" not in header.facts.values()
    assert read_dicom(path).facts == {**header.facts, "grey_scale": "full range 0 to 4080"}


# -- encodings and refusals -------------------------------------------------------------------------------------------


def encode(path, syntax, frame, **elements):
    write(path, **elements)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    return path


def test_lossless_encodings_of_a_ramp_equal_the_plain_one(tmp_path):
    plain = read_dicom(write(tmp_path / "plain.dcm")).pixels
    frames = {
        JPEGLosslessSV1: imagecodecs.jpeg8_encode(RAMP, lossless=True, bitspersample=12),
        HTJ2KLossless: imagecodecs.htj2k_encode(RAMP, reversible=True),
    }
    for syntax, frame in frames.items():
        assert np.array_equal(read_dicom(encode(tmp_path / "a.dcm", syntax, frame)).pixels, plain), syntax.name
    data = pydicom.dcmread(tmp_path / "plain.dcm")
    data.compress(RLELossless)
    data.save_as(tmp_path / "rle.dcm")
    assert np.array_equal(read_dicom(tmp_path / "rle.dcm").pixels, plain)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, HTJ2KLossless, RLELossless], ids=["jpeg", "htj2k", "rle"])
def test_two_compressed_frames_that_the_header_passes_over_are_refused_and_one_in_pieces_is_read(tmp_path, syntax):
    if syntax == RLELossless:
        data = pydicom.dcmread(write(tmp_path / "a.dcm"))
        data.compress(RLELossless)
        frame = get_frame(data.PixelData, 0, number_of_frames=1)
    elif syntax == HTJ2KLossless:
        frame = imagecodecs.htj2k_encode(RAMP, reversible=True)
    else:
        frame = imagecodecs.jpeg8_encode(RAMP, lossless=True, bitspersample=12)
    path = encode(tmp_path / "a.dcm", syntax, frame)
    whole, data = read_dicom(path).pixels, pydicom.dcmread(path)
    for table in (True, False):
        for frames in (None, 1):
            data.PixelData, data.NumberOfFrames = encapsulate([frame, frame], has_bot=table), frames
            data.save_as(path)
            with pytest.raises(UnreadableFile, match="hold 2 frames, and the header states one"):
                read_dicom(path)
    if syntax != RLELossless:  # of which one frame is one fragment
        data.PixelData = encapsulate([frame], fragments_per_frame=3)
        data.save_as(path)
        assert np.array_equal(read_dicom(path).pixels, whole)


def test_a_lossy_value_just_beyond_the_stored_bits_stays_white_and_one_far_beyond_is_a_contradiction(tmp_path):
    # a 12-bit stream under a header of 10 bits: 1060 must become 1023, not 1060 modulo 1024 = 36
    near = np.minimum(RAMP, 1060)
    frame = imagecodecs.jpeg8_encode(near, level=100, bitspersample=12)
    path = encode(tmp_path / "a.dcm", pydicom.uid.JPEGExtended12Bit, frame, BitsStored=10, HighBit=9)
    assert (read_dicom(path).pixels[near == 1060] == 65535).all()
    frame = imagecodecs.jpeg8_encode(RAMP, level=100, bitspersample=12)
    encode(path, pydicom.uid.JPEGExtended12Bit, frame, BitsStored=10, HighBit=9)
    with pytest.raises(UnreadableFile, match="states 10 bits a pixel, from 0 to 1023; the compressed pixels reach"):
        read_dicom(path)


DEEP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 64  # 14 bits


@pytest.mark.parametrize("how", ["plain", "big endian pattern", "jpeg-ls", "jpeg lossless", "jpeg 2000"])
def test_values_of_more_bits_than_stated_are_refused_and_never_wrap(tmp_path, how):
    path = tmp_path / "a.dcm"
    if how == "plain":
        write(path, DEEP)
    elif how == "big endian pattern":
        write(path, DEEP.astype(np.int16) - 8192)  # a sign where the header says there is none
    elif how == "jpeg-ls":
        encode(path, pydicom.uid.JPEGLSLossless, imagecodecs.jpegls_encode(DEEP), pixels=DEEP)
    elif how == "jpeg lossless":
        encode(path, pydicom.uid.JPEGLosslessSV1, imagecodecs.ljpeg_encode(DEEP, bitspersample=16), pixels=DEEP)
    else:
        frame = imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", reversible=True, level=0)
        encode(path, pydicom.uid.JPEG2000Lossless, frame, pixels=DEEP)
    with pytest.raises(UnreadableFile, match="the header states 12 bits"):
        read_dicom(path)


def test_declared_overlays_above_the_stored_bits_are_no_pixels(tmp_path):
    overlay = RAMP | (np.arange(256, dtype=np.uint16).reshape(16, 16) % 2 << 12)
    path = write(tmp_path / "a.dcm", overlay)
    with pytest.raises(UnreadableFile, match="hold bits beside these"):
        read_dicom(path)
    data = pydicom.dcmread(path)
    data.add_new((0x6000, 0x0100), "US", 16)
    data.add_new((0x6000, 0x0102), "US", 12)
    data.save_as(path)
    assert np.array_equal(shown(path), shown(write(tmp_path / "b.dcm")))


@pytest.mark.parametrize("pattern", ["of 12 bits in 16", "repeated sign"])
def test_negative_numbers_in_a_wider_stream_stay_negative(tmp_path, pattern):
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    stored = signed.view(np.uint16) & 0x0FFF if pattern == "of 12 bits in 16" else signed.view(np.uint16)
    plain = read_dicom(write(tmp_path / "b.dcm", signed)).pixels
    for syntax, frame in (
        (pydicom.uid.JPEGLSLossless, imagecodecs.jpegls_encode(stored)),
        (pydicom.uid.JPEGLosslessSV1, imagecodecs.ljpeg_encode(stored, bitspersample=16)),
    ):
        path = encode(tmp_path / "a.dcm", syntax, frame, pixels=stored, PixelRepresentation=1)
        assert np.array_equal(read_dicom(path).pixels, plain), syntax


@pytest.mark.parametrize(
    ("sign", "photometric", "slope"),
    [(1, "MONOCHROME2", 1), (-1, "MONOCHROME2", 1), (1, "MONOCHROME1", 1), (1, "MONOCHROME2", -1)],
)
def test_a_raw_image_is_said_and_denser_is_brighter(tmp_path, sign, photometric, slope):
    more = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationshipSign": sign}
    path = write(
        tmp_path / "a.dcm", PhotometricInterpretation=photometric, RescaleSlope=slope, RescaleIntercept=0, **more
    )
    picture = read_dicom(path)
    assert "FOR PROCESSING" in picture.facts["remark"]
    # more X-rays (sign +1) is less dense: the greatest stored value is black
    assert int(picture.pixels.ravel()[-1]) == (0 if sign == 1 else 65535)


def test_a_raw_image_is_known_by_its_class_alone(tmp_path):
    path = write(tmp_path / "a.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1", PixelIntensityRelationshipSign=1)
    picture = read_dicom(path)
    assert picture.facts["presentation_intent"] == "FOR PROCESSING"
    assert "FOR PROCESSING" in picture.facts["remark"]
    assert int(picture.pixels.ravel()[-1]) == 0


@pytest.mark.parametrize(
    ("elements", "spacing", "said"),
    [
        ({"PixelAspectRatio": ["2", "1"], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "PixelSpacing was taken"),
        ({"ImagerPixelSpacing": [0.4, 0.2], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "PixelSpacing was taken"),
        ({"PixelSpacing": [1e-9, 5]}, None, "PixelSpacing 1e-09\\5 is no size of a pixel (0.001 to 20 mm)"),
        ({"PixelSpacing": [0.1, 5]}, None, "no shape of a pixel"),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "PixelSpacing 0\\0 is no size"),
        ({"PixelSpacing": [-0.2, -0.2]}, None, "not heeded"),
        ({"PixelSpacing": [1000, 1000]}, None, "not heeded"),
        ({"PixelSpacing": ["nan", "nan"]}, None, "not heeded"),
        ({"PixelSpacing": [0.2]}, None, "0.2 is not two numbers and was not heeded"),
        ({"PixelAspectRatio": ["1000", "1000"], "PixelSpacing": [0.2, 0.2]}, (0.2, 0.2), ""),
        ({"PixelAspectRatio": ["2", "1"], "PixelSpacing": [0.4, 0.2]}, (0.4, 0.2), ""),
    ],
)
def test_shapes_of_pixels_that_contradict_each_other_are_said(tmp_path, elements, spacing, said):
    picture = read_dicom(write(tmp_path / "a.dcm", **elements))
    assert picture.frame.spacing_mm == spacing
    assert said in picture.facts.get("remark", "")
    assert bool(said) == ("remark" in picture.facts)


def test_a_size_that_is_no_number_is_as_good_as_none(tmp_path):
    path = write(tmp_path / "a.dcm", PixelSpacing=["1234.5", "1234.5"])
    path.write_bytes(path.read_bytes().replace(b"1234.5", b"coarse"))
    picture = read_dicom(path)
    assert picture.frame.spacing_mm is None and "PixelSpacing holds no number" in picture.facts["remark"]


RECTANGLE = {
    "ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 3, "ShutterRightVerticalEdge": 12,
    "ShutterUpperHorizontalEdge": 2, "ShutterLowerHorizontalEdge": 9,
}  # fmt: skip
CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [8, 8], "RadiusOfCircularShutter": 3}
TRIANGLE = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 1, 16, 16, 1]}


@pytest.mark.parametrize(
    ("elements", "is_open"),
    [
        (RECTANGLE, lambda row, column: 2 <= row <= 9 and 3 <= column <= 12),
        (CIRCLE, lambda row, column: (row - 8) ** 2 + (column - 8) ** 2 <= 9),
        ({**CIRCLE, "PixelSpacing": [0.4, 0.2]}, lambda row, column: 4 * (row - 8) ** 2 + (column - 8) ** 2 <= 9),
        (TRIANGLE, lambda row, column: (row - 1) + (column - 1) <= 15),
        (
            {**CIRCLE, **RECTANGLE, "ShutterShape": ["RECTANGULAR", "CIRCULAR"], "RadiusOfCircularShutter": 4},
            lambda row, column: 2 <= row <= 9 and 3 <= column <= 12 and (row - 8) ** 2 + (column - 8) ** 2 <= 16,
        ),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_a_shutter_hides_is_black_and_does_not_spoil_the_range(tmp_path, elements, is_open, photometric):
    stored = RAMP // 2 + 100
    wanted = np.array([[is_open(row, column) for column in range(1, 17)] for row in range(1, 17)])
    hidden = np.where(wanted, stored, 4095 if photometric == "MONOCHROME2" else 0).astype(np.uint16)
    picture = read_dicom(write(tmp_path / "a.dcm", hidden, PhotometricInterpretation=photometric, **elements))
    assert not picture.pixels[~wanted].any() and picture.facts["shutter"]
    # from black to white over what is open
    turned = stored[wanted] if photometric == "MONOCHROME2" else 4095 - stored[wanted].astype(int)
    low, high = int(turned.min()), int(turned.max())
    assert np.abs(picture.pixels[wanted] - np.rint((turned - low) / (high - low) * 65535.0)).max() <= 1
    assert f"hides {1 - wanted.mean():.1%} of the picture" in picture.facts["remark"]


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({**RECTANGLE, "ShutterLeftVerticalEdge": 14}, "would leave 0.0% of the picture"),
        ({**CIRCLE, "RadiusOfCircularShutter": 0}, "CIRCULAR is not whole"),
        ({"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 3}, "RECTANGULAR is not whole"),
        ({"ShutterShape": "BITMAP"}, "BITMAP is not whole or of no known shape"),
        ({**RECTANGLE, "ShutterLeftVerticalEdge": 0, "ShutterRightVerticalEdge": 17,
          "ShutterUpperHorizontalEdge": 1, "ShutterLowerHorizontalEdge": 16}, ""),
    ],
)  # fmt: skip
def test_a_shutter_that_is_none_hides_nothing(tmp_path, elements, said):
    picture = read_dicom(write(tmp_path / "a.dcm", **elements))
    assert np.array_equal(picture.pixels, read_dicom(write(tmp_path / "b.dcm")).pixels)
    assert said in picture.facts.get("remark", "") and bool(said) == ("remark" in picture.facts)


def test_several_windows_are_said(tmp_path):
    path = write(tmp_path / "a.dcm", WindowCenter=["1000", "2000"], WindowWidth=["500", "900"])
    assert read_dicom(path).facts["remark"] == "2 windows are stated (1000/500, 2000/900); the first was taken"
    assert "remark" not in read_dicom(write(tmp_path / "b.dcm")).facts


@pytest.mark.parametrize("widths", [["0", "900"], ["nan", "900"]])
def test_a_window_without_a_width_is_none_and_the_next_is_taken(widths, tmp_path):
    facts = read_dicom(write(tmp_path / "a.dcm", WindowCenter=["0", "2000"], WindowWidth=widths)).facts
    assert facts["grey_scale"] == "window 2000/900 LINEAR" and "remark" not in facts


@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "PixelRepresentation"])
def test_what_the_pixels_need_and_the_header_lacks_is_named(keyword, tmp_path):
    path = write(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    delattr(data, keyword)
    data.save_as(path)
    with pytest.raises(UnreadableFile, match=f"the header does not state {keyword}"):
        read_dicom(path)


def test_the_spacing_of_a_scanned_film_and_the_aspect_of_pixels(tmp_path):
    assert read_dicom(write(tmp_path / "a.dcm", NominalScannedPixelSpacing=["0.3", "0.1"])).frame.spacing_mm == (
        0.3,
        0.1,
    )
    path = write(tmp_path / "b.dcm", NominalScannedPixelSpacing=["0.3", "0.1"], ImagerPixelSpacing=["0.2", "0.2"])
    assert read_dicom(path).frame.spacing_mm == (0.2, 0.2)
    frame = read_dicom(write(tmp_path / "c.dcm", PixelAspectRatio=["2", "1"])).frame
    assert frame.spacing_mm is None
    assert frame.aspect == 2.0
    assert frame.square_pixels().shape == (32, 16)


def test_a_stream_with_a_sign_under_a_header_without_is_refused(tmp_path):
    frame = imagecodecs.jpeg2k_encode(RAMP.astype(np.int16) - 2048, level=0, codecformat="j2k", reversible=True)
    path = encode(tmp_path / "a.dcm", JPEG2000Lossless, frame)
    with pytest.raises(UnreadableFile, match="PixelRepresentation"):
        read_dicom(path)
    boxed = imagecodecs.jpeg2k_encode(RAMP, level=0, codecformat="jp2", reversible=True)
    with pytest.raises(UnreadableFile, match="boxes"):  # one without a length sent the parser round for ever
        read_dicom(encode(tmp_path / "b.dcm", JPEG2000Lossless, boxed[:12] + bytes(4) + boxed[16:]))


def test_baseline_jpeg(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    frame = imagecodecs.jpeg8_encode(smooth, level=100)
    path = tmp_path / "a.dcm"
    encode(path, JPEGBaseline8Bit, frame, pixels=smooth, bits=8)
    assert np.abs(shown(path) - smooth / 126.0).max() < 0.03
    encode(path, JPEGBaseline8Bit, frame[: len(frame) // 2] + bytes(200), pixels=smooth, bits=8)
    with pytest.raises(UnreadableFile, match="truncated"):
        read_dicom(path)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 0}, "0 x 16 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "4295 million pixels"),
        ({"Rows": 17}, "do not decode"),
        ({"NumberOfFrames": 2, "PixelData": RAMP.tobytes() * 2}, "2 frames"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "photometric interpretation is RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsStored": 17}, "17 stored"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 bits allocated"),
        ({"HighBit": 3}, "high bit 3"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope"),
        ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"}, "CUBIC"),
        ({"VOILUTSequence": Sequence([Dataset()])}, "lacks its descriptor"),
        ({"PixelData": RAMP.tobytes()[:-2]}, "do not decode"),
        ({"PixelData": b""}, "ends before its pixels"),
        ({"PixelData": RAMP.tobytes() * 6}, "and 2560 more follow"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_file_cause_and_remedy(tmp_path, elements, reason):
    with pytest.raises(UnreadableFile) as caught:
        read_dicom(write(tmp_path / "a.dcm", **elements))
    assert str(tmp_path / "a.dcm") in caught.value.message
    assert reason in caught.value.message
    assert caught.value.remedy


def test_a_table_shorter_than_it_says_is_refused(tmp_path):
    sequence = table([4096, 0, 16], bytes(100))
    sequence[0]["LUTDescriptor"].VR, sequence[0]["LUTData"].VR = "US", "OW"
    with pytest.raises(UnreadableFile, match="states 4096 entries and holds 50"):
        read_dicom(write(tmp_path / "a.dcm", VOILUTSequence=sequence))


def test_a_window_that_is_no_number_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", WindowCenter="1234.5", WindowWidth=2)
    path.write_bytes(path.read_bytes().replace(b"1234.5", b"soft  "))
    with pytest.raises(UnreadableFile, match="WindowCenter holds no number"):
        read_dicom(path)


def test_numbers_in_elements_of_another_type_are_read_whole(tmp_path):
    data = pydicom.dcmread(write(tmp_path / "a.dcm"))
    for tag, text in ((0x00281050, "2040"), (0x00281051, "1000\\50"), (0x00280120, "4080")):
        data.add_new(tag, "ST", text)  # text, and one letter is no number of many
    data.save_as(tmp_path / "a.dcm")
    picture = read_dicom(tmp_path / "a.dcm")
    assert picture.facts["grey_scale"] == "window 2040/1000 LINEAR"
    assert picture.pixels[-1, -1] == 0 and picture.pixels[-1, -2] == 65535


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (JPEGBaseline8Bit, imagecodecs.jpeg8_encode(np.zeros((8, 32), np.uint8))),
        (JPEGLSLossless, imagecodecs.jpegls_encode(np.zeros((8, 32), np.uint8))),
        (JPEG2000Lossless, imagecodecs.jpeg2k_encode(np.zeros((8, 32), np.uint8), level=0, codecformat="jp2")),
        (JPEG2000Lossless, imagecodecs.jpeg2k_encode(np.zeros((8, 32), np.uint8), level=0, codecformat="j2k")),
    ],
)
def test_a_stream_of_as_many_pixels_in_other_rows_is_refused(tmp_path, syntax, stream):
    data = pydicom.dcmread(write(tmp_path / "a.dcm", (RAMP >> 4).astype(np.uint8), bits=8))
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(UnreadableFile, match="states 16 x 16 pixels of 1 sample, the compressed stream 8 x 32 pixels"):
        read_dicom(tmp_path / "a.dcm")


def test_an_unknown_codec_is_named(tmp_path):
    path = encode(tmp_path / "a.dcm", pydicom.uid.UID("1.2.840.10008.1.2.4.100"), b"\x00\x00\x01\xb3")
    with pytest.raises(UnreadableFile, match="no decoder for the transfer syntax MPEG2"):
        read_image(path)


def test_a_dicom_file_is_known_by_content_and_a_foreign_one_is_refused(tmp_path):
    path = write(tmp_path / "IM0001")
    assert read_image(path).pixels.shape == RAMP.shape
    (tmp_path / "a.dcm").write_bytes(b"no dicom at all")
    with pytest.raises(UnreadableFile, match="mark 'DICM'"):
        read_image(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    with pytest.raises(UnreadableFile, match=r"b\.dcm"):
        read_image(tmp_path / "b.dcm")


@real
@pytest.mark.parametrize("name", ["rtplan", "parametric_map_float", "MR_small_padded", "JPGExtended"])
def test_changed_bytes_are_read_or_refused_and_raise_nothing_else(tmp_path, name):
    generator = np.random.default_rng(3)
    data = (DATA / "odd" / f"{name}.dcm").read_bytes()
    path = tmp_path / "a.dcm"
    outcomes = set()
    for _ in range(150):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[generator.integers(0, min(1500, len(data)), 10)] = generator.integers(0, 256, 10)
        path.write_bytes(changed.tobytes())
        try:
            outcomes.add(read_image(path).pixels.dtype.name)
        except UnreadableFile as error:
            outcomes.add("refused")
            assert "a.dcm" in error.message
            assert error.remedy
    assert "refused" in outcomes


def test_two_transfer_syntaxes_are_none(tmp_path):
    path = write(tmp_path / "a.dcm")
    syntax = b"1.2.840.10008.1.2.1"
    path.write_bytes(path.read_bytes().replace(syntax, b"1.2.840\\10008.1.2.1", 1))
    with pytest.raises(UnreadableFile, match="does not state its transfer syntax"):
        read_image(path)


@pytest.mark.parametrize(
    ("modality", "passes"),
    [("DX", True), ("MG", True), ("OT", True), ("DR", True), ("cr", True), ("", True), ("US", False)],
)
def test_projections_pass_as_radiographs_and_others_do_not(tmp_path, modality, passes):
    path = write(tmp_path / "a.dcm", Modality=modality)
    if passes:
        require_radiograph(read_dicom(path))
        require_radiograph(read_header(path))
    else:
        with pytest.raises(UnreadableFile, match=r"a\.dcm: the modality is US"):
            require_radiograph(read_header(path))
