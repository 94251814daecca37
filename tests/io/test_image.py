"""PNG, JPEG and TIFF as pictures: every kind of grey, what is refused, what is found in a folder."""

import csv
import os
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import DATA

from sightline.errors import UnreadableFile
from sightline.io import image as reading
from sightline.io.image import find_images, measure_whole_picture, read_image
from sightline.io.picture import Reject, require_sane_size, stretch_to_uint16, write_rejects

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
DEEP = RNG.integers(1000, 5000, (23, 31), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_eight_bit_grey_is_passed_unchanged(tmp_path, suffix):
    picture = read_image(saved(tmp_path / f"a{suffix}", Image.fromarray(GREY)))
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, GREY)
    assert picture.frame.shape == GREY.shape
    assert picture.frame.spacing_mm is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_stretched_to_the_full_range(tmp_path, suffix):
    picture = read_image(saved(tmp_path / f"a{suffix}", Image.fromarray(DEEP)))
    low, high = float(DEEP.min()), float(DEEP.max())
    expected = [[round((float(v) - low) / (high - low) * 65535) for v in row] for row in DEEP]
    assert picture.pixels.dtype == np.uint16
    assert np.abs(picture.pixels.astype(int) - expected).max() <= 1
    assert picture.pixels.min() == 0
    assert picture.pixels.max() == 65535


def test_a_constant_sixteen_bit_picture_is_black(tmp_path):
    assert not read_image(saved(tmp_path / "a.png", Image.fromarray(np.full((4, 5), 777, np.uint16)))).pixels.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_stretch_holds_for_every_integer_type_and_its_extremes(dtype):
    info = np.iinfo(dtype)
    values = np.array([info.min, info.min // 2 + info.max // 2, info.max], dtype=dtype)
    assert stretch_to_uint16(values).tolist()[::2] == [0, 65535]
    assert abs(int(stretch_to_uint16(values)[1]) - 32767) <= 300


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_whose_zero_is_white_is_inverted(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    ramp = (np.arange(256).reshape(16, 16) * (257 if dtype == "uint16" else 1)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="miniswhite")
    pixels = read_image(tmp_path / "a.tif").pixels
    assert pixels[0, 0] == np.iinfo(dtype).max
    assert pixels[-1, -1] == 0


def test_big_endian_tiff_reads_as_little_endian_does(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, byteorder=">", photometric="minisblack")
    pixels = read_image(tmp_path / "a.tif").pixels
    assert np.array_equal(pixels, stretch_to_uint16(DEEP))
    assert pixels.dtype.isnative


def test_grey_stored_as_colour_is_grey_and_colour_stays(tmp_path):
    grey = read_image(saved(tmp_path / "grey.png", Image.fromarray(np.stack([GREY] * 3, axis=-1))))
    assert np.array_equal(grey.pixels, GREY)
    colour = np.stack([GREY, GREY, GREY], axis=-1)
    colour[3, 4, 2] ^= 1  # one pixel of one channel is enough
    assert np.array_equal(read_image(saved(tmp_path / "colour.png", Image.fromarray(colour))).pixels, colour)


def test_other_modes_are_read_as_what_they_show(tmp_path):
    bilevel = read_image(saved(tmp_path / "1.png", Image.fromarray(GREY > 128)))
    assert np.array_equal(bilevel.pixels, np.where(GREY > 128, 255, 0))
    palette = Image.fromarray(GREY).convert("P")
    assert np.array_equal(read_image(saved(tmp_path / "p.png", palette)).pixels, GREY)
    black_ink = Image.merge("CMYK", [Image.new("L", (31, 23))] * 3 + [Image.fromarray(255 - GREY)])
    assert np.array_equal(read_image(saved(tmp_path / "k.tif", black_ink)).pixels, GREY)


def test_what_is_transparent_is_black(tmp_path):
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:, :10] = 0
    layers = Image.fromarray(np.dstack([GREY, GREY, GREY, alpha]))
    pixels = read_image(saved(tmp_path / "a.png", layers)).pixels
    assert not pixels[:, :10].any()
    assert np.array_equal(pixels[:, 10:], GREY[:, 10:])


def test_floating_point_tiff_is_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="floating-point"):
        read_image(saved(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32))))


def test_a_tiff_of_signed_bytes_is_refused(tmp_path):
    picture = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10))
    picture.save(tmp_path / "a.tif", tiffinfo={339: 2})
    with pytest.raises(UnreadableFile, match="signed 8-bit"):
        read_image(tmp_path / "a.tif")


def test_a_folder_that_may_not_be_read_is_no_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    list_folder = os.scandir

    def scan(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UnreadableFile, match="closed: the folder cannot be read"):
        find_images(tmp_path)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_several_pages_are_refused(tmp_path, suffix):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(tmp_path / f"a{suffix}", pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(UnreadableFile, match="holds 2 pictures"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # where the corners of the upright picture lie in the stored one, by the EXIF 2.3 table (row 0, column 0)
    upright = np.kron(np.array([[0, 80, 80], [160, 240, 240]], np.uint8), np.ones((16, 16), np.uint8))
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    picture = read_image(saved(tmp_path / "a.jpg", stored, exif=exif, quality=100))
    assert picture.frame.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).max() <= 6


def test_damaged_exif_does_not_keep_a_picture_from_being_read(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(SMOOTH), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert read_image(path).pixels.shape == SMOOTH.shape


@pytest.mark.parametrize("tail", [b"\x00" * 5000, b"\xff\xd8\xff\xe0 another start", b"text"])
def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path, tail):
    path = saved(tmp_path / "a.jpg", Image.fromarray(SMOOTH))
    whole = read_image(path).pixels
    path.write_bytes(path.read_bytes() + tail)
    assert np.array_equal(read_image(path).pixels, whole)


# an uncompressed TIFF with zeros for its lost end cannot be told from a picture that is black there
@pytest.mark.parametrize(
    ("suffix", "options", "filler"),
    [
        (".jpg", {}, b""),
        (".jpg", {}, b"\x00" * 4000),
        (".jpg", {"progressive": True}, b""),
        (".jpg", {"progressive": True}, b"\x00" * 4000),
        (".png", {}, b""),
        (".png", {}, b"\x00" * 4000),
        (".tif", {}, b""),
        (".tif", {"compression": "tiff_lzw"}, b""),
        (".tif", {"compression": "tiff_lzw"}, b"\x00" * 4000),
    ],
)
def test_a_file_cut_anywhere_is_refused_or_whole_but_never_half_read(tmp_path, suffix, options, filler):
    stream = BytesIO()
    noise = np.clip(SMOOTH.astype(int) + RNG.integers(0, 40, SMOOTH.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noise).save(stream, {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[suffix], **options)
    data = stream.getvalue()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    whole = read_image(path).pixels
    refused = 0
    for cut in np.linspace(1, len(data) - 1, 24).astype(int):
        path.write_bytes(data[:cut] + filler)
        try:
            assert np.array_equal(read_image(path).pixels, whole), f"half read at {cut} of {len(data)} bytes"
        except UnreadableFile as error:
            assert str(path) in error.message
            assert error.remedy
            refused += 1
            with pytest.raises(UnreadableFile):
                measure_whole_picture(path)
        else:
            assert measure_whole_picture(path) == whole.shape
    assert refused >= 15


def test_a_whole_png_is_known_by_its_checksums_without_decoding_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.fromarray(DEEP))
    data = bytearray(path.read_bytes())
    monkeypatch.setattr(reading, "read_image", None)
    assert measure_whole_picture(path) == DEEP.shape
    monkeypatch.undo()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableFile):
        measure_whole_picture(path)


def test_an_end_mark_inside_a_thumbnail_does_not_pass_for_the_end(tmp_path):
    stream = BytesIO()
    Image.fromarray(SMOOTH).save(stream, "JPEG")
    thumbnail = stream.getvalue()
    segment = b"\xff\xe5" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    whole = thumbnail[:2] + segment + thumbnail[2:]
    path.write_bytes(whole)
    assert read_image(path).pixels.shape == SMOOTH.shape
    path.write_bytes(whole[:-2] + b"\x00" * 2000)
    with pytest.raises(UnreadableFile, match="end mark"):
        read_image(path)


def test_absurd_sizes_are_refused_before_memory_is_spent(tmp_path):
    stream = BytesIO()
    Image.fromarray(GREY).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(UnreadableFile, match="40000 x 40000 = 1600 million"):
        read_image(tmp_path / "a.png")
    with pytest.raises(UnreadableFile, match="at least 1 x 1"):
        require_sane_size(Path("a"), 0, 10)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"GIF89a....", "neither PNG"), (b"a,b\n", "neither")])
def test_other_content_is_refused_whatever_its_name(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableFile, match=reason):
        read_image(tmp_path / "a.png")


def test_the_type_is_taken_from_the_content(tmp_path):
    saved(tmp_path / "a.png", Image.fromarray(GREY)).rename(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path / "a.dcm").pixels, GREY)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="cannot be opened"):
        read_image(tmp_path / "none.png")


def test_find_images_lists_by_name_or_content_and_skips_what_is_hidden(tmp_path):
    (tmp_path / "b" / ".cache").mkdir(parents=True)
    wanted = [tmp_path / "a.JPG", tmp_path / "b" / "IM0001", tmp_path / "b" / "broken.dcm", tmp_path / "b" / "c"]
    wanted[0].write_bytes(b"not really")
    wanted[1].write_bytes(bytes(128) + b"DICM")
    wanted[2].write_bytes(b"")
    Image.fromarray(GREY).save(wanted[3], "PNG")
    # exports of a PACS that were cut, or lack their meta information, and archives: refused aloud, not passed over
    lost = [tmp_path / name for name in ("IM0002", "IM0003", "1.2.840.7", "all.zip")]
    for path, content in zip(lost, (b"", b"\x08\0\5\0CS", bytes(100), b"PK"), strict=True):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match="begins as a DICOM" if path.name == "IM0003" else "the content is"):
            read_image(path)
    wanted += lost
    (tmp_path / "README2").write_text("a")
    (tmp_path / "labels.csv").write_text("a")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "._a.png").write_bytes(b"")
    (tmp_path / "b" / ".cache" / "x.png").write_bytes(b"")
    assert find_images(tmp_path) == sorted(wanted)
    assert find_images(wanted[2]) == [wanted[2]]
    with pytest.raises(UnreadableFile, match="no such file"):
        find_images(tmp_path / "nowhere")


def test_rejects_are_written_with_their_header_even_when_there_are_none(tmp_path):
    write_rejects(tmp_path / "out" / "rejects.csv", [])
    assert (tmp_path / "out" / "rejects.csv").read_text().splitlines() == ["file,reason,remedy"]
    write_rejects(tmp_path / "rejects.csv", [Reject(Path("a, b.dcm"), 'the "end"\nis missing', "copy again")])
    with (tmp_path / "rejects.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1] == ["a, b.dcm", 'the "end"\nis missing', "copy again"]


@pytest.mark.skipif(not (DATA / "fracatlas").is_dir(), reason="FracAtlas is not here")
def test_real_files_with_zeros_after_their_end_are_read():
    files = sorted((DATA / "fracatlas" / "images").rglob("*.jpg"))
    padded = [file for file in files if file.read_bytes().endswith(b"\x00" * 8)]
    assert padded
    assert all(read_image(file).pixels.ndim == 2 for file in padded)


@pytest.mark.skipif(not (DATA / "fracatlas").is_dir(), reason="FracAtlas is not here")
def test_a_real_file_stored_lying_on_its_side_is_turned_upright():
    # its box (COCO: 177, 75, 37 x 24) lies on the humeral head only when the picture is turned
    picture = read_image(DATA / "fracatlas" / "images" / "Fractured" / "IMG0002628.jpg")
    assert picture.frame.shape == (373, 454)


@pytest.mark.skipif(not (DATA / "grazpedwri").is_dir(), reason="GRAZPEDWRI-DX is not here")
def test_real_sixteen_bit_wrists_use_the_full_range():
    for file in find_images(DATA / "grazpedwri" / "images"):
        picture = read_image(file)
        assert picture.pixels.dtype == np.uint16
        assert (picture.pixels.min(), picture.pixels.max()) == (0, 65535)


def test_the_contract_names_stand_in_one_module():
    assert {"Picture", "Reject", "read_image", "find_images", "write_rejects"} <= set(reading.__all__)
