"""What late images make of the jobs before them, and what a clock that was set back does to studies that wait."""

import json

import pytest
from support.nodes import StillNode, image

from sightline.web.node.database import jobs, studies
from sightline.web.node.monitoring.report import write_period_report
from sightline.web.node.service import read_gates


@pytest.fixture
def node(tmp_path):
    return StillNode(tmp_path, settle_s=5.0)


def count_inputs(node):
    return [(job.state, len(json.loads(job.inputs)), job.predecessor) for job in node.read(jobs)]


def test_a_late_image_that_is_urgent_makes_its_waiting_job_urgent(node):
    node.receive(image(1), job=None)
    node.receive(image(2, StudyPriorityID="STAT"), job=None)
    (job,) = node.read(jobs)
    assert (job.priority, len(json.loads(job.inputs))) == (100, 2)


def test_a_job_that_is_to_be_tried_again_takes_late_images_with_it(node):
    node.receive(image(1), job="failed")
    node.receive(image(2), job=None)
    assert count_inputs(node) == [("waiting", 2, None)]


def test_a_late_image_whose_study_was_cleaned_says_what_its_report_is_not_about(node, tmp_path):
    node.receive(image(1), image(2), image(3, BodyPartExamined="SKULL"))
    assert node.clean() == 3
    # one of them once more is nothing new
    node.receive(image(1))
    assert count_inputs(node) == [("done", 2, None)]
    node.clean()
    node.receive(image(4), job=None)
    # it stands beside the report before it, and takes nobody's place
    assert count_inputs(node) == [("done", 2, None), ("waiting", 1, None)]
    left_out = json.loads(node.read(jobs)[1].left_out)
    assert [one["door"] for one in left_out] == ["deleted"] * 2
    assert all("deleted here before this one came" in one["reason"] for one in left_out)
    node.set(jobs, state="done", ended=node.now)
    # all of the study once more: all of it is judged
    node.receive(*(image(number) for number in (1, 2, 4)), job=None)
    assert count_inputs(node)[2:] == [("waiting", 3, 2)]
    # of those the page of a period does not say that no finding was given
    write_period_report(node.configuration, node.store, read_gates(node.configuration), tmp_path / "page.html", 30.0)
    assert "deleted here" not in (tmp_path / "page.html").read_text()


def test_a_study_from_before_the_clock_was_set_back_is_planned(node):
    node.now += 3600.0
    node.accept(image(1))
    node.now -= 3600.0
    node.planner.settle()
    # its quiet time begins with the step
    assert node.read(studies)[0].last == node.now and count_inputs(node) == []
    node.now += 6.0
    node.planner.settle()
    assert count_inputs(node) == [("waiting", 1, None)]
    node.store.verify_journal()
