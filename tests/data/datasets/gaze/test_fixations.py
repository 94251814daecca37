"""Fixations found in samples, against scanpaths that are known and against slow restatements."""

import math

import numpy as np
import pytest

from sightline.data.datasets.gaze.fixations import ByDispersion, ByVelocity
from sightline.errors import GeometryError
from sightline.structures.gaze import Gaze
from sightline.structures.tag import Tag

DEGREE = 40.0


def gaze_of(places, time, dwell=None, px_per_deg=DEGREE):
    dwell = np.full(len(time), 1.0 / 60.0) if dwell is None else dwell
    return Gaze(np.array(places), np.array(time), np.array(dwell), "samples", px_per_deg, tag=Tag("gaze", None, "r"))


def scanpath(rate_hz=60.0, noise_deg=0.05, seed=0, hold=(0.4, 0.25, 0.6)):
    """Three fixations five degrees and more apart, with saccades of 40 ms; returns gaze, centres and first sample."""
    rng = np.random.default_rng(seed)
    centres = np.array([[200.0, 200.0], [420.0, 380.0], [150.0, 520.0]])
    places, starts = [], []
    for n, centre in enumerate(centres):
        starts.append(len(places))
        places += list(centre + rng.normal(0, noise_deg * DEGREE, (round(hold[n] * rate_hz), 2)))
        if n < 2:
            steps = max(2, round(0.04 * rate_hz))
            share = (np.arange(steps)[:, None] + 1) / (steps + 1)
            places += list(centre + share * (centres[n + 1] - centre))
    time = np.arange(len(places)) / rate_hz
    return gaze_of(places, time, np.full(len(places), 1.0 / rate_hz)), centres, np.array(starts) / rate_hz, hold


@pytest.mark.parametrize(
    ("detector", "rate_hz"),
    [
        (ByVelocity(), 60.0),
        (ByVelocity(), 250.0),
        (ByVelocity(), 1000.0),
        (ByDispersion(), 60.0),
        (ByDispersion(), 250.0),
    ],
)
def test_known_fixations_are_found(detector, rate_hz):
    gaze, centres, starts, hold = scanpath(rate_hz)
    found = detector(gaze)
    assert found.kind == "fixations" and found.tag == gaze.tag and found.px_per_deg == gaze.px_per_deg
    assert len(found) == 3
    assert np.abs(found.places - centres).max() < 0.2 * DEGREE
    assert np.abs(found.start_s - starts).max() < 2.1 / min(rate_hz, 100.0)
    assert np.abs(found.dwell_s - hold).max() < 0.05


def runs_slowly(gaze, gap):
    run = [0]
    for i in range(1, len(gaze)):
        if gaze.start_s[i] - gaze.start_s[i - 1] > gap:
            yield run
            run = []
        run.append(i)
    yield run


def slow_velocity(gaze, detector):
    """I-VT with loops, sample by sample."""
    limit = detector.velocity_deg_per_s * DEGREE
    found = []
    for run in runs_slowly(gaze, detector.gap_s):
        slow = []
        for i in run:
            near = [j for j in run if abs(gaze.start_s[j] - gaze.start_s[i]) <= detector.window_s / 2 + 1e-9]
            a, b = min(near), max(near)
            if i > run[0]:
                a = min(a, i - 1)
            elif len(run) > 1:
                b = max(b, i + 1)
            way = math.dist(gaze.places[a], gaze.places[b])
            slow.append(a == b or way <= limit * (gaze.start_s[b] - gaze.start_s[a]))
        group = []
        for i, is_slow in zip([*run, None], [*slow, False], strict=True):
            if is_slow:
                group.append(i)
                continue
            if group:
                length = gaze.start_s[group[-1]] + gaze.dwell_s[group[-1]] - gaze.start_s[group[0]]
                if length >= detector.least_s:
                    found.append([*np.mean([gaze.places[j] for j in group], axis=0), gaze.start_s[group[0]], length])
            group = []
    return np.array(found).reshape(-1, 4)


def slow_dispersion(gaze, detector):
    """I-DT as its table reads: a window of least duration that grows, everything computed anew."""
    found = []

    def length(window):
        return gaze.start_s[window[-1]] + gaze.dwell_s[window[-1]] - gaze.start_s[window[0]]

    def spread(window):
        rows, columns = zip(*[gaze.places[i] for i in window], strict=True)
        return max(rows) - min(rows) + max(columns) - min(columns)

    for run in runs_slowly(gaze, detector.gap_s):
        left = list(run)
        while left:
            window = [left[0]]
            for i in left[1:]:
                if length(window) >= detector.least_s:
                    break
                window.append(i)
            if length(window) < detector.least_s:
                break
            if spread(window) > detector.dispersion_deg * DEGREE:
                left = left[1:]
                continue
            for i in left[len(window) :]:
                if spread([*window, i]) > detector.dispersion_deg * DEGREE:
                    break
                window.append(i)
            found.append([*np.mean([gaze.places[i] for i in window], axis=0), gaze.start_s[window[0]], length(window)])
            left = left[len(window) :]
    return np.array(found).reshape(-1, 4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("detector", "slowly"), [(ByVelocity(), slow_velocity), (ByDispersion(), slow_dispersion)])
def test_the_detectors_say_what_the_slow_ones_say(detector, slowly, seed):
    rng = np.random.default_rng(seed)
    gaze, *_ = scanpath(rate_hz=(60.0, 120.0, 300.0)[seed % 3], noise_deg=0.12, seed=seed)
    keep = rng.random(len(gaze)) > 0.1
    keep[30:38] = False
    ragged = gaze_of(gaze.places[keep], gaze.start_s[keep] + rng.uniform(0, 1e-4, keep.sum()), gaze.dwell_s[keep])
    found, expected = detector(ragged), slowly(ragged, detector)
    assert len(found) == len(expected) > 0
    assert np.allclose(np.column_stack(found.numbers), expected)


@pytest.mark.parametrize("detector", [ByVelocity(), ByDispersion()])
def test_a_blink_ends_a_fixation(detector):
    time = np.arange(60) / 60.0
    still = np.full((60, 2), 100.0)
    assert len(detector(gaze_of(still, time))) == 1
    open_eyes = (time < 0.4) | (time > 0.6)
    found = detector(gaze_of(still[open_eyes], time[open_eyes]))
    assert len(found) == 2
    # the gap is nobody's time
    assert found.dwell_s.sum() < 0.81


@pytest.mark.parametrize("detector", [ByVelocity(), ByDispersion()])
def test_what_is_too_short_is_no_fixation(detector):
    assert len(detector(gaze_of([[5.0, 5.0]] * 3, np.arange(3) / 60.0))) == 0
    assert len(detector(gaze_of(np.zeros((0, 2)), []))) == 0
    assert len(detector(gaze_of([[5.0, 5.0]], [0.0]))) == 0


@pytest.mark.parametrize(
    ("detector", "inside"),
    [(ByVelocity(), ByVelocity(velocity_px_per_s=1200.0)), (ByDispersion(), ByDispersion(dispersion_px=40.0))],
)
def test_without_geometry_pixels_must_be_given(detector, inside):
    gaze, *_ = scanpath()
    unknown = gaze_of(gaze.places, gaze.start_s, px_per_deg=None)
    with pytest.raises(GeometryError, match="how many pixels a degree"):
        detector(unknown)
    assert np.array_equal(inside(unknown).places, detector(gaze).places)


def test_fixations_are_not_detected_twice():
    gaze, *_ = scanpath()
    with pytest.raises(GeometryError, match="already"):
        ByVelocity()(ByVelocity()(gaze))


def test_samples_of_one_moment_are_no_fixation_by_velocity():
    gaze = gaze_of([[0.0, 0.0], [900.0, 0.0]], [0.0, 0.0], [0.0, 0.1])
    assert len(ByVelocity(least_s=0.0, window_s=0.0)(gaze)) == 0
