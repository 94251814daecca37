"""The recipes and tables of Liao et al. 2022 are the paper's: every field it prints, every row it lists."""

from collections import Counter

import pytest

from sightline.evaluation.tables.table import PublishedValue
from sightline.losses.map_norm import MapNorm
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.necks import PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.pooling import MeanPool, SoftmaxPool
from sightline.papers import liao2022
from sightline.papers import liao2022 as liao2022_published
from sightline.training.optimization import LinearDecay, Sgd, StepDecay

PROFILES = ("paper", "official_code", "recommended")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("size", "batch_size"), [(512, 16), (768, 8)])
def test_section_v(profile, size, batch_size):
    recipe = liao2022.build_base_recipe(profile, size)
    assert recipe.schedule == LinearDecay(1e-3, 1e-5)
    assert recipe.optimiser == Sgd(momentum=0.9, weight_decay=5e-4, nesterov=False)
    assert (recipe.epochs, recipe.steps, recipe.batch_size) == (100, None, batch_size)
    assert recipe.train_on == ("train", "val") and recipe.select == "last" and recipe.ema_decay == 0.0
    assert recipe.view.size == size and recipe.view.rotation_deg == 30.0 and recipe.view.flip_chance == 0.5
    assert recipe.view.crop_area == (0.8, 1.0) and recipe.view.contrast == recipe.view.brightness == 0.0
    # PyTorch's own weights where paper or code are followed
    assert recipe.model.backbone.name == ("resnet50" if profile == "recommended" else "resnet50.tv_in1k")
    assert recipe.model.backbone.weights == "imagenet"
    assert recipe.model.backbone.output_stride == 32 and recipe.model.fusion is None
    assert isinstance(recipe.model.pool, MeanPool) and recipe.model.attention is None
    assert recipe.reweight == "none" and recipe.guidance is None and recipe.weight == 0.0


def test_lambda_zero_changes_only_the_pooling():
    base = liao2022.build_base_recipe()
    attended = liao2022.set_softmax_pooling(base)
    assert isinstance(attended.model.pool, SoftmaxPool) and attended.guidance is None
    assert (attended.view, attended.optimiser, attended.schedule) == (base.view, base.optimiser, base.schedule)
    assert liao2022.build_guided_recipe(base, 0.0) == attended


@pytest.mark.parametrize("style", ["scribble", "box", "mask"])
def test_guidance_is_shared_by_all_classes_on_focus_regions(style):
    recipe = liao2022.build_guided_recipe(liao2022.build_base_recipe(), 0.1, style)
    assert isinstance(recipe.guidance, SpatialNLL) and recipe.weight == 0.1 and recipe.guided_by_regions
    assert (recipe.regions.style, recipe.regions.role, recipe.regions.classes) == (style, "focus", "all")
    assert recipe.regions.margin_px == 0.0 and isinstance(recipe.model.pool, SoftmaxPool)


def styles_and_weights(rows):
    return Counter((row.recipe.weight, row.recipe.regions.style) for row in rows if row.recipe.guided_by_regions)


GRID = {(w, s): 1 for w in (0.01, 0.1, 1.0, 5.0) for s in ("scribble", "box", "mask")}


@pytest.mark.parametrize("profile", PROFILES)
def test_table3_has_nineteen_rows_at_each_size(profile):
    table = liao2022.build_table3(profile)
    assert len(table.rows) == 38
    for size in (512, 768):
        rows = [row for row in table.rows if row.recipe.view.size == size]
        assert len(rows) == 19 and all(row.name.startswith(f"s-{size} ") for row in rows)
        assert styles_and_weights(rows) == GRID
        plain = [row for row in rows if not row.recipe.guided_by_regions]
        modules = [type(r.recipe.model.attention) for r in plain if r.recipe.model.attention is not None]
        assert modules == [ResidualAttention, SelfAttention, PyramidAttention]
        penalties = [(r.recipe.guidance.norm, r.recipe.weight) for r in plain if isinstance(r.recipe.guidance, MapNorm)]
        assert penalties == [(1, 1e-8), (2, 1e-8)]
        assert [r.reference for r in rows] == [None] + [f"s-{size} baseline"] * 18


@pytest.mark.parametrize("profile", PROFILES)
def test_table4_is_reweighted_and_has_sixteen_rows(profile):
    rows = liao2022.build_table4(profile).rows
    assert len(rows) == 16 and {row.recipe.reweight for row in rows} == {"inverse_frequency"}
    assert {row.recipe.view.size for row in rows} == {512}
    assert styles_and_weights(rows) == {(w, s): 1 for w in (0.1, 0.5, 1.0) for s in ("scribble", "box", "mask")}
    assert [(r.recipe.guidance.norm, r.recipe.weight) for r in rows if isinstance(r.recipe.guidance, MapNorm)] == [
        (1, 1e-9), (2, 1e-8),
    ]  # fmt: skip


def test_supplement1_is_resnet101_thirteen_and_ten():
    rows = liao2022.build_supplement1().rows
    scaphoid = [r for r in rows if r.name.startswith("scaphoid")]
    ankle = [r for r in rows if r.name.startswith("ankle")]
    assert (len(scaphoid), len(ankle), len(rows)) == (13, 10, 23)
    assert {r.recipe.model.backbone.name for r in rows} == {"resnet101"}
    assert styles_and_weights(scaphoid) == GRID
    assert {r.recipe.reweight for r in scaphoid} == {"none"}
    assert {r.recipe.reweight for r in ankle} == {"inverse_frequency"}


def test_supplement2_is_eighteen_rows_and_a_reference_each_module():
    rows = liao2022.build_supplement2().rows
    guided = [r for r in rows if r.recipe.guided_by_regions]
    assert (len(guided), len(rows)) == (18, 24)
    assert all(r.recipe.model.attention is not None for r in rows)
    assert Counter((r.name.split()[0], r.recipe.weight) for r in guided) == {("scaphoid", 1.0): 9, ("ankle", 0.5): 9}
    for row in guided:
        reference = next(r for r in rows if r.name == row.reference)
        assert reference.recipe.model.attention == row.recipe.model.attention
        assert reference.recipe.reweight == row.recipe.reweight
        assert isinstance(row.recipe.model.pool, SoftmaxPool) and isinstance(reference.recipe.model.pool, MeanPool)


def test_cub200_is_the_released_codes_setting():
    rows = liao2022.build_cub200_table().rows
    assert len(rows) == 20
    assert Counter(row.train_per_class for row in rows) == {5: 5, 10: 5, 15: 5, 20: 5}
    for row in rows:
        recipe = row.recipe
        assert recipe.schedule == StepDecay(1e-3, 0.1, 30) and recipe.epochs == 95 and recipe.batch_size == 32
        assert recipe.optimiser == Sgd(momentum=0.9, weight_decay=1e-4) and recipe.train_on == ("train",)
        assert recipe.view.size == 448 and recipe.view.crop_area == (0.08, 1.0) and recipe.view.rotation_deg == 0.0
        # RandomResizedCrop(448), Resize(512), CenterCrop(448)
        assert recipe.view.crop_ratio == pytest.approx((3 / 4, 4 / 3)) and recipe.view.centre_crop == 0.875
    assert sorted({row.recipe.weight for row in rows}) == [0.0, 0.001, 0.01, 0.1]


def test_profiles_differ_where_paper_and_code_do():
    guidance = {
        p: liao2022.build_guided_recipe(liao2022.build_base_recipe(p), 0.1, "mask", p).guidance for p in PROFILES
    }
    assert len(set(guidance.values())) >= 2
    assert guidance["official_code"] != guidance["paper"]
    norms = {p: liao2022.add_norm_penalty(liao2022.build_base_recipe(p), 1, 1e-8, p).guidance for p in PROFILES}
    assert norms["paper"] != norms["recommended"]


def test_published_values_are_those_printed():
    """A few cells copied by hand from the paper's tables and the released README."""
    t3 = {row.name: row.published for row in liao2022.build_table3().rows}
    assert t3["s-512 baseline"]["study-wise accuracy, test"] == PublishedValue(76.4, 0.9)
    assert t3["s-512 guided 1 bbox"]["study-wise accuracy, test"] == PublishedValue(84.2, 0.8)
    t4 = {row.name: row.published for row in liao2022.build_table4().rows}
    assert t4["baseline"]["study-wise accuracy, test"] == PublishedValue(69.0, 2.8)
    assert not any(key.endswith("external") for key in t4["guided 0.5 segm"])
    cub = {row.name: row.published for row in liao2022.build_cub200_table().rows}
    assert cub["n=5 guided 0.001"]["image-wise accuracy, test"] == PublishedValue(50.9)
    assert cub["n=20 original"]["image-wise accuracy, test"] == PublishedValue(72.9)
    assert cub["n=5 guided 0"] == {}


def test_every_published_cell_stands_beside_a_row():
    t3 = [row for row in liao2022.build_table3().rows if row.published]
    assert len(t3) == 38
    assert {r.name for r in liao2022.build_table4().rows if r.published} == set(liao2022_published.TABLE4)
    assert {r.name for r in liao2022.build_cub200_table().rows if r.published} == set(liao2022_published.CUB200)


def test_the_published_cells_are_plausible_percentages():
    for cells in (liao2022_published.TABLE3_S512, liao2022_published.TABLE3_S768, liao2022_published.TABLE4):
        for row in cells.values():
            for value in row.values():
                assert 50 < value.mean < 90 and 0 < value.std < 12
