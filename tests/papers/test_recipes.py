"""Recipes and tables by name, and what a person may change in them."""

import dataclasses
from dataclasses import replace

import pytest
from support.cohorts import tiny_recipe

from sightline.errors import RecipeError
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import RECIPES, TABLES, find_recipe, find_table, list_names
from sightline.training.engine import Engine
from sightline.training.optimization import AdamW, CosineDecay, LayerRates, LinearDecay, Sgd, StepDecay
from sightline.training.recipe import format_recipe_json, read_recipe

SMALL = Changes(backbone="test_resnet", weights="none", size=48)


def test_the_listing_names_every_recipe_and_table():
    lines = list_names().splitlines()
    named = {line.split()[0] for line in lines if line.startswith("  ")}
    assert named == {*RECIPES, *TABLES}
    assert all(len(line.split(maxsplit=1)[1]) > 5 for line in lines if line.startswith("  "))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_gives_maps(name):
    import torch

    sees_volumes = name.startswith("spine")
    recipe = apply_changes(find_recipe(name), Changes(size=16) if sees_volumes else SMALL)
    # the map of a finding says no third thing
    classes = 2 if getattr(recipe.model, "one_map", False) is True else 3
    network = recipe.model.build(classes).eval()
    with torch.no_grad():
        evidence = network(torch.rand(2, 1, *[recipe.view.size if sees_volumes else 48] * (3 if sees_volumes else 2)))
    assert evidence.logits.shape == (2, classes)
    if sees_volumes and recipe.model.head == "convolutions":
        assert evidence.maps is None
    elif recipe.classifies:
        assert evidence.maps.shape[:2] == (2, classes)
    else:
        assert evidence.maps is None and evidence.extras["box"].shape == (2, 4)
    assert format_recipe_json(recipe, CATALOGUE)


@pytest.mark.parametrize(
    ("name", "guided", "weight"),
    [("unguided", False, 0.0), ("attended", False, 0.0), ("guided", True, 0.1), ("l1", False, 1e-8),
     ("small-guided", True, 1.0), ("fracture-unguided", False, 0.0), ("fracture-guided", True, 0.3)],
)  # fmt: skip
def test_which_recipes_are_guided(name, guided, weight):
    recipe = find_recipe(name)
    assert (recipe.guided_by_regions, recipe.weight) == (guided, weight)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ({"epochs": 7}, lambda r: r.epochs == 7),
        ({"steps": 9}, lambda r: r.steps == 9),
        ({"size": 96}, lambda r: r.view == replace(find_recipe("guided").view, size=96)),
        ({"batch_size": 4}, lambda r: r.batch_size == 4),
        ({"weight": 0.7}, lambda r: r.weight == 0.7),
        ({"style": "scribble"}, lambda r: r.regions == replace(find_recipe("guided").regions, style="scribble")),
        ({"role": "finding"}, lambda r: r.regions.role == "finding"),
        ({"backbone": "resnet18"}, lambda r: r.model.backbone.name == "resnet18"),
        ({"weights": "none"}, lambda r: r.model.backbone.weights is None),
        ({"weights": "w.safetensors"}, lambda r: r.model.backbone.weights == "w.safetensors"),
        ({"rate": 0.5}, lambda r: r.schedule == LinearDecay(0.5, 1e-5)),
        ({"precision": "bf16-mixed"}, lambda r: r.precision == "bf16-mixed"),
        ({"seed": 5}, lambda r: r.seed == 5),
    ],
)
def test_each_option_changes_its_field_and_nothing_else(change, read):
    before = find_recipe("guided")
    after = apply_changes(before, Changes(**change))
    assert read(after) and after != before
    (name,) = change
    field = {"size": "view", "style": "regions", "role": "regions", "backbone": "model", "weights": "model",
             "rate": "schedule"}.get(name, name)  # fmt: skip
    assert replace(after, **{field: getattr(before, field)}) == before


def test_no_change_is_no_change():
    assert apply_changes(find_recipe("small-guided"), Changes()) == find_recipe("small-guided")


def test_select_is_changed_where_validation_is_not_trained_on():
    assert apply_changes(find_recipe("small-guided"), Changes(select="auc")).select == "auc"
    with pytest.raises(RecipeError, match="validation"):
        apply_changes(find_recipe("guided"), Changes(select="auc"))


@pytest.mark.parametrize(
    "change",
    [{"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}, {"rate": 1e300}, {"size": 0}, {"size": 10**6}],
    ids=str,
)
def test_a_rate_or_size_of_nothing_is_refused_with_a_remedy(change):
    with pytest.raises(RecipeError, match=f"{next(iter(change))} must be") as caught:
        Changes(**change)
    assert caught.value.remedy


def test_unknown_names_give_the_list():
    with pytest.raises(RecipeError, match="no recipe 'gided'") as caught:
        find_recipe("gided")
    assert all(name in caught.value.remedy for name in RECIPES)
    with pytest.raises(RecipeError, match="no table 'table9'") as caught:
        find_table("table9", "recommended", Changes())
    assert all(name in caught.value.remedy for name in TABLES)


def test_a_recipe_is_found_as_a_file_and_as_a_run_folder(tmp_path):
    recipe = tiny_recipe(seed=4)
    (tmp_path / "recipe.json").write_text(format_recipe_json(recipe, CATALOGUE))
    assert find_recipe(str(tmp_path)) == recipe == find_recipe(str(tmp_path / "recipe.json"))
    with pytest.raises(RecipeError, match="does not exist"):
        find_recipe(str(tmp_path / "other.json"))


def test_rows_keep_their_references():
    table = find_table("liao2022/table3", "recommended", Changes(), ("s-512 guided 0.1 segm",))
    assert [row.name for row in table.rows] == ["s-512 baseline", "s-512 guided 0.1 segm"]
    table = find_table("liao2022/supplement2", "recommended", Changes(), ("ankle self attention guided 0.5 bbox",))
    assert [row.name for row in table.rows] == ["ankle self attention", "ankle self attention guided 0.5 bbox"]
    with pytest.raises(RecipeError, match="No row of liao2022/table3 contains nothing") as caught:
        find_table("liao2022/table3", "recommended", Changes(), ("nothing",))
    assert "s-768 guided 5 segm" in caught.value.remedy


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_references_before_the_rows_compared_with_them(name):
    for profile in ("paper", "official_code", "recommended"):
        rows = TABLES[name](profile).rows
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        for i, row in enumerate(rows):
            assert row.reference is None or row.reference in names[:i]
        # rows that would train the same thing twice would say nothing
        trained = {
            (
                format_recipe_json(replace(r.recipe, title=""), CATALOGUE),
                r.train_per_class,
                r.train_images,
                r.seed_offset,
                r.wrong_marks,
                r.wrong_kind,
                r.teacher,
                r.teaching,
            )
            for r in rows
        }
        assert len(trained) >= len(rows) - (13 if name.endswith("supplement1") else 3)


def test_sizes_in_a_table_keep_their_ratio():
    sizes = {row.recipe.view.size for row in find_table("liao2022/table3", "recommended", Changes(size=128)).rows}
    assert sizes == {128, 192}
    assert {r.recipe.view.size for r in find_table("liao2022/cub200", "recommended", Changes(size=64)).rows} == {56}


# -- a stranger's recipe ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"kind": "recipe"', '"kind": "view"', "view has no field"),
        ('"kind": "linear_decay"', '"kind": ["linear_decay"]', "unknown"),
        ('"weight": 0.1', '"weight": NaN', "NaN is no number"),
        ('"weight": 0.1', '"weight": 1e999', "weight must be"),
        ('"weight": 0.1', '"weight": -0.1', "weight must be"),
        ('"seed": 0', '"seed": -1', "seed must be"),
        ('"start": 0.01', '"start": -0.01', "start must be"),
        ('"start": 0.01', '"start": 1e999', "start must be"),
        ('"epochs": 3', '"epochs": true', "epochs is True"),
        ('"epochs": 3', '"epochs": 3.5', "epochs is 3.5"),
    ],
)
def test_a_spoilt_recipe_is_one_clear_error(tmp_path, old, new, message):
    text = format_recipe_json(tiny_recipe(), CATALOGUE)
    assert old in text
    path = tmp_path / "recipe.json"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError, match=message):
        read_recipe(path, CATALOGUE)


@pytest.mark.parametrize("part", ["model", "schedule", "optimiser", "guidance"])
def test_a_part_that_cannot_serve_is_refused_when_read(tmp_path, part):
    import json

    data = json.loads(format_recipe_json(tiny_recipe(), CATALOGUE))
    data[part] = {"kind": "view"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecipeError, match=rf"recipe.{part} is View.*; expected "):
        read_recipe(path, CATALOGUE)


@pytest.mark.parametrize("content", [b"", b"[1]", b'"x"', b"{}", b"\xff\xfe{", b'{"kind": "view"}', b"{]"])
def test_what_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, CATALOGUE)
    assert "recipe" in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("schedule", [LinearDecay, CosineDecay, StepDecay])
def test_rates_that_are_none_are_refused(schedule, rate):
    with pytest.raises(RecipeError, match="start must be"):
        schedule(rate)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"weight": 1e300}, "weight"), ({"schedule": LinearDecay(1e300)}, "schedule.start"),
        ({"optimiser": Sgd(weight_decay=float("nan"))}, "optimiser.weight_decay"),
        ({"rates": LayerRates({"encoder": 1e300})}, "rates.factors.encoder"),
        ({"optimiser": Sgd(weight_decay=-0.7)}, "weight_decay"), ({"optimiser": AdamW(betas=(0.9, 2.0))}, "beta"),
        ({"optimiser": Sgd(momentum=0.0, nesterov=True)}, "momentum"),
    ],
)  # fmt: skip
def test_numbers_that_no_training_can_bear_are_refused_by_their_place(change, place):
    with pytest.raises(RecipeError, match=place) as caught:
        dataclasses.replace(find_recipe("small-guided"), **change)
    assert caught.value.remedy


def test_engines_that_do_not_exist_are_refused():
    import torch

    from sightline.errors import RunError

    for name, numbers in (("devices", (0, 10**6)), ("workers", (-1, 10**6))):
        for number in numbers:
            with pytest.raises(RunError, match=f"{name} must be .* got {number}") as caught:
                Engine(**{name: number})
            assert f"--{name}" in caught.value.remedy
    with pytest.raises(RunError, match="banana"):
        Engine(device="cpu").fabric("banana")
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="cannot train on 1 x 'cuda'"):
            Engine(device="cuda").fabric("32-true")


def test_rows_are_left_out_though_others_are_compared_with_them():
    def references(*without, rows=("3 x longer, 75",)):
        table = find_table("fracatlas/curve", "recommended", Changes(), rows, without)
        return {row.name: row.reference for row in table.rows}

    short, longer = "unguided mean, 75 images", "unguided mean 3 x longer, 75 images"
    guided = "guided all marks 3 x longer, 75 images"
    assert references() == {short: None, longer: short, guided: longer}
    assert references(short) == {longer: None, guided: longer}
    # compared with what the one left out was compared with
    assert references(longer) == {short: None, guided: short}
    with pytest.raises(RecipeError, match="has no row 'unguided'"):
        references("unguided")
    with pytest.raises(RecipeError, match="No row is left"):
        references(short, longer, guided)
    with pytest.raises(RecipeError, match="is made of or taught by"):
        references(guided, rows=("two networks: unguided and guided, 75 images",))


def test_a_rows_whole_name_asks_for_that_row_alone():
    def asked(*rows):
        return [row.name for row in find_table("localisers/fracatlas", "recommended", Changes(), rows).rows]

    assert asked("patches, 20% boxes") == ["mean pooling", "patches, 20% boxes"]
    assert asked("20% boxes, self") == ["mean pooling", "patches, 20% boxes", "patches, 20% boxes, self-trained"]
    assert "top 2%, self-trained" in asked("top 2")


def test_no_part_of_a_recipe_has_a_field_that_its_json_needs_for_the_kind():
    for word, part in CATALOGUE.items():
        assert "kind" not in {field.name for field in dataclasses.fields(part)}, word
