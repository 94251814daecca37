"""The gate's second check: limits by hand, and what it refuses on phantom wrists; and gate.json."""

import json
import math

import numpy as np
import pytest

from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.errors import RunError, UnreadableFile
from sightline.inference.gate.gate_file import Gate, read_gate, write_gate
from sightline.inference.gate.header import HeaderLimits
from sightline.inference.gate.picture import check_picture, fit_limits, measure_picture
from sightline.io.image import read_image
from sightline.io.picture import Picture
from sightline.structures.frame import Frame


def picture(pixels):
    return Picture(pixels, Frame.of_image(pixels.shape[:2]))


def test_limits_are_quantiles_widened_by_a_quarter():
    values = np.arange(1001) / 1000.0
    (low, high) = fit_limits([{"mean": float(x)} for x in values])["mean"]
    assert (low, high) == pytest.approx((0.005 - 0.2475, 0.995 + 0.2475))
    # what few pictures say is no limit
    assert "spacing_mm" not in fit_limits([{"mean": 0.1, "spacing_mm": 0.2}, *[{"mean": 0.1}] * 9])
    with pytest.raises(ValueError, match="no picture"):
        fit_limits([])


def test_measures_by_hand():
    pixels = np.zeros((2, 4), dtype=np.uint8)
    pixels[:, 2:] = 255
    found = measure_picture(picture(pixels))
    assert (found["mean"], found["contrast"], found["black"], found["white"]) == (0.5, 0.5, 0.5, 0.5)
    assert found["aspect"] == pytest.approx(math.log(2.0))
    assert found["edges"] == pytest.approx(2 / 10)  # two of ten pairs of neighbours differ


@pytest.fixture(scope="module")
def wrists(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("wrists") / "cohort", studies=5, seed=0)


def test_wrists_pass_and_what_is_no_radiograph_does_not(wrists, tmp_path):
    pictures = [read_image(case.image) for case in wrists]
    others = pictures
    limits = fit_limits([measure_picture(one) for one in pictures])
    assert not [one for one in pictures if check_picture(one, limits, tmp_path)]
    shape, rng = others[0].pixels.shape, np.random.default_rng(0)
    top = np.iinfo(others[0].pixels.dtype).max
    wrong = {
        "noise": (rng.random(shape) * top).astype(others[0].pixels.dtype),
        "negative": (top - others[0].pixels).astype(others[0].pixels.dtype),
        "stamp": others[0].pixels[::20, ::20],
        "screenshot": np.kron(
            np.eye(8, dtype=others[0].pixels.dtype) * top, np.ones((60, 100), others[0].pixels.dtype)
        ),
    }
    for name, pixels in wrong.items():
        assert check_picture(picture(pixels), limits, tmp_path), name
    with pytest.raises(UnreadableFile, match="looks the same"):
        check_picture(picture(np.full(shape, 7, np.uint8)), limits, tmp_path)


def test_gate_json_is_bound_to_the_weights(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    with pytest.raises(RunError, match=r"has no gate\.json"):
        read_gate(tmp_path)
    gate = Gate(HeaderLimits(modality=("DX",)), {"mean": (0.1, 0.9)}, {}, {"pictures": 3}, {"mean": (0.5,)})
    write_gate(tmp_path, gate)
    assert read_gate(tmp_path) == gate
    path = tmp_path / "gate.json"
    whole = path.read_text()
    for damaged in ("", "[]", whole.replace("sightline gate 1", "2"), whole.replace("0.9", "NaN"), whole[:50]):
        path.write_text(damaged)
        with pytest.raises(RunError, match="damaged"):
            read_gate(tmp_path)
    path.write_text(json.dumps(json.loads(whole) | {"header": {"colour": ["red"]}}))
    with pytest.raises(RunError, match="damaged"):
        read_gate(tmp_path)
    path.write_text(whole)
    (tmp_path / "weights.safetensors").write_bytes(b"weightz")
    with pytest.raises(RunError, match="other weights"):
        read_gate(tmp_path)


@pytest.mark.slow
def test_how_many_wrists_are_refused_that_the_limits_have_not_seen(tmp_path):
    """At most 2 %, with limits of 120 studies and 120 others; docs/node.md has the numbers."""
    fitted = write_radiographs(tmp_path / "a", studies=120, seed=1)
    limits = fit_limits([measure_picture(read_image(case.image)) for case in fitted])
    others = [case.image for case in write_radiographs(tmp_path / "b", studies=120, seed=2)]
    refused = [reason for image in others if (reason := check_picture(read_image(image), limits, image))]
    print(f"refused {len(refused)} of {len(others)}: {refused}")
    assert len(refused) <= 0.02 * len(others)
