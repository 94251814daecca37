"""What units do on cases: against slow restatements, by hand, and written to files as they come."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from sightline.errors import CohortError, GeometryError, RunError
from sightline.explainers.units.array_file import GrowingArray
from sightline.explainers.units.layer import UnitLayer
from sightline.explainers.units.readings import Readings, read_units
from sightline.explainers.units.thresholds import Thresholds, compute_unit_thresholds
from sightline.explainers.units.upsampling import Cover, EnlargedMaps, Marks
from sightline.structures.evidence import Batch, Evidence

CPU = torch.device("cpu")
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
GRIDS = [((8, 8, 8), (32, 32, 32)), ((7, 5), (50, 33)), ((3, 4, 2), (10, 9, 16)), ((6,), (17,)), ((1, 1), (4, 4)),
         ((5, 5), (5, 5)), ((9, 4), (5, 8))]  # fmt: skip


class Pooled(nn.Module):
    """Units are the image's channels, averaged over squares or cubes of four."""

    def __init__(self, axes, windowed=False):
        super().__init__()
        self.layer = nn.AvgPool2d(4) if axes == 2 else nn.AvgPool3d(4)
        self.windowed = windowed

    def forward(self, images):
        logits = self.layer(images).flatten(2).mean(-1)[:, :2]
        window = torch.eye(2, 3).expand(len(images), 2, 3) if self.windowed else None
        return Evidence(logits, window=window)


def batches_of(images, size, labels=None):
    for i in range(0, len(images), size):
        part = torch.from_numpy(images[i : i + size])
        b = len(part)
        at = torch.arange(b) % 2 if labels is None else torch.as_tensor(labels[i : i + b])
        ids = tuple(f"case{i + j}" for j in range(b))
        yield Batch(part, at, None, torch.zeros(b, 2, dtype=torch.bool), (None,) * b, ids)


def thresholds_at(values, cells, layer="layer"):
    values = np.asarray(values, dtype=np.float64)
    zero = np.zeros(len(values))
    return Thresholds(layer, 0.1, values, zero > 0, zero.astype(int), zero, zero, 1, 1, cells)


def drawn_masks(images, seed=0):
    """Masks bool [n, *s] by name; some cases have none."""
    random = np.random.default_rng(seed)
    n, shape = len(images), images.shape[2:]
    masks = {name: np.zeros((n, *shape), bool) for name in ("body", "endplate")}
    for i in range(n):
        for mask in masks.values():
            if random.random() < 0.7:
                corner = [int(random.integers(0, s // 2)) for s in shape]
                mask[(i, *(slice(c, c + s // 3) for c, s in zip(corner, shape, strict=True)))] = True
        if i % 3 == 0:
            masks["endplate"][i] = False
    return masks


def giver(masks, size):
    """The masks of a batch, a name left out where none of its cases has it."""

    def give(batch):
        rows = [int(i.removeprefix("case")) for i in batch.case_ids]
        return {name: torch.from_numpy(mask[rows]) for name, mask in masks.items() if mask[rows].any()}

    return give


def test_two_units_by_hand():
    # golden check 19: r_k is the sum of what is above T_k, at the layer's resolution
    image = np.zeros((1, 2, 8, 8), np.float32)
    image[0, 0, :4, :4], image[0, 0, :4, 4:], image[0, 1] = 3.0, 1.0, 2.0
    found = read_units(UnitLayer(Pooled(2), "layer"), batches_of(image, 1), thresholds_at([1.0, 2.0], (2, 2)))
    assert found.strength.tolist() == [[3.0, 0.0]] and found.above.tolist() == [[1, 0]]
    assert found.peak.tolist() == [[3.0, 2.0]] and found.mean.tolist() == [[1.0, 2.0]]
    assert found.enabled.tolist() == [[True, False]] and found.logits.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("where", ["memory", "files"])
def test_readings_are_those_of_a_loop(tmp_path, axes, where):
    shape = (16, 24) if axes == 2 else (12, 16, 8)
    images = np.random.default_rng(0).normal(size=(7, 3, *shape)).astype(np.float32)
    layer = UnitLayer(Pooled(axes), "layer")
    thresholds = compute_unit_thresholds(layer, lambda: batches_of(images, 3), top=0.2)
    masks = drawn_masks(images)
    folder = None if where == "memory" else tmp_path
    labels = [0, 1, 1, 0, 0, 1, 1]
    found = read_units(layer, batches_of(images, 3, labels), thresholds, masks=giver(masks, 3), folder=folder)
    activations = layer(torch.from_numpy(images))[1].numpy()
    assert found.case_ids == tuple(f"case{i}" for i in range(7)) and found.labels.tolist() == labels
    assert set(found.shared) == {"body", "endplate"} and found.shape == shape
    step = 4**axes
    for i in range(7):
        for k in range(3):
            a, t = activations[i, k], thresholds.values[k]
            above = a.astype(np.float64) > t
            assert found.above[i, k] == above.sum() and found.peak[i, k] == a.max()
            assert np.array_equal(found.map_of(i, k), above)
            assert found.strength[i, k] == pytest.approx(a[above].sum(), rel=1e-6)
            assert found.mean[i, k] == pytest.approx(a.mean(), rel=1e-5, abs=1e-7)
            grown = (
                interpolate(
                    torch.from_numpy(a)[None, None].double(), size=shape, mode=MODES[axes], align_corners=False
                )[0, 0].numpy()
                > t
            )
            assert found.map_voxels[i, k] == grown.sum()
            for name, mask in masks.items():
                assert found.shared[name][i, k] == (grown & mask[i]).sum()
                assert found.mask_voxels[name][i] == mask[i].sum()
                # on cells: the voxels of the mask in the map drawn as blocks
                blocks = np.kron(above, np.ones((4,) * axes)) > 0
                in_cells = found.cover[name][i][above.ravel()].sum() * step
                assert in_cells == pytest.approx((blocks & mask[i]).sum(), abs=1e-3)
    again = found
    if where == "memory":
        found.write(tmp_path)
    again = Readings.read(tmp_path)
    for name, value in vars(found).items():
        other = getattr(again, name)
        if isinstance(value, dict):
            assert value.keys() == other.keys() and all(np.array_equal(value[m], other[m]) for m in value)
        else:
            assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other
    assert all(path.suffix in (".npy", ".json") for path in tmp_path.iterdir())


@pytest.mark.parametrize(("cells", "shape"), GRIDS)
def test_enlarged_maps_are_torchs(cells, shape):
    torch.manual_seed(0)
    maps = torch.randn(9, *cells)
    maps[3], maps[4] = 1.0, -1.0
    thresholds = maps.flatten(1).quantile(0.8, dim=1)
    thresholds[3:5] = torch.tensor([1.0, -1.0 - 1e-6])
    masks = torch.rand(3, *shape) > 0.6
    masks[1] = False
    # two images: the second has the masks of the first in another order
    both = torch.stack([masks, masks.flip(0)])
    whole, shared = EnlargedMaps(cells, shape, CPU).counts(
        maps.expand(2, *maps.shape), thresholds, Marks.from_masks(both)
    )
    assert torch.equal(whole[0], whole[1]) and torch.equal(shared[0], shared[1].flip(1))
    whole, shared = whole[0], shared[0]
    grown = interpolate(maps[None].double(), size=shape, mode=MODES[len(cells)], align_corners=False)[0]
    above = grown > thresholds.double().view(-1, *[1] * len(cells))
    # torch's own rounding lifts some of a plateau above itself
    above[3] = False
    assert torch.equal(whole, above.flatten(1).sum(1))
    assert torch.equal(shared, torch.stack([(above & mask).flatten(1).sum(1) for mask in masks], dim=1))
    # a plateau at the threshold is not above it, wherever it lies between cells
    assert whole[3] == 0 and whole[4] == masks[0].numel()


def test_nothing_above_and_no_mask():
    maps = torch.zeros(1, 2, 4, 4)
    whole, shared = EnlargedMaps((4, 4), (8, 8), CPU).counts(
        maps, torch.zeros(2), Marks.from_masks(torch.ones(1, 1, 8, 8) > 0)
    )
    assert whole.tolist() == [[0, 0]] and shared.tolist() == [[[0], [0]]]
    none = Marks.from_masks(torch.zeros(1, 0, 8, 8, dtype=torch.bool))
    whole, shared = EnlargedMaps((4, 4), (8, 8), CPU).counts(maps + 1, torch.zeros(2), none)
    assert whole.tolist() == [[64, 64]] and shared.shape == (1, 2, 0)


@pytest.mark.parametrize(("cells", "shape"), GRIDS)
def test_cover_is_the_share_of_a_cell(cells, shape):
    masks = torch.rand(2, *shape) > 0.5
    found = Cover(cells, shape, CPU)(Marks.from_masks(masks[None]))[0].double()
    # each voxel cut into so many parts that a cell is a whole number of them
    fine = masks.double()
    for axis, m in enumerate(cells):
        fine = fine.repeat_interleave(m, dim=axis + 1)
    for axis, (m, s) in enumerate(zip(cells, shape, strict=True)):
        fine = fine.unflatten(axis + 1, (m, s)).mean(dim=axis + 2)
    assert torch.allclose(found, fine, atol=1e-6)


def test_growing_arrays(tmp_path):
    for path in (None, tmp_path / "rows.npy"):
        growing = GrowingArray((2,), np.int32, path)
        growing.append([[1, 2]])
        growing.fill(70)
        growing.append([[3, 4], [5, 6]])
        rows = growing.close()
        assert rows.shape == (72, 2) and rows[0].tolist() == [1, 2] and rows[-1].tolist() == [5, 6]
        assert not rows[1:70].any() and rows.dtype == np.int32
    assert GrowingArray((3,), np.float32, None).close().shape == (0, 3)


def test_what_is_incomplete_is_refused(tmp_path):
    images = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    layer, thresholds = UnitLayer(Pooled(2), "layer"), thresholds_at([0.0, 0.0], (2, 2))
    with pytest.raises(RunError, match="no complete readings"):
        Readings.read(tmp_path)
    read_units(layer, batches_of(images, 2), thresholds, folder=tmp_path)
    assert Readings.read(tmp_path).maps is None
    with pytest.raises(RunError, match="were not kept"):
        Readings.read(tmp_path).map_of(0, 0)

    def broken():
        yield from batches_of(images[:2], 2)
        raise KeyboardInterrupt

    # a pass that ends halfway leaves nothing that reads as whole
    with pytest.raises(KeyboardInterrupt):
        read_units(layer, broken(), thresholds, folder=tmp_path)
    with pytest.raises(RunError, match="no complete readings"):
        Readings.read(tmp_path)
    read_units(layer, batches_of(images, 2), thresholds, folder=tmp_path)
    (tmp_path / "peak.npy").write_bytes((tmp_path / "peak.npy").read_bytes()[:100])
    with pytest.raises(RunError, match=r"peak.npy is missing or damaged"):
        Readings.read(tmp_path)
    np.save(tmp_path / "peak.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(RunError, match="arrays of"):
        Readings.read(tmp_path)


def test_what_does_not_fit_is_refused():
    images = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    layer, thresholds = UnitLayer(Pooled(2), "layer"), thresholds_at([0.0, 0.0], (2, 2))
    with pytest.raises(CohortError, match="no case"):
        read_units(layer, iter(()), thresholds)
    with pytest.raises(GeometryError, match="thresholds are for"):
        read_units(layer, batches_of(images[:, :, :4], 2), thresholds)
    with pytest.raises(RunError, match="case1"):
        damaged = images.copy()
        damaged[1, 0, 0, 0] = np.nan
        read_units(layer, batches_of(damaged, 2), thresholds)
    for mask in (torch.ones(2, 8, 7) > 0, torch.ones(2, 8, 8)):
        with pytest.raises(GeometryError, match="Mask 'body'"):
            read_units(layer, batches_of(images, 2), thresholds, masks=lambda _, mask=mask: {"body": mask})
    with pytest.raises(GeometryError, match="window"):
        windowed = UnitLayer(Pooled(2, windowed=True), "layer")
        read_units(windowed, batches_of(images, 2), thresholds, masks=lambda _: {})
    with pytest.raises(GeometryError, match="view of fixed size"):
        sizes = (*batches_of(images, 4), *batches_of(np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 0))), 4))
        read_units(layer, sizes, thresholds)
