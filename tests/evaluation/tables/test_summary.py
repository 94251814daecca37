"""The numbers of a table against direct computation from made-up predictions."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sightline.errors import CohortError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables import figures
from sightline.evaluation.tables.lines import Line, RowOnTest, read_lines, write_lines
from sightline.evaluation.tables.report import (
    _choose_best,
    _word_answer,
    _write_sentences,
    build_metric_tables,
    format_markdown,
)
from sightline.evaluation.tables.summary import compute_box_lines, compute_map_lines, compute_window_lines, summarise
from sightline.evaluation.tables.table import PublishedValue, Row, RowResult, Table, TableResult
from sightline.inference.network_output import Maps
from sightline.metrics.boxes.table import BoxCase, BoxScores
from sightline.metrics.maps.localisation import MapRow, MapScores, seed_estimate, seed_values
from sightline.metrics.maps.score import MapScore
from sightline.metrics.predictions import Predictions
from sightline.papers import liao2022
from sightline.structures.case import Case, Cohort

N = 24
LABELS = np.arange(N) // 2 % 2


def predictions(seed, skill):
    rng = np.random.default_rng(seed)
    p = np.clip(0.5 + skill * (LABELS - 0.5) + rng.normal(0, 0.25, N), 0.01, 0.99)
    ids = [f"c{i:02d}" for i in range(N)]
    studies = [f"s{i // 2:02d}" for i in range(N)]
    return Predictions(("no", "yes"), tuple(ids), tuple(studies), tuple(studies), LABELS, np.stack([1 - p, p], axis=1))


def result(rows):
    """rows: name -> (reference, predictions per seed or an error)."""
    recipe = liao2022.build_base_recipe()
    made = []
    for name, (reference, runs) in rows.items():
        published = {"study-wise accuracy, test": PublishedValue(76.4, 0.9)} if name == "a" else {}
        row = Row(name, recipe, reference, published)
        if isinstance(runs, Exception):
            made.append(RowResult(row, why_not=runs))
        else:
            made.append(RowResult(row, {"test": tuple(Evaluation(p, None, None) for p in runs)}))
    cases = tuple(Case(f"c{i:02d}", "s", "p", Path("x"), ("no", "yes")[LABELS[i]], split="test") for i in range(N))
    table = Table("ours/t", "t", tuple(r.row for r in made))
    return TableResult(table, Cohort("c", ("no", "yes"), cases), (0, 1, 2), tuple(made))


@pytest.fixture(scope="module")
def three():
    runs = {name: [predictions(10 * k + s, skill) for s in range(3)] for k, (name, skill) in
            enumerate((("a", 0.1), ("b", 0.6), ("c", 0.15)))}  # fmt: skip
    return runs, summarise(
        result({"a": (None, runs["a"]), "b": ("a", runs["b"]), "c": ("a", runs["c"])}), replicates=300
    )


def line_of(lines, row, metric):
    (line,) = [x for x in lines if x.row == row and x.metric == metric]
    return line


def accuracy(run):
    return float(np.mean([run.probabilities[i].argmax() == LABELS[i] for i in range(N)]))


def study_accuracy(run):
    right = 0
    for s in range(N // 2):
        mean = run.probabilities[2 * s : 2 * s + 2].mean(axis=0)
        right += int(mean.argmax() == LABELS[2 * s])
    return right / (N // 2)


def auc(run):
    """Share of pairs in the right order, counted one by one."""
    p = run.probabilities[:, 1]
    pairs = [(p[i] > p[j]) + 0.5 * (p[i] == p[j]) for i in range(N) for j in range(N) if LABELS[i] > LABELS[j]]
    return float(np.mean(pairs))


@pytest.mark.parametrize(
    ("metric", "score"),
    [("image-wise accuracy", accuracy), ("study-wise accuracy", study_accuracy), ("image-wise AUC", auc)],
)
def test_mean_deviation_welch_and_difference(three, metric, score):
    runs, lines = three
    values = {name: [score(run) for run in runs[name]] for name in runs}
    for name in runs:
        line = line_of(lines, name, metric)
        assert line.values == pytest.approx(values[name])
        mean = sum(values[name]) / 3
        assert line.mean == pytest.approx(mean)
        assert line.std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values[name]) / 2))
        # perfect scores in every seed leave nothing to draw an interval from, and the line says so
        assert line.low <= line.mean <= line.high if line.low is not None else line.why
        if name != "a":
            assert line.reference == "a"
            assert line.difference == pytest.approx(mean - sum(values["a"]) / 3)
            expected = stats.ttest_ind(values[name], values["a"], equal_var=False).pvalue
            assert line.p_welch == pytest.approx(expected)
            assert line.difference_low <= line.difference <= line.difference_high
    assert line_of(lines, "a", metric).difference is None and line_of(lines, "a", metric).p_paired is None


def test_a_clear_difference_is_found_and_none_is_not(three):
    _, lines = three
    assert line_of(lines, "b", "image-wise AUC").p_paired < 0.05
    assert line_of(lines, "b", "image-wise AUC").difference_low > 0
    assert line_of(lines, "c", "image-wise AUC").p_paired > 0.05


def test_holm_within_each_metric(three):
    _, lines = three
    for metric in {line.metric for line in lines}:
        family = [x for x in lines if x.metric == metric and x.p_paired is not None]
        assert {x.row for x in family} == {"b", "c"}
        small, large = sorted(family, key=lambda x: x.p_paired)
        assert small.p_holm == pytest.approx(min(1.0, 2 * small.p_paired))
        assert large.p_holm == pytest.approx(max(small.p_holm, min(1.0, large.p_paired)))


def test_counts_are_of_what_was_counted(three):
    _, lines = three
    assert "24 images" in line_of(lines, "a", "image-wise accuracy").n
    assert "12 studies" in line_of(lines, "a", "study-wise accuracy").n


def test_the_same_predictions_do_not_differ():
    runs = [predictions(s, 0.3) for s in range(3)]
    for line in summarise(result({"a": (None, runs), "b": ("a", runs)}), replicates=100):
        if line.row == "b" and line.difference is not None:
            assert line.difference == 0.0 and line.p_paired == pytest.approx(1.0, abs=0.05)


def test_one_seed_has_no_deviation_and_says_so():
    lines = summarise(result({"a": (None, [predictions(0, 0.2)]), "b": ("a", [predictions(1, 0.4)])}), replicates=100)
    line = line_of(lines, "b", "image-wise accuracy")
    assert line.std is None and line.p_welch is None and "1 seed" in line.why and line.p_paired is not None


def test_a_row_that_did_not_run_says_why_and_is_no_reference():
    why = CohortError("no focus region", "mark some")
    lines = summarise(result({"a": (None, why), "b": ("a", [predictions(1, 0.4)])}), replicates=50)
    assert line_of(lines, "a", "not run").why == str(why)
    assert line_of(lines, "b", "image-wise accuracy").reference == ""


def test_the_published_value_stands_beside_its_metric_alone(three):
    _, lines = three
    assert [x.metric for x in lines if x.published] == ["study-wise accuracy"]
    assert line_of(lines, "a", "study-wise accuracy").published == "76.4 ± 0.9"


def test_lines_are_written_and_read_back(three, tmp_path):
    _, lines = three
    write_lines(lines, tmp_path)
    assert read_lines(tmp_path / "table.json") == lines
    rows = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert [tuple(map(float, r["values"].split())) for r in rows] == [x.values for x in lines]
    assert "NaN" not in (tmp_path / "table.json").read_text()
    assert len(json.loads((tmp_path / "table.json").read_text())) == len(lines)


def test_texts():
    line = Line("r", "test", "m", mean=0.8123, std=0.0456, low=0.7, high=0.9, difference=0.05, difference_low=-0.01,
                difference_high=0.11, p_paired=0.0004)  # fmt: skip
    assert line.text() == "0.812 ± 0.046 (0.700 to 0.900)"
    assert line.interval_text(percent=True) == "70.0 to 90.0"
    assert line.difference_text() == "+0.050 (-0.010 to +0.110), p < 0.001"
    assert line.difference_interval_text(percent=True) == "-1.0 to +11.0"
    assert (Line("r", "test", "m").text(), Line("r", "test", "m").difference_text()) == ("undefined", "–")


def test_words_bold_and_stars_follow_holms_p_and_not_the_interval():
    runs = {"a": [predictions(0, 0.1)], "b": [predictions(10, 0.6)]}
    made = result({"a": (None, runs["a"]), "b": ("a", runs["b"])})
    lines = summarise(made, replicates=99)
    metric = "study-wise AUC"
    clear = replace(
        line_of(lines, "b", metric), difference=0.052, difference_low=0.011, difference_high=0.09, p_paired=0.02
    )
    for p_holm, told in ((0.264, False), (0.04, True)):
        said = [replace(clear, p_holm=p_holm) if x is line_of(lines, "b", metric) else x for x in lines]
        (words,) = [w for w in _write_sentences(made, said) if w.startswith("b: ")]
        assert ("better than a" in words) == told and ("not shown to differ from a" in words) != told
        assert f"p = {p_holm:.3f} after Holm's correction" in words
        (table,) = [t for t in build_metric_tables(made, said, "test") if t.caption.startswith(metric)]
        assert bool(table.strong) == told and ("**+0.052**" in format_markdown(table)) == told
        assert line_of(said, "b", metric).differs == told


def test_windows_have_an_interval_over_all_trainings():
    """The mean of both trainings lies in its interval, however far they are apart."""

    def evaluation(shift):
        table = predictions(1, 0.5)
        n = len(table)
        windows = np.tile(np.array([[0.5, 0.0, 0.25], [0.0, 0.5, 0.25]]), (n, 1, 1))
        windows[:, 0, 2] += shift + 0.01 * (np.arange(n) % 5)
        cells = np.zeros((n, 1, 2, 2), dtype=np.float32)
        return Evaluation(table, Maps(table.case_ids, np.ones((n, 1), dtype=np.int64), cells, cells, windows))

    asked = Row("a", liao2022.build_base_recipe("recommended"))
    row = RowResult(asked, {"test": (evaluation(0.0), evaluation(0.3))})
    line = next(x for x in compute_window_lines(RowOnTest(row, "test")) if x.metric == "centre shift (fraction)")
    assert line.mean == pytest.approx(np.mean(line.values)) and line.low < line.mean < line.high
    assert line.low < line.values[0] and line.values[1] < line.high and "over patients and 2 seeds" in line.method


def test_a_mean_and_its_interval_are_of_the_same_maps():
    def maps(values):
        rows = []
        for i, value in enumerate(values):
            score = MapScore(
                pointing=value, pointing_chance=0.1, pointing_centre=0.1, energy=value, energy_chance=0.1,
                energy_centre=0.1, iou=value, iou_chance=0.1, iou_centre=0.1, iou_half=value, iou_half_chance=0.1,
                iou_half_centre=0.1, inside_px=5, image_px=50, why="" if value is not None else "dead",
            )  # fmt: skip
            rows.append(MapRow(f"c{i}", f"s{i}", f"p{i}", "yes", "yes", "focus", "mask", score))
        return MapScores(tuple(rows))

    one, two = [0.2 + 0.01 * i for i in range(20)], [0.3 + 0.01 * i for i in range(20)]
    two[:10] = [None] * 10
    values = seed_values([maps(one), maps(two)], "energy")
    assert values == pytest.approx([np.mean(one[10:]), np.mean(two[10:])])
    found = seed_estimate([maps(one), maps(two)], "energy")
    assert found.value == pytest.approx(np.mean(values)) and found.low < found.value < found.high
    assert found.n["maps"] == 10 and "10 maps without a score left out" in found.method


def tell(means, metric, references=None, p=0.01):
    """The opening sentence, and the rest, of a table whose rows have these means."""
    references = references or {name: "a" for name in means if name != "a"}
    made = result({name: (None, CohortError("no")) for name in means})
    made = replace(made, table=replace(made.table, leading=(metric,)))
    lines = []
    for name, mean in means.items():
        line = Line(name, "test", metric, mean=mean)
        if name in references:
            of = references[name]
            line = replace(line, reference=of, difference=mean - means[of], p_paired=p, p_holm=p)
        lines.append(line)
    opening = _choose_best(made, lines)
    return opening.best.row, _word_answer(opening), _write_sentences(made, lines, opening.compared)[1:]


def test_the_report_opens_with_the_best_row():
    auc, far, kl = "study-wise AUC", "centre distance in px", "KL from gaze, class map"
    best, said, more = tell({"a": 0.7, "b": 0.8, "c": 0.6}, auc)
    assert best == "b" and said == "b has the highest study-wise AUC, 0.800, better than a: +0.100, p = 0.010 (p = " \
        "0.010 after Holm's correction)."  # fmt: skip
    assert len(more) == 1 and "c: study-wise AUC 0.600, worse than a: -0.100" in more[0]
    # the reference is best
    best, said, more = tell({"a": 0.9, "b": 0.8, "c": 0.6}, auc)
    assert best == "a" and said.startswith(
        "a has the highest study-wise AUC, 0.900; of the rows compared with it, b has the highest, 0.800, worse than a:"
    )
    assert len(more) == 1 and more[0].startswith("c: ")
    assert "not shown to differ from a" in tell({"a": 0.9, "b": 0.8}, auc, p=0.2)[1]
    # less is better
    for metric in (far, kl):
        best, said, more = tell({"a": 40.0, "b": 4.0, "c": 80.0}, metric)
        assert best == "b" and said.startswith(f"b has the lowest {metric}, 4.000, better than a: -36.000")
        assert "worse than a: +40.000" in more[0]
    # a row that is no part of a comparison
    said = tell({"a": 0.7, "b": 0.8, "d": 0.9}, auc, {"b": "a"})[1]
    assert said.startswith("Of the rows that are part of a comparison, b has the highest study-wise AUC, 0.800, better")


@pytest.mark.parametrize(("metric", "ends"), [("study-wise AUC", ("worse", "better")), ("NSS", ("worse", "better")),
                         ("centre distance in mm", ("better", "worse"))])  # fmt: skip
def test_the_forest_says_which_side_is_better(monkeypatch, metric, ends):
    made = result({"b": (None, CohortError("no"))})
    drawn = []
    monkeypatch.setattr(figures, "draw_forest", lambda rows, better, **_: drawn.append(better) or b"")
    line = Line("b", "test", metric, mean=1.0, reference="a", difference=0.5)
    figures.draw_forest_chart(replace(made, table=replace(made.table, leading=(metric,))), [line])
    assert drawn == [ends, ends]


def test_rows_tested_on_other_cases_are_compared_on_those_of_both():
    whole = [predictions(s, 0.1) for s in range(3)]
    part = [predictions(10 + s, 0.6).select(np.arange(4, N)) for s in range(3)]
    made = result({"a": (None, whole), "b": ("a", part)})
    lines = summarise(made, replicates=50)
    same = summarise(
        result({"a": (None, [run.select(np.arange(4, N)) for run in whole]), "b": ("a", part)}), replicates=50
    )
    for metric in ("image-wise AUC", "study-wise accuracy"):
        line = line_of(lines, "b", metric)
        assert line.compared_cases.startswith("4 images left out: not in both rows; compared on ")
        assert replace(line, why="") == replace(line_of(same, "b", metric), why="")
        assert line_of(lines, "a", metric).n != line.n and line_of(same, "b", metric).compared_cases == ""
    (table,) = [t for t in build_metric_tables(made, lines, "test") if t.caption.startswith("image-wise AUC")]
    assert "b, difference from a: 4 images left out: not in both rows; compared on 20 images" in format_markdown(table)


def test_what_cannot_be_compared_says_why_and_keeps_its_numbers():
    first, rest = (
        [predictions(s, 0.4).select(rows) for s in range(2)] for rows in (np.arange(12), np.arange(12, N))
    )  # fmt: skip
    three = [replace(run, classes=("no", "maybe", "yes"), labels=2 * run.labels, probabilities=np.stack(
        [run.probabilities[:, 0], np.zeros(12), run.probabilities[:, 1]], axis=1)) for run in first]  # fmt: skip
    odd = [replace(run, labels=1 - run.labels) for run in first]
    for theirs, why in ((rest, "no image is in both rows"), (three, "the classes are (no, yes) and (no, maybe, yes)"),
                        (odd, "Predictions over the same cases disagree on labels, studies or patients.")):  # fmt: skip
        made = result({"a": (None, theirs), "b": ("a", first)})
        line = line_of(lines := summarise(made, replicates=50), "b", "image-wise accuracy")
        assert line.mean is not None and line.difference is None and line.p_welch is None and line.reference == "a"
        assert line.compared_cases == f"not compared: {why}"
        assert any(why in t.notes[-1] for t in build_metric_tables(made, lines, "test"))


def on_test(ours, theirs):
    recipe = liao2022.build_base_recipe()
    rows = [RowResult(Row(name, recipe), {"test": tuple(made)}) for name, made in (("b", ours), ("a", theirs))]
    return RowOnTest(rows[0], "test", rows[1], 50)


def test_welch_is_of_the_images_with_the_number_in_both_rows():
    def boxes(seed, every):
        random, cases = np.random.default_rng(seed), []
        for i in range(N):
            truth, hard = np.array([[40.0, 40.0, 60.0, 60.0]]), i % 2 == 1
            found = truth + (60.0 if hard else 5.0) + random.normal() if every or not hard else np.zeros((0, 4))
            case = (f"c{i}", f"s{i}", f"p{i}", "yes", truth, found, np.ones(len(found)), (200, 200))
            cases.append(BoxCase(*case))
        return Evaluation(predictions(seed, 0.3), box_scores=BoxScores(tuple(cases)))

    ours, theirs = [boxes(s, False) for s in range(3)], [boxes(s + 9, True) for s in range(3)]
    line = line_of(compute_box_lines(on_test(ours, theirs)), "b", "centre distance in px")
    easy = [[BoxScores(each.box_scores.cases[::2]).cases for each in runs] for runs in (ours, theirs)]
    values = [[np.mean([case.score.distance_px for case in cases]) for cases in runs] for runs in easy]
    assert line.difference == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert line.p_welch == pytest.approx(stats.ttest_ind(*values, equal_var=False).pvalue)
    assert line.compared_cases.startswith("12 images left out: not defined in every run; compared on 12 images")


def test_maps_that_one_row_lacks_are_left_out_of_the_comparison():
    def maps(seed, first):
        random, rows = np.random.default_rng(seed), []
        for i in range(first, N):
            energy = float(random.uniform(0.2, 0.8))
            score = MapScore(*[energy, 0.1, 0.1] * 4, inside_px=5, image_px=50)
            rows.append(MapRow(f"c{i}", f"s{i}", f"p{i}", "yes", "yes", "organ", "mask", score))
        return Evaluation(predictions(seed, 0.3), map_scores=MapScores(tuple(rows)))

    coarse, fine = [maps(s, 8) for s in range(2)], [maps(s + 5, 0) for s in range(2)]
    for ours, theirs in ((coarse, fine), (fine, coarse)):
        line = line_of(compute_map_lines(on_test(ours, theirs)), "b", "energy inside (organ)")
        means = [np.mean([e.map_scores.column("energy")[-16:].mean() for e in runs]) for runs in (ours, theirs)]
        assert line.difference == pytest.approx(means[0] - means[1]) and line.p_welch is not None
        assert line.compared_cases.startswith("8 maps left out: not in both rows; compared on 16 maps")
