import pytest
import replicas
import torch
from torch import nn
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from mmn_utils.neurons import MlpNotFoundError, NeuronId, mlp_layers

UNITS = {"gptj": 128, "gpt2": 128, "neox": 64, "opt": 64, "llama": 48, "mistral": 48, "qwen": 48, "gemma": 48}


def run_with_hooks(model, mlp):
    """Output of w_in, input and output of w_out while the model reads four tokens."""
    seen = {}
    handles = [
        mlp.w_in.register_forward_hook(lambda _m, _i, out: seen.update(pre=out)),
        mlp.w_out.register_forward_hook(lambda _m, inp, out: seen.update(act=inp[0], out=out)),
    ]
    model(input_ids=torch.tensor([[1, 2, 3, 4]]))
    for handle in handles:
        handle.remove()
    return {name: tensor.reshape(4, -1) for name, tensor in seen.items()}


@pytest.mark.parametrize("kind", UNITS)
@torch.no_grad()
def test_mlps_are_found_in_every_family(kind):
    model = replicas.language_model(kind)
    layers = mlp_layers(model)
    assert [mlp.layer for mlp in layers] == [0, 1]
    assert all(mlp.n_units == UNITS[kind] and mlp.directions.shape == (UNITS[kind], 32) for mlp in layers)
    assert all(mlp.w_out in set(model.get_submodule(mlp.name).children()) for mlp in layers)
    assert layers[0].gated == (kind in {"llama", "mistral", "qwen", "gemma"})


@pytest.mark.parametrize("kind", UNITS)
@torch.no_grad()
def test_the_two_places_are_what_they_are_said_to_be(kind):
    model = replicas.language_model(kind)
    mlp = mlp_layers(model)[1]
    seen = run_with_hooks(model, mlp)
    assert seen["pre"].shape == seen["act"].shape == (4, mlp.n_units)
    bias = mlp.w_out.bias if mlp.w_out.bias is not None else 0
    assert torch.allclose(seen["act"] @ mlp.directions + bias, seen["out"], atol=1e-4)
    if not mlp.gated:
        nonlinearity = {"opt": nn.ReLU(), "neox": nn.GELU()}.get(kind, nn.GELU(approximate="tanh"))
        assert torch.allclose(nonlinearity(seen["pre"]), seen["act"], atol=1e-4)


def test_only_the_language_half_of_a_model_that_sees():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=replicas.LANGUAGE_MODELS["llama"], image_token_index=5)
    )
    layers = mlp_layers(model)
    assert [mlp.n_units for mlp in layers] == [48, 48]
    assert all("language_model" in mlp.name and "vision" not in mlp.name for mlp in layers)


def test_model_without_an_mlp_names_what_it_has():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.ModuleDict({"fc_inn": nn.Linear(2, 3), "other": nn.Tanh()}) for _ in "ab")

    with pytest.raises(MlpNotFoundError) as error:
        mlp_layers(Strange())
    for part in (
        "no MLP found in Strange",
        "Modules seen: blocks.N.fc_inn, blocks.N.other",
        "Nearest: blocks.N.fc_inn.",
    ):
        assert part in str(error.value)


def mlp_of(n_in, n_out):
    return nn.ModuleDict({"fc1": nn.Linear(2, n_in), "fc2": nn.Linear(n_out, 2)})


def test_several_mlps_in_a_layer():
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleList([mlp_of(3, 3), mlp_of(3, 3)])])})
    with pytest.raises(MlpNotFoundError, match=r"expected one MLP in each layer, found layers.0.0, layers.0.1"):
        mlp_layers(model)


def test_two_modules_that_disagree():
    with pytest.raises(MlpNotFoundError, match=r"layers.0: w_in gives 3 numbers, but w_out takes 4"):
        mlp_layers(nn.ModuleDict({"layers": nn.ModuleList([mlp_of(3, 4)])}))


def test_neuron_ids():
    assert str(NeuronId(4, 217)) == "L4.217" and NeuronId.parse("L4.217") == NeuronId(4, 217)
    assert sorted([NeuronId(2, 0), NeuronId(1, 9)]) == [NeuronId(1, 9), NeuronId(2, 0)]
    with pytest.raises(ValueError, match=r"'4.217' is not a neuron; expected a layer and a unit, like L14.2019"):
        NeuronId.parse("4.217")
