import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from mmn_utils import clip_neurons
from mmn_utils.clip_neurons import forward, frozen, neuron_activations, neuron_maps, normalised, pre_relu


def tiny_clip(layers=(1, 1, 2, 2), width=8, image_size=64, seed=0):
    """A CLIP with random weights, its branches open and its batch norms fed with noise, so that activations have the
    size that they have in trained models.
    """
    torch.manual_seed(seed)
    model = CLIP(
        embed_dim=16,
        vision_cfg=CLIPVisionCfg(layers=list(layers), width=width, image_size=image_size, head_width=64),
        text_cfg=CLIPTextCfg(context_length=8, vocab_size=50, width=16, heads=2, layers=1),
    )
    norms = [module for module in model.visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = 1.0
    with torch.no_grad():
        model.visual(torch.nn.functional.interpolate(torch.randn(16, 3, 8, 8), size=image_size))
    for norm in norms:
        norm.momentum = 0.1
    return model


@pytest.fixture(scope="module")
def model():
    return tiny_clip().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def sums_by_hand(visual, x):
    """The residual sum of the last block, computed from its parts."""
    x = visual.layer3(visual.layer2(visual.layer1(visual.stem(x))))
    h = visual.layer4[0](x)
    block = visual.layer4[1]
    inner = block.act2(block.bn2(block.conv2(block.act1(block.bn1(block.conv1(h))))))
    return h + block.bn3(block.conv3(inner))


def test_neurons_are_the_residual_sum_before_the_relu(model, images):
    with torch.no_grad():
        expected = sums_by_hand(model.visual, images)
    maps = neuron_maps(model, images)
    torch.testing.assert_close(maps, expected)
    assert maps.shape == (3, clip_neurons.n_neurons(model), 2, 2) == (3, 256, 2, 2)
    assert maps.min() < 0 < maps.max()  # the ReLU that comes next has not overwritten them


def test_a_whole_pass_keeps_the_same_as_one_without_the_pool(model, images):
    with pre_relu(model.visual, layers=["layer3.1"]) as kept, torch.no_grad():
        model.encode_image(images)
        whole, layer = kept.neurons, kept.layers["layer3.1"]
        forward(model.visual, images)
    torch.testing.assert_close(kept.neurons, whole)
    torch.testing.assert_close(layer, model.visual.layer3(model.visual.layer2(model.visual.layer1(
        model.visual.stem(images)))).detach())  # fmt: skip
    assert layer.min() >= 0


def test_pools_and_batches(model, images):
    maps = neuron_maps(model, images, batch_size=2)
    close = {"atol": 1e-4, "rtol": 1e-4}  # convolutions add up in another order in batches of another size
    largest, mean = neuron_activations(model, images, batch_size=1), neuron_activations(model, images, pool="mean")
    torch.testing.assert_close(largest, maps.flatten(2).max(2).values, **close)
    torch.testing.assert_close(mean, maps.flatten(2).sum(2) / 4, **close)
    with pytest.raises(ValueError, match="'max' or 'mean', found 'sum'"):
        neuron_activations(model, images, pool="sum")


def test_the_model_is_as_it_was(images):
    model = tiny_clip().train()
    model.visual.bn1.eval()
    model.visual.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    neuron_activations(model, images)
    with pytest.raises(RuntimeError, match="stop"), frozen(model), pre_relu(model):
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and not model.visual.bn1.training
    assert not model.visual.conv1.weight.requires_grad and model.visual.conv2.weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_gradients_reach_the_image(model, images):
    x = images.clone().requires_grad_()
    with frozen(model), pre_relu(model) as kept:
        forward(model.visual, x)
        kept.neurons[:, 5].sum().backward()
    assert x.grad.abs().sum() > 0 and all(weight.grad is None for weight in model.parameters())


def test_normalising_is_clips_unless_the_model_says_otherwise(model):
    grey = torch.full((1, 3, 1, 1), 0.5)
    first = normalised(grey, model)[0, 0].item()
    assert first == pytest.approx((0.5 - 0.48145466) / 0.26862954, abs=1e-6)
    own = tiny_clip()
    own.visual.image_mean, own.visual.image_std = (0.5, 0.5, 0.5), (2.0, 2.0, 2.0)
    assert normalised(grey + 1, own).flatten().tolist() == [0.5, 0.5, 0.5]


def test_the_papers_own_tower_has_its_neurons_where_they_are_looked_for():
    torch.manual_seed(0)
    visual = open_clip.create_model("RN50x4", load_weights=False).visual.eval()
    torch.nn.init.ones_(visual.layer4[-1].bn3.weight)  # zero at the start: the last branch would add nothing
    assert clip_neurons.n_neurons(visual) == 2560 and visual.image_size in (288, (288, 288))
    with pre_relu(visual, layers=["layer3.0", "layer3.8"]) as kept, torch.no_grad():
        forward(visual, torch.randn(1, 3, 288, 288))
    assert kept.neurons.shape == (1, 2560, 9, 9) and kept.neurons.min() < 0, "before the ReLU"
    assert {name: tuple(made.shape) for name, made in kept.layers.items()} == {
        "layer3.0": (1, 1280, 18, 18),
        "layer3.8": (1, 1280, 18, 18),
    }


def test_what_is_wrong_is_said(model):
    with pytest.raises(ValueError, match=r"Linear lacks stem, layer1.*RN50x4"):
        neuron_maps(torch.nn.Linear(2, 2), torch.zeros(1, 3, 64, 64))
    message = r"no residual block 'layer5.0'; expected one of layer1.0, layer2.0, layer3.0"
    with pytest.raises(ValueError, match=message), pre_relu(model, layers=["layer5.0"]):
        pass
    assert not model.visual.layer4[-1].act3._forward_pre_hooks
