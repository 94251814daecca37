"""Charts of a report: the same bytes twice, heights and lines that follow the values, refusals."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sightline.errors import RunError
from sightline.plots.charts import PALETTE, AccuracyBar, BarGroup, ForestRow, Reference, draw_bars, draw_forest, shade
from sightline.plots.curves import (
    BoxPanel,
    FrocCurve,
    RocCurve,
    draw_box_plots,
    draw_froc,
    draw_histograms,
    draw_roc,
    draw_training_curves,
)


def decode(png):
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    assert picture.info["Software"] == "sightline"
    return np.asarray(picture.convert("RGB")).astype(float)


GROUPS = [
    BarGroup("λ = 0.1", (AccuracyBar("box", 70.0, 78.0, 1.0, True), AccuracyBar("mask", 72.0, 71.0))),
    BarGroup("λ = 1", (AccuracyBar("box", 60.0, 62.0),)),
]


def test_charts_decode_and_repeat(coarse_pictures):
    t = np.linspace(0.0, 1.0, 5)
    history = {"epoch": [1, 2, 3], "loss": [1.0, 0.5, 0.2], "val_accuracy": [float("nan"), 0.7, float("nan")]}
    charts = [
        lambda: draw_bars(GROUPS, title="a $b", ylabel="%", reference=Reference("base", 76.0, 1.0)),
        lambda: draw_bars(GROUPS, title="a", ylabel="%", reference=None, bottom=50.0),
        lambda: draw_forest([ForestRow("r", 0.05, 0.01, 0.09, "n = 9"), ForestRow("s", 0.0)]),
        lambda: draw_forest([ForestRow("r", 0.05, 0.01, 0.09, "n = 9"), ForestRow("s", 0.0)], narrow=True),
        lambda: draw_training_curves({"run $1": history, "run 2": history}),
        lambda: draw_roc([RocCurve("a", t, t**0.5, 0.7, 0.6, 0.8)]),
    ]
    for chart in charts:
        png = chart()
        assert decode(png).std() > 5
        assert png == chart()


def test_a_forest_of_long_names_is_cut_nowhere():
    """A heading and a row's name take as many lines as they need, and the intervals still have room."""
    long = "softmax pooling, class maps guided by focus regions (Liao 2022, equation 6) (5 trainings)"
    row = ForestRow(long, 0.02, -0.01, 0.05, "n = 9")
    picture = decode(draw_forest([row], title=f"a less b\na: {long}\nb: {long}"))
    assert (picture[:, -2:] > 250).all()
    blue = np.abs(picture - np.array([0, 0x72, 0xB2])).max(axis=2) < 3
    assert np.ptp(np.flatnonzero(blue.any(axis=0))) > picture.shape[1] / 5


def test_a_legend_of_long_names_is_cut_nowhere():
    t = np.linspace(0.0, 1.0, 5)
    long = "softmax pooling, class maps guided by focus regions (Liao 2022, equation 6) (5 trainings)"
    assert (decode(draw_roc([RocCurve(long, t, t**0.5, 0.7, 0.6, 0.8)]))[:, -2:] > 250).all()


def test_bar_heights_follow_the_values():
    """Dark and light pixels of one bar stand in the ratio of image-wise to study-wise."""
    group = [BarGroup("g", (AccuracyBar("box", 60.0, 80.0),))]
    image = decode(draw_bars(group, title="", ylabel="", reference=None))
    dark = np.array(shade(PALETTE[0], 0.75)) * 255
    light = np.array(shade(PALETTE[0], 1.55)) * 255
    area = [(np.abs(image - colour).max(axis=2) < 3).sum() for colour in (dark, light)]
    assert area[0] / area[1] == pytest.approx(60 / 20, rel=0.08)


def test_a_reference_is_drawn_behind_its_own_bars_alone():
    """Two blocks of bars at 70, their lines at 60 and 80: the upper band is the right one's alone."""
    left = BarGroup("λ = 1", (AccuracyBar("box", 70.0, 70.0),), Reference("one", 60.0, 3.0), "one")
    right = BarGroup("λ = 1", (AccuracyBar("box", 70.0, 70.0),), Reference("two", 80.0, 3.0), "two")
    image = decode(draw_bars([left, right], title="", ylabel="", bottom=50.0))
    band = np.abs(image - 0xDD).max(axis=2) < 3
    middle = band.shape[1] // 2
    # long stretches of the band's grey, not the rims of letters
    lower, upper = (np.flatnonzero(half.sum(axis=1) > 12) for half in (band[:, :middle], band[:, middle:]))
    assert len(lower) and len(upper) and upper.max() < lower.min()


def test_training_curves_step_over_what_was_not_measured():
    full = {"epoch": [1.0, 2.0, 3.0, 4.0, 5.0], "v": [1.0, 2.0, 3.0, 4.0, 5.0]}
    gaps = {"epoch": full["epoch"], "v": [1.0, float("nan"), 3.0, 4.0, 5.0]}
    whole, stepped = (decode(draw_training_curves({"a": history})) for history in (full, gaps))
    # a straight line with one point left out is the same line, up to the rounding of its rim
    assert np.abs(whole - stepped).max() < 80


@pytest.mark.parametrize(
    "chart",
    [
        lambda: draw_bars([], title="", ylabel=""),
        lambda: draw_bars([BarGroup("g", (AccuracyBar("b", float("nan"), 1.0),))], title="", ylabel=""),
        lambda: draw_forest([ForestRow("r", 0.0, 1.0, None)]),
        lambda: draw_forest([ForestRow("r", 0.0, 1.0, -1.0)]),
        lambda: draw_training_curves({"a": {"loss": [1.0]}}),
        lambda: draw_training_curves({"a": {"epoch": [1, 2], "loss": [1.0]}}),
        lambda: draw_roc([RocCurve("a", [0.0, 1.0], [0.0, 2.0], 0.5)]),
    ],
)
def test_charts_refuse_what_they_cannot_draw(chart):
    with pytest.raises(RunError):
        chart()


def test_box_plots_and_histograms(coarse_pictures):
    panel = BoxPanel("AUC", {"a $b": [0.7, 0.8, 0.9], "lost": [float("nan")], "one": [0.6]}, {"a $b": "p = 0.01"})
    png = draw_box_plots([panel, replace(panel, title="other")])
    assert decode(png).std() > 5 and png == draw_box_plots([panel, replace(panel, title="other")])
    assert png != draw_box_plots([replace(panel, values={"a $b": [0.7, 0.85, 0.9]})])
    with pytest.raises(RunError):
        draw_box_plots([BoxPanel("AUC", {"lost": [float("nan")]}, {})])
    spread = np.random.default_rng(0).standard_cauchy((4, 3, 5, 5))
    drawn = draw_histograms({"a $b": spread, "level": np.zeros(9)}, title="t", xlabel="x")
    assert decode(drawn).std() > 5 and drawn == draw_histograms(
        {"a $b": spread, "level": np.zeros(9)}, title="t", xlabel="x"
    )
    for wrong in ({}, {"a": np.array([])}, {"a": np.array([np.inf])}):
        with pytest.raises(RunError):
            draw_histograms(wrong, title="t", xlabel="x")


def test_curves_that_span_powers_of_ten_stand_on_a_logarithmic_axis():
    steep = {"epoch": [1.0, 2.0, 3.0], "loss": [1e16, 1e8, 2.0]}
    straight = {"epoch": [1.0, 2.0, 3.0], "loss": [16.0, 9.0, 2.0]}
    # logarithms of one are nearly on a line, as the other's values are
    a, b = (decode(draw_training_curves({"r": history})) for history in (steep, straight))
    blue = [np.abs(image - np.array([0x00, 0x72, 0xB2])).max(axis=2) < 60 for image in (a, b)]
    heights = [np.median(np.nonzero(mask[: mask.shape[0] // 2])[0]) for mask in blue]
    assert abs(heights[0] - heights[1]) < 25


def test_froc_chart(coarse_pictures):
    curve = FrocCurve("a $b", [0.2, 0.5, 3.0], [0.3, 0.5, 0.6], 0.4, 0.3, 0.5)
    png = draw_froc([curve, FrocCurve("none", [], [])], chance=[0.01] * 7)
    assert decode(png).std() > 5 and png == draw_froc([curve, FrocCurve("none", [], [])], chance=[0.01] * 7)
    assert png != draw_froc([replace(curve, sensitivity=[0.3, 0.5, 0.9])])
    for bad in (
        lambda: draw_froc([]),
        lambda: draw_froc([replace(curve, sensitivity=[0.3, 0.5, 1.6])]),
        lambda: draw_froc([replace(curve, sensitivity=[0.3, 0.5])]),
        lambda: draw_froc([replace(curve, false_per_image=[3.0, 0.5, 0.2])]),
        lambda: draw_froc([replace(curve, score=float("nan"))]),
        lambda: draw_froc([curve], chance=[0.1]),
    ):
        with pytest.raises(RunError):
            bad()
