import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT
from support.tables import table as boxes

import sightline.metrics
from sightline.errors import CohortError
from sightline.metrics.boxes.report import BOX_MEASURES
from sightline.metrics.classification.report import (
    compute_classification_report,
    format_comparisons,
    format_counts,
    list_standard_scores,
    to_markdown,
)
from sightline.metrics.classification.scores import AUC
from sightline.metrics.estimate import Estimate
from sightline.metrics.maps.localisation import NAMES
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import bootstrap
from sightline.metrics.statistics.comparison import welch


def table(k=2, studies=30, seed=0):
    random = np.random.default_rng(seed)
    study = np.repeat(np.arange(studies), 2)
    labels = study % k
    raw = random.dirichlet(np.ones(k), study.size) + (labels[:, None] == np.arange(k)) * 0.4
    return Predictions(
        ("none", "fracture") if k == 2 else tuple("ABC"[:k]),
        tuple(f"i{i}" for i in range(study.size)),
        tuple(f"s{i}" for i in study),
        tuple(f"p{i // 2}" for i in study),
        labels,
        raw / raw.sum(1, keepdims=True),
    )


def test_two_classes_are_reported_image_wise_and_study_wise():
    t = table()
    report = {e.name: e for e in compute_classification_report(t, replicates=100)}
    names = ["accuracy", "balanced accuracy", "AUC", "average precision", "F1 of fracture", "sensitivity",
             "specificity", "precision", "prevalence",
             "F1 macro", "F1 weighted by support", "Brier score", "calibration error",
             "calibration error of a perfectly calibrated model"]  # fmt: skip
    assert list(report) == [f"{n}, {wise}" for wise in ("image-wise", "study-wise") for n in names]
    counted = {"images": 60, "studies": 30, "patients": 15, "patients with none": 12, "patients with fracture": 13}
    assert all(e.n.keys() == counted.keys() for e in report.values())
    assert all(e.n["images"] == 60 and e.n["patients"] == 15 for e in report.values())
    assert "score interval of an AUC" in report["AUC, image-wise"].method
    assert report["calibration error, image-wise"].low is None
    assert report["AUC, image-wise"].value == bootstrap(AUC(1), t, replicates=10).value
    assert report["AUC, study-wise"].value == bootstrap(AUC(1), t.study_wise(), replicates=10).value


def test_the_positive_class_can_be_named():
    t = table()
    last = {e.name: e.value for e in compute_classification_report(t, replicates=10)}
    first = {e.name: e.value for e in compute_classification_report(t, positive="none", replicates=10)}
    assert first["sensitivity, study-wise"] == last["specificity, study-wise"]
    assert first["AUC, image-wise"] == pytest.approx(last["AUC, image-wise"])
    with pytest.raises(CohortError):
        compute_classification_report(t, positive="Fracture")


def test_several_classes_get_means_and_one_line_each():
    names = {e.name for e in compute_classification_report(table(3), replicates=50)}
    assert {"AUC one-vs-rest, study-wise", "AUC Hand & Till, image-wise", "sensitivity for B, study-wise"} <= names


def test_a_split_without_fractures_is_reported_not_raised():
    t = table()
    report = {e.name: e for e in compute_classification_report(t.select(t.labels == 0), replicates=50)}
    assert report["AUC, image-wise"].value is None
    assert report["accuracy, image-wise"].value is not None
    text = to_markdown(list(report.values()))
    assert "undefined" in text and "no case of fracture" in text and "nan" not in text.lower()


def test_a_network_that_calls_nothing_positive_has_no_precision_and_the_page_says_why():
    """It blamed the cases, which hold both classes."""
    t = table()
    shy = replace(t, probabilities=np.stack([1 - t.probabilities[:, 1] / 3, t.probabilities[:, 1] / 3], 1))
    report = {e.name: e for e in compute_classification_report(shy, replicates=50)}
    for wise in ("image-wise", "study-wise"):
        assert report[f"precision, {wise}"].why == "not defined: no case is called fracture"


def test_markdown_has_a_cell_for_everything():
    estimates = [Estimate("sensitivity for A|B", 0.8123, 0.7, 0.9, {"images": 5, "patients": 4}, "patient bootstrap")]
    lines = to_markdown(estimates).splitlines()
    assert lines == [
        "| measure | value (95% interval) | n | method |",
        "| --- | --- | --- | --- |",
        "| sensitivity for A\\|B | 0.812 (0.700–0.900) | 5 images, 4 patients | patient bootstrap |",
    ]
    assert format_counts({"seeds_a": 3}) == "3 seeds a"


def test_comparisons_are_corrected_for_reading_all_of_them():
    rows = [welch([0.8, 0.82, 0.81], [0.7, 0.75, 0.72]), welch([0.8, 0.79], [0.8, 0.78]), welch([0.8], [0.7])]
    lines = format_comparisons(rows).splitlines()[2:]
    cells = [[c.strip() for c in line.strip("| ").split(" | ")] for line in lines]
    assert float(cells[0][5].removeprefix("p = ")) == pytest.approx(2 * rows[0].p_value, abs=0.001)
    assert cells[2][4] == cells[2][5] == "no p" and cells[2][3] == "+0.100"


def test_the_example_in_the_docs_runs(tmp_path, capsys):
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for seed in range(3):
        table(seed=seed).write(tmp_path / f"guided{seed}.csv")
        table(seed=seed + 3).write(tmp_path / f"unguided{seed}.csv")
        boxes(seed).write(tmp_path / f"boxes{seed}.csv")
    names = {"folder": tmp_path, "training": boxes(9)}
    for example in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(example, names)
    printed = capsys.readouterr().out
    assert "| AUC, study-wise | 0." in printed
    assert "swapped patients, 2000 swaps" in printed and "Obuchowski" in printed
    assert "| IoU of the best box, chance | 0." in printed and "printed mAP (share" in printed


def test_every_box_measure_is_described_in_the_docs():
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    words = {re.sub(r"_at_.*|above_.*", lambda m: "above_0.1" if m[0][0] == "a" else "", word) for word in BOX_MEASURES}
    assert {word for word in words if f"`{word}`" not in page} == set()


def test_every_score_is_described_in_the_docs():
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    names = {
        re.split(r" of | for |,| macro| weighted", s.name)[0]
        for k in (2, 3)
        for s in list_standard_scores("abc"[:k], 1)
    }
    missing = [name for name in [*names, *NAMES.values()] if name not in page and name.lower() not in page]
    assert not missing


def test_metrics_reads_no_network_library_and_no_other_room():
    # the two of `structures` are about words alone: how numbers are written, and which words stand for nothing
    words = ("sightline.structures.notation", "sightline.structures.identifiers")
    allowed = ("sightline.errors", "sightline.metrics", *words)
    for path in Path(sightline.metrics.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith(("torch", "timm")), (path.name, name)
                assert not name.startswith("sightline") or name.startswith(allowed), (path.name, name)
