"""A run asks for marks: those it was shown stay, as many as it asks for are added, all others are hidden."""

import pytest
from support.cohorts import tiny_recipe

from sightline.data.targets.region_choice import RegionChoice
from sightline.errors import CohortError, RecipeError, RunError
from sightline.evaluation.suggestions import suggest_cases
from sightline.evaluation.tables.engines.suggested_marks import Asking, show_suggested_marks
from sightline.losses.spatial_nll import SpatialNLL
from sightline.training.engine import Engine
from sightline.training.run import Run

QUIET = Engine(device="cpu", quiet=True)
CHOICE = RegionChoice("box", "finding", "tagged", share=0.4)


@pytest.fixture
def run(tiny_cohort, tmp_path):
    """A run with the random weights of its recipe, shown two fifths of the finding boxes."""
    recipe = tiny_recipe(guidance=SpatialNLL(resolution="map"), weight=1.0, regions=CHOICE)
    network = recipe.model.build(2)

    class Untrained(Run):
        def network(self):
            return network

    return Untrained(tmp_path / "first", recipe, tiny_cohort.classes, {"run_identity": "untrained"}, True, recipe.boxes)


def marked(cohort):
    return {case.case_id for case in cohort if any(region.tag.role == "finding" for region in case.regions)}


@pytest.mark.parametrize("strategy", ["random", "uncertainty", "mixed"])
def test_marks_shown_and_asked_for_are_those_that_stay(run, tiny_cohort, strategy):
    training = tiny_cohort.split("train")
    shown = {case.case_id for case in training if case.patient_id in CHOICE.patients(training)} & marked(training)
    hidden = training.where(lambda case: case.case_id in marked(training) - shown)
    after = show_suggested_marks(run, tiny_cohort, Asking(strategy, 2), seed=3, engine=QUIET)
    asked = {one.case_id for one in suggest_cases(run, hidden, 2, strategy=strategy, seed=3, engine=QUIET)}
    assert len(asked) == 2 < len(hidden) and shown
    assert marked(after.split("train")) == shown | asked
    for before, now in zip(tiny_cohort, after, strict=True):
        if before.split != "train" or before.case_id in shown | asked or before.label == "no fracture":
            assert now == before
        else:
            # the bone's outline is no mark of a finding
            assert [r for r in before.regions if r.tag.role == "focus"] == list(now.regions)


def test_more_than_is_left_is_refused(run, tiny_cohort):
    with pytest.raises(CohortError, match="are left that first was not"):
        show_suggested_marks(run, tiny_cohort, Asking("random", 500), engine=QUIET)
    with pytest.raises(RunError, match="Unknown strategy 'surest'"):
        show_suggested_marks(run, tiny_cohort, Asking("surest", 2), engine=QUIET)
    with pytest.raises(RecipeError, match="One picture"):
        Asking("random", 0)
