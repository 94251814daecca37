"""`concepts.yaml`: written once, never changed where people wrote, and refused with the line that is wrong."""

import pytest

from sightline.dissection.concepts import Concept, keep_concepts, read_concepts
from sightline.errors import LayoutError

UNITS = [(17, "rank 1, c 0.9"), (3, "rank 2, c 0.8")]


def keep(path, units=UNITS, weights="w1", layer="encoder.3"):
    return keep_concepts(path, run="r", weights=weights, layer=layer, units=units)


def test_a_template_has_a_place_for_every_unit_in_rank_order(tmp_path):
    path = tmp_path / "concepts.yaml"
    assert list(keep(path)) == [17, 3]
    text = path.read_text()
    assert text.index("17:") < text.index("3:") and "rank 1, c 0.9" in text
    assert read_concepts(path).units[17] == Concept(17)


def test_what_an_expert_wrote_is_kept_to_the_letter(tmp_path):
    path = tmp_path / "concepts.yaml"
    keep(path)
    mine = path.read_text().replace(
        '    text: ""\n    author: ""\n    date: ""\n',
        '    text: "upper endplate: sunk in"  # sure\n    author: Ä. Reader\n    date: 2026-11-21\n', 1,
    )  # fmt: skip
    path.write_text(mine)
    assert keep(path)[17] == Concept(17, "upper endplate: sunk in", "Ä. Reader", "2026-11-21")
    assert path.read_text() == mine
    more = keep(path, [*UNITS, (40, "rank 3")])
    assert path.read_text().startswith(mine) and more[17].author == "Ä. Reader" and more[40] == Concept(40)
    assert more[17].signed == "Ä. Reader, 2026-11-21"


def test_a_rearranged_file_is_left_as_it_is(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_text('units: {17: {text: "disc"}}\nweights: w1\nlayer: encoder.3\n')
    before = path.read_text()
    assert keep(path) == {17: Concept(17, "disc")}
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["concepts.yaml"]


@pytest.mark.parametrize(("weights", "layer"), [("w2", "encoder.3"), ("w1", "encoder.2")])
def test_names_of_another_network_are_refused(tmp_path, weights, layer):
    path = tmp_path / "concepts.yaml"
    keep(path)
    before = path.read_text()
    with pytest.raises(LayoutError, match="other units there"):
        keep(path, weights=weights, layer=layer)
    assert path.read_text() == before


HEAD = 'weights: "w1"\nlayer: "encoder.3"\nunits:\n'


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("  17:\n    text: 'open\n", None, "line"),
        ("  17:\n    text: a: b\n", 5, "mapping values"),
        ("  seventeen:\n    text: x\n", 4, "no number of a unit"),
        ("  17:\n    text: x\n  17:\n    text: y\n", 6, "twice"),
        ("  17:\n    words: x\n", 5, "'words'"),
        ("  17:\n    text: [a, b]\n", 5, "must be words"),
        ("  17:\n    text: x\n    date: 21.11.2026\n", 6, "no date"),
        ("  17: disc\n", 4, "names with values"),
        ("\t17:\n", 4, "token"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, body, line, said):
    path = tmp_path / "concepts.yaml"
    path.write_text(HEAD + body)
    with pytest.raises(LayoutError, match=said) as caught:
        keep(path)
    if line is not None:
        assert f"line {line}:" in str(caught.value)
    assert path.read_text() == HEAD + body


@pytest.mark.parametrize("text", ["", "just words\n", "units:\n", "weights: a\nlayer: b\nnames: 1\nunits:\n"])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "concepts.yaml"
    path.write_text(text)
    with pytest.raises(LayoutError):
        read_concepts(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LayoutError, match="UTF-8"):
        read_concepts(path)


def test_nothing_in_it_is_executed(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_text(HEAD + "  17:\n    text: !!python/object/apply:os.system ['touch made']\n")
    with pytest.raises(LayoutError):
        read_concepts(path)
