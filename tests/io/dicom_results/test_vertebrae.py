"""Results of the vertebrae of a CT: no error for dciodvfy, everything in its place when read back."""

from dataclasses import replace
from datetime import datetime

import highdicom as hd
import numpy as np
import pytest
from support.dicom_sources import ct_series
from support.dicom_tools import dciodvfy

from sightline.errors import GeometryError, UnreadableFile
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.objects import write_objects
from sightline.io.dicom_results.results import FindingResult, FoundVertebra, Maker, SeriesResult
from sightline.io.dicom_results.vertebrae import make_series_objects

MAKER = Maker("spine-small", "0123", "a" * 64, "0.1.0")


def result_of(slices, *, masks=True):
    sources = tuple(build_source_image(one) for one in slices)
    shape = (len(sources), *sources[0].shape)
    vertebrae = []
    for n, (level, called) in enumerate((("T12", True), ("L1", False), ("L2", True), ("L6", True))):
        mask = np.zeros(shape, dtype=bool)
        mask[n : n + 2, 4:9, 5 + n : 12] = True
        affine = np.array([[0, 0, 2.0, -5], [0, 2.0, 0, -4 + n], [2.5, 0, 0, 1.0], [0, 0, 0, 1]])
        cells = np.random.default_rng(n).normal(size=(3, 4, 5)).astype(np.float32)
        vertebrae.append(
            FoundVertebra(
                level, (-1.5, 2.25 * n, 3.0 + n), FindingResult("fracture", 0.2 + 0.1 * n, called),
                mask if masks else None, cells, affine,
            )
        )  # fmt: skip
    picture = np.full((20, 30, 3), 90, dtype=np.uint8)
    return SeriesResult(sources, tuple(vertebrae), MAKER, datetime(2026, 1, 2), picture=picture)


@pytest.mark.parametrize("masks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_objects_of_a_ct_are_sound(masks, tmp_path):
    result = result_of(ct_series(), masks=masks)
    objects = make_series_objects(result)
    assert [o.Modality for o in objects] == ["SR", "SR", *(["SEG"] if masks else []), "OT", *["OT"] * 4]
    for path in write_objects(objects, tmp_path):
        assert dciodvfy(path).errors == (), path.name


def test_segments_points_and_maps_are_where_they_were(tmp_path):
    slices = ct_series()
    result = result_of(slices)
    findings, marks, regions, _, *maps = make_series_objects(result)
    segments = hd.seg.Segmentation.from_dataset(regions)
    drawn = segments.get_pixels_by_source_instance(
        [s.SOPInstanceUID for s in slices], assert_missing_frames_are_empty=True
    )
    called = [one for one in result.vertebrae if one.said.present]
    for n, one in enumerate(called):
        assert np.array_equal(drawn[..., n].astype(bool), one.mask)
    groups = hd.sr.Comprehensive3DSR.from_dataset(marks).content
    assert len(groups.get_volumetric_roi_measurement_groups()) == 3
    (point,) = groups.get_planar_roi_measurement_groups()
    assert np.allclose(point.roi.value, [result.vertebrae[1].point_mm], atol=1e-4)
    assert point.finding_sites[0].value.meaning == "L1 vertebra"
    shares = [
        g.get_measurements()[0].value
        for g in hd.sr.Comprehensive3DSR.from_dataset(findings).content.get_image_measurement_groups()
    ]
    assert shares == pytest.approx([20.0, 30.0, 40.0, 50.0], abs=1e-2)
    for made, one in zip(maps, result.vertebrae, strict=True):
        volume = hd.Image.from_dataset(made).get_volume()
        assert volume.frame_of_reference_uid == slices[0].FrameOfReferenceUID
        for index in ((0, 0, 0), (2, 1, 3)):
            place = one.map_affine @ np.array([*index, 1.0])
            back = np.linalg.inv(volume.affine) @ place
            assert np.allclose(back, np.rint(back), atol=1e-4)
            a, b, c = np.rint(back[:3]).astype(int)
            assert np.squeeze(volume.array)[a, b, c] == one.map[index]


def test_what_was_judged_elsewhere_or_said_with_other_words_is_another_object():
    slices = ct_series()
    result = result_of(slices)
    first, again = make_series_objects(result), make_series_objects(result_of(slices))
    assert [o.SOPInstanceUID for o in first] == [o.SOPInstanceUID for o in again]
    moved = replace(result.vertebrae[0], point_mm=(0.5, 0.0, 3.0))
    other_mask = replace(result.vertebrae[0], mask=np.roll(result.vertebrae[0].mask, 1, axis=1))
    for one in (moved, other_mask):
        elsewhere = make_series_objects(replace(result, vertebrae=(one, *result.vertebrae[1:])))
        assert not {o.SOPInstanceUID for o in first} & {o.SOPInstanceUID for o in elsewhere}
    said = make_series_objects(replace(result, notes=("Centres of the vertebral bodies are estimated",)))
    assert said[0].SOPInstanceUID != first[0].SOPInstanceUID
    assert [o.SOPInstanceUID for o in said[1:]] == [o.SOPInstanceUID for o in first[1:]]


def test_a_ct_without_a_frame_of_reference_is_refused():
    slices = ct_series()
    for one in slices:
        del one.FrameOfReferenceUID
    with pytest.raises(UnreadableFile, match="FrameOfReferenceUID"):
        make_series_objects(result_of(slices))


def test_masks_of_another_size_are_refused():
    slices = ct_series()
    with pytest.raises(GeometryError, match="T12"):
        SeriesResult(
            tuple(map(build_source_image, slices)),
            (FoundVertebra("T12", (0, 0, 0), FindingResult("fracture", 0.5, True), np.zeros((1, 2, 3), bool)),),
            MAKER,
            datetime(2026, 1, 2),
        )
