"""Codes mean what their schemes say, and a site's own table is read or refused in clear words."""

import pytest
from pydicom.sr._concepts_dict import concepts

from sightline.errors import LayoutError
from sightline.io.dicom_results import codes
from sightline.io.dicom_results.codes import PRIVATE, CodedConcept, CodeTable, read_codes

# not in pydicom's dictionary, or there under another synonym: held against SNOMED CT by hand
BY_HAND = {("705057003", "SCT"): "Presence", ("123037004", "SCT"): "Anatomical Structure"}


def shipped():
    single = [value for value in vars(codes).values() if isinstance(value, CodedConcept)]
    return sorted({*single, *codes.SITES.values(), *codes.LEVELS.values()})


def meanings():
    known = {}
    for scheme, words in concepts.items():
        for entries in words.values():
            for value, (meaning, _) in entries.items():
                known.setdefault((value, scheme), set()).add(meaning)
    return known


def test_shipped_codes_have_their_schemes_meaning():
    known, concepts_here = meanings(), shipped()
    assert len(concepts_here) >= 20
    for concept in concepts_here:
        by_hand = BY_HAND.get((concept.value, concept.scheme))
        allowed = {by_hand} if by_hand else known.get((concept.value, concept.scheme), set())
        assert concept.meaning in allowed, (concept, allowed)


def test_unknown_classes_get_a_private_code_and_are_named():
    table = CodeTable({"fracture": CodedConcept("125605004", "SCT", "Fracture of bone")})
    assert table.finding("fracture").scheme == "SCT"
    assert table.finding("odd (mine)") == CodedConcept("ODD_MINE", PRIVATE, "odd (mine)")
    assert len(table.finding("an odd class of a long name").value) <= 16
    assert table.finding("骨折").scheme == PRIVATE and table.finding("骨折").value
    assert table.unknown(("fracture", "cyst")) == ("cyst",)
    assert table.site("wrist").value == "74670003" and table.site("TAIL") is None


def test_private_codes_of_different_classes_differ():
    table = CodeTable()
    assert table.finding("骨折").value != table.finding("肺炎").value
    long = "a very long name of a class, "
    assert table.finding(long + "one").value != table.finding(long + "two").value


def test_a_table_of_a_site_is_read(tmp_path):
    path = tmp_path / "codes.yaml"
    path.write_text(
        "title: {value: '18748-4', scheme: LN, meaning: Diagnostic imaging study}\n"
        "findings:\n  fracture: {value: '125605004', scheme: SCT, meaning: Fracture of bone}\n"
        "sites:\n  wrist: {value: '8205005', scheme: SCT, meaning: Wrist}\n"
    )
    table = read_codes(path)
    assert table.title.scheme == "LN" and table.finding("fracture").value == "125605004"
    assert table.site("WRIST").value == "8205005"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finding: {}", "finding is none"),
        ("findings:\n  a: {value: 1, scheme: SCT, meaning: x}", "value of findings.a"),
        ("findings:\n  a: {value: '1', scheme: SCT}", "findings.a must have"),
        ("findings:\n  a: {value: '12345678901234567', scheme: SCT, meaning: x}", "value of findings.a"),
        ("- a", "no mapping"),
        ("a: [", "not YAML"),
        ("findings: 3", "findings"),
    ],
)
def test_a_broken_table_is_refused(text, words, tmp_path):
    (tmp_path / "codes.yaml").write_text(text)
    with pytest.raises(LayoutError, match=words) as caught:
        read_codes(tmp_path / "codes.yaml")
    assert caught.value.remedy
