"""What the gauges count, on a clock of the test's own."""

import pytest
from support.nodes import StillNode, image

from sightline.web.node.database import jobs
from sightline.web.node.inspection import summarise
from sightline.web.node.monitoring.metrics import Gauges, NodeMetrics


@pytest.mark.parametrize(
    ("state", "oldest"), [("waiting", 60.0), ("running", 60.0), ("failed", 60.0), ("done", 0.0), ("dead", 0.0)]
)
def test_the_oldest_job_is_whatever_has_not_ended(tmp_path, state, oldest):
    node = StillNode(tmp_path)
    node.receive(image(1), job=state)
    node.now += 60.0
    metrics = NodeMetrics()
    Gauges(metrics, node.store, node.spool).update(0)
    read = metrics.registry.get_sample_value
    assert read("sightline_oldest_waiting_seconds") == oldest
    assert read("sightline_jobs", {"state": state}) == 1.0
    assert ("oldest job that is not done: 60 s" in list(summarise(node.store))) == bool(oldest)
    # no age lies before the clock's own time
    node.set(jobs, created=node.now + 3600.0)
    Gauges(metrics, node.store, node.spool).update(0)
    assert read("sightline_oldest_waiting_seconds") == 0.0
