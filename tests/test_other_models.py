"""The same calls on every family of models, randomly initialised and small: read, attribute, decode, ablate."""

import pytest
import replicas
import torch
from captum.attr import LayerGradientXActivation
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from mmn_utils.ablation import ablated_logits, unit_effects
from mmn_utils.attribution import attribute, gradient_free, integrated_gradients, top_units
from mmn_utils.decoding import decode_units, unembedding
from mmn_utils.depth import lens_logits, residual_streams
from mmn_utils.neurons import ablate, last_logits, mlp_layers, record

PATCHES = slice(0, 4)
KINDS = ["gptj", "gpt2", "neox", "opt", "llama", "qwen", "gemma", "llava"]


def build(kind):
    """A model in float64, input embeddings [2, 6, 32] as if four image prompts and two words, and a token each."""
    model = llava() if kind == "llava" else replicas.language_model(kind)
    model.eval().double().requires_grad_(False)
    width = model.get_input_embeddings().weight.shape[1]
    x = torch.randn(2, 6, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return model, x, torch.tensor([7, 8])


def llava():
    """A model that sees by itself: CLIP's encoder, two layers of projection, and a Llama that reads their output."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = replicas.LANGUAGE_MODELS["llama"]
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=5))


@pytest.fixture(params=KINDS)
def case(request):
    return build(request.param)


@torch.no_grad()
def test_read(case):
    model, x, _ = case
    before = last_logits(model, x)
    with record(model) as activations, record(model, where="pre_activation", positions=PATCHES) as z:
        last_logits(model, x)
    for mlp, a, own_z in zip(mlp_layers(model), activations, z, strict=True):
        assert a.shape == (2, 6, mlp.n_units) and own_z.shape == (2, 4, mlp.n_units)
    assert torch.equal(last_logits(model, x), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_attribute(case):
    model, x, tokens = case
    g = attribute(model, x, tokens)
    captum = LayerGradientXActivation(lambda e: last_logits(model, e), [mlp.w_in for mlp in mlp_layers(model)])
    expected = captum.attribute(x.clone().requires_grad_(), target=tokens)
    for ours, theirs in zip(g.unbind(1), expected, strict=True):
        assert torch.allclose(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-6)
    for estimate in (gradient_free, integrated_gradients):
        assert estimate(model, x, tokens, positions=PATCHES).shape == g[:, :, PATCHES].shape
    assert top_units(g, 5).score.shape == (2, 5)


@torch.no_grad()
def test_decode(case):
    model, x, _ = case
    decoded = decode_units(model, top_k=4, tokens_at_once=100)
    weight, _ = unembedding(model)
    for layer, mlp in enumerate(mlp_layers(model)):
        expected = (mlp.directions[3] @ weight.T).topk(4)
        assert decoded.ids[layer, 3].tolist() == expected.indices.tolist()
    lens = lens_logits(model, residual_streams(model, x)[-1][:, -1])
    assert torch.allclose(lens, last_logits(model, x).float(), atol=1e-4)


@torch.no_grad()
def test_ablate(case):
    model, x, _ = case
    n_units = mlp_layers(model)[0].n_units
    masks = torch.rand(3, 2, n_units, generator=torch.Generator().manual_seed(1)) < 0.3
    masks[0] = False
    together = ablated_logits(model, x[:1], masks)
    assert torch.equal(together[0], last_logits(model, x[:1])[0])
    for mask, ours in zip(masks, together, strict=True):
        with ablate(model, mask):
            assert torch.allclose(last_logits(model, x[:1])[0], ours, rtol=0, atol=1e-9)
    effects = unit_effects(model, x[:1], 7, positions=PATCHES, units=torch.tensor([2])).logit
    with ablate(model, {0: [2]}, positions=PATCHES):
        without = last_logits(model, x[:1])[0, 7]
    assert effects[0, 0].item() == pytest.approx((last_logits(model, x[:1])[0, 7] - without).item(), abs=1e-9)
    assert effects[1, 0].item() == pytest.approx(0, abs=1e-9)


@torch.no_grad()
def test_the_llava_types_own_image_path_reads_the_same_neurons():
    model, _, _ = build("llava")
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[5, 5, 5, 5, 9, 11]])  # four image places, then two words
    with record(model) as through_pixels:
        logits = model(input_ids=ids, pixel_values=pixels).logits[:, -1]
    features = model.get_image_features(pixel_values=pixels)
    features = torch.cat(list(getattr(features, "pooler_output", features)))
    x = torch.cat([features, model.get_input_embeddings()(ids[0, 4:])])[None]
    with record(model) as through_embeddings:
        assert torch.allclose(last_logits(model, x), logits, rtol=0, atol=1e-9)
    for seen, given in zip(through_pixels, through_embeddings, strict=True):
        assert torch.allclose(seen, given, rtol=0, atol=1e-9)
