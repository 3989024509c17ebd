import pytest
import replicas
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmn_utils.decoding import decode_units, english_words, interpretable_units, is_interpretable, unembedding
from mmn_utils.neurons import mlp_layers

KINDS = list(replicas.LANGUAGE_MODELS)


@pytest.mark.parametrize("sign", ["+", "-"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_same_as_the_dense_product(kind, sign):
    model = replicas.language_model(kind)
    decoded = decode_units(model, sign=sign, units_at_once=17, tokens_at_once=100)
    for layer, mlp in enumerate(mlp_layers(model)):
        dense = (mlp.directions @ unembedding(model)[0].T) * (1 if sign == "+" else -1)
        expected = dense.topk(10)
        assert torch.allclose(decoded.logits[layer], expected.values, rtol=1e-4, atol=1e-5)
        assert torch.allclose(dense.gather(1, decoded.ids[layer]), expected.values, rtol=1e-4, atol=1e-5)
        assert all(len(set(row)) == 10 for row in decoded.ids[layer].tolist())


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.numel = max(self.numel, out.numel())
        return out


def test_memory_is_bounded_by_the_tile():
    model = replicas.language_model("gptj")
    with Largest() as largest:
        decode_units(model, units_at_once=16, tokens_at_once=50)
    assert largest.numel <= 2 * 128 * 10  # the result; a tile has 800
    with Largest() as largest:
        decode_units(model, units_at_once=128, tokens_at_once=320)
    assert largest.numel == 128 * 320


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_unembedding_is_the_models_own(kind):
    """What a unit writes, passed through the model's own norm and head."""
    model = replicas.language_model(kind)
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    weight, _ = unembedding(model)
    stream = torch.randn(3, weight.shape[1])
    shrink = getattr(decoder, "project_out", None)
    expected = head(stream if shrink is None else shrink(stream)) - (0 if head.bias is None else head.bias)
    assert torch.allclose(stream @ weight.T, expected, atol=1e-4)


@torch.no_grad()
def test_final_norm_bias_and_padding():
    model = replicas.language_model("gptj")
    torch.nn.init.normal_(model.lm_head.bias)
    mlp = mlp_layers(model)[1]
    expected = model.lm_head(model.transformer.ln_f(mlp.directions))[:, :290].topk(5)
    decoded = decode_units(model, top_k=5, final_norm=True, bias=True, n_tokens=290)
    assert torch.equal(decoded.ids[1], expected.indices)
    assert torch.allclose(decoded.logits[1], expected.values, atol=1e-4)


def test_a_vocabulary_smaller_than_k_and_a_wrong_sign():
    model = replicas.language_model("gptj")
    assert decode_units(model, n_tokens=3).ids.shape == (2, 128, 3)
    with pytest.raises(ValueError, match="sign: expected '\\+' or '-', found 'both'"):
        decode_units(model, sign="both")


WORDS = [" horses", " racing", "ponies", " Ridden", " horse", " saddle", " gallop"]


def test_interpretable_means_seven_words_of_ten():
    assert is_interpretable([*WORDS, "lihood", "/**", " ox"])
    assert not is_interpretable([*WORDS[:6], "lihood", "/**", " ox", '"""'])
    assert not is_interpretable([*WORDS[:6], " an", "/**", "onds", "rog"])
    assert is_interpretable(["cat"] * 7 + ["x"] * 3, {"cat"}) and not is_interpretable(["cat"] * 10, {"dog"})


def test_the_papers_own_examples_pass_or_fail():
    shown = [" birds", " cages", " species", " breeding", " insects"]
    assert sum(w.strip() in english_words() for w in shown) == 5
    assert not any(w in english_words() for w in ["lihood", "onds", "lys", "ond", "veh"])


def test_the_word_list_is_what_its_notice_says():
    words = english_words()
    assert {"colour", "color", "tennis"} <= words and len(words) > 70_000
    assert all(len(w) >= 3 and w.isalpha() and w == w.lower() for w in words)


def test_units_in_one_go():
    class Tokenizer:
        def decode(self, ids):
            return [" cat", " dog", "lihood"][ids[0]]

    ids = torch.tensor([[[0, 1, 0, 1, 0, 1, 0, 2, 2, 2, 2], [2, 2, 2, 2, 0, 1, 0, 1, 0, 1, 0]]])
    assert interpretable_units(ids, Tokenizer()).tolist() == [[True, False]]
    assert interpretable_units(ids[..., :3], Tokenizer(), {"cat"}).tolist() == [[False, False]]
