"""NIfTI volumes: what is stored comes back, places agree with nibabel, and bad files say what is wrong."""

import gzip

import nibabel
import numpy as np
import pytest
from support.paths import DATA as DATA_ROOT

from sightline.errors import GeometryError, UnreadableFile
from sightline.io.ct import read_ct
from sightline.io.nifti import read_volume, read_volume_header, write_volume

DATA = DATA_ROOT / "spine_ct"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the sample CTs are not here")
PIR = np.array([[0, 0, 2.0, -10], [-1, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 0, 1.0]])
HU = np.random.default_rng(0).integers(-1000, 1500, (5, 6, 7)).astype(np.int16)


def saved(path, values=HU, affine=PIR, **header):
    """A file by nibabel, with fields of its header set by hand."""
    image = nibabel.Nifti1Image(values, affine)
    nibabel.save(image, path)
    if header:
        raw = gzip.decompress(path.read_bytes()) if path.name.endswith("gz") else path.read_bytes()
        fields = nibabel.Nifti1Header(raw[:348])
        for name, value in header.items():
            fields[name] = value
        raw = fields.binaryblock + raw[348:]
        path.write_bytes(gzip.compress(raw) if path.name.endswith("gz") else raw)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "bool", "int64", "float64"])
def test_written_and_read_again(tmp_path, name, dtype):
    values = (HU % 200).astype(dtype) if dtype != "bool" else HU > 0
    write_volume(tmp_path / name, values, PIR)
    back = read_volume(tmp_path / name)
    assert back.values.dtype == np.int16 and back.values.flags.writeable
    assert np.array_equal(back.values, values)
    assert np.array_equal(back.affine, PIR)
    assert (back.orientation, back.spacing_mm) == (("P", "I", "R"), (1.0, 1.5, 2.0))
    assert back.facts["orientation_from"] == "sform (scanner)"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_every_viewer_sees_the_same(tmp_path):
    """Both forms are set and agree with what nibabel makes of the file; equal volumes give equal bytes."""
    write_volume(tmp_path / "a.nii.gz", HU, PIR)
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert np.array_equal(image.get_fdata(), HU)
    assert np.allclose(image.get_qform(), PIR, atol=1e-5) and np.allclose(image.get_sform(), PIR)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    write_volume(tmp_path / "b.nii.gz", HU, PIR)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(GeometryError, match=r"\.nii or \.nii\.gz"):
        write_volume(tmp_path / "a.png", HU, PIR)
    with pytest.raises(GeometryError, match="three axes"):
        write_volume(tmp_path / "a.nii", HU[0], PIR)
    with pytest.raises(GeometryError, match="do not fit"):
        write_volume(tmp_path / "a.nii", HU.astype(np.int64) * 2**40, PIR)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "dtype"),
    [
        (np.uint16, 1.0, -1024.0, np.int16),
        (np.int16, 2.0, 0.0, np.int16),
        (np.uint8, 10.0, -1000.0, np.int16),
        (np.int16, 0.5, 0.25, np.float32),
        (np.float64, 2.0, -1.0, np.int16),
        (np.float32, 0.1, 0.0, np.float32),
        (np.int32, 1.0, 100000.0, np.float32),
    ],
)
def test_slope_and_intercept(tmp_path, stored, slope, inter, dtype):
    raw = (np.arange(210).reshape(5, 6, 7) % 250).astype(stored)
    path = saved(tmp_path / "a.nii", raw, scl_slope=slope, scl_inter=inter)
    got = read_volume(path)
    assert got.values.dtype == dtype
    assert np.allclose(got.values, raw.astype(float) * np.float32(slope) + inter, rtol=1e-6)
    assert np.allclose(got.values, nibabel.load(path).get_fdata(), rtol=1e-6)


def test_slope_zero_means_none(tmp_path):
    assert np.array_equal(read_volume(saved(tmp_path / "a.nii", scl_slope=0.0, scl_inter=5.0)).values, HU)


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_either_form_gives_the_place(tmp_path, form):
    image = nibabel.Nifti1Image(HU, None)
    (image.set_sform if form == "sform" else image.set_qform)(PIR, code=1)
    image.header.set_zooms((1.0, 1.5, 2.0))
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.facts["orientation_from"] == f"{form} (scanner)"
    assert np.allclose(volume.affine, PIR, atol=1e-5)


def test_metres_are_no_millimetres(tmp_path):
    affine = np.diag([0.001, 0.001, 0.002, 1.0])
    image = nibabel.Nifti1Image(HU, affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(read_volume(tmp_path / "a.nii").spacing_mm, (1.0, 1.0, 2.0))


def test_small_offences_in_a_header_are_mended_without_a_word(tmp_path, capfd):
    path = saved(tmp_path / "a.nii", xyzt_units=7, vox_offset=0, pixdim=[1, -1, 1.5, 2, 0, 0, 0, 0])
    assert np.array_equal(read_volume(path).values, HU)
    assert capfd.readouterr().err == ""


def test_a_header_that_explains_a_part_of_the_data_only(tmp_path):
    many = np.tile(HU, (4, 4, 4))
    for name in ("a.nii", "a.nii.gz"):
        assert read_volume(saved(tmp_path / name, many)).values.shape == (20, 24, 28)
        with pytest.raises(UnreadableFile, match=r"1024 bytes follow the voxels that shape \(20, 24, 26\)"):
            read_volume(saved(tmp_path / name, many, dim=[3, 20, 24, 26, 1, 1, 1, 1]))
    (tmp_path / "padded.nii").write_bytes(saved(tmp_path / "b.nii").read_bytes() + bytes(160))
    assert np.array_equal(read_volume(tmp_path / "padded.nii").values, HU)


def test_byte_order_version_two_and_single_frames(tmp_path):
    swapped = nibabel.Nifti1Image(HU, PIR, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(swapped, tmp_path / "swapped.nii")
    nibabel.save(nibabel.Nifti2Image(HU, PIR), tmp_path / "two.nii.gz")
    nibabel.save(nibabel.Nifti1Image(HU[..., None], PIR), tmp_path / "frame.nii")
    # packed or not is known by content
    (tmp_path / "packed.nii").write_bytes((tmp_path / "two.nii.gz").read_bytes())
    for name in ("swapped.nii", "two.nii.gz", "frame.nii", "packed.nii"):
        volume = read_volume(tmp_path / name)
        assert volume.values.dtype == np.dtype(np.int16) and np.array_equal(volume.values, HU), name
        assert np.allclose(volume.affine, PIR)
        assert read_volume_header(tmp_path / name).shape == (5, 6, 7)


def test_labels(tmp_path):
    labels = (np.arange(210).reshape(5, 6, 7) % 29).astype(np.float64)
    got = read_volume(saved(tmp_path / "a.nii.gz", labels), labels=True)
    assert got.values.dtype == np.uint8 and np.array_equal(got.values, labels)
    assert read_volume(saved(tmp_path / "b.nii", labels * 20), labels=True).values.dtype == np.uint16
    for bad, words in ((labels + 0.25, "with fractions"), (labels - 1, "from -1 to 27;"), (labels * 1e4, "to 280000;")):
        with pytest.raises(UnreadableFile, match=words):
            read_volume(saved(tmp_path / "c.nii", bad), labels=True)


def test_forms_that_contradict_each_other(tmp_path):
    image = nibabel.Nifti1Image(HU, PIR)
    image.set_sform(PIR, code=1)
    image.set_qform(PIR @ np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(
        UnreadableFile, match=r"contradict each other by up to 17\.0 mm .*PIR 1 x 1\.5 x 2 mm against ASR"
    ):
        read_volume(tmp_path / "a.nii")
    # another origin turns and scales nothing
    moved = PIR.copy()
    moved[:3, 3] += 50
    image.set_qform(moved, code=2)
    nibabel.save(image, tmp_path / "b.nii")
    assert np.allclose(read_volume(tmp_path / "b.nii").affine, PIR)


SHEARED = PIR.copy()
SHEARED[0, 1] = 0.3


@pytest.mark.parametrize(
    ("header", "affine", "words"),
    [
        ({"sform_code": 0, "qform_code": 0}, PIR, "orientation unknown: the codes of sform and qform are both 0"),
        ({"pixdim": [1, 1, 1.5, 5, 0, 0, 0, 0]}, PIR, "pixdim 1 x 1.5 x 5 mm"),
        ({}, np.diag([0.01, 1, 1, 1]), "spacing is stated as 0.01 x 1 x 1 mm; 0.05 to 20 mm"),
        ({}, np.diag([1, 1, 25.0, 1]), "1 x 1 x 25 mm"),
        ({"srow_x": [0, 0, 0, 0]}, PIR, "spacing is stated as 1 x 1.5 x 0 mm"),
        ({"srow_x": [0, 0, np.nan, 0]}, PIR, "spacing is stated as 1 x 1.5 x nan mm"),
        ({}, SHEARED, "not at right angles .off by 11.3 degrees"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_places_that_are_refused(tmp_path, header, affine, words, name):
    path = saved(tmp_path / name, affine=affine, **header)
    for read in (read_volume, read_volume_header):
        with pytest.raises(UnreadableFile, match=words) as refusal:
            read(path)
        assert str(path) in refusal.value.message and refusal.value.remedy
        if affine is SHEARED:
            assert "its masks with it; centroids" in refusal.value.remedy


def test_4d_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(UnreadableFile, match=r"4D data of shape \(5, 6, 7, 2\)"):
        read_volume(saved(tmp_path / "a.nii", np.stack([HU, HU], -1)))
    with pytest.raises(UnreadableFile, match="2D data"):
        read_volume(saved(tmp_path / "a.nii", HU[..., 0]))
    with pytest.raises(UnreadableFile, match="real numbers were expected"):
        read_volume(saved(tmp_path / "a.nii", HU.astype(np.complex64)))
    colour = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableFile, match="real numbers were expected"):
        read_volume(saved(tmp_path / "a.nii", colour))
    with pytest.raises(UnreadableFile, match="2 of 210 voxels are not finite"):
        holes = HU.astype(np.float32)
        holes[1, 1, :2] = np.nan
        read_volume(saved(tmp_path / "a.nii", holes))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    data = saved(tmp_path / name).read_bytes()
    for length in (*range(0, len(data) - 1, 37), len(data) - 1):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(UnreadableFile, match=r"truncated|wrong magic"):
            read_volume(tmp_path / name)


def test_damage_inside_the_compressed_data(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(saved(tmp_path / "a.nii").read_bytes(), compresslevel=0))
    data = bytearray(path.read_bytes())
    data[-200] ^= 0xFF  # one voxel: only the checksum knows
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableFile, match="damaged"):
        read_volume(path)


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"GIF89a" * 100)
    with pytest.raises(UnreadableFile, match="wrong magic"):
        read_volume(path)
    nibabel.save(nibabel.AnalyzeImage(HU, None), tmp_path / "old.img")
    with pytest.raises(UnreadableFile, match=r"Analyze 7\.5"):
        read_volume(tmp_path / "old.hdr")
    nibabel.save(nibabel.Nifti1Pair(HU, PIR), tmp_path / "pair.img")
    with pytest.raises(UnreadableFile, match="header of a pair"):
        read_volume(tmp_path / "pair.hdr")
    with pytest.raises(UnreadableFile, match="no such file"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(UnreadableFile, match="a folder"):
        read_volume(tmp_path)
    for dim, words in (((-5, 6, 7), "shape is stated"), ((32000,) * 3, "shape is stated"), ((1200,) * 3, "truncated")):
        for name in ("b.nii", "b.nii.gz"):
            with pytest.raises(UnreadableFile, match=words):
                read_volume(saved(tmp_path / name, dim=[3, *dim, 1, 1, 1, 1]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.linspace(0, 1, 210), "after a normalisation"),
        (HU.astype(np.float32) / 1000, "after a normalisation"),
        (np.arange(210) % 256, "grey-scale picture of a display window"),
        (HU + 1024, "rescale intercept"),
        (np.clip(HU, -160, 240), "nothing below -200"),
        (np.minimum(HU, 150), "no bone"),
        (HU.astype(np.int32) * 100, "do not go beyond 32767"),
        (np.where(np.arange(210).reshape(5, 6, 7) < 9, -2000, HU + 1024), "none below 0 but padding"),
        (np.where(np.arange(210).reshape(5, 6, 7) < 9, -1024, HU + 1024), "none below 0 but padding"),
        (HU * 4, "not on one padding value"),
        (-np.minimum(HU, 0) - 5 * (np.arange(210).reshape(5, 6, 7) % 50 == 0) * 100, "dark and bright are exchanged"),
    ],
)
def test_numbers_that_are_no_hounsfield_units(tmp_path, values, words):
    path = saved(tmp_path / "a.nii", np.asarray(values).reshape(5, 6, 7).astype(np.float32))
    with pytest.raises(UnreadableFile, match=words) as refusal:
        read_ct(path)
    assert refusal.value.remedy


def test_a_ct_is_int16_from_air_upwards(tmp_path):
    values = HU.astype(np.float32)
    values[0, 0, :4] = [-3024, -1024.4, 10.6, 3000]
    ct = read_ct(saved(tmp_path / "a.nii", values))
    assert ct.values.dtype == np.int16
    assert ct.values[0, 0, :4].tolist() == [-1024, -1024, 11, 3000]
    assert ct.facts["padded_voxels"] == "2"
    assert np.array_equal(read_ct(saved(tmp_path / "b.nii", np.where(values < -1024, -2000, HU))).values.min(), -1024)


@real
@pytest.mark.parametrize(
    ("name", "axes", "spacing", "range_"),
    [
        ("totalsegmentator/example_ct.nii.gz", "RAS", (3, 3, 3), (-1207, 3382)),
        ("tptbox/sub-ct_label-22_ct.nii.gz", "PIR", (1.5, 1.5, 1.5), (-1030, 1961)),
        ("verse/sub-verse004_seg-vert_msk.nii.gz", "PIR", (1, 1, 2), (0, 24)),
    ],
)
def test_real_files(name, axes, spacing, range_):
    volume = read_volume(DATA / name, labels="seg" in name.split("/")[1])
    assert "".join(volume.orientation) == axes
    assert np.allclose(volume.spacing_mm, spacing, atol=1e-3)
    assert (volume.values.min(), volume.values.max()) == range_
    reference = nibabel.load(DATA / name)
    assert np.array_equal(volume.affine, reference.affine)
    assert np.array_equal(volume.values, reference.get_fdata())
    if volume.values.dtype == np.int16:
        assert read_ct(DATA / name).values.min() == -1024
