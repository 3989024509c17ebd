import pytest
import replicas
import torch
from captum.attr import LayerGradientXActivation
from torch.overrides import TorchFunctionMode

from mmn_utils.attribution import (
    attribute,
    attribute_top,
    first_noun_target,
    gradient_free,
    integrated_gradients,
    target_batches,
    top_pairs,
    top_units,
)
from mmn_utils.decoding import unembedding
from mmn_utils.neurons import NeuronId, ablate, hooked, last_logits, mlp_layers, record

KINDS = list(replicas.LANGUAGE_MODELS)
PATCHES = slice(0, 4)


def case(kind, rows=2):
    """A model in float64, input embeddings [row, 6, width] and a token for each row."""
    model = replicas.language_model(kind).double().requires_grad_(False)
    torch.manual_seed(5)
    width = model.get_input_embeddings().weight.shape[1]
    return model, torch.randn(rows, 6, width, dtype=torch.float64), torch.arange(7, 7 + rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_captum(kind):
    model, x, tokens = case(kind)
    g = attribute(model, x, tokens)
    layers = [mlp.w_in for mlp in mlp_layers(model)]
    theirs = LayerGradientXActivation(lambda e: last_logits(model, e), layers)
    expected = theirs.attribute(x.clone().requires_grad_(), target=tokens)
    for ours, their in zip(g.unbind(1), expected, strict=True):
        assert ours.dtype == torch.float64
        assert torch.allclose(ours, their.reshape(ours.shape), rtol=0, atol=1e-6)


class Float64Throughout(TorchFunctionMode):
    """Many models compute norms, rotations and attention in float32 whatever their weights are: not while this is on,
    for a difference of 1e-5 between two passes would drown in it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        widen = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        return func(*map(widen, args), **{name: widen(value) for name, value in (kwargs or {}).items()})


@pytest.mark.parametrize("objective", ["logit", "log_probability"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_same_as_finite_differences(kind, objective):
    with Float64Throughout():
        compare_with_finite_differences(*case(kind, rows=1), objective)


def compare_with_finite_differences(model, x, tokens, objective):
    g = attribute(model, x, tokens, positions=PATCHES, objective=objective)

    def y(layer, patch, unit, step):
        def nudge(_layer, z, _start):
            z = z.clone()
            z[0, patch, unit] += step
            return z

        with hooked(model, nudge, where="pre_activation", layers=[mlp_layers(model)[layer]]):
            logits = last_logits(model, x)[0]
        return (logits if objective == "logit" else logits.log_softmax(-1))[tokens[0]]

    with record(model, where="pre_activation") as z:
        last_logits(model, x)
    for layer, patch, unit in [(0, 0, 3), (0, 3, 40), (0, 2, 17)]:
        slope = (y(layer, patch, unit, 1e-5) - y(layer, patch, unit, -1e-5)) / 2e-5
        assert g[0, layer, patch, unit] == pytest.approx((z[layer][0, patch, unit] * slope).item(), abs=1e-6)


def test_the_last_layer_has_no_say_at_the_image():
    model, x, tokens = case("gptj")
    g = attribute(model, x, tokens)
    assert (g[:, -1, :-1] == 0).all() and (g[:, -1, -1] != 0).any()


def test_images_do_not_mix_and_parameters_gather_nothing():
    model, x, tokens = case("gptj", rows=3)
    model.requires_grad_(True)
    together = attribute(model, x, tokens, positions=PATCHES)
    alone = torch.cat([attribute(model, x[i : i + 1], tokens[i : i + 1], positions=PATCHES) for i in range(3)])
    assert together.shape == (3, 2, 4, 128) and torch.allclose(together, alone, rtol=0, atol=1e-10)
    assert all(p.grad is None for p in model.parameters()) and not together.requires_grad
    picked = attribute(model, x, tokens, positions=torch.tensor([2, 0]))
    assert torch.equal(picked, together[:, :, [2, 0]])


def test_one_forward_and_one_backward_pass():
    model, x, tokens = case("gptj")
    passes = []
    handle = model.transformer.register_forward_hook(lambda *_: passes.append(1))
    attribute(model, x, tokens)
    handle.remove()
    assert len(passes) == 1


def test_what_is_wrong_is_said():
    model, x, tokens = case("gptj")
    with pytest.raises(ValueError, match=r"expected one token for each of 2 images, found tokens of \[1\]"):
        attribute(model, x, tokens[:1])
    with pytest.raises(ValueError, match="expected 'logit' or 'log_probability', found 'loss'"):
        attribute(model, x, tokens, objective="loss")
    with pytest.raises(ValueError, match=r"expected scores \[image, layer, patch, unit\], found \[2, 3\]"):
        top_pairs(torch.zeros(2, 3))


def test_rankings_by_hand():
    g = torch.tensor([[[[1.0, 9.0, 0.0], [3.0, 8.0, -1.0]], [[7.0, 0.5, 0.0], [2.0, 0.0, 5.0]]]])
    pairs = top_pairs(g, 4)
    assert pairs.neurons() == [NeuronId(0, 1), NeuronId(0, 1), NeuronId(1, 0), NeuronId(1, 2)]
    assert pairs.patch.tolist() == [[0, 1, 0, 1]] and pairs.score.tolist() == [[9, 8, 7, 5]]
    units = top_units(g, 4)
    assert units.neurons() == [NeuronId(0, 1), NeuronId(1, 0), NeuronId(1, 2), NeuronId(0, 0)]
    assert units.patch.tolist() == [[0, 0, 1, 1]] and units.flat(3).tolist() == [[1, 3, 5, 0]]
    assert top_pairs(g, 99).score.shape == (1, 12)


@pytest.mark.parametrize("distinct", [False, True])
def test_a_layer_at_a_time_ranks_the_same(distinct):
    model, x, tokens = case("llama")
    whole = (top_units if distinct else top_pairs)(attribute(model, x, tokens, positions=PATCHES), 20)
    streamed = attribute_top(model, x, tokens, k=20, distinct=distinct, positions=PATCHES)
    assert all(torch.equal(getattr(whole, f), getattr(streamed, f)) for f in ("layer", "unit", "patch", "score"))


def test_half_precision_is_close():
    model, x, tokens = case("gptj")
    exact = attribute(model, x, tokens, positions=PATCHES)
    half = attribute(model.half(), x.half(), tokens, positions=PATCHES)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("kind", ["gptj", "opt", "llama"])
@torch.no_grad()
def test_integrated_gradients_sum_to_the_whole_layers_effect(kind):
    model, x, tokens = case(kind)
    scores = integrated_gradients(model, x, tokens, positions=PATCHES, n_steps=200)

    def zeroed(_layer, z, _start):
        z = z.clone()
        z[:, PATCHES] = 0
        return z

    y = last_logits(model, x).gather(1, tokens[:, None])[:, 0]
    with hooked(model, zeroed, where="pre_activation", layers=mlp_layers(model)[:1]):
        without = last_logits(model, x).gather(1, tokens[:, None])[:, 0]
    tolerance = 0.05 if kind == "opt" else 1e-3  # ReLU's gradient jumps
    assert torch.allclose(scores[:, 0].sum((1, 2)), y - without, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_gradient_free_by_a_loop():
    model, x, tokens = case("gptj")
    scores = gradient_free(model, x, tokens, positions=PATCHES)
    with record(model) as activations:
        last_logits(model, x)
    row = unembedding(model)[0][tokens[1]]
    expected = activations[1][1, 2, 30] * (mlp_layers(model)[1].directions[30] @ row)
    assert scores.shape == (2, 2, 4, 128) and scores[1, 1, 2, 30] == pytest.approx(expected.item())


# --- targets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    from mmn_utils import profiles
    from mmn_utils.models.captioner import Captioner

    return Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models"))))


def test_the_first_noun_and_what_comes_before_it(captioner):
    target = first_noun_target(captioner, "two dogs, and a cat.", {"cat", "dog"})
    tokenizer = captioner.tokenizer
    assert target.noun == "dog" and tokenizer.decode(target.before) == " two"
    ids = tokenizer(" two dogs, and a cat.", add_special_tokens=False)["input_ids"]
    assert [*target.before, target.token] == ids[: len(target.before) + 1]
    assert first_noun_target(captioner, "blue.", {"cat"}) is None


def test_contexts_of_one_length_a_batch(captioner):
    nouns = {"cat", "dog", "horse", "man"}
    captions = ["a cat.", "two dogs.", "nothing", "a horse and a man.", "a man."]
    targets = [first_noun_target(captioner, c, nouns) for c in captions]
    prompts = captioner.prompt_embeddings(replicas.images(5))
    batches = list(target_batches(captioner, prompts, targets, batch_size=2))
    assert sorted(i for b in batches for i in b.images.tolist()) == [0, 1, 3, 4]
    embed = captioner.language_model.get_input_embeddings()
    for batch in batches:
        for image, context, token in zip(batch.images.tolist(), batch.embeddings, batch.tokens, strict=True):
            assert token == targets[image].token
            expected = torch.cat([prompts[image], embed(torch.tensor(targets[image].before, dtype=torch.long))])
            assert torch.equal(context, expected)


# --- hooks -----------------------------------------------------------------------------------------------------------


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_removed_after_exceptions():
    model, x, tokens = case("gptj")
    with pytest.raises(ZeroDivisionError), record(model), ablate(model, [NeuronId(0, 1)]):
        assert n_hooks(model) > 0
        raise ZeroDivisionError
    assert n_hooks(model) == 0
    wrong = pytest.raises(ValueError, match="where: expected 'activation' or 'pre_activation', found 'middle'")
    with wrong, record(model, where="middle"):
        pass
    with pytest.raises(RuntimeError):
        attribute(model, x[..., :5], tokens)
    assert n_hooks(model) == 0


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_ablation_of_nothing_changes_nothing(kind):
    model, x, _ = case(kind)
    before = last_logits(model, x)
    nothing = [[], {0: []}, {1: torch.zeros(2, mlp_layers(model)[1].n_units, dtype=torch.bool)}]
    for neurons in nothing:
        with ablate(model, neurons):
            assert torch.equal(last_logits(model, x), before)
    with ablate(model, {0: [1, 2]}, positions=slice(90, 99)):
        assert torch.equal(last_logits(model, x), before)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_ablated_activations_are_zero_and_others_are_not(kind):
    model, x, _ = case(kind)
    mask = torch.zeros(2, mlp_layers(model)[0].n_units, dtype=torch.bool)
    mask[0, 3] = mask[1, 5] = True
    with record(model) as before:
        last_logits(model, x)
    with ablate(model, {0: mask}, positions=PATCHES), record(model) as after:
        last_logits(model, x)
    assert (after[0][0, PATCHES, 3] == 0).all() and (after[0][1, PATCHES, 5] == 0).all()
    untouched = ~mask[:, None].expand_as(before[0]).clone()
    untouched[:, 4:] = True
    assert torch.equal(after[0][untouched], before[0][untouched])
    assert not torch.equal(after[1], before[1])


@torch.no_grad()
def test_positions_count_from_the_start_while_text_is_generated():
    model, x, _ = case("gptj")
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with ablate(model, {0: list(range(128))}, positions=slice(0, 4)):
        whole = model(input_ids=ids).logits[:, -1]
        first = model(input_ids=ids[:, :3], use_cache=True)
        later = model(input_ids=ids[:, 3:4], past_key_values=first.past_key_values)
        last = model(input_ids=ids[:, 4:], past_key_values=later.past_key_values)
    assert torch.allclose(last.logits[:, -1], whole)
    with ablate(model, {0: list(range(128))}):
        assert not torch.allclose(model(input_ids=ids).logits[:, -1], whole)


def test_units_that_are_not_there():
    model, _, _ = case("gptj")
    with pytest.raises(ValueError, match="layer 2: expected a layer from 0 to 1"), ablate(model, [NeuronId(2, 0)]):
        pass
    wrong = pytest.raises(ValueError, match="layer 0: expected units from 0 to 127, found up to 128")
    with wrong, ablate(model, [NeuronId(0, 128)]):
        pass
    with pytest.raises(ValueError, match="with 2 layers"), ablate(model, torch.zeros(3, 128, dtype=torch.bool)):
        pass
