"""Boxes from maps against a slow restatement with scipy.ndimage, one map and one component at a time."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.ops import batched_nms

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.localisation import boxes as found_boxes
from sightline.explainers.localisation.boxes import FoundBoxes, find_boxes_of_maps
from sightline.explainers.localisation.connected_components import find_components, pack_pictures
from sightline.explainers.localisation.points import find_points, upsample_maps
from sightline.explainers.localisation.protocols import PROTOCOLS, MapBoxes
from sightline.explainers.localisation.tuning import choose_oracle_boxes, list_candidates, tune
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.resampling import resample
from sightline.training.serialization import build_from_plain, to_plain


def iou(a, b):
    rows = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    columns = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return rows * columns / (sum(area) - rows * columns)


def obvious(field, protocol):
    """(corners, score) of the boxes of one map, best first."""
    field = field.astype(np.float64)
    bottom = 0.0 if protocol.scale == "maximum" else field.min()
    span = field.max() - bottom
    if span <= 0 or field.max() == field.min():
        return []
    low, high = bottom + protocol.low / 255 * span, bottom + protocol.high / 255 * span
    pictures = {
        "above": [field > low],
        "band": [(field > low) & (field <= high)],
        "both": [field > low, field > high],
    }[protocol.keep]
    found = []
    for picture in pictures:
        labels, _ = ndimage.label(picture, np.ones((3, 3)))
        parts = []
        for i, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels == i
            if inside.sum() >= protocol.least_share * field.size:
                box = (rows.start, columns.start, rows.stop, columns.stop)
                parts.append((box, (field[inside].max() - bottom) / span, inside.sum()))
        if parts and protocol.regions == "largest":
            parts = [max(parts, key=lambda p: p[2])]
        elif parts and protocol.regions == "peak":
            parts = [max(parts, key=lambda p: p[1])]
        elif parts and protocol.regions == "hull":
            boxes = np.array([p[0] for p in parts])
            hull = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
            parts = [(hull, max(p[1] for p in parts), sum(p[2] for p in parts))]
        found += parts
    found.sort(key=lambda p: (-p[1], -p[2]))
    kept = []
    for box, score, _ in found:
        if len(kept) < protocol.most_boxes and all(iou(box, other) <= protocol.overlap for other, _ in kept):
            kept.append((box, score))
    return kept


def assert_obvious(maps, protocol):
    found = find_boxes_of_maps(maps, protocol)
    expected = [(i, box, score) for i, field in enumerate(maps) for box, score in obvious(field, protocol)]
    assert found.map_index.tolist() == [i for i, _, _ in expected]
    assert found.corners.tolist() == [list(map(float, box)) for _, box, _ in expected]
    np.testing.assert_allclose(found.scores, [score for _, _, score in expected], rtol=1e-12)
    assert found.corners.dtype == found.scores.dtype == np.float64 and found.map_index.dtype == np.int64


protocols = st.builds(
    MapBoxes,
    scale=st.sampled_from(["range", "maximum"]),
    keep=st.sampled_from(["above", "band", "both"]),
    low=st.sampled_from([0.0, 60.0, 128.0]),
    high=st.sampled_from([150.0, 180.0, 255.0]),
    regions=st.sampled_from(["largest", "peak", "hull", "each"]),
    least_share=st.sampled_from([0.0, 0.02, 0.5]),
    most_boxes=st.sampled_from([1, 3, 100]),
    overlap=st.sampled_from([0.0, 0.5, 1.0]),
)


@settings(max_examples=250, deadline=None)
@given(
    protocols,
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([1, 2, 7, 63, 64, 65, 130]),
    st.sampled_from(["noise", "few levels", "flat", "float64"]),
)
def test_boxes_are_the_obvious_ones(protocol, seed, n, height, width, kind):
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((n, height, width))
    if kind == "few levels":
        # ties of values and of areas
        maps = np.round(maps)
    elif kind == "flat":
        maps[::2] = 3.0
    if kind != "float64":
        maps = maps.astype(np.float32)
    assert_obvious(maps, protocol)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("together", [1, 2**21])
def test_named_protocols_on_smooth_maps(name, together, monkeypatch):
    monkeypatch.setattr(found_boxes, "TOGETHER_PX", together)
    maps = np.random.default_rng(3).standard_normal((6, 7, 9)).astype(np.float32)
    assert_obvious(upsample_maps(maps, (90, 150)), PROTOCOLS[name])


def peaked(shape=(64, 80), centre=(30.5, 20.5), width=8.0):
    rows, columns = (np.arange(n) + 0.5 for n in shape)
    away = (rows[:, None] - centre[0]) ** 2 + (columns - centre[1]) ** 2
    return np.exp(-away / (2 * width**2))[None]


def test_the_printed_band_loses_the_peak():
    field = peaked()
    band = find_boxes_of_maps(field, MapBoxes(keep="band", regions="hull"))
    two = find_boxes_of_maps(field, MapBoxes(keep="both", regions="hull", overlap=1.0))
    assert len(band) == 1 and len(two) == 2
    # the two thresholds box the same peak twice, one box inside the other
    outer, inner = two.corners
    assert (outer[:2] < inner[:2]).all() and (outer[2:] > inner[2:]).all()
    assert two.scores.tolist() == [1.0, 1.0]
    # the band is a ring: as wide as the outer box, and what it keeps never reaches the peak
    assert band.corners[0].tolist() == outer.tolist() and band.scores[0] <= 180 / 255
    # level t of a Gaussian lies at width * sqrt(2 log(255 / t)): the box reaches that far about the centre
    radius = 8.0 * np.sqrt(2 * np.log(255 / 180))
    np.testing.assert_allclose(inner, [30.5 - radius, 20.5 - radius, 30.5 + radius, 20.5 + radius], atol=0.5)


def test_the_band_may_box_elsewhere_than_the_thresholds():
    # a steep peak and a broad hill of middle height: the band sees the hill, both thresholds rank the peak first
    field = peaked(centre=(16.5, 16.5), width=2.0) + 0.6 * peaked(centre=(44.5, 60.5), width=6.0)
    band = find_boxes_of_maps(field, MapBoxes(keep="band", regions="largest")).corners[0]
    two = find_boxes_of_maps(field, PROTOCOLS["two thresholds"])
    assert iou(band, two.corners[0]) == 0.0
    assert band[1] < 60.5 < band[3] and two.corners[0][1] < 16.5 < two.corners[0][3]


def test_two_findings_give_two_boxes_with_scores():
    field = peaked(centre=(16.5, 16.5), width=5.0) + 0.8 * peaked(centre=(48.5, 60.5), width=5.0)
    found = find_boxes_of_maps(field, PROTOCOLS["several"])
    assert len(found) == 2
    np.testing.assert_allclose(found.scores, [1.0, 0.8], atol=0.01)
    assert found.corners[0][0] < 16.5 < found.corners[0][2] and found.corners[1][1] < 60.5 < found.corners[1][3]
    assert len(find_boxes_of_maps(field, MapBoxes())) == 1


def test_cells_that_touch_at_a_corner_belong_together():
    field = np.zeros((1, 4, 6))
    field[0, [0, 1, 2, 3], [0, 1, 2, 1]] = 1.0
    field[0, 0, 4:] = 1.0
    found = find_boxes_of_maps(field, MapBoxes(regions="each"))
    assert found.corners.tolist() == [[0, 0, 4, 3], [0, 4, 1, 6]]


def test_pictures_and_rows_do_not_run_into_each_other():
    # the end of a row beside the start of the next, and of a map beside the next map
    for width in (63, 64, 128):
        pictures = np.zeros((2, 3, width), dtype=bool)
        pictures[:, 0, -1] = pictures[:, 1, 0] = pictures[:, 2, -1] = True
        components, runs = find_components(pack_pictures(pictures, 2, (3, width)))
        assert components.picture.tolist() == [0, 0, 0, 1, 1, 1] and components.area.tolist() == [1] * 6
        assert runs.component.tolist() == list(range(6))
    with pytest.raises(GeometryError, match="Expected 3 pictures; got 2"):
        pack_pictures(np.zeros((2, 3, 4), dtype=bool), 3, (3, 4))
    with pytest.raises(GeometryError, match=r"number 1 is \(3, 5\)"):
        pack_pictures(np.zeros((2, 3, 5), dtype=bool), 2, (3, 4))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_flat_maps_have_no_box(name):
    maps = np.stack([np.zeros((5, 5)), np.full((5, 5), -3.0), np.full((5, 5), 1e30)])
    found = find_boxes_of_maps(maps, PROTOCOLS[name])
    assert len(found) == 0 and found.corners.shape == (0, 4) and np.isnan(found.best(3)).all()
    assert len(find_boxes_of_maps(maps, dataclasses.replace(PROTOCOLS[name], scale="maximum"))) == 0
    # the maximum as scale: nothing above zero, nothing found
    assert len(find_boxes_of_maps(-np.arange(25.0).reshape(1, 5, 5), MapBoxes(scale="maximum"))) == 0
    assert len(find_boxes_of_maps(np.zeros((0, 5, 5)), PROTOCOLS[name])) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_maps_that_are_no_numbers_are_refused(bad):
    maps = np.zeros((3, 4, 4))
    maps[1, 2, 2] = bad
    for call in (lambda: find_boxes_of_maps(maps, MapBoxes()), lambda: find_points(maps)):
        with pytest.raises(GeometryError, match="NaN or infinite"):
            call()
    with pytest.raises(GeometryError, match=r"\[n, h, w\]"):
        find_boxes_of_maps(np.zeros((4, 4)), MapBoxes())
    with pytest.raises(GeometryError, match=r"\(2, 0, 3\)"):
        upsample_maps(np.zeros((2, 0, 3)), (4, 4))


def test_a_level_is_exact_in_float32():
    # 0.1 in float32 lies above 0.1 in float64: rounding the level to the map's type would drop a cell that is above it
    field = np.array([[[0.0, 0.1, 1.0]]], dtype=np.float32)
    assert float(field[0, 0, 1]) > 0.1
    found = find_boxes_of_maps(field, MapBoxes(low=25.5))
    assert found.corners.tolist() == [[0, 1, 1, 3]]


def test_points():
    maps = np.zeros((4, 5, 7))
    maps[0, 3, 2] = 1.0
    maps[1, 1, 1:6] = 2.0  # a plateau: its middle
    maps[2, 0, [0, 6]] = 1.0  # two apart: the first
    np.testing.assert_array_equal(find_points(maps), [[3.5, 2.5], [1.5, 3.5], [0.5, 0.5], [2.5, 3.5]])


def test_upsampling_keeps_places():
    cells = np.arange(12.0).reshape(1, 3, 4)
    large = upsample_maps(cells, (12, 16))[0]
    rows, columns = (np.clip((np.arange(4 * n) + 0.5) / 4 - 0.5, 0, n - 1) for n in (3, 4))
    expected = ndimage.map_coordinates(cells[0], np.meshgrid(rows, columns, indexing="ij"), order=1)
    np.testing.assert_allclose(large, expected, atol=1e-5)
    assert upsample_maps(np.zeros((0, 3, 4)), (6, 8)).shape == (0, 6, 8)
    assert upsample_maps(torch.zeros(1, 2, 2).numpy().astype(np.float16), (3, 3)).dtype == np.float32


def test_best_and_of_map():
    found = FoundBoxes(np.array([0, 0, 2]), np.arange(12.0).reshape(3, 4), np.array([1.0, 0.5, 1.0]))
    best = found.best(3)
    assert best[0].tolist() == [0, 1, 2, 3] and best[2].tolist() == [8, 9, 10, 11] and np.isnan(best[1]).all()
    assert found.of_map(0).scores.tolist() == [1.0, 0.5] and len(found.of_map(1)) == 0


def test_tuning_finds_the_level_that_drew_the_truth():
    rng = np.random.default_rng(1)
    maps = upsample_maps(rng.standard_normal((12, 5, 5)).astype(np.float32), (40, 40))
    for wanted in (MapBoxes(low=140.0), MapBoxes(low=80.0, regions="peak")):
        truths = find_boxes_of_maps(maps, wanted).best(12)
        for by in ("iou", "printed"):
            chosen = tune(maps, truths, by=by)
            boxes = find_boxes_of_maps(maps, chosen).best(12)
            assert min(iou(a, b) for a, b in zip(boxes, truths, strict=True)) == 1.0
        assert tune(maps, [[[0, 0, 1, 1], true] for true in truths]) in list_candidates()
    # a map in which a candidate finds nothing counts as no overlap
    high = MapBoxes(scale="maximum", low=10.0)
    assert tune(-1.0 - maps**2, truths, (high, MapBoxes(low=10.0))) == MapBoxes(low=10.0)
    with pytest.raises(GeometryError, match="12 maps"):
        tune(maps, truths[:3])
    with pytest.raises(GeometryError, match="Map 3"):
        tune(maps, [*truths[:3], np.full(4, np.nan), *truths[4:]])
    with pytest.raises(GeometryError, match="candidates"):
        tune(maps, truths, ())


def test_candidates_keep_what_they_are_like():
    several = MapBoxes(regions="each", least_share=0.01, most_boxes=3)
    for like in (MapBoxes(), several, PROTOCOLS["printed band"]):
        tried = list_candidates(like)
        assert tried[0] == like and len(set(tried)) == len(tried) >= 24
        assert {(c.least_share, c.most_boxes) for c in tried} == {(like.least_share, like.most_boxes)}
    assert {c.regions for c in list_candidates(several)} == {"each"}


def test_the_oracle_is_never_worse():
    rng = np.random.default_rng(2)
    maps = upsample_maps(rng.standard_normal((10, 6, 6)).astype(np.float32), (36, 36))
    truths = np.tile([3.0, 5.0, 15.0, 20.0], (10, 1))
    protocol = MapBoxes(low=120.0, regions="each", most_boxes=50)
    oracle = choose_oracle_boxes(maps, truths, protocol)
    everything = find_boxes_of_maps(maps, protocol)
    for i in range(10):
        overlaps = [iou(box, truths[i]) for box in everything.of_map(i).corners]
        assert [iou(box, truths[i]) for box in oracle.of_map(i).corners] == [max(overlaps)]
    assert len(choose_oracle_boxes(np.zeros((2, 4, 4)), truths[:2], protocol)) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("low", 255.0), ("low", -1.0), ("high", 60.0), ("high", 256.0), ("least_share", 1.5), ("overlap", -0.1),
     ("most_boxes", 0), ("keep", "below"), ("regions", "all"), ("scale", "minmax")],
)  # fmt: skip
def test_fields_are_checked(field, value):
    with pytest.raises(RecipeError, match=field.split("_")[0]):
        MapBoxes(**{"keep": "band", field: value})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_recipe_words(name):
    protocol = PROTOCOLS[name]
    assert build_from_plain(to_plain(protocol, CATALOGUE), CATALOGUE) == protocol


@pytest.mark.parametrize("shape", [(9, 14), (5, 4), (3, 20), (6, 7)])
def test_resampling_is_torchs(shape):
    values = np.random.default_rng(2).standard_normal((2, 6, 7))
    tensor = torch.from_numpy(values)[:, None]
    for kernel, mode, smooth in (
        ("linear", "bilinear", False),
        ("cubic", "bicubic", False),
        ("smoothed cubic", "bicubic", True),
    ):
        wanted = torch.nn.functional.interpolate(tensor, size=shape, mode=mode, align_corners=False, antialias=smooth)
        np.testing.assert_allclose(resample(values, shape, kernel), wanted[:, 0].numpy(), atol=1e-12)
    volume = torch.from_numpy(values)[None, None]
    wanted = torch.nn.functional.interpolate(volume, size=(5, *shape), mode="trilinear", align_corners=False)
    np.testing.assert_allclose(resample(values, (5, *shape), "linear"), wanted[0, 0].numpy(), atol=1e-12)


def test_thinned_boxes_are_torchvisions():
    rng = np.random.default_rng(4)
    low = rng.integers(0, 20, (60, 2))
    corners = np.concatenate([low, low + rng.integers(1, 12, (60, 2))], axis=1).astype(np.float64)
    index = np.sort(rng.integers(0, 4, 60))
    scores = np.concatenate([np.sort(rng.random(n))[::-1] for n in np.bincount(index, minlength=4)])
    kept = batched_nms(*map(torch.from_numpy, (corners, np.arange(60, 0, -1.0), index)), 0.3).numpy()
    wanted = np.concatenate([np.sort(kept[index[kept] == i])[:5] for i in range(4)])
    found = found_boxes._suppress_overlaps(FoundBoxes(index, corners, scores), MapBoxes(most_boxes=5, overlap=0.3))
    np.testing.assert_array_equal(found.corners, corners[wanted])
    np.testing.assert_array_equal(found.scores, scores[wanted])
