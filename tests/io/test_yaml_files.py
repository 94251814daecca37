"""YAML that people write: the right values, or one line that names the place; nothing that takes hours."""

import time

import pytest

from sightline.errors import LayoutError
from sightline.io.yaml_files import MOST_BYTES, read_yaml

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))


def read(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, "Make one.")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [1, -2.5, 0x1F, yes, ~]", {"a": [1, -2.5, 31, True, None]}),
        ("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}}),
        # what is merged was merged itself, and stands deeper in the file
        (
            "z: &z {k: 1}\nr: [{c: &a {<<: *z, k: 2}}]\ns: {<<: *a, l: 3}",
            {"z": {"k": 1}, "r": [{"c": {"k": 2}}], "s": {"k": 2, "l": 3}},
        ),
        ("a: &a {k: 1}\nb: &b {l: 2}\nc: {<<: [*a, *b]}", {"a": {"k": 1}, "b": {"l": 2}, "c": {"k": 1, "l": 2}}),
        ("a: ü".encode("utf-16"), {"a": "ü"}),
        ("a: 9223372036854775807", {"a": 2**63 - 1}),
    ],
)
def test_what_is_read(tmp_path, text, data):
    assert read(tmp_path, text).data == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' stands twice"),
        ("a: {<<: {k: 1}, <<: {l: 1}}", "line 1: '<<' stands twice"),
        ("? [a, b]\n: 1", "line 1: a word must be a text"),
        ("a: [", r"line 1: not YAML \(expected the node content"),
        ("a: 2020-13-45", "line 1: not YAML .*'2020-13-45', a value that is none: month must be"),
        ("a: !!int x", "'x', a value that is none"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: 9223372036854775808", "beyond 64 bits"),
        ("a: 0x" + "F" * 50, "beyond 64 bits"),
        ("a: " + "9" * 20_000, "a number of 20,000 signs"),
        ("a: 0x" + "F" * 20_000, "a number of 20,002 signs"),
        ("a: " + ":".join(["1"] * 20_000), "a number of 39,999 signs"),
        ("a: " + ":".join(["1"] * 20_000) + ".5", "a number of 40,001 signs"),
        ("[" * 3_000, "without end"),
        ("[" * 60 + "]" * 60, "40 places inside each other"),
        (CHAIN, "40 places inside each other"),
        (LAUGHS, "100,000 values with every alias unfolded"),
        (MERGES, "100,000 values with every alias unfolded"),
        ("a: &a [1, *a]", "line 1: an alias holds itself"),
        ("a: &a {b: {<<: *a}}", "line 1: an alias holds itself"),
        (b"\xff\xfe\x00", "cannot be read as text"),
        ("#" * (MOST_BYTES + 1), "at most 1,048,576"),
    ],
)
def test_what_is_refused_in_one_line_and_at_once(tmp_path, text, said):
    started = time.process_time()
    with pytest.raises(LayoutError, match=said) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert time.process_time() - started < 5.0


def test_no_file(tmp_path):
    with pytest.raises(LayoutError, match=r"is missing.*Make one"):
        read_yaml(tmp_path / "none.yaml", "Make one.")
