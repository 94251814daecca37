"""The learning curve's rows differ in what they should, and recipes from before its fields keep their identity."""

import json
from dataclasses import replace

import numpy as np
from support.cohorts import make_cohort

from sightline.data.targets.region_targets import UNKNOWN, RegionTargets
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.fracatlas.learning_curve import SIZES, build_guided_recipe, build_table, build_unguided_recipe
from sightline.papers.liao2022 import build_base_recipe
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table
from sightline.structures.frame import Frame
from sightline.training.recipe import format_recipe_json
from sightline.training.serialization import build_from_plain, to_plain


def test_twins_differ_in_pool_and_loss_alone():
    ours, theirs = to_plain(build_guided_recipe(), CATALOGUE), to_plain(build_unguided_recipe(), CATALOGUE)
    apart = {name for name in ours | theirs if ours.get(name) != theirs.get(name)}
    assert apart == {"title", "model", "guidance", "weight", "regions"}
    assert {k for k in ours["model"] if ours["model"][k] != theirs["model"][k]} == {"pool"}
    rows = {row.name: row.recipe for row in build_table().rows}
    for words in ("guided all marks", "unguided mean"):
        short, long = rows[f"{words}, 75 images"], rows[f"{words} 3 x longer, 75 images"]
        assert long == replace(short, steps=3 * (short.steps or 0))


def test_every_row_has_a_reference_of_its_own_size_before_it():
    rows = build_table().rows
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        if row.reference is not None:
            reference = next(r for r in rows if r.name == row.reference)
            assert names.index(row.reference) < names.index(row.name)
            assert reference.train_images == row.train_images
    assert {row.train_images for row in rows} == set(SIZES)


def test_two_networks_are_of_the_same_images_and_differ_in_guidance_or_chance_alone():
    table = find_table("fracatlas/curve", "recommended", Changes(), ("two networks: unguided and guided, 300 images",))
    rows = {row.name.removesuffix(", 300 images"): row for row in table.rows}
    twice, guided = rows["two networks: unguided mean twice"], rows["two networks: unguided and guided"]
    assert guided.reference == twice.name and {row.train_images for row in rows.values()} == {300}
    first, again = (rows[name] for name in ("unguided mean 3 x longer", "unguided mean again"))
    assert list(twice.parts.values()) == [again.name, first.name]
    assert first.recipe == again.recipe and (first.seed_offset, again.seed_offset) == (0, 100)
    assert guided.parts["members.1"] == first.name and guided.recipe.model.maps_of == (0,)
    # its marks are counted, and what they cost
    assert guided.recipe.guided_by_regions and not twice.recipe.guided_by_regions
    # the other twin pools as the guided network does
    (both,) = (r for r in build_table().rows if r.name == "two networks: unguided, mean and softmax, 300 images")
    assert both.recipe.model == replace(guided.recipe.model, maps_of=())


def test_a_row_brings_what_its_reference_is_compared_with():
    rows = find_table("fracatlas/map_to_answer", "recommended", Changes(), ("PYLON",)).rows
    assert [row.name for row in rows] == ["unguided", "guided", "PYLON"]
    # of another row of three steps
    name = "patches, 5% boxes, self-trained"
    taught = find_table("localisers/fracatlas", "recommended", Changes(), (name,)).rows
    assert [row.name for row in taught] == ["mean pooling", "patches, 5% boxes", name]


def test_a_recipe_without_the_new_fields_is_written_as_before():
    text = format_recipe_json(build_base_recipe(), CATALOGUE)
    assert not any(word in text for word in ("draws", "frozen_precision", "unmarked", "validate", "trimmed"))
    new = format_recipe_json(build_guided_recipe(0.05), CATALOGUE)
    assert all(word in new for word in ('"draws": 3', '"frozen_precision": "bf16"', '"unmarked": "unknown"'))
    assert build_from_plain(json.loads(new), CATALOGUE) == build_guided_recipe(0.05)


def test_pictures_whose_mark_is_hidden_say_nothing_of_their_cells(tmp_path):
    cohort = make_cohort(tmp_path / "c", patients=24).split("train")
    choice = build_guided_recipe(0.3).regions
    shown = choice.patients(cohort)
    targets = RegionTargets(cohort, choice, 10**6)
    frame = Frame.of_image((40, 48))
    seen = set()
    for index, case in enumerate(cohort):
        target, marked = targets.draw(index, frame, frame)
        if case.label == "no fracture":
            assert not target.any()
        elif case.patient_id in shown:
            assert marked[1]
            assert set(np.unique(target[1])) == {0, 1}
        else:
            assert not marked.any()
            assert (target == UNKNOWN).all()
        seen.add((case.label, case.patient_id in shown))
    assert len(seen) >= 3
