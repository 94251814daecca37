"""Pre-flight: known mistakes are caught, sound maps pass, and nothing is left behind."""

import random

import numpy as np
import pytest
import timm
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.nn import functional as F

from sightline.errors import GeometryError, RunError
from sightline.explainers.backprop_rules.network_activations import count_activations
from sightline.explainers.cam import ClassActivationMap, GradCAM
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad
from sightline.explainers.sanity_checks.preflight import MOST_SHUFFLES, run_preflight
from sightline.explainers.sanity_checks.side_effects import StateSnapshot
from sightline.explainers.sanity_checks.similarity import (
    compute_rank_correlation,
    compute_relative_difference,
    correlate,
    measure_blankness,
)
from sightline.explainers.sanity_checks.weight_randomisation import list_layers_in_order, randomise_weights
from sightline.structures.evidence import Evidence


class Net(nn.Module):
    """Three convolutions with batch norm; class maps and their mean."""

    def __init__(self, activation=nn.ReLU, pool=nn.MaxPool2d, classes=3):
        super().__init__()
        parts, channels = [], 1
        for width in (8, 16, 16):
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), activation(), pool(2)]
            channels = width
        self.trunk = nn.Sequential(*parts)
        self.attention = nn.Identity()
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x):
        maps = self.head(self.attention(self.trunk(x)))
        return Evidence(maps.flatten(2).mean(-1), maps)


class Whole(nn.Module):
    """A network of timm's."""

    def __init__(self, name, **options):
        super().__init__()
        self.net = timm.create_model(name, num_classes=3, **options)

    def forward(self, x):
        return Evidence(self.net(x))


class HookedReLU:
    """Guided back-propagation or deconvolution as found in many repositories: hooks on nn.ReLU modules."""

    def __init__(self, rule="guided", forget=False):
        self.how = rule
        self.forget = forget

    def __call__(self, model, batch, classes, *, create_graph=False):
        def guided(_module, grads, _arriving):
            return (grads[0].clamp(min=0),)

        def deconvolution(_module, _grads, arriving):
            return (arriving[0].clamp(min=0),)

        hook = guided if self.how == "guided" else deconvolution
        hooks = [m.register_full_backward_hook(hook) for m in model.modules() if isinstance(m, nn.ReLU)]
        try:
            x = batch.clone().requires_grad_()
            z = model(x).logits
            maps = [torch.autograd.grad(z[:, c].sum(), x, retain_graph=True)[0].abs().amax(1) for c in classes]
        finally:
            for h in hooks[: -1 if self.forget else None]:
                h.remove()
        return torch.stack(maps, dim=1)


def own_map(make):
    """An explainer from a function of model, images, class."""

    def explainer(model, batch, classes, *, create_graph=False):
        return torch.stack([make(model, batch, c) for c in classes], dim=1)

    return explainer


def pictures(n=4, size=64, channels=1, seed=0):
    """Soft discs at different places on a body that all share, with some noise."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    found = []
    for _ in range(n):
        a, b, c = torch.rand(3, generator=g)
        disc = torch.exp(-((y - a + 0.5) ** 2 + (x - b + 0.5) ** 2) / (0.1 + c))
        body = torch.exp(-(y**2 + x**2) / 0.6)
        found.append((0.5 * disc + 0.3 * body + 0.05 * torch.rand(size, size, generator=g)).expand(channels, -1, -1))
    return torch.stack(found)


@pytest.fixture(scope="module")
def trained():
    """Learns where something is bright, left or right, and what shape it has; half a second."""
    torch.manual_seed(3)
    network, g = Net(), torch.Generator().manual_seed(5)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)

    def batch(n):
        label = torch.randint(0, 3, (n,), generator=g)
        images = 0.4 * torch.rand(n, 1, 32, 32, generator=g)
        for i, c in enumerate(label.tolist()):
            r, s = torch.randint(4, 20, (2,), generator=g).tolist()
            if c == 1:
                images[i, 0, r : r + 8, s : s + 8] += 0.5
            if c == 2:
                images[i, 0, r : r + 8 : 2, s : s + 8] += 0.5
        return images, label

    for _ in range(120):
        images, label = batch(16)
        optimiser.zero_grad()
        F.cross_entropy(network(images).logits, label).backward()
        optimiser.step()
    network.eval()
    images, label = batch(64)
    assert (network(images).logits.argmax(1) == label).float().mean() > 0.85
    return network, images[label > 0][:6]


SOUND = [
    ClassActivationMap(),
    GradCAM(relu=False),
    GradCAM(),
    InputGradient(),
    InputGradient(reduce="absolute_sum"),
    SmoothGrad(InputGradient(), samples=3),
]


@pytest.mark.parametrize("explainer", SOUND, ids=lambda e: f"{type(e).__name__}")
def test_sound_maps_of_a_trained_network_pass(trained, explainer):
    for seed in range(3):
        report = run_preflight(*trained, explainer, classes=[1, 2], seed=seed)
        assert report.passed, report
        assert report.finding("image").severity == "ok", report
        assert report.finding("weights").severity in ("ok", "note")
    assert report.maps.shape[:2] == (6, 2)
    assert report.classes == (1, 2)


def test_false_alarms_on_random_networks_are_rare():
    alarms, asked = [], 0
    for seed in range(3):
        torch.manual_seed(seed)
        for network in (Net(), Net(nn.SiLU, nn.AvgPool2d)):
            for explainer in (ClassActivationMap(), GradCAM(relu=False), InputGradient()):
                report = run_preflight(network.eval(), pictures(3, 32), explainer, seed=seed)
                asked += 1
                alarms += [str(report)] if not report.passed else []
    assert asked == 18
    assert not alarms, "\n\n".join(alarms)


@pytest.fixture(scope="module")
def efficientnet():
    """The smallest of its kind: SiLU on maps and in gates, no max pooling."""
    torch.manual_seed(0)
    return Whole("test_efficientnet").eval()


def test_guided_back_propagation_by_hooks_on_efficientnet_is_caught(efficientnet):
    for rule in ("guided", "deconvolution"):
        report = run_preflight(efficientnet, pictures(2, channels=3), HookedReLU(rule))
        assert not report.passed
        found = report.finding("plain gradient")
        assert found.severity == "wrong"
        assert found.numbers["correlation"] == pytest.approx(1.0, abs=1e-4)
        assert "greatest absolute value" in found.message
        assert "9 silu" in report.finding("activations").message


def test_the_same_hooks_on_a_relu_network_are_what_they_say(trained):
    network, images = trained
    report = run_preflight(network, images, HookedReLU("guided"))
    assert report.finding("plain gradient").severity == "ok"
    assert report.finding("image").severity == "ok"


@pytest.mark.slow
def test_our_guided_rule_on_efficientnet_reaches_silu():
    torch.manual_seed(0)
    report = run_preflight(Whole("efficientnet_b0").eval(), pictures(2, 48, channels=3), InputGradient("guided"))
    assert report.passed, report
    numbers = report.finding("activations").numbers
    assert numbers == {"rewired_silu": 33.0, "gates_silu": 16.0}
    assert report.finding("plain gradient").numbers["correlation"] < 0.9
    # known of it, and said: it hardly looks at the class
    assert report.finding("class").severity != "ok"


def test_a_rule_that_only_touches_relu_is_caught_within_noise_and_products(efficientnet):
    """SmoothGrad's average is not the plain gradient, but what it averages is."""
    report = run_preflight(efficientnet, pictures(2, channels=3), SmoothGrad(HookedReLU(), samples=2))
    assert report.finding("plain gradient").severity == "wrong"


@pytest.mark.parametrize("explainer", [InputGradient("deconvolution"), HookedReLU("deconvolution")])
@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_deconvolution_without_max_pooling_is_caught(explainer, pool):
    torch.manual_seed(1)
    report = run_preflight(Net(pool=pool).eval(), pictures(3, 32), explainer)
    found = report.finding("image")
    if pool is nn.MaxPool2d:
        assert found.severity == "ok", report
        return
    assert not report.passed
    assert found.severity == "wrong"
    assert found.numbers["between_images"] == pytest.approx(1.0, abs=1e-6)
    assert found.numbers["difference_image_and_noise"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_deconvolution_on_efficientnet_is_caught_also_where_gates_let_some_of_the_picture_in(efficientnet):
    images = pictures(3, channels=3)
    assert run_preflight(efficientnet, images, InputGradient("deconvolution")).finding("image").severity == "wrong"
    torch.manual_seed(0)
    awake = Whole("test_efficientnet")
    for module in awake.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        awake(torch.cat([images, torch.rand_like(images)]))
    found = run_preflight(awake.eval(), images, InputGradient("deconvolution")).finding("image")
    # the same noise makes another map, different pictures hardly do
    assert found.severity == "wrong"
    assert found.numbers["image_and_noise"] < 0.97 < found.numbers["between_images"]
    assert run_preflight(awake, images, InputGradient("guided")).finding("image").severity == "ok"


def test_edges_of_the_picture_are_not_what_the_network_learned(trained):
    edges = own_map(lambda model, x, c: x.diff(dim=-1, append=x[..., -1:]).abs().sum(1))
    report = run_preflight(*trained, edges)
    weights = report.finding("weights")
    assert weights.severity == "wrong"
    assert weights.numbers["all"] == pytest.approx(1.0)
    assert weights.numbers["shuffles_of_all"] == MOST_SHUFFLES
    assert report.finding("class").severity == "wrong"


def test_a_map_of_the_features_alone_does_not_know_the_class(trained):
    features = own_map(lambda model, x, c: model.trunk(x).mean(1))
    report = run_preflight(*trained, features)
    assert report.finding("class").severity == "wrong"
    assert report.finding("image").severity == "ok"
    # shuffling the head alone changes nothing
    assert report.finding("weights").numbers["head"] == pytest.approx(1.0)
    assert report.finding("weights").severity != "ok"


@pytest.mark.parametrize(
    ("value", "share", "said"),
    [(0.0, "zero", "zero everywhere"), (2.5, "constant", "one value"), (np.nan, "not_finite", "finite")],
)
def test_blank_maps_are_told_by_kind_and_share(trained, value, share, said):
    network, images = trained

    def half(model, x, c):
        maps = ClassActivationMap()(model, x, [c])[:, 0].detach().clone()
        maps[: len(x) // 2] = value
        return maps

    found = run_preflight(network, images, own_map(half)).finding("blank")
    assert found.numbers[share] == pytest.approx(0.5)
    assert said in found.message
    # a part of the images may be blank; what is not a number may not be
    assert found.severity == ("wrong" if share == "not_finite" else "note")
    whole = run_preflight(network, images, own_map(lambda model, x, c: torch.full((len(x), 4, 4), value)))
    assert whole.finding("blank").severity == "wrong"
    assert whole.finding("image").severity == "note"
    assert "could not be judged" in whole.finding("image").message.lower()


def test_a_class_that_was_asked_for_must_show_something(trained):
    network, images = trained

    def second_only(model, x, c):
        return ClassActivationMap()(model, x, [1])[:, 0] * float(c == 1)

    assert run_preflight(network, images, own_map(second_only), classes=[0, 1]).finding("blank").severity == "wrong"
    network_classes = run_preflight(network, images, own_map(second_only)).classes
    assert 1 in network_classes
    assert run_preflight(network, images, own_map(second_only)).finding("blank").severity == "note"


def test_an_activation_of_ones_own_is_named():
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx, g):
            s = torch.sigmoid(ctx.saved_tensors[0])
            return g * s * (1 + ctx.saved_tensors[0] * (1 - s))

    class MemoryEfficientSwish(nn.Module):
        def forward(self, x):
            return Swish.apply(x)

    torch.manual_seed(0)
    network = Net(MemoryEfficientSwish).eval()
    found = count_activations(network, pictures(1, 32))
    assert found.own == {"MemoryEfficientSwish": 3}
    assert found.max_pools == 3
    report = run_preflight(network, pictures(2, 32), InputGradient("guided"))
    assert report.finding("activations").severity == "wrong"
    assert "MemoryEfficientSwish" in report.finding("activations").message
    assert report.finding("plain gradient").severity == "ok" or not report.passed


def test_calls_are_counted_as_modules_functions_and_in_gates():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            y = torch.tanh(F.silu(self.act(x.clone())))
            gate = torch.sigmoid(F.relu(y.mean((2, 3), keepdim=True)))
            return Evidence((self.drop(y) * gate).amax((2, 3)))

    found = count_activations(Gated().eval(), torch.randn(1, 2, 8, 8))
    assert found.on_maps == {"relu": 1, "silu": 1, "tanh": 1}
    assert found.in_gates == {"relu": 1, "sigmoid": 1}
    assert not found.own


def everything(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        {n: m.training for n, m in model.named_modules()},
        {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        [p.requires_grad for p in model.parameters()],
        [
            [len(getattr(m, k)) for k in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
            for m in model.modules()
        ],
        (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),  # noqa: NPY002
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_all_generators_are_left_as_they_were(training):
    torch.manual_seed(2)
    network = Net().train(training)
    network.trunk[0].weight.requires_grad_(False)
    network(pictures(2, 32)).logits.sum().backward()
    images = pictures(2, 32)

    def careless(model, batch, classes, *, create_graph=False):
        _ = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        x = batch.requires_grad_()
        model(x).logits.sum().backward()
        model.train()
        return x.grad.abs().sum(1)[:, None].expand(-1, len(classes), -1, -1)

    class Failing:
        calls = 0

        def __call__(self, model, batch, classes, *, create_graph=False):
            self.calls += 1
            if self.calls == 4:
                raise ValueError("no more")
            return careless(model, batch, classes)

    before = everything(network)
    report = run_preflight(network, images, careless)
    assert same(everything(network), before)
    left = report.finding("traces")
    assert left.severity == "wrong"
    assert "gradients stored on weights" in left.message
    assert "mode" in left.message
    assert "weights or running statistics" not in left.message
    with pytest.raises(RunError, match="ValueError: no more"):
        run_preflight(network, images, Failing())
    assert same(everything(network), before)
    modes = [f.kind for f in report.findings if f.kind == "mode"]
    assert modes == (["mode"] if training else [])


def test_forgotten_hooks_are_found(trained):
    network, images = trained
    assert "hooks" in run_preflight(network, images, HookedReLU(forget=True)).finding("traces").message
    assert run_preflight(network, images, HookedReLU()).finding("traces").severity == "ok"
    before = StateSnapshot(network)
    with torch.no_grad():
        network.head.bias += 0.0
    assert before.differences() == ()


def test_equal_seeds_say_the_same(trained):
    one, two, other = (run_preflight(*trained, InputGradient(), seed=s) for s in (1, 1, 2))
    assert [f.numbers for f in one.findings] == [f.numbers for f in two.findings]
    assert one.finding("weights").numbers != other.finding("weights").numbers


def test_one_image_one_class_and_three_axes():
    torch.manual_seed(0)
    single = Net(classes=1).eval()
    report = run_preflight(single, pictures(1, 32), InputGradient())
    assert report.passed
    assert report.classes == (0,)
    assert report.finding("class").message == "There is only one class."

    class Volume(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1)

        def forward(self, x):
            maps = self.b(torch.relu(self.a(x)))
            return Evidence(maps.flatten(2).mean(-1), maps)

    volumes = torch.rand(2, 1, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    report = run_preflight(Volume(), volumes, InputGradient("deconvolution"))
    assert report.finding("image").severity == "wrong"
    assert run_preflight(Volume(), volumes, ClassActivationMap()).finding("image").severity == "ok"


def test_works_where_no_gradients_are_recorded(trained):
    network, images = trained
    with torch.inference_mode():
        first = run_preflight(network, images.clone(), InputGradient())
    with torch.no_grad():
        second = run_preflight(network, images, InputGradient())
    assert [f.numbers for f in first.findings] == [f.numbers for f in second.findings]


@pytest.mark.parametrize(
    ("images", "explainer", "classes", "match"),
    [
        (torch.zeros(0, 1, 32, 32), InputGradient(), None, "at least 1"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), InputGradient(), None, "float"),
        (torch.rand(2, 1, 32, 32), InputGradient(), [3], "0 to 2"),
        (torch.rand(2, 1, 32, 32), InputGradient(), [], "0 to 2"),
        (torch.rand(2, 1, 32, 32), lambda m, b, c: torch.zeros(2, 4, 4), None, "must give maps"),
    ],
)
def test_what_cannot_be_checked_is_refused(images, explainer, classes, match):
    with pytest.raises(GeometryError, match=match):
        run_preflight(Net(), images, explainer, classes=classes)


def test_the_cost_is_bounded(trained):
    network, images = trained

    class Counting:
        rule, seen = "vanilla", None

        def __call__(self, model, batch, classes, *, create_graph=False):
            self.seen = [*(self.seen or []), len(batch)]
            return InputGradient()(model, batch, classes)

    usual = Counting()
    run_preflight(network, torch.cat([images, images]), usual)
    assert usual.seen == [8] * 5
    stubborn = own_map(lambda model, x, c: counted.append(len(x)) or x[:, 0])
    counted = []
    run_preflight(network, images[:3], stubborn)
    # two classes each: image, noise, the cascade and the other shuffles
    assert counted == [3] * 2 * (2 + 3 + MOST_SHUFFLES - 1)


def test_a_network_that_cannot_be_copied_is_refused():
    network = Net()
    network.kept = network(pictures(1, 32)).maps
    with pytest.raises(RunError, match="cannot be copied"):
        run_preflight(network, pictures(1, 32), InputGradient())


def test_likeness_is_pearson_spearman_and_a_plain_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 50)), np.round(rng.normal(size=(3, 50)), 1)
    assert correlate(a, b) == pytest.approx([pearsonr(x, y)[0] for x, y in zip(a, b, strict=True)])
    assert compute_rank_correlation(a, b) == pytest.approx([spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)])
    assert correlate(a, 1e-30 * a + 1e-31) == pytest.approx([1, 1, 1])
    blank = np.zeros_like(a)
    assert correlate(a, blank) == pytest.approx([0, 0, 0])
    assert np.isnan(correlate(blank, blank)).all()
    assert compute_relative_difference(a, -a) == pytest.approx([2, 2, 2])
    assert compute_relative_difference(a, a) == pytest.approx([0, 0, 0])
    found = measure_blankness(np.array([[0, 0], [3, 3], [np.inf, 1], [1, 2.0]]))
    assert (found.zero, found.constant, found.not_finite, found.total) == (0.25, 0.25, 0.25, 0.75)


def test_shuffling_keeps_each_tensor_and_renews_batch_norm():
    torch.manual_seed(0)
    network, images = Net().eval(), pictures(4, 32)
    order = list_layers_in_order(network, images)
    assert order[-1] == "head"
    assert order[:2] == ["trunk.0", "trunk.1"]
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    randomise_weights(network, order[-2:], images, torch.Generator().manual_seed(1))
    for name, now in network.named_parameters():
        assert torch.equal(now.flatten().sort().values, before[name].flatten().sort().values)
    assert not torch.equal(network.head.weight, before["head.weight"])
    assert torch.equal(network.trunk[4].weight, before["trunk.4.weight"])
    randomise_weights(network, order, images, torch.Generator().manual_seed(2))
    assert not network.training
    assert not any(m.training for m in network.modules())
    # what batch norm gives of these images has mean 0 and variance 1 again
    with torch.no_grad():
        norm = network.trunk[1]
        x = norm(network.trunk[0](images))
    mean, spread = x.mean((0, 2, 3)), x.std((0, 2, 3))
    assert torch.allclose(mean, norm.bias, atol=1e-3)
    assert torch.allclose(spread, norm.weight.abs(), rtol=0.02, atol=1e-3)


def test_guided_grad_cam_counts_what_its_gradient_rewires():
    torch.manual_seed(0)
    report = run_preflight(Net().eval(), pictures(2, 32), GuidedGradCAM())
    assert report.finding("activations").numbers == {"rewired_relu": 3.0}


def test_findings_read_as_sentences(trained):
    text = str(run_preflight(*trained, InputGradient("guided")))
    assert len(text.splitlines()) == 7
    assert "nan" not in text
    for line in text.splitlines():
        assert line.endswith(".")


def test_a_network_that_returns_plain_logits_is_checked_too():
    torch.manual_seed(0)
    network, images = Whole("test_resnet", in_chans=1).eval(), pictures(2, 32)
    plain = run_preflight(network.net, images, GradCAM("layer4"))
    assert torch.equal(plain.maps, run_preflight(network, images, GradCAM("net.layer4")).maps)
