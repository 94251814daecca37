"""Nested subsets by whole groups, and marks that are moved."""

from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import make_cohort

from sightline.cli.cohorts import CohortSubset
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.subset import draw_nested_subset, exclude_patients_of, select_cases_by_facts
from sightline.errors import CohortError
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box


def crowd(groups=120, seed=0):
    """Groups of 1 to 20 images of one class, two thirds of the images normal."""
    rng = np.random.default_rng(seed)
    cases = []
    for g in range(groups):
        label = "fracture" if rng.random() < 1 / 3 else "no fracture"
        size = int(rng.integers(1, 21))
        cases += [Case(f"{g}-{i}", f"{g}-{i}", f"g{g}", "x.png", label, split="train") for i in range(size)]
    cases += [Case(f"t{i}", f"t{i}", f"t{i}", "x.png", "fracture", split="test") for i in range(5)]
    return Cohort("crowd", ("no fracture", "fracture"), tuple(cases))


@pytest.mark.parametrize("seed", range(4))
def test_subsets_are_nested_whole_and_alike(seed):
    cohort = crowd()
    training = cohort.split("train")
    share = training.counts()["fracture"] / len(training)
    smaller = set()
    for wanted in (75, 150, 300, 600):
        part = draw_nested_subset(cohort, wanted, seed)
        ids = {case.case_id for case in part.split("train")}
        assert smaller <= ids
        smaller = ids
        assert abs(len(ids) - wanted) <= 0.15 * wanted
        groups = {case.patient_id for case in part.split("train")}
        assert ids == {case.case_id for case in training if case.patient_id in groups}
        assert abs(part.split("train").counts()["fracture"] / len(ids) - share) < 0.08
        assert len(part.split("test")) == 5


def test_a_subset_depends_on_the_seed_and_none_or_many_keep_all():
    cohort = crowd()
    first, again, other = (draw_nested_subset(cohort, 100, seed) for seed in (0, 0, 1))
    assert [c.case_id for c in first] == [c.case_id for c in again]
    assert [c.case_id for c in first] != [c.case_id for c in other]
    assert draw_nested_subset(cohort, None) is cohort
    assert draw_nested_subset(cohort, 10**6) is cohort


def test_a_body_part_is_held_out_whole(tmp_path):
    parts = [
        Case(f"c{i}", f"s{i}", f"p{i // 3}", "x.png", "fracture", split=("train", "val", "test")[i // 3 % 3],
             view="AP" if i % 2 else None, facts={"part": ("hand", "leg")[i % 3 == 0]})
        for i in range(30)
    ]  # fmt: skip
    cohort = Cohort("parts", ("no fracture", "fracture"), tuple(parts))
    hands, legs = select_cases_by_facts(cohort, lacking={"part": "leg"}), select_cases_by_facts(cohort, {"part": "leg"})
    assert len(hands) == 20 and len(legs) == 10
    seen = {c.patient_id for c in hands if c.split in ("train", "val")}
    tested = exclude_patients_of(legs, hands)
    assert [c.case_id for c in tested] == [c.case_id for c in legs if c.patient_id not in seen]
    assert len(tested) == 10 - len([c for c in legs if c.split != "test"])
    assert len(select_cases_by_facts(cohort, {"view": "AP", "part": "leg"})) == sum(
        i % 2 and i % 3 == 0 for i in range(30)
    )
    with pytest.raises(CohortError, match="only \\['hand', 'leg'\\]"):
        select_cases_by_facts(cohort, {"part": "hip"})
    with pytest.raises(CohortError, match="no fact 'side'"):
        select_cases_by_facts(cohort, {"side": "left"})
    with pytest.raises(CohortError, match="FACT=VALUE"):
        CohortSubset(make_cohort(tmp_path / "c").root, tmp_path / "d", having=("hand",)).run()
    with pytest.raises(CohortError, match="All patients"):
        exclude_patients_of(cohort.split("train"), cohort)


def test_what_cannot_be_taken_is_refused():
    with pytest.raises(CohortError, match="2 images or more"):
        draw_nested_subset(crowd(), 1)
    one = crowd(2, seed=3).where(lambda c: c.patient_id == "g0" or c.split == "test")
    both = replace(one, cases=(*one.cases, Case("z", "z", "z", "x.png", "fracture", split="train")))
    kinds = {c.label for c in both.split("train")}
    if len(kinds) == 2:
        with pytest.raises(CohortError, match="leave the class"):
            draw_nested_subset(both, 2)


def test_the_command_writes_a_cohort(tmp_path, capsys):
    make_cohort(tmp_path / "whole", patients=24)
    assert CohortSubset(tmp_path / "whole", tmp_path / "part", images=10, wrong_marks=1.0).run() == 0
    whole, part = read_cohort(tmp_path / "whole"), read_cohort(tmp_path / "part")
    assert abs(len(part.split("train")) - 10) <= 2
    assert f"{len(part)} images" in capsys.readouterr().out
    before, after = ({c.case_id: [r for r in c.regions if isinstance(r, Box)] for c in of} for of in (whole, part))
    trained = [c.case_id for c in part.split("train")]
    assert all(after[case_id] != before[case_id] for case_id in trained if before[case_id])
