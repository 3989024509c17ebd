import itertools
import math

import pytest
import torch
from test_clip_neurons import tiny_clip
from torch.nn import functional as F

from mmn_utils import feature_visualization as fv
from mmn_utils.clip_neurons import Recording, forward, frozen, neuron_activations, neuron_maps, normalised, pre_relu

UNITS = [3, 40, 77, 200]
STILL = fv.Robustness(pad=0, jitter=(), scales=(1.0,), angles=(0.0,))


@pytest.fixture(scope="module")
def model():
    return tiny_clip().eval()


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [16, 17])
def test_any_image_has_coefficients_that_give_it_back(size):
    image = torch.rand(2, 3, size, size, generator=drawn()).double() * 0.98 + 0.01
    planes = torch.einsum("cr,nryx->ncyx", torch.linalg.inv(fv._mixing().double()), torch.logit(image))
    coefficients = torch.view_as_real(torch.fft.rfft2(planes) / fv.falling(size).double())
    torch.testing.assert_close(fv.pixels(coefficients), image)


def test_pixels_stay_between_black_and_white():
    start = fv.noise(3, 24, seed=0)
    assert start.std().item() == pytest.approx(0.01, rel=0.05)
    assert (fv.pixels(start) - 0.5).abs().max() < 0.1
    loud = fv.pixels(start * 1e5)
    assert loud.min() >= 0 and loud.max() <= 1 and loud.std() > 0.4


def test_low_frequencies_weigh_more_by_lucids_constants():
    scale = fv.falling(8)
    assert scale.shape == (8, 5)
    assert scale[0, 0] == scale[0, 1] == 8 * 8 / 4  # the constant counts as the lowest wave
    assert scale[0, 4] == 8 / 0.5 / 4
    assert scale[3, 4] == pytest.approx(8 / (3**2 + 4**2) ** 0.5 * 8 / 4)


def test_a_scale_of_ones_is_the_plain_transform(model):
    start, ones = fv.noise(1, 64, seed=3), torch.ones(64, 33)
    planes = torch.fft.irfft2(torch.view_as_complex(start), s=(64, 64))
    torch.testing.assert_close(
        fv.pixels(start, ones), torch.sigmoid(torch.einsum("rc,ncyx->nryx", fv._mixing(), planes))
    )
    falling, even = fv.falling(64), fv.falling(64).square().mean().sqrt() * ones
    found = [fv.visualize(model, fv.channel([3]), steps=(16,), scale=scale)[16] for scale in (None, falling, even)]
    assert torch.equal(found[0], found[1])
    assert fv.fine(found[2]) > 2 * fv.fine(found[0])


def test_fine_waves_are_those_shorter_than_four_pixels():
    x = torch.arange(24) * 2 * math.pi / 24
    fine_wave, coarse_wave = (0.5 + 0.1 * torch.cos(n * x).expand(1, 3, 24, 24) for n in (8, 4))  # periods of 3 and 6
    both = fine_wave + 2 * (coarse_wave - 0.5)
    found = fv.fine(torch.cat([fine_wave, coarse_wave, both, both.transpose(2, 3)]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.2, 0.2]), atol=1e-5, rtol=0)


def test_a_smaller_batch_starts_from_the_same_noise():
    assert all(torch.equal(fv.noise(2, size, seed=0), fv.noise(5, size, seed=0)[:2]) for size in (64, 96, 288))


def test_colours_are_decorrelated_as_in_lucid():
    mixing = fv._mixing()
    assert mixing.norm(dim=0).max() == pytest.approx(1)
    one = torch.zeros(1, 3, 8, 5, 2)
    one[0, 1, 0, 0, 0] = 4.0  # a constant on the second axis: red against blue, green left alone
    pixel = torch.logit(fv.pixels(one))[0, :, 3, 3]
    torch.testing.assert_close(pixel, mixing[:, 1] * 4 * (8 * 8 / 4) / 64)
    assert pixel[1] == 0


def cropped_by_hand(images, robustness, generator):
    """The same draws through slices, for scales and angles of one and zero."""
    n, size = len(images), images.shape[-1]
    cuts = torch.tensor(robustness.jitter)[:, None, None]
    first = fv._whole(cuts, (len(robustness.jitter), n, 2), generator).sum(0).int()
    for _ in range(2):
        torch.randint(1, (n,), generator=generator)
    last = fv._whole(torch.tensor(robustness.last_jitter), (n, 2), generator).int()
    padded = F.pad(images, [robustness.pad] * 4, value=0.5)
    window = size + 2 * robustness.pad - sum(robustness.jitter)
    kept = window - robustness.last_jitter
    border = (size - kept) // 2
    starts = (first + last).tolist()
    crops = [image[:, y : y + kept, x : x + kept] for image, (x, y) in zip(padded, starts, strict=True)]
    return F.pad(torch.stack(crops), [border] * 4)


@pytest.mark.parametrize(("pad", "jitter"), [(2, (4, 4)), (4, (2, 2, 2)), (5, (1, 3))])
def test_cuts_are_slices(pad, jitter):
    robustness = fv.Robustness(pad=pad, jitter=jitter, scales=(1.0,), angles=(0.0,), last_jitter=2)
    images = torch.rand(6, 3, 16, 16, generator=drawn(1))
    torch.testing.assert_close(
        robustness(images, drawn(2)), cropped_by_hand(images, robustness, drawn(2)), atol=1e-5, rtol=0
    )


def test_nothing_to_do_does_nothing():
    images = torch.rand(2, 3, 16, 16, generator=drawn())
    torch.testing.assert_close(STILL(images, drawn()), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_a_quarter_turn(quarters):
    images = torch.rand(1, 3, 16, 16, generator=drawn())
    turned = fv.Robustness(pad=0, jitter=(), scales=(1.0,), angles=(90.0 * quarters,))(images, drawn())
    torch.testing.assert_close(turned, images.rot90(quarters, (2, 3)), atol=1e-5, rtol=0)


def test_half_the_scale_is_half_the_width_on_black():
    white = torch.ones(1, 3, 16, 16)
    small = fv.Robustness(pad=0, jitter=(), scales=(0.5,), angles=(0.0,))(white, drawn())
    torch.testing.assert_close(small[0, 0, 4:12, 4:12], torch.ones(8, 8))
    assert small.sum() == 3 * 64


def test_the_published_recipe():
    recipe = fv.PUBLISHED
    assert (recipe.pad, recipe.jitter, recipe.last_jitter) == (2, (4,) * 10, 2)
    assert len(recipe.scales) == 85 + 2 * 20 and max(recipe.scales) == 0.995**-5
    assert len(recipe.angles) == 40 + 20 + 10 + 5 and sum(angle == 0 for angle in recipe.angles) == 3 + 5
    seen = recipe(torch.ones(4, 3, 256, 256), drawn())
    assert seen.shape == (4, 3, 256, 256) and seen.min() >= 0 and seen.max() <= 1 + 1e-6
    assert (seen > 0.9).float().mean() < (220 * 0.995**-5 / 256) ** 2  # what ten cuts leave, at most


def test_small_images_have_their_own_recipe():
    assert [fv.usual(size) for size in (64, 96, 223, 224, 288)] == [fv.MINIATURE] * 3 + [fv.PUBLISHED] * 2


def test_each_image_is_moved_by_its_own():
    images = torch.rand(1, 3, 64, 64, generator=drawn()).expand(3, -1, -1, -1)
    moved = fv.MINIATURE(images, drawn())
    assert all((a - b).abs().mean() > 0.01 for a, b in itertools.combinations(moved, 2))


def test_folded_batch_norms_leave_the_neurons_alone(model):
    images = torch.randn(2, 3, 64, 64, generator=drawn())
    folded = fv.folded(model.visual)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.visual.modules())
    torch.testing.assert_close(neuron_maps(folded, images), neuron_maps(model, images), atol=1e-3, rtol=1e-3)
    assert not any(weight.requires_grad for weight in folded.parameters())


def test_objectives_by_hand():
    maps = torch.arange(2 * 2 * 9.0).view(2, 2, 3, 3)
    kept = Recording(maps)
    assert fv.channel([1, 0]).score(kept).tolist() == [9 + 4, 18 + 4]
    assert fv.neuron([1, 0]).score(kept).tolist() == [9 + 4, 18 + 4]  # the middle of an even ramp is its mean
    vectors = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    expected = [F.normalize(maps[0], dim=0)[0].mean().item(), -F.normalize(maps[1], dim=0)[1].mean().item()]
    assert fv.direction(vectors).score(kept).tolist() == pytest.approx(expected)
    maps[0, 1, 1, 1] = 0.0
    assert fv.neuron([1]).score(kept).tolist() == [0.0] and fv.channel([1]).score(kept).item() == pytest.approx(
        13 - 13 / 9
    )


def test_two_identical_images_are_the_least_diverse():
    a, b = torch.rand(2, 4, 3, 3, generator=drawn())
    same, other = fv.diversity(torch.stack([a, a])), fv.diversity(torch.stack([a, b]))
    torch.testing.assert_close(same, torch.tensor([-1.0, -1.0]))
    assert (other > same + 0.01).all()
    apart = torch.zeros(2, 2, 1, 1)
    apart[0, 0], apart[1, 1] = 1, 1
    assert fv.diversity(apart).tolist() == [0, 0]


def test_diversity_is_the_papers_sum_within_groups():
    features = torch.randn(5, 4, 3, 3, generator=drawn())
    groups = torch.tensor([0, 1, 0, 1, 0])
    grams = [torch.einsum("iyx,jyx->ij", f, f).flatten() for f in features]
    for a in range(5):
        others = [b for b in range(5) if b != a and groups[b] == groups[a]]
        expected = -sum(F.cosine_similarity(grams[a], grams[b], dim=0) for b in others)
        torch.testing.assert_close(fv.diversity(features, groups)[a], expected)


def test_diversity_pushes_images_apart(model):
    """Higher is more diverse, so ascent on it alone must raise it; with the wrong sign it would fall."""
    nothing = fv.Objective(lambda kept: 0 * kept.neurons.mean((1, 2, 3)), 3)
    for attribution, base in ((False, nothing), (True, fv.channel([5] * 3))):
        objective = fv.diverse(base, 10.0, layer="layer3.1", attribution=attribution)
        images = fv.visualize(model, objective, steps=(0, 24), robustness=STILL)
        before, after = (score(model, objective, images[k]) - score(model, base, images[k]) for k in (0, 24))
        assert after.sum() > before.sum() + 1


def score(model, objective, images):
    """What the objective says of finished images."""
    x = normalised(images, model).requires_grad_()
    with frozen(model), pre_relu(model, layers=objective.layers) as kept:
        forward(model.visual, x)
    return objective.score(kept).detach()


def test_likeness_is_one_for_copies_and_falls_with_the_term(model):
    base, layer = fv.channel([5] * 3), "layer3.1"
    one = torch.rand(1, 3, 64, 64, generator=drawn())
    for attribution in (False, True):
        copies = fv.likeness(model, one.expand(3, -1, -1, -1), base, layer=layer, attribution=attribution)
        assert copies == pytest.approx(1, abs=1e-4)
        objective = fv.diverse(base, 300.0, layer=layer, attribution=attribution)
        free, apart = (fv.visualize(model, o, steps=(32,), robustness=STILL)[32] for o in (base, objective))
        alike = [fv.likeness(model, images, base, layer=layer, attribution=attribution) for images in (free, apart)]
        assert alike[1] < alike[0] - 0.01


def test_own_answers_are_each_images_own_neurons_peak(model):
    pixels = torch.rand(2, 3, 64, 64, generator=drawn())
    maps = neuron_maps(model, normalised(pixels, model))
    found = fv.own_answers(model, pixels, [7, 200])
    torch.testing.assert_close(found, torch.stack([maps[0, 7].max(), maps[1, 200].max()]))


def test_attribution_is_the_features_times_their_own_gradient(model):
    x = torch.randn(2, 3, 64, 64, generator=drawn(), requires_grad=True)
    features = model.visual.layer3(model.visual.layer2(model.visual.layer1(model.visual.stem(x))))
    value = (features**2).sum((1, 2, 3)) * torch.tensor([1.0, 3.0])
    found = fv.gradients(value, [features])[0]
    torch.testing.assert_close(found, 2 * features.detach() * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    assert not found.requires_grad


def test_the_neuron_is_driven_far_beyond_random_images(model):
    images = fv.visualize(model, fv.channel(UNITS), steps=(0, 96), robustness=STILL)
    random = neuron_activations(model, normalised(torch.rand(64, 3, 64, 64, generator=drawn()), model), pool="mean")
    start, own = (
        neuron_activations(model, normalised(image, model), pool="mean")[range(4), UNITS] for image in images.values()
    )
    assert (own > random.mean(0)[UNITS] + 6 * random.std(0)[UNITS]).all() and (own > start + 5).all()
    assert images[96].shape == (4, 3, 64, 64) and images[96].min() >= 0 and images[96].max() <= 1


def test_with_shifts_and_turns_it_still_climbs(model):
    images = fv.visualize(model, fv.channel(UNITS), steps=(0, 48))
    start, own = (
        neuron_activations(model, normalised(image, model), pool="mean")[range(4), UNITS] for image in images.values()
    )
    assert (own > start + 1).all()


def test_an_image_does_not_depend_on_its_neighbours_objectives(model):
    first, second = (fv.visualize(model, fv.channel(units), steps=(6,))[6] for units in ([3, 40], [77, 40]))
    torch.testing.assert_close(first[1], second[1])
    assert not torch.allclose(first[0], second[0], atol=0.01)


def test_a_direction_pulls_and_its_opposite_pushes(model):
    vectors = F.one_hot(torch.tensor([3, 3]), 256) * torch.tensor([[1.0], [-1.0]])
    images = fv.visualize(model, fv.direction(vectors), steps=(0, 32))
    maps = {step: neuron_maps(model, normalised(image, model)) for step, image in images.items()}
    start, end = (F.normalize(m, dim=1)[:, 3].mean((1, 2)) for m in maps.values())
    assert end[0] > start[0] + 0.02 and end[1] < start[1] - 0.02


def test_the_same_seed_gives_the_same_images(model):
    first, again, other = (fv.visualize(model, fv.channel([3, 3]), steps=(8,), seed=s)[8] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01) and not torch.allclose(first[0], first[1], atol=0.01)


def test_steps_on_the_way_are_those_of_a_shorter_run(model):
    long = fv.visualize(model, fv.channel([9]), steps=(0, 3, 6))
    assert list(long) == [0, 3, 6]
    torch.testing.assert_close(long[3], fv.visualize(model, fv.channel([9]), steps=(3,))[3])
    torch.testing.assert_close(long[0], fv.pixels(fv.noise(1, 64, seed=0)))


def test_grey_holds_back_contrast(model):
    free, held = (fv.visualize(model, fv.channel([3]), steps=(24,), grey=g)[24] for g in (0.0, 1e4))
    assert held.std() < 0.5 * free.std()


def test_the_model_is_as_it_was():
    model = tiny_clip().train()
    model.visual.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fv.visualize(model, fv.channel([3]), steps=(2,))
    failing = fv.Objective(lambda kept: 1 / 0, 1)
    with pytest.raises(ZeroDivisionError):
        fv.visualize(model, failing, steps=(2,))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [n for n, w in model.visual.named_parameters() if not w.requires_grad] == ["conv1.weight"]
    assert all(w.grad is None for w in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_wrong_number_of_steps_is_said(model):
    for steps in ((), (-1, 4)):
        with pytest.raises(ValueError, match="numbers of steps from 0 on"):
            fv.visualize(model, fv.channel([3]), steps=steps)
