"""Which pictures a run is asked about together: some at a time, or whole studies where it has one answer for each."""

import json
from types import SimpleNamespace

import pytest
from support.workstation import small_cohort
from torch import nn

from sightline.data.views.image_view import View
from sightline.structures.evidence import Evidence
from sightline.web.workstation.pictures.map_worker import AT_ONCE, answer_pictures, list_parts


def test_studies_are_asked_whole_where_their_answer_is_one(tmp_path):
    cohort = small_cohort(tmp_path, studies=3)
    every = {case.case_id: "key" for case in cohort}
    apart = list_parts(cohort, every, whole_studies=False)
    assert [len(part) for part in apart] == [AT_ONCE, 2]
    whole = list_parts(cohort, every, whole_studies=True)
    assert [{case.study_id for case in part} for part in whole] == [{"S00"}, {"S01"}, {"S02"}]
    # half of a study is there already: its answer needs all of it
    left = list_parts(cohort, {"S01-1": "key"}, whole_studies=True)
    assert [[case.case_id for case in part] for part in left] == [["S01-0", "S01-1"]]
    assert list_parts(cohort, {}, whole_studies=True) == list_parts(cohort, {}, whole_studies=False) == []


class CountingNetwork(nn.Module):
    """Two classes by the mean; counts the pictures that it is asked about."""

    asked = 0

    def forward(self, images):
        self.asked += len(images)
        mean = images.mean(dim=(1, 2, 3))
        return Evidence(mean[:, None] * mean.new_tensor([1.0, -1.0]))


@pytest.mark.parametrize("join", ["none", "mean"])
def test_a_picture_that_does_not_read_costs_the_others_no_second_answer(tmp_path, capsys, join):
    cohort = small_cohort(tmp_path, studies=2)
    cohort[2].image.write_bytes(b"no picture")
    recipe = SimpleNamespace(view=View(size=16), join_views=join, independent=False)
    run = SimpleNamespace(recipe=recipe, classes=cohort.classes, calibration=None, boxes=None)
    network = CountingNetwork()
    answer_pictures(run, network, cohort, {case.case_id: case.case_id for case in cohort}, tmp_path)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {words["image"]: words["kind"] for words in said} == {
        "S00-0": "image", "S00-1": "image", "S01-0": "left out", "S01-1": "image"
    }  # fmt: skip
    assert len(said) == 4 and network.asked == 3
