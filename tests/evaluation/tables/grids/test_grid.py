"""A table from a YAML file: what it says is what is trained, and mistakes are named with what was meant."""

import pytest

from sightline.errors import RecipeError
from sightline.evaluation.tables.engines.suggested_marks import Asking
from sightline.evaluation.tables.grids.grid import change_recipe
from sightline.losses.cell_focal import CellFocal
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.fracatlas import localisers
from sightline.papers.liao2022 import build_base_recipe
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table

GOOD = """
title: Does the weight matter?
seeds: 2
report: [image-wise AUC, pointing game (finding)]
rows:
  - name: unguided
    recipe: fracture-unguided
    change: {epochs: 2, view.size: 256}
  - name: guided
    recipe: fracture-guided
    change:
      weight: 1
      guidance: {kind: cell_focal, gamma: 1.5}
      model.backbone.options: {drop_path_rate: 0.1}
    reference: unguided
    train_images: 300
    wrong_marks: 0.1
    wrong_kind: enlarged
"""


def table_of(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return find_table(str(path), "recommended", Changes())


def test_rows_are_what_the_file_says(tmp_path):
    table = table_of(tmp_path, GOOD)
    first, second = table.rows
    assert (table.name, table.title, table.seeds) == ("my", "Does the weight matter?", 2)
    assert table.metrics == table.leading == ("image-wise AUC", "pointing game (finding)")
    assert (first.recipe.epochs, first.recipe.view.size) == (2, 256)
    assert first.recipe.optimiser == localisers.build_unguided_recipe().optimiser
    assert second.recipe.weight == 1.0
    assert second.recipe.guidance == CellFocal(gamma=1.5)
    assert second.recipe.model.backbone.options == {"drop_path_rate": 0.1}
    assert (second.reference, second.train_images, second.wrong_marks, second.wrong_kind) == (
        "unguided",
        300,
        0.1,
        "enlarged",
    )
    asking = table_of(tmp_path, GOOD + "    teacher: unguided\n    suggest: {strategy: diversity, n: 9}\n").rows[1]
    assert (asking.needs, asking.teaching) == (("unguided",), Asking("diversity", 9))


def test_a_recipe_without_changes_is_itself():
    assert change_recipe(build_base_recipe(), {}, CATALOGUE) == build_base_recipe()


@pytest.mark.parametrize(
    ("old", "new", "said", "remedy"),
    [
        ("seeds: 2", "sedes: 2", "'sedes' is no word", "Did you mean 'seeds'"),
        ("seeds: 2", "seeds: none", "seeds is 'none'", "from 1 on"),
        ("seeds: 2", "seeds: 0", "seeds is 0", "from 1 on"),
        ("report: [image-wise AUC, pointing game (finding)]", "report: [1]", "report is [1]", "list of texts"),
        ("reference: unguided", "reference: ungided", "'ungided' is no row above 'guided'", "Rows above: unguided"),
        ("name: guided", "name: unguided", "already", "of its own"),
        ("    recipe: fracture-guided\n", "", "row 2 has no recipe", "Write `recipe:`"),
        ("recipe: fracture-guided", "recipe: fractured", "row 2: There is no recipe 'fractured'", "Known"),
        ("epochs: 2", "epoch: 2", "no field 'epoch'", "Did you mean 'epochs'"),
        ("epochs: 2", "epochs: two", "my.yaml, row 1: epochs is 'two'; expected int", "Fix it in `change`."),
        ("epochs: 2", "epochs: 0", "my.yaml, row 1: epochs must be 1 or more", "Leave it out"),
        ("view.size", "veiw.size", "no part 'veiw'", "Did you mean 'view'"),
        ("kind: cell_focal", "kind: cel_focal", "'cel_focal' is unknown", "Known kinds"),
        ("gamma: 1.5", "gama: 1.5", "no field gama", "Its fields"),
        ("train_images: 300", "train_images: 3.5", "train_images is 3.5", "from 1 on"),
        ("wrong_marks: 0.1", "teacher: ungided", "teacher 'ungided' is no row", "Rows above: unguided"),
        ("wrong_marks: 0.1", "teacher: unguided\n    suggest: 50", "suggest is 50", "strategy"),
        ("wrong_marks: 0.1", "teacher: unguided\n    suggest: {by: x}", "'by' is no word", "strategy"),
        ("wrong_marks: 0.1", "teacher: unguided\n    suggest: {n: 0}", "suggest: n is 0", "from 1 on"),
        ("seeds: 2", "seeds: .nan", "seeds is nan", "from 1 on"),
        ("seeds: 2", "seeds: 99999999999", "seeds is 99999999999", "up to 1,000"),
        ("seeds: 2", "size: 15", "size is 15", "from 16 on"),
        ("seeds: 2", "seeds: 2\nseeds: 3", "line 4: 'seeds' stands twice", "Fix"),
        ("seeds: 2", "caption: [x]", "caption is ['x']", "a text"),
        ("title: Does the weight matter?", "title: 2020-13-45", "month must be in 1..12", "in quotes"),
        ("title: Does the weight matter?", "title: !!timestamp x", "a value that is none", "in quotes"),
        ("reference: unguided", "reference: [unguided]", "['unguided'] is no row above", "Rows above: unguided"),
        ("wrong_marks: 0.1", "teacher: {a: b}", "teacher {'a': 'b'} is no row", "Rows above: unguided"),
        ("wrong_marks: 0.1", "wrong_marks: .nan", "wrong_marks is nan", "up to 1"),
        ("wrong_marks: 0.1", "wrong_marks: 2", "wrong_marks is 2", "up to 1"),
        ("weight: 1", "regions.style: mask", "guided by the style 'mask'", "regions.style: box"),
        ("wrong_kind: enlarged", "wrong_kind: moved", "wrong_kind is 'moved'", "There are: elsewhere, shifted"),
        ("wrong_kind: enlarged", "wrong_kind: [shifted]", "wrong_kind is ['shifted']", "There are: elsewhere, shifted"),
        ("name: guided", 'name: "gui\\nded"', "is no line of up to 200", "Shorten"),
        ("    wrong_marks: 0.1\n", "", "wrong_kind says how", "Add `wrong_marks: 0.3`"),
        ("epochs: 2", "seed: 2", "row 1: seed would be written over", "--seeds"),
        ("epochs: 2", "title: x", "row 1: title would be written over", "`name`"),
        ("seeds: 2", "seeds: 2.0", "seeds is 2.0", "a whole number from 1 on"),
        (
            "title: Does the weight matter?",
            'title: "\\ud800"',
            "line 2: not YAML ('\\ud800', a value that is none",
            "Fix",
        ),
        ("rows:", "rows: 3\nother:", "is no word", "There are"),
        ("title: Does", "title: [Does", "line", "Fix"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, said, remedy):
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        table_of(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(caught.value)
    assert remedy in f"{caught.value} {caught.value.remedy}"


LAUGHS = "rows: [&a0 [ha], " + ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)) + "]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "rows: []",
        "rows: [3]",
        "rows: {a: 1}",
        "rows: " + "[" * 20_000,
        LAUGHS,
        GOOD.replace("2", "0x" + "F" * 9999, 1),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text):
    with pytest.raises(RecipeError):
        table_of(tmp_path, text)


def test_no_file_and_no_table_are_told_apart():
    with pytest.raises(RecipeError, match="does not exist"):
        find_table("nowhere.yaml", "recommended", Changes())
    with pytest.raises(RecipeError, match="no table 'nowhere'"):
        find_table("nowhere", "recommended", Changes())
