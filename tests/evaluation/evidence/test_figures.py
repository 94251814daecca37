"""Pictures of whether an answer can be relied on: what they are drawn from, and which are drawn."""

from dataclasses import replace

import numpy as np
import pytest
from support.simulated import drawn

from sightline.errors import RunError
from sightline.evaluation.evidence.figures import build_risk_curve, draw_reliance_pictures, write_figures
from sightline.plots.curves import RiskCurve, draw_risk_coverage


def test_the_curve_is_counted_case_by_case():
    table = drawn(np.random.default_rng(0), patients=60)
    curve = build_risk_curve("a", table)
    order = np.argsort(-(table.probabilities**2).sum(axis=1).round(12), kind="stable")
    wrong = (table.probabilities.argmax(axis=1) != table.labels)[order]
    slow = [wrong[: n + 1].mean() for n in range(60)]
    assert curve.risk == pytest.approx(slow) and curve.coverage == pytest.approx((np.arange(60) + 1) / 60)
    assert curve.area == pytest.approx(np.mean(slow)) and curve.low < curve.area < curve.high


def test_every_evaluation_has_its_pictures(tmp_path):
    table = drawn(np.random.default_rng(1), patients=60)
    names = [path.name for path in write_figures(table, tmp_path / "two", title="x")]
    assert names == ["risk_coverage.png", "calibration.png", "net_benefit.png"]
    third = np.column_stack([table.probabilities * 0.9, np.full(60, 0.1)])
    several = replace(table, classes=("a", "b", "c"), probabilities=third)
    names = [path.name for path in write_figures(several, tmp_path / "three", title="x")]
    assert names == ["risk_coverage.png", "calibration.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "three").iterdir())
    pictures = draw_reliance_pictures({"a": table, "b": several}, {"a": 0, "b": 3})
    assert [picture.alt for picture in pictures] == ["Risk-coverage curves", "Calibration curves"]
    assert draw_reliance_pictures({}, {}) == []


def test_what_is_no_curve_is_refused():
    for bad in (RiskCurve("x", [0.5], [0.1, 0.2]), RiskCurve("x", [0.5], [1.2]), RiskCurve("x", [], [])):
        with pytest.raises(RunError, match="two equally long lists"):
            draw_risk_coverage([bad])
