"""Charts of a table: which bars are drawn, against which line, with which star."""

import pytest

from sightline.evaluation.tables import figures
from sightline.evaluation.tables.lines import Line
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table


def bars_of(monkeypatch, name, tests=("test",), p=0.2):
    """The groups that a table's bar chart draws, by test; study-wise accuracy is known for every row."""
    table = find_table(name, "paper", Changes())
    study = {row.name: 0.5 + 0.01 * n for n, row in enumerate(table.rows)}
    lines = [
        Line(row.name, test, f"{kind} accuracy", mean=study[row.name] - shift, std=0.02, p_paired=0.01, p_holm=p)
        for row in table.rows
        for test in tests
        for kind, shift in (("image-wise", 0.1), ("study-wise", 0.0))
    ]
    drawn = {}

    def caught(groups, *, title, **words):
        drawn[title] = groups
        return b"png"

    monkeypatch.setattr(figures, "draw_bars", caught)
    rows = tuple(RowResult(row, dict.fromkeys(tests, ())) for row in table.rows)
    result = TableResult(table, None, (0, 1), rows)
    for test in tests:
        figures._draw_bars(result, lines, test)
    return study, drawn


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("liao2022/table3", {"s-512": "s-512 baseline", "s-768": "s-768 baseline"}),
        ("liao2022/supplement1", {"scaphoid": "scaphoid baseline", "ankle": "ankle baseline"}),
        ("liao2022/cub200", {f"n={n}": f"n={n} original" for n in (5, 10, 15, 20)}),
    ],
)
def test_every_bar_stands_against_its_own_baseline(monkeypatch, name, blocks):
    study, drawn = bars_of(monkeypatch, name)
    (groups,) = drawn.values()
    assert {group.block: group.reference.name for group in groups} == blocks
    for group in groups:
        assert group.reference.value == pytest.approx(100 * study[blocks[group.block]])
        assert group.reference.spread == pytest.approx(2.0)
    assert {bar.name for group in groups for bar in group.bars} >= ({"bbox"} if "cub" not in name else {"n=5"})


def test_lambda_zero_and_the_external_cohort_have_bars(monkeypatch):
    _, drawn = bars_of(monkeypatch, "liao2022/table4", ("test", "external"))
    assert [title for title in drawn if "external" in title] == list(drawn)[1:]
    for groups in drawn.values():
        assert [group.label for group in groups] == ["λ = 0", "λ = 0.1", "λ = 0.5", "λ = 1"]
        assert [len(group.bars) for group in groups] == [1, 3, 3, 3]


@pytest.mark.parametrize(("p", "star"), [(0.2, False), (0.04, True)])
def test_a_star_goes_by_the_corrected_p(monkeypatch, p, star):
    # uncorrected, every row differs
    _, drawn = bars_of(monkeypatch, "liao2022/table4", p=p)
    assert {bar.significant for groups in drawn.values() for group in groups for bar in group.bars} == {star}


def test_what_others_are_compared_with_is_a_line_and_no_bar(monkeypatch):
    _, drawn = bars_of(monkeypatch, "fracatlas/curve")
    ((title, groups),) = drawn.items()
    assert "weight" not in title and groups[0].label == "300 images"
    assert {group.reference.name for group in groups} >= {"unguided mean, 300 images", "unguided mean, 75 images"}
