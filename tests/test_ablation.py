import pytest
import replicas
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Gemma2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mmn_utils.ablation import (
    ablated_captions,
    ablated_logits,
    conditions,
    probability_curve,
    sizes_for,
    unit_effects,
)
from mmn_utils.attribution import attribute
from mmn_utils.decoding import decode_units
from mmn_utils.neurons import NeuronId, ablate, last_logits, mlp_layers
from mmn_utils.replay import Replay

KINDS = [*replicas.LANGUAGE_MODELS, "gemma2"]
"""The last has a norm after its MLPs, so that ablation is no subtraction from the residual stream."""


def case(kind):
    """A model in float64, one input [1, 6, width] and ablation masks [7, layer, unit], from none to many."""
    if kind == "gemma2":
        torch.manual_seed(0)
        config = Gemma2Config(**replicas.GATED)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    else:
        model = replicas.language_model(kind)
    model.double().requires_grad_(False)
    torch.manual_seed(5)
    width = model.get_input_embeddings().weight.shape[1]
    masks = torch.rand(7, 2, mlp_layers(model)[0].n_units) < torch.tensor([0, 0, 0.02, 0.1, 0.3, 0.3, 1])[:, None, None]
    masks[4, 0] = False  # begins at the second layer
    masks[5, 1] = False  # and this one ends after the first
    return model, torch.randn(1, 6, width, dtype=torch.float64), masks


def one_by_one(model, x, masks, positions=None):
    rows = []
    for mask in masks:
        with torch.no_grad(), ablate(model, mask, positions=positions):
            rows.append(last_logits(model, x)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("positions", [None, slice(0, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_is_the_same_as_one_pass_each(kind, positions):
    model, x, masks = case(kind)
    ours = ablated_logits(model, x, masks, positions=positions)
    assert torch.allclose(ours, one_by_one(model, x, masks, positions), rtol=0, atol=1e-9)
    parts = ablated_logits(model, x, masks[:6].view(2, 3, 2, -1), positions=positions, batch_size=2)
    assert torch.allclose(parts.flatten(0, 1), ours[:6], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_ablation_of_nothing_is_the_model_itself(kind):
    model, x, masks = case(kind)
    before = last_logits(model, x)[0]
    assert torch.equal(ablated_logits(model, x, masks)[0], before)
    replay = Replay(model, x)
    assert torch.allclose(replay.head(replay.outputs[-1][:, -1])[0], before, rtol=0, atol=1e-12)
    assert replay.adds_mlp == (kind != "gemma2")
    assert torch.equal(last_logits(model, x)[0], before)


@torch.no_grad()
def test_a_replay_leaves_nothing_behind_even_when_it_fails():
    model, x, _ = case("gptj")
    replay = Replay(model, x)
    with pytest.raises(RuntimeError):
        replay.head(torch.zeros(2, 31, dtype=torch.float64))
    assert all("forward" not in vars(mlp.block) for mlp in replay.mlps)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(
        ValueError, match=r"expected the embeddings of one input, \[1, position, d_model\], found \[2, "
    ):
        Replay(model, x.expand(2, -1, -1))


@pytest.mark.parametrize("kind", ["gptj", "llama", "gemma2"])
def test_every_unit_by_itself(kind):
    model, x, _ = case(kind)
    effects = unit_effects(model, x, 7, positions=slice(0, 4), batch_size=50)
    with torch.no_grad():
        before = last_logits(model, x)[0]
        for layer, unit in [(0, 0), (0, 47), (1, 9)]:
            with ablate(model, [NeuronId(layer, unit)], positions=slice(0, 4)):
                after = last_logits(model, x)[0]
            assert effects.logit[layer, unit] == pytest.approx((before - after)[7].item(), abs=1e-9)
            drop = before.softmax(0)[7] - after.softmax(0)[7]
            assert effects.probability[layer, unit] == pytest.approx(drop.item(), abs=1e-9)
    assert (effects.logit[1].abs() < 1e-9).all(), "the last layer's image positions reach no prediction"
    one_layer = unit_effects(model, x, 7, layers=[0], positions=slice(0, 4)).logit
    assert torch.allclose(one_layer, effects.logit[:1], rtol=0, atol=1e-9)
    few = unit_effects(model, x, 7, units=torch.tensor([9, 0]), positions=slice(0, 4)).logit
    assert torch.allclose(few, effects.logit[:, [9, 0]], rtol=0, atol=1e-9)


def test_conditions_by_hand():
    ranking = torch.tensor([5, 0, 1, 6, 2, 3, 4, 7])
    legible = torch.tensor([[True, False, True, False], [False, True, False, True]])
    readable, seeded = ranking[legible.flatten()[ranking]], lambda: torch.Generator().manual_seed(0)
    made = conditions(ranking, readable, (0, 1, 3), shape=(2, 4), generator=seeded())
    assert [m.flatten().nonzero()[:, 0].tolist() for m in made["top"]] == [[], [5], [0, 1, 5]]
    assert [m.flatten().nonzero()[:, 0].tolist() for m in made["interpretable"]] == [[], [5], [0, 2, 5]]
    assert torch.equal(made["random"].sum(2), made["top"].sum(2)) and not (made["random"] & made["top"]).any()
    again = conditions(ranking, readable, (0, 1, 3), shape=(2, 4), generator=seeded())
    assert torch.equal(made["random"], again["random"])
    given = {"shape": (2, 4), "generator": seeded(), "leave_out_top": False}
    assert conditions(torch.arange(8), readable, (4,), **given)["random"][0].sum(1).tolist() == [4, 0]
    with pytest.raises(ValueError, match="expected at least 5 interpretable units, found 4"):
        conditions(ranking, readable, (0, 5), shape=(2, 4), generator=torch.Generator())
    with pytest.raises(ValueError, match="cannot match 3 of 4 units"):
        conditions(torch.arange(8), torch.arange(8), (3,), shape=(2, 4), generator=torch.Generator())


def test_the_papers_sizes_in_a_smaller_model():
    assert sizes_for(458_752) == (0, 50, 100, 200, 400, 800, 1600, 3200, 6400)
    assert sizes_for(4608) == (0, 1, 2, 4, 8, 16, 32, 64)


def test_probability_curves():
    model, x, masks = case("gptj")
    curves = probability_curve(model, x, 7, {"top": masks[[0, 3]], "random": masks[[0, 2, 5]]})
    expected = one_by_one(model, x, masks).softmax(-1)[:, 7].float()
    assert torch.allclose(curves["top"], expected[[0, 3]]) and torch.allclose(curves["random"], expected[[0, 2, 5]])


def test_captions_of_many_ablations_at_once(tmp_path):
    from mmn_utils import profiles
    from mmn_utils.models.captioner import Captioner

    captioner = Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path)))
    prompt = captioner.prompt_embeddings(replicas.images(1))
    masks = torch.zeros(3, 2, 128, dtype=torch.bool)
    masks[1] = True
    captions = ablated_captions(captioner, prompt, masks, max_new_tokens=6)
    with ablate(captioner.language_model, masks[1]):
        silenced = captioner.complete(prompt, max_new_tokens=6)
    assert captions == [*captioner.complete(prompt, max_new_tokens=6), *silenced, captions[0]]


@torch.no_grad()
def test_the_same_calls_on_a_model_that_sees_by_itself():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = replicas.LANGUAGE_MODELS["llama"]
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=5))
    model.eval().double()
    x, masks = torch.randn(1, 6, 32, dtype=torch.float64), torch.rand(3, 2, 48) < 0.2
    assert torch.allclose(ablated_logits(model, x, masks), one_by_one(model, x, masks), rtol=0, atol=1e-9)
    g = attribute(model, x, torch.tensor([7]), positions=slice(0, 4))
    assert g.shape == (1, 2, 4, 48) and (g[:, 0] != 0).any() and (g[:, 1] == 0).all()
    assert decode_units(model, top_k=3).ids.shape == (2, 48, 3)
