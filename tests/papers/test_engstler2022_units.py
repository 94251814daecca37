"""Tables 2 and 3 of Engstler 2022: a trained row is dissected, and one case is shown."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.engines import QUIET
from support.layouts import make_spines

from sightline.dissection.export import UnitPictures
from sightline.dissection.results import open_dissection
from sightline.errors import RunError
from sightline.evaluation.tables.run_table import run_table
from sightline.metrics.predictions import Predictions
from sightline.papers import engstler2022
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.engstler2022 import find_surest, write_unit_findings
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table


@pytest.mark.slow
def test_table_3_dissects_its_row_and_shows_one_case(tmp_path, monkeypatch, small_galleries):
    # ten units a time are drawn twice over here, a second of work each
    assert engstler2022.UNITS == 10
    monkeypatch.setattr(engstler2022, "UNITS", 2)
    spines = make_spines(tmp_path / "cohort", 40)
    table = find_table("engstler2022/table3", "paper", Changes(steps=24, size=24, batch_size=4))
    (row,) = table.rows
    recipe = replace(row.recipe, model=replace(row.recipe.model, width=4), select="last")
    result = run_table(
        replace(table, rows=(replace(row, recipe=recipe),), top=0.01),
        spines,
        tmp_path / "t",
        CATALOGUE,
        seeds=(0,),
        engine=QUIET,
    )
    said = write_unit_findings(result, tmp_path / "t", QUIET)
    assert open_dissection(tmp_path / "t" / "dissection").about["top"] == "0.01"
    assert "case.png" in said and "units.md" in said
    lines = (tmp_path / "t" / "units.md").read_text().splitlines()
    assert any("top 1.0% of its activations" in line for line in lines)
    ranked = [line for line in lines if line.startswith("| ") and line[2].isdigit()]
    assert [int(line.split("|")[1]) for line in ranked] == [1, 2]
    with Image.open(tmp_path / "t" / "case.png") as image:
        assert min(image.size) > 300
    case_id = (tmp_path / "t" / "case.md").read_text().splitlines()[0].removeprefix("# ")
    assert next(case for case in spines if case.case_id == case_id).label == "fractured"
    # what an expert writes stands in the table the next time
    unit = int(ranked[0].split("[")[1].split("]")[0])
    path = tmp_path / "t" / "dissection" / "concepts.yaml"
    text = path.read_text()
    assert str(unit) in text
    path.write_text(named_first(text))
    # its pictures stand there from the first call; test_dissect.py has a second call that draws
    monkeypatch.setattr(UnitPictures, "_write_gallery", lambda *given: None)
    write_unit_findings(result, tmp_path / "t", QUIET)
    assert "dark body" in (tmp_path / "t" / "units.md").read_text()


@pytest.mark.parametrize("name", ["engstler2022/table2", "engstler2022/table3", "spine/units"])
def test_the_top_share_is_that_of_text_or_code(name):
    tops = {p: find_table(name, p, Changes()).top for p in ("paper", "official_code", "recommended")}
    assert tops == {"paper": 0.005, "official_code": 0.01, "recommended": 0.005}


def named_first(text):
    """The template with its first empty text filled in."""
    for empty in ('text: ""', "text: ''", "text:\n"):
        if empty in text:
            return text.replace(empty, "text: dark body" + ("\n" if empty.endswith("\n") else ""), 1)
    raise AssertionError(text)


def test_tables_without_units_write_nothing_more(tmp_path):
    spines = make_spines(tmp_path / "cohort")
    table = find_table("engstler2022/table1", "paper", Changes(steps=1, size=16, batch_size=4))
    result = run_table(replace(table, rows=table.rows[:1]), spines, tmp_path / "t", CATALOGUE, seeds=(0,), engine=QUIET)
    assert write_unit_findings(result, tmp_path / "t", QUIET) == ""


def test_the_surest_right_call_is_shown():
    def said(p, labels):
        n = len(p)
        ids = tuple(f"v{i}" for i in range(n))
        rows = np.stack([1 - np.array(p), np.array(p)], axis=1)
        return Predictions(("intact", "fractured"), ids, ids, ids, np.array(labels), rows)

    assert find_surest(said([0.99, 0.7, 0.9, 0.9], [0, 1, 1, 1]), "fractured") == "v2"
    with pytest.raises(RunError, match="no fractured case"):
        find_surest(said([0.9, 0.1], [0, 1]), "fractured")
