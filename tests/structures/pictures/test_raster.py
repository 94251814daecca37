"""Picture files as pictures and as masks: palettes, alpha, turns, depths, pages; held against plain numpy."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sightline.errors import UnreadableFile
from sightline.io.image import read_frame, read_image
from sightline.structures.pictures.raster import read_raster
from sightline.structures.regions import Mask, read_mask
from sightline.structures.resampling import resample

SHAPE = (12, 20)
INSIDE = np.zeros(SHAPE, dtype=bool)
INSIDE[2:5, 3:11] = True
GREY = np.where(INSIDE, 255, 0).astype(np.uint8)
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}
# how a picture must be stored so that the orientation makes it upright
UNDONE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def png(path, samples, depth, colour, *chunks):
    """A PNG written by hand: any bit depth and colour type, and further chunks before the pixels."""

    def chunk(kind, body):
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    rows, columns = samples.shape[:2]
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in samples]
    elif depth == 8:
        lines = [row.astype(np.uint8).tobytes() for row in samples]
    else:
        bits = ((samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(rows, -1).astype(np.uint8)
        lines = [np.packbits(row).tobytes() for row in bits]
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    head = struct.pack(">LLBBBBB", columns, rows, depth, colour, 0, 0, 0)
    more = b"".join(chunk(kind, body) for kind, body in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def _stacked(*planes):
    return np.stack([np.broadcast_to(np.asarray(plane), SHAPE) for plane in planes], axis=-1)


def _palette(*colours):
    return b"PLTE", bytes(x for colour in colours for x in colour)


def as_masks(folder):
    """The same mask in every mode a program may save it in."""
    full, wide = np.uint8(255), np.where(INSIDE, 65535, 0).astype(np.uint16)
    bit = INSIDE.astype(np.uint8)
    made = {}
    for mode, array in (
        ("L", GREY),
        ("LA", _stacked(GREY, full).astype(np.uint8)),
        ("LA see-through outside", _stacked(full, GREY).astype(np.uint8)),
        ("RGB", _stacked(GREY, 0, 0).astype(np.uint8)),
        ("RGBA", _stacked(GREY, GREY, GREY, full).astype(np.uint8)),
        ("RGBA see-through outside", _stacked(full, 0, full, GREY).astype(np.uint8)),
    ):
        Image.fromarray(array).save(folder / f"{mode}.png")
        made[mode] = folder / f"{mode}.png"
    Image.fromarray(GREY).convert("1").save(folder / "1.png")
    made["1"] = folder / "1.png"
    made["P"] = png(folder / "p.png", bit, 8, 3, _palette((0, 0, 0), (9, 200, 0)))
    made["P white first"] = png(folder / "pw.png", 1 - bit, 8, 3, _palette((255, 255, 255), (0, 0, 0)))
    made["P tRNS"] = png(folder / "pt.png", bit, 8, 3, _palette((255, 0, 0), (0, 200, 0)), (b"tRNS", b"\0\xff"))
    made["L tRNS"] = png(folder / "lt.png", np.where(INSIDE, 90, 255), 8, 0, (b"tRNS", b"\0\xff"))
    made["L 2 bits tRNS"] = png(folder / "l2.png", np.where(INSIDE, 1, 2), 2, 0, (b"tRNS", b"\0\x02"))
    made["1 tRNS"] = png(folder / "1t.png", np.where(INSIDE, 1, 0), 1, 0, (b"tRNS", b"\0\x00"))
    made["RGB tRNS"] = png(folder / "rt.png", _stacked(7, GREY, 7), 8, 2, (b"tRNS", b"\0\7\0\0\0\7"))
    made["I;16"] = png(folder / "i16.png", wide, 16, 0)
    made["I;16 tRNS"] = png(folder / "i16t.png", np.where(INSIDE, 5, 65535), 16, 0, (b"tRNS", b"\xff\xff"))
    made["RGB 16"] = png(folder / "rgb16.png", _stacked(0, wide, 0), 16, 2)
    made["LA 16"] = png(folder / "la16.png", _stacked(65535, wide), 16, 4)
    made["RGBA 16"] = png(folder / "rgba16.png", _stacked(wide, 0, 0, 65535), 16, 6)
    for name, array, more in (
        ("F", GREY.astype(np.float32), {}),
        ("I", GREY.astype(np.int32), {}),
        ("tif 16", wide, {}),
        ("tif white is zero", np.where(INSIDE, 0, 65535).astype(np.uint16), {"photometric": "miniswhite"}),
        ("tif 8 white is zero", 255 - GREY, {"photometric": "miniswhite"}),
        ("tif rgb16", _stacked(wide, wide, 0).astype(np.uint16), {"photometric": "rgb"}),
        ("tif rgba16", _stacked(65535, 65535, 0, wide).astype(np.uint16), {"photometric": "rgb", "extrasamples": [2]}),
        ("tif rgb16 planes", np.stack([wide, wide, wide]), {"photometric": "rgb", "planarconfig": "separate"}),
    ):
        tifffile.imwrite(folder / f"{name}.tif", array, **more)
        made[f"tif {name}"] = folder / f"{name}.tif"
    palette = Image.fromarray(bit).copy()
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(folder / "p.tif")
    made["tif P"] = folder / "p.tif"
    return made


def test_one_mask_in_every_mode_is_one_mask(tmp_path):
    for mode, path in as_masks(tmp_path).items():
        assert np.array_equal(read_mask(path), INSIDE), mode


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "lzw.tif", "rgb16.tif", "big.tif"])
def test_turns_are_those_of_numpy_for_pictures_and_masks(tmp_path, orientation, kind):
    upright = np.arange(240, dtype=np.uint8).reshape(12, 20)
    stored = np.ascontiguousarray(TURNS[UNDONE[orientation]](upright))
    path = tmp_path / f"a.{kind}"
    if kind in ("png", "jpg"):
        exif = Image.Exif()
        exif[274] = orientation
        image = Image.fromarray(stored if kind == "png" else np.where(stored > 100, 255, 0).astype(np.uint8))
        image.save(path, exif=exif, **({"quality": 100} if kind == "jpg" else {}))
    else:
        array = np.repeat(stored[..., None], 3, axis=-1).astype(np.uint16) * 257 if kind == "rgb16.tif" else stored
        more = {"photometric": "rgb" if array.ndim == 3 else "minisblack", "bigtiff": kind == "big.tif"}
        tag = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, array, compression="lzw" if kind == "lzw.tif" else None, extratags=tag, **more)
        again = tifffile.imread(path)
        upright = upright if array.ndim == 2 else TURNS[orientation](again)[..., 0]
    assert read_frame(path).shape == (12, 20)
    if kind == "jpg":
        assert np.array_equal(read_mask(path), upright > 100)
        return
    assert np.array_equal(read_mask(path), upright != 0)
    pixels = read_image(path).pixels
    assert np.array_equal(pixels, upright) or np.abs(pixels - upright.astype(int) * 65535 / upright.max()).max() <= 1


def test_sixteen_bits_in_colour_keep_every_level(tmp_path):
    deep = (np.arange(240, dtype=np.uint16) * 17).reshape(SHAPE)
    plain = read_image(png(tmp_path / "grey.png", deep, 16, 0)).pixels
    assert len(np.unique(plain)) == 240
    for path in (
        png(tmp_path / "rgb.png", _stacked(deep, deep, deep), 16, 2),
        png(tmp_path / "la.png", _stacked(deep, 65535), 16, 4),
        png(tmp_path / "rgba.png", _stacked(deep, deep, deep, 65535), 16, 6),
    ):
        assert np.array_equal(read_image(path).pixels, plain), path.name
    coloured = read_image(png(tmp_path / "c.png", _stacked(deep, deep, 0), 16, 2)).pixels
    assert coloured.dtype == np.uint8
    assert coloured.shape == (*SHAPE, 3)
    assert coloured[..., 0].max() == 255
    half = read_image(png(tmp_path / "h.png", _stacked(65535, np.where(INSIDE, 32768, 0)), 16, 4)).pixels
    assert np.array_equal(half > 0, INSIDE)


def test_a_see_through_grey_is_black_as_it_is_in_colour(tmp_path):
    shade = np.where(INSIDE, 255, np.arange(20, dtype=np.uint8) + 10).astype(np.uint8)
    grey = read_image(png(tmp_path / "g.png", shade, 8, 0, (b"tRNS", b"\0\xff"))).pixels
    colour = read_image(png(tmp_path / "c.png", _stacked(shade, shade, shade), 8, 2, (b"tRNS", b"\0\xff" * 3))).pixels
    assert np.array_equal(grey, colour)
    assert not grey[INSIDE].any()


def test_lossy_masks_count_from_half_and_labels_in_them_are_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "j.jpg", quality=70)
    assert (np.asarray(Image.open(tmp_path / "j.jpg")) > 0).sum() > INSIDE.sum()
    assert np.array_equal(read_mask(tmp_path / "j.jpg"), INSIDE)
    with pytest.raises(UnreadableFile, match="not those that were saved"):
        read_mask(tmp_path / "j.jpg", 255)
    Image.fromarray(INSIDE.astype(np.uint8) * 20).save(tmp_path / "dark.jpg")
    with pytest.raises(UnreadableFile, match="brightest pixel"):
        read_mask(tmp_path / "dark.jpg")
    tifffile.imwrite(tmp_path / "j.tif", np.kron(GREY, np.ones((8, 8), np.uint8)), compression="jpeg")
    assert read_raster(tmp_path / "j.tif").lossy


def test_a_lossy_mask_in_grey_is_refused_and_not_cut_to_its_rim(tmp_path):
    Image.fromarray(np.kron(INSIDE, np.ones((3, 3))).astype(np.uint8) * 120).save(tmp_path / "grey.jpg")
    assert np.asarray(Image.open(tmp_path / "grey.jpg")).max() > 128
    with pytest.raises(UnreadableFile, match="brightest pixel"):
        read_mask(tmp_path / "grey.jpg")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_labels_of_few_bits_are_the_numbers_that_were_saved(tmp_path, depth):
    path = png(tmp_path / "a.png", INSIDE.astype(np.uint8), depth, 0)
    assert np.array_equal(read_mask(path, 1), INSIDE)
    white = np.where(INSIDE, 2**depth - 1, 0).astype(np.uint8)
    clear = png(tmp_path / "t.png", white, depth, 0, (b"tRNS", (2**depth - 1).to_bytes(2, "big")))
    assert not read_mask(clear).any()


def test_rare_tiffs_are_read_right_or_refused_as_what_they_are(tmp_path):
    deep = np.arange(240, dtype=np.uint16).reshape(SHAPE)
    tifffile.imwrite(tmp_path / "o.tif", deep, extratags=[(274, "I", 1, 6, True)], metadata=None)
    assert np.array_equal(read_raster(tmp_path / "o.tif").values, TURNS[6](deep))
    many = np.array([[1, 2**31 + 5, 4 * 10**9]], dtype=np.uint32)
    tifffile.imwrite(tmp_path / "u.tif", many, metadata=None)
    assert np.array_equal(read_raster(tmp_path / "u.tif").values, many)
    for packing in ({}, {"compression": "lzw"}, {"extratags": [(274, "H", 1, 6, True)]}):
        for order in "<>":
            form = {"photometric": "miniswhite", "byteorder": order, "resolution": (200, 100), "metadata": None}
            tifffile.imwrite(tmp_path / "w.tif", deep, **form, **packing)
            turned = "extratags" in packing
            found, right = read_raster(tmp_path / "w.tif"), TURNS[6 if turned else 1](~deep)
            assert found.values.dtype == np.uint16 and np.array_equal(found.values, right)
            assert found.aspect == (0.5 if turned else 2.0) and read_frame(tmp_path / "w.tif").shape == right.shape
    tifffile.imwrite(tmp_path / "s.tif", many.astype(np.int64), photometric="miniswhite", metadata=None)
    with pytest.raises(UnreadableFile, match="not read here"):
        read_raster(tmp_path / "s.tif")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "form",
    [
        {"byteorder": ">", "bigtiff": True},
        {"byteorder": ">", "bigtiff": True, "compression": "deflate"},
        {"compression": "jpeg2000"},  # without loss
        {"compression": "lerc"},
        {"compression": "jpegxr"},
        {"compression": "png"},
    ],
    ids=str,
)
def test_what_pillow_does_not_know_is_read_as_tifffile_does(tmp_path, form, orientation):
    deep = (np.arange(240, dtype=np.uint16) * 250).reshape(SHAPE)
    more = {"resolution": (200, 100), "extratags": [(274, "H", 1, orientation, True)], "metadata": None}
    for values in (deep, (deep >> 8).astype(np.uint8), np.stack([deep, deep[::-1], 0 * deep], -1)):
        grey = values.ndim == 2
        tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack" if grey else "rgb", **form, **more)
        found = read_raster(tmp_path / "x.tif")
        assert found.values.dtype == values.dtype and np.array_equal(found.values, TURNS[orientation](values))
        assert read_frame(tmp_path / "x.tif").shape == found.values.shape[:2]
        assert found.aspect == (2.0 if orientation == 1 else 0.5)
        data = (tmp_path / "x.tif").read_bytes()
        (tmp_path / "cut.tif").write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(UnreadableFile):
            read_raster(tmp_path / "cut.tif")
    tifffile.imwrite(tmp_path / "m.tif", GREY, **form, **more)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), TURNS[orientation](INSIDE))


def test_slices_in_one_page_are_several_pictures(tmp_path):
    volume = np.zeros((16, 16, 16), np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", volume, volumetric=True, tile=(16, 16, 16))
    with pytest.raises(UnreadableFile, match="holds 16 pictures"):
        read_raster(tmp_path / "v.tif")


def test_what_is_whole_and_not_known_is_not_called_damaged(tmp_path):
    import imagecodecs

    deep = np.arange(240, dtype=np.uint16).reshape(SHAPE)
    (tmp_path / "j.jpg").write_bytes(imagecodecs.jpeg8_encode(deep, bitspersample=12))
    tifffile.imwrite(tmp_path / "f.tif", deep.astype(np.float16))
    for name, words in (("j.jpg", "not read here"), ("f.tif", "floating-point")):
        with pytest.raises(UnreadableFile, match=words):
            read_image(tmp_path / name)
    tifffile.imwrite(tmp_path / "w.tif", np.zeros((*SHAPE, 3), np.uint8), compression="webp")
    try:
        assert read_raster(tmp_path / "w.tif").lossy
    except UnreadableFile as error:  # by how Pillow was built
        assert "compressed as WebP" in error.message and "damaged" not in error.message


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_and_alpha_of_sixteen_bits_lie_on_black(tmp_path, order):
    deep = (np.arange(240, dtype=np.uint16) * 250).reshape(SHAPE)
    alpha = np.where(INSIDE, 65535, 13107).astype(np.uint16)
    for photometric, grey in (("minisblack", deep), ("miniswhite", ~deep)):
        right = np.rint(grey * (alpha / 65535.0)).astype(np.uint16)
        for planes, config in ((np.stack([deep, alpha], -1), "contig"), (np.stack([deep, alpha]), "separate")):
            form = {"photometric": photometric, "planarconfig": config, "byteorder": order, "metadata": None}
            tifffile.imwrite(tmp_path / "la.tif", planes, extrasamples=["unassalpha"], **form)
            assert np.array_equal(read_raster(tmp_path / "la.tif").values, right)
    mask = np.stack([np.full(SHAPE, 65535), np.where(INSIDE, 65535, 0)], -1).astype(np.uint16)
    form = {"photometric": "minisblack", "planarconfig": "contig", "byteorder": order, "metadata": None}
    tifffile.imwrite(tmp_path / "m.tif", mask, extrasamples=["unassalpha"], **form)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), INSIDE)


def test_several_pages_and_what_is_no_number_are_refused_for_masks_too(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "p.tif", save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(UnreadableFile, match="holds 2 pictures"):
        read_mask(tmp_path / "p.tif")
    tifffile.imwrite(tmp_path / "n.tif", np.where(INSIDE, np.nan, 0).astype(np.float32))
    with pytest.raises(UnreadableFile, match="no numbers"):
        read_mask(tmp_path / "n.tif")


def test_a_label_of_a_palette_is_its_entry(tmp_path):
    path = png(tmp_path / "p.png", INSIDE.astype(np.uint8) * 2, 8, 3, _palette((0, 0, 0), (1, 1, 1), (9, 9, 9)))
    assert np.array_equal(read_mask(path, 2), INSIDE)
    assert not read_mask(path, 9).any()


@pytest.mark.parametrize(("old", "new"), [((9, 14), (4, 7)), ((4, 7), (9, 14)), ((11, 5), (3, 8))])
def test_planes_are_resampled_as_pillow_does(old, new):
    plane = np.random.default_rng(0).random(old).astype(np.float32)
    expected = np.asarray(Image.fromarray(plane).resize(new[::-1], Image.Resampling.BILINEAR))
    assert resample(plane, new, "smoothed linear") == pytest.approx(expected, abs=1e-6)


def test_pixels_that_are_not_square_are_known(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(100, 200))
    assert read_image(tmp_path / "a.png").frame.aspect == pytest.approx(0.5, rel=1e-3)
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(200, 100))
    assert read_frame(tmp_path / "a.tif").aspect == pytest.approx(2.0)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY).save(tmp_path / "a.jpg", dpi=(100, 200), exif=exif)
    assert read_image(tmp_path / "a.jpg").frame.aspect == pytest.approx(2.0)
    assert read_image(tmp_path / "a.jpg").frame.square_pixels().shape == (40, 12)


class TestMasksOfVolumes:
    """A mask of a volume lies where its affine says, or it is refused."""

    def write(self, path, array, affine):
        import nibabel

        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return path

    def test_flipped_and_turned_masks_are_brought_to_the_grid(self, tmp_path):
        rng = np.random.default_rng(0)
        truth = rng.random((5, 6, 7)) > 0.7
        affine = np.array([[0, -2.0, 0, 3], [1.5, 0, 0, -4], [0, 0, 3.0, 5], [0, 0, 0, 1]])
        on = self.write(tmp_path / "v.nii.gz", np.zeros((5, 6, 7), np.int16), affine)
        for number, (order, flips) in enumerate(
            [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, -1, 1))]
        ):
            # voxel by voxel: index n of the stored mask is index p of the volume
            move = np.zeros((4, 4))
            move[3, 3] = 1
            stored = truth.transpose(order)[tuple(slice(None, None, f) for f in flips)]
            for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
                move[source, axis] = flip
                move[source, 3] = truth.shape[source] - 1 if flip < 0 else 0
            path = self.write(tmp_path / f"m{number}.nii.gz", stored.astype(np.uint8), affine @ move)
            assert np.array_equal(Mask(path, on=on).pixels(), truth), (order, flips)

    def test_another_grid_is_refused(self, tmp_path):
        on = self.write(tmp_path / "v.nii.gz", np.zeros((4, 4, 4), np.int16), np.eye(4))
        for number, change in enumerate((np.diag([2.0, 2, 2, 1]), np.eye(4) + np.eye(4, k=3) * 0.5)):
            path = self.write(tmp_path / f"m{number}.nii.gz", np.ones((4, 4, 4), np.uint8), change)
            with pytest.raises(UnreadableFile, match="another grid"):
                Mask(path, on=on).pixels()

    def test_another_shape_and_forms_that_contradict_each_other_are_refused(self, tmp_path):
        import nibabel

        on = self.write(tmp_path / "v.nii.gz", np.zeros((4, 5, 6), np.int16), np.eye(4))
        with pytest.raises(UnreadableFile, match="another grid"):
            Mask(self.write(tmp_path / "s.nii.gz", np.ones((5, 4, 6), np.uint8), np.eye(4)), on=on).pixels()
        image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4))
        image.set_sform(np.eye(4), 1)
        image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
        nibabel.save(image, tmp_path / "q.nii.gz")
        with pytest.raises(UnreadableFile, match=r"contradict each other by up to 6\.0 mm"):
            Mask(tmp_path / "q.nii.gz", on=on).pixels()
        with pytest.raises(UnreadableFile, match="not real numbers"):
            Mask(self.write(tmp_path / "c.nii.gz", np.ones((4, 5, 6), np.complex64), np.eye(4)), on=on).pixels()

    def test_a_mask_in_metres_lies_on_its_volume_in_millimetres(self, tmp_path):
        import nibabel

        on = self.write(tmp_path / "v.nii.gz", np.zeros((4, 5, 6), np.int16), np.eye(4))
        affine = np.diag([0.001, 0.001, 0.001, 1.0])
        image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), affine)
        image.set_sform(affine, 1)
        image.header.set_xyzt_units("meter")
        nibabel.save(image, tmp_path / "m.nii.gz")
        assert Mask(tmp_path / "m.nii.gz", on=on).pixels().all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_orientation_that_xmp_alone_says_is_not_applied_as_in_browsers(tmp_path, suffix):
    text = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path, words = tmp_path / f"a{suffix}", PngInfo()
    words.add_itxt("XML:com.adobe.xmp", text)
    more = {"pnginfo": words} if suffix == ".png" else {"xmp": text.encode()}
    Image.fromarray(GREY).save(path, **more)
    assert read_raster(path).values.shape == read_frame(path).shape == SHAPE
    exif = Image.Exif()
    exif[274] = 8
    Image.fromarray(GREY).save(path, exif=exif, **more)
    assert read_raster(path).values.shape == read_frame(path).shape == SHAPE[::-1]
