"""Drift of a node's readings, and the report of a period: numbers by hand, hostile words, nothing loaded."""

import json
import re

import numpy as np
import pytest
from sqlalchemy import insert
from support.nodes import settings, write_settings

from sightline.errors import LayoutError
from sightline.inference.gate.gate_file import Gate
from sightline.inference.gate.header import HeaderLimits
from sightline.web.node.configuration import read_configuration
from sightline.web.node.database import Store, jobs, objects, readings, studies
from sightline.web.node.monitoring.drift_watch import group_columns, watch_rule
from sightline.web.node.monitoring.report import format_wilson, read_answers, write_period_report

NOW = 1_800_000_000.0


def fill(store, measures, state="done", left_out="[]"):
    """A job with one image a reading."""
    with store.change() as change:
        db = change.connection
        for number, one in enumerate(measures):
            study = f"1.2.{number}"
            job = {"study_uid": study, "rule": "wrist", "inputs": "[]", "state": state, "left_out": left_out}
            job |= {"received": NOW - 70, "created": NOW - 60, "ended": NOW - 50}
            key = db.execute(insert(jobs).values(**job)).inserted_primary_key[0]
            row = {"job": key, "sha256": "0" * 64, "rule": "wrist", "at": NOW - 50 + number * 1e-3}
            db.execute(insert(readings).values(**row, measures=json.dumps(one)))
        row = {
            "sha256": f"{len(measures):064d}",
            "sop_uid": "1.9",
            "sop_class": "1",
            "syntax": "1",
            "study_uid": "1.2.0",
            "state": "kept",
        }
        row |= {"series_uid": "1", "patient_id": "Planted", "accession": "A", "facts": "{}", "bytes": 10**6}
        db.execute(insert(objects).values(**row, caller="<b>MOD</b>", door="dimse", received=NOW - 70))


def reading(rng, shift=0.0):
    p = float(rng.random())
    return {
        "mean": float(rng.normal(0.4 + shift, 0.05)),
        "p(fracture)": p,
        "predicted": "fracture" if p > 0.5 else "none",
    }


def test_drift_of_readings_is_found_against_the_training(tmp_path):
    rng = np.random.default_rng(0)
    store = Store(tmp_path / "node.sqlite", clock=lambda: NOW)
    gate = Gate(HeaderLimits(), {}, {}, {}, {"mean": tuple(float(x) for x in rng.normal(0.4, 0.05, 300))})
    fill(store, [reading(rng) for _ in range(200)])
    (watched,) = watch_rule(store, "wrist", gate)
    assert watched.against == "training" and watched.moved == () and len(watched.windows) == 1
    fill(store, [reading(rng, shift=0.06) for _ in range(400)])
    (watched,) = watch_rule(store, "wrist", gate)
    assert watched.moved == ("mean",)


def test_columns_keep_numbers_and_words_apart():
    assert group_columns([{"a": 1.0, "b": "x"}, {"a": "y"}]) == {"a": ["1.0", "y"], "b": ["x"]}


def test_the_report_of_a_period(tmp_path):
    configuration = read_configuration(write_settings(tmp_path, settings(tmp_path, silent=True)))
    store = Store(tmp_path / "node.sqlite", clock=lambda: NOW)
    measures = [{"p(fracture)": p, "p(no fracture)": 1 - p, "predicted": "fracture" if p > 0.5 else "no fracture"}
                for p in (0.9, 0.8, 0.2, 0.1)]  # fmt: skip
    refusal = json.dumps(
        [{"sha256": "2" * 64, "door": "header", "reason": "the body part is <script>alert(1)</script>"}]
    )
    fill(store, measures, left_out=refusal)
    with store.change() as change:
        for uid in ("7.1", "7.2"):
            why = "no rule takes any image of it; rule wrist: the modality is CT, not DX"
            row = {"study_uid": uid, "first": NOW, "last": NOW, "complete": 0, "state": "settled", "reason": why}
            change.connection.execute(insert(studies).values(**row, ended=NOW))
    answers = tmp_path / "answers.csv"
    answers.write_text("study,label\n1.2.0,fracture\n1.2.1,no fracture\n1.2.2,fracture\n1.2.3,Normal\n9.9,fracture\n")
    out = tmp_path / "report.html"
    notes = write_period_report(configuration, store, {"wrist": Gate(HeaderLimits(), {})}, out, 1.0, answers)
    # a study that never came, and a word that no run has; the person at the machine reads which, the page does not
    assert [note.split()[0] for note in notes] == ["1", "1"] and "'9.9'" in notes[0] and "'Normal'" in notes[1]
    page = out.read_text(encoding="utf-8")
    assert "1 of 5 answers are about studies that this node does not know." in page and "9.9" not in page
    assert "4 studies judged" in page and "silent" in page
    # studies for which there is no job are on the page all the same
    assert re.search(r"rule wrist: the modality is CT, not DX</t[hd]>\s*<td[^>]*>2</td>", page)
    # one of two fractures called, one of two others not
    assert page.count("0.50 (0.09 to 0.91), 1 of 2") == 2
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;MOD" in page
    assert "Planted" not in page and "1.2.0" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:)""", page)
    # what lies before the period is not in it
    write_period_report(configuration, store, {"wrist": Gate(HeaderLimits(), {})}, out, 1e-4, None)
    assert "0 studies judged" in out.read_text(encoding="utf-8")


def test_wilson_by_hand():
    assert format_wilson(0, 0) == "none"
    # Newcombe 1998, table I: 81 of 263, Wilson's method
    assert format_wilson(81, 263) == "0.31 (0.26 to 0.37), 81 of 263"


def test_answers_that_do_not_read(tmp_path):
    path = tmp_path / "answers.csv"
    for text in ("", "a,b\n1,2\n"):
        path.write_text(text)
        with pytest.raises(LayoutError, match=r"lacks the columns \['study', 'label'\]"):
            read_answers(path)
    for text, why in (("study,label\n1,a\n1,b\n", "repeats '1'"), ("study,label\n1,\n", "is empty")):
        path.write_text(text)
        with pytest.raises(LayoutError, match=why):
            read_answers(path)
    with pytest.raises(LayoutError):
        read_answers(tmp_path / "absent.csv")
