"""Agreement of units with masks: against slow restatements, and against chance."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from sightline.errors import LayoutError, RunError
from sightline.metrics.units.agreement import Exchange, UnitAgreement, measure_unit_agreement

CELLS, BLOCK = (6, 6), 4
SHAPE = (24, 24)


@dataclass
class Made:
    """Overlaps made from maps bool [n, u, *cells] and masks bool [n, *shape] by name; maps grow as blocks."""

    made: np.ndarray
    masks: dict
    cells: tuple = CELLS
    image_voxels: int = SHAPE[0] * SHAPE[1]
    maps: np.ndarray = field(init=False)
    map_voxels: np.ndarray = field(init=False)

    def __post_init__(self):
        n, u = self.made.shape[:2]
        self.maps = np.packbits(self.made.reshape(n, u, -1), axis=-1)
        self.large = self.made.repeat(BLOCK, axis=2).repeat(BLOCK, axis=3)
        self.map_voxels = self.large.sum((2, 3)).astype(np.int32)

    @property
    def mask_voxels(self):
        return {name: mask.sum((1, 2)).astype(np.int32) for name, mask in self.masks.items()}

    @property
    def shared(self):
        return {name: (self.large & mask[:, None]).sum((2, 3)).astype(np.int32) for name, mask in self.masks.items()}

    @property
    def cover(self):
        n = len(self.made)
        return {
            name: mask.reshape(n, 6, BLOCK, 6, BLOCK).mean((2, 4)).reshape(n, -1).astype(np.float16)
            for name, mask in self.masks.items()
        }


def cohort(n=16, seed=0):
    """Unit 0 is above where `finding` lies, unit 1 always in the middle, unit 2 anywhere, unit 3 nowhere."""
    random = np.random.default_rng(seed)
    made = np.zeros((n, 4, *CELLS), bool)
    masks = {name: np.zeros((n, *SHAPE), bool) for name in ("finding", "middle", "nothing")}
    for i in range(n):
        row, column = random.integers(0, 5, 2)
        if i % 4:
            masks["finding"][i, row * BLOCK + 1 : row * BLOCK + 7, column * BLOCK + 1 : column * BLOCK + 7] = True
        masks["middle"][i, 8:16, 8:16] = True
        made[i, 0, row : row + 2, column : column + 2] = True
        made[i, 1, 2:4, 2:4] = True
        made[i, 2][tuple(random.integers(0, 6, (2, 4)))] = True
    return Made(made, masks)


def test_numbers_on_the_image_are_those_of_a_loop():
    made = cohort()
    found = measure_unit_agreement(made, permutations=20)
    # a mask that nobody has is left out
    assert found.masks == ("finding", "middle") and found.cases.tolist() == [12, 16]
    for k, name in enumerate(found.masks):
        mask = made.masks[name]
        marked = [i for i in range(16) if mask[i].any()]
        assert found.chance[k] == pytest.approx(np.mean([mask[i].mean() for i in marked]))
        for u in range(4):
            both = sum((made.large[i, u] & mask[i]).sum() for i in range(16))
            either = sum((made.large[i, u] | mask[i]).sum() for i in range(16))
            assert found.iou[u, k] == pytest.approx(both / either)
            each = [(made.large[i, u] & mask[i]).sum() / (made.large[i, u] | mask[i]).sum() for i in marked]
            assert found.iou_mean[u, k] == pytest.approx(np.mean(each))
            above = sum(made.large[i, u].sum() for i in marked)
            assert found.inside[u, k] == pytest.approx(both / above if above else 0.0)
            # maps that grow as blocks share on cells what they share on the image
            either = sum((made.large[i, u] | mask[i]).sum() for i in marked)
            assert found.iou_cells[u, k] == pytest.approx(both / either)
    assert found.best("finding")[0] == 0 and found.best("middle")[0] == 1


@pytest.mark.parametrize("null", ["masks", "shifts"])
def test_the_null_is_that_of_a_loop(null):
    made = cohort()
    mask = made.masks["finding"]
    marked = np.flatnonzero(mask.any((1, 2)))
    exchange = Exchange(made.cover["finding"][marked], CELLS, null, 30, 3)
    for u in range(4):
        maps = made.made[marked, u].reshape(len(marked), -1)
        own, drawn = exchange.count_shared(*np.nonzero(maps))
        assert own == pytest.approx((made.large[marked, u] & mask[marked]).sum() / BLOCK**2, abs=1e-5)
        for r, row in enumerate(exchange.draws):
            total = 0
            for i, draw in enumerate(row):
                if null == "masks":
                    other = mask[marked[draw]]
                else:
                    down, right = divmod(int(draw), CELLS[1])
                    # the mask comes from `draw` cells further on
                    other = np.roll(mask[marked[i]], (-down * BLOCK, -right * BLOCK), axis=(0, 1))
                total += (made.large[marked[i], u] & other).sum() / BLOCK**2
            assert drawn[r] == pytest.approx(total, abs=1e-5)


def test_blocks_change_nothing(monkeypatch):
    made = cohort()
    whole = measure_unit_agreement(made, permutations=50)
    monkeypatch.setattr("sightline.metrics.units.agreement._BYTES_AT_ONCE", 1)
    monkeypatch.setattr("sightline.metrics.units.agreement._CELLS_AT_ONCE", 1)
    parts = measure_unit_agreement(made, permutations=50)
    for name in ("iou", "iou_cells", "null_mean", "null_high", "p", "p_max"):
        assert np.allclose(getattr(whole, name), getattr(parts, name), atol=1e-12), name


def test_what_follows_the_case_is_told_from_what_is_always_there():
    found = measure_unit_agreement(cohort(40), permutations=500)
    finding, middle = 0, 1
    # unit 0 follows the finding from case to case
    assert found.p[0, finding] == 1 / 501 and found.p_max[0, finding] < 0.01
    assert found.iou_cells[0, finding] > 3 * found.null_high[0, finding]
    # unit 1 fits the middle perfectly in every case, and so it would if masks were exchanged
    assert found.iou[1, middle] == 1.0 and found.p[1, middle] == 1.0 and found.p_max[1, middle] == 1.0
    # but not if masks lay elsewhere
    moved = measure_unit_agreement(cohort(40), null="shifts", permutations=500)
    assert moved.p_max[1, middle] < 0.01 and moved.iou_cells[1, middle] > 3 * moved.null_high[1, middle]
    for each in (found, moved):
        assert (each.p[2] > 0.01).all() and each.p[3].tolist() == [1.0, 1.0] and each.p_max[3].tolist() == [1.0, 1.0]
        assert (each.p_max >= each.p).all() and (each.null_mean <= each.null_high + 1e-12).all()
    assert found.inside[1].tolist()[1] == 1.0 and found.chance[1] == pytest.approx(64 / 576)


def test_p_is_uniform_for_units_that_know_nothing():
    small = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        made = random.random((12, 3, *CELLS)) < 0.1
        masks = {"finding": np.kron(random.random((12, *CELLS)) < 0.2, np.ones((BLOCK, BLOCK))) > 0}
        found = measure_unit_agreement(Made(made, masks), permutations=99, seed=seed)
        small.append([(found.p <= 0.1).mean(), (found.p_max <= 0.1).any()])
    # a tenth of 120 units and of 40 families
    p, families = np.mean(small, axis=0)
    assert 0.03 <= p <= 0.18 and families <= 0.25


def alike(seed, patients=12, each=4):
    """Masks and unit 2 are each the same in most cases of a patient, and independent of one another."""
    random = np.random.default_rng(seed)
    made, mask = np.zeros((patients * each, 1, *CELLS), bool), np.zeros((patients * each, *SHAPE), bool)
    for p in range(patients):
        (row, column), (down, right) = random.integers(0, 5, (2, 2))
        for i in range(p * each, (p + 1) * each):
            made[i, 0, down : down + 2, right : right + 2] = True
            mask[i, row * BLOCK : (row + 2) * BLOCK, column * BLOCK : (column + 2) * BLOCK] = True
    return Made(made, {"finding": mask}), [f"p{i // each}" for i in range(patients * each)]


@pytest.mark.parametrize("null", ["masks", "shifts"])
def test_cases_of_a_patient_are_no_evidence_of_their_own(null):
    alone, together = [], []
    for seed in range(60):
        made, patients = alike(seed)
        alone.append(measure_unit_agreement(made, null=null, permutations=99, seed=seed).p[0, 0])
        together.append(measure_unit_agreement(made, patients=patients, null=null, permutations=99, seed=seed).p[0, 0])
    assert np.mean(np.array(alone) < 0.05) > 0.14
    assert np.mean(np.array(together) < 0.05) < 0.12


def test_patients_with_other_numbers_of_cases_are_held_against_the_same_iou():
    made, _ = alike(1, patients=5, each=4)
    patients = ["a"] * 6 + ["b"] * 3 + ["c"] * 5 + ["d"] * 2 + ["e"] * 4
    cover = made.cover["finding"]
    groups = np.unique(patients, return_inverse=True)[1]
    exchange = Exchange(cover, CELLS, "masks", 40, 0, groups)
    for row, covered in zip(exchange.draws, exchange.covered_in_draws, strict=True):
        assert covered == pytest.approx(cover[row].sum(), rel=1e-6)
        for p in range(5):
            # the masks of one other patient, from the first, in order
            given = row[groups == p]
            assert np.unique(groups[given]).size == 1
            first = np.flatnonzero(groups == groups[given[0]])
            assert given.tolist() == [first[i % first.size] for i in range(given.size)]
    assert measure_unit_agreement(made, patients=patients, permutations=40).patients == 5
    with pytest.raises(RunError, match="patient ids"):
        measure_unit_agreement(made, patients=["a"])


def test_one_marked_case_says_nothing_about_cases():
    made = cohort()
    made.masks = {"finding": made.masks["finding"] * (np.arange(16) == 1)[:, None, None]}
    assert measure_unit_agreement(made, permutations=20).p.tolist() == [[1.0]] * 4


def test_a_seed_decides_everything_and_units_may_be_chosen():
    a, b = (measure_unit_agreement(cohort(), permutations=50, seed=4) for _ in range(2))
    assert np.array_equal(a.p, b.p) and np.array_equal(a.null_mean, b.null_mean)
    assert not np.array_equal(a.null_mean, measure_unit_agreement(cohort(), permutations=50, seed=5).null_mean)
    some = measure_unit_agreement(cohort(), units=[2, 0], permutations=50, seed=4)
    assert some.units.tolist() == [2, 0] and np.array_equal(some.p, a.p[[2, 0]])
    assert some.best("finding").tolist() == [0, 2]


def test_agreement_reads_back_to_the_last_bit(tmp_path):
    path = tmp_path / "agreement.csv"
    found = measure_unit_agreement(cohort(), units=[3, 0, 2], permutations=30, seed=2)
    found.write(path)
    again = UnitAgreement.read(path)
    for name, value in vars(found).items():
        assert np.array_equal(value, getattr(again, name)), name
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    for broken in ("".join(lines[:-1]), "".join(lines[:2] + lines[3:] + lines[2:3]), text.replace("masks,", "luck,"),
                   text.replace("iou_mean", "iou_median")):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(LayoutError):
            UnitAgreement.read(path)


def test_what_cannot_agree_is_refused():
    made = cohort()
    with pytest.raises(RunError, match="Units run from 0 to 3"):
        measure_unit_agreement(made, units=[4])
    with pytest.raises(RunError, match="at least one permutation"):
        measure_unit_agreement(made, permutations=0)
    made.masks = {"nothing": made.masks["nothing"]}
    with pytest.raises(RunError, match="No case has a mask"):
        measure_unit_agreement(made)
    made.maps = None
    with pytest.raises(RunError, match="No case has a mask"):
        measure_unit_agreement(made)
