import pytest
import torch
from test_clip_neurons import tiny_clip
from torch.nn import functional as F

from mmn_utils import facets, feature_visualization
from mmn_utils.clip_neurons import Recording, neuron_activations, normalised
from mmn_utils.feature_visualization import Objective, Robustness, channel


@pytest.fixture(scope="module")
def model():
    return tiny_clip().eval()


def striped(n, seed, axis):
    """Noise with stripes along one axis: a theme that is easy to tell."""
    generator = torch.Generator().manual_seed(seed)
    stripes = torch.sin(torch.arange(64) * 1.5)
    stripes = stripes[:, None] if axis == "y" else stripes[None]
    return stripes.expand(64, 64) * 2 + torch.randn(n, 3, 64, 64, generator=generator)


@pytest.fixture(scope="module")
def facet(model):
    kinds = [facets.features(model, striped(24, seed, axis)) for seed, axis in ((0, "y"), (1, "x"))]
    return facets.learn(*kinds)


def test_five_blocks_as_the_authors_chose_or_all():
    assert facets.probe_layers(tiny_clip(layers=(1, 1, 10, 1))) == [f"layer3.{k}" for k in (0, 2, 4, 6, 8)]
    assert facets.probe_layers(tiny_clip(layers=(1, 1, 2, 1))) == ["layer3.0", "layer3.1"]


def test_features_are_blocks_after_their_relu(model):
    images = striped(3, 0, "x")
    found = facets.features(model, images, batch_size=2)
    before = model.visual.layer2(model.visual.layer1(model.visual.stem(images)))
    torch.testing.assert_close(found["layer3.0"], model.visual.layer3[0](before).detach())
    assert list(found) == ["layer3.0", "layer3.1"] and all(f.min() >= 0 for f in found.values())


def test_probes_tell_new_images_apart(model, facet):
    odds = [facet.log_odds(facets.features(model, striped(16, 9, axis))) for axis in ("y", "x")]
    assert (odds[0] > 0).all() and (odds[1] < 0).all()
    assert facet.weights["layer3.0"].shape == (128, 4, 4)


def test_log_odds_are_the_probes_own(model, facet):
    found = facets.features(model, striped(2, 5, "y"))
    only = facets.Facet({"layer3.1": facet.weights["layer3.1"]}, facet.biases)
    expected = (found["layer3.1"] * facet.weights["layer3.1"]).flatten(1).sum(1) + facet.biases["layer3.1"]
    torch.testing.assert_close(only.log_odds(found), expected)


def test_both_kinds_count_alike(model):
    many, few = torch.full((30, 1, 1, 1), 1.0), torch.full((3, 1, 1, 1), -1.0)
    learned = facets.learn({"a": many}, {"a": few}, inverse_penalty=1.0)
    assert learned.biases["a"] == pytest.approx(0, abs=1e-3)  # with more of one kind it would lean that way


def fake(features, weights):
    """An objective f = sum of weights * features², and a recording that holds the features."""
    kept = Recording(None, {"a": features})
    return Objective(lambda k: (weights * k.layers["a"] ** 2).sum((1, 2, 3)), len(features), ("a",)), kept


def test_the_facet_term_by_hand():
    g = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 1.0]]]], requires_grad=True)  # [image 2, channel 1, y 1, x 2]
    base, kept = fake(g, torch.tensor([1.0, -1.0]))  # f = x² - y², gradient (2x, -2y): the second place is gated away
    facet = facets.Facet({"a": torch.tensor([[[1.0, 1.0]]])}, {"a": 0.0})
    strength = torch.tensor([0.5, 2.0])
    gated = facets.faceted(base, [facet] * 2, strength).score(kept)
    expected = torch.tensor([1 - 4 + 5 * 0.5 * 1 * 2, 9 - 1 + 5 * 2.0 * 3 * 6])
    torch.testing.assert_close(gated, expected)
    plain = facets.faceted(base, [facet] * 2, strength, gated=False).score(kept)
    torch.testing.assert_close(plain, torch.tensor([1 - 4 + 5 * 0.5 * 3, 9 - 1 + 5 * 2.0 * 4]))


def test_the_facets_gradient_is_stopped():
    """d/dg of f + s w g ReLU(f') is f' + s w ReLU(f'); if it were not stopped, s w g f'' would come on top."""
    g = torch.tensor([[[[1.0, 2.0]]]], requires_grad=True)
    base, kept = fake(g, torch.tensor([1.0, -1.0]))
    facet = facets.Facet({"a": torch.tensor([[[1.0, 1.0]]])}, {"a": 0.0})
    score = facets.faceted(base, [facet], torch.tensor([1.0])).score(kept)
    (found,) = torch.autograd.grad(score.sum(), g)
    torch.testing.assert_close(found, torch.tensor([[[[2 + 5 * 2.0, -4.0]]]]))


def test_only_the_probes_direction_counts():
    g = torch.rand(1, 2, 2, 2, requires_grad=True)
    base, kept = fake(g, torch.ones(2, 2, 2))
    w = torch.randn(2, 2, 2)
    small, large = (
        facets.faceted(base, [facets.Facet({"a": k * w}, {"a": 3.0})], torch.ones(1)).score(kept) for k in (0.1, 9)
    )
    torch.testing.assert_close(small, large)


def test_probes_are_resized_to_the_images_grid():
    g = torch.rand(1, 2, 4, 4, requires_grad=True)
    base, kept = fake(g, torch.ones(2, 4, 4))
    w = torch.randn(2, 2, 2)
    score = facets.faceted(base, [facets.Facet({"a": w}, {"a": 0.0})], torch.ones(1)).score(kept)
    wide = F.interpolate((w / w.square().mean().sqrt())[None], size=(4, 4), mode="bilinear")
    torch.testing.assert_close(score, (g**2).sum((1, 2, 3)) + 5 * (wide * g * 2 * g).sum((1, 2, 3)))


def test_no_strength_is_no_facet(model, facet):
    objective = facets.faceted(channel([4]), [facet], torch.zeros(1))
    plain, faceted = (feature_visualization.visualize(model, o, steps=(4,))[4] for o in (channel([4]), objective))
    torch.testing.assert_close(plain, faceted)


@pytest.mark.parametrize("gated", [True, False])
def test_a_facet_draws_images_towards_its_theme(model, facet, gated):
    strength = torch.tensor([0.0, 3.0])
    objective = facets.faceted(channel([3, 3]), [facet, facet], strength, gated=gated)
    still = Robustness(pad=0, jitter=(), scales=(1.0,), angles=(0.0,))
    images = feature_visualization.visualize(model, objective, steps=(64,), robustness=still)[64]
    odds = facet.log_odds(facets.features(model, normalised(images, model)))
    assert odds[1] > odds[0]
    if gated:
        own = neuron_activations(model, normalised(images, model), pool="mean")[:, 3]
        noise = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert own[1] > neuron_activations(model, normalised(noise, model), pool="mean")[:, 3].max()


def test_the_ramp():
    ramp = facets.strengths()
    assert len(ramp) == 9 and ramp[0] == pytest.approx(0.1) and ramp[5] == pytest.approx(0.1 + 4.9 * 5 / 8)


def test_one_facet_for_each_image(facet):
    with pytest.raises(ValueError, match="each of 2 images, found 1 facets and 2 strengths"):
        facets.faceted(channel([1, 2]), [facet], torch.ones(2))


def test_each_theme_is_told_from_all_others(model):
    seen = {axis: facets.features(model, striped(12, 0, axis)) for axis in ("y", "x")}
    probes = facets.learn_each(seen)
    expected = facets.learn(seen["y"], seen["x"])
    torch.testing.assert_close(probes["y"].weights["layer3.1"], expected.weights["layer3.1"])
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    odds = facets.log_odds(model, probes, pixels)
    torch.testing.assert_close(odds[:, 0], expected.log_odds(facets.features(model, normalised(pixels, model))))
