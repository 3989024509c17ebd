"""The golden tests' own arithmetic, on a small GPT-J whose answers are computed here in another way."""

import golden
import paper_replicas
import pytest
import torch
from transformers import AutoTokenizer, GPTJForCausalLM


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gptj")
    paper_replicas.save_gptj(folder)
    return GPTJForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def says(model, tokenizer, layer, unit, way):
    with torch.no_grad():
        vector = model.transformer.h[layer].mlp.fc_out.weight[:, unit]
        vector = vector if way == "plain" else model.transformer.ln_f(vector)
        logits = model.lm_head(vector) - (0 if way == "last norm and bias" else model.lm_head.bias)
    return [tokenizer.decode([i]) for i in logits[: len(tokenizer)].argsort(descending=True)[:5].tolist()]


@pytest.mark.parametrize("reading", golden.READINGS)
def test_the_right_reading_is_recognised(small, reading):
    first, way = reading
    units = [(layer, unit) for layer in (1, 2, 3) for unit in (0, 77, 200)]
    printed = {(layer + first, unit): says(*small, layer, unit, way) for layer, unit in units}
    printed = {neuron: [token.strip() or token for token in tokens] for neuron, tokens in printed.items()}
    shares = golden.by_reading(*small, {n: p for n, p in printed.items() if n[0] < 4})
    assert max(shares, key=shares.get) == reading and shares[reading] > 0.9, "less the lone spaces"


def test_what_is_printed():
    expected = golden.decoded()
    assert len(expected) == 21 and expected[14, 2019] == ["horses", "racing", "ponies", "ridden"]
    assert all(len(tokens) == 5 for neuron, tokens in expected.items() if neuron != (14, 2019))
    assert sum(map(len, golden.PAIRS.values())) == 22
    assert golden.agrees("'cars'", "cars") and not golden.agrees("'cars'", " cars")
    assert golden.agrees("cars", " cars") and golden.agrees("'/**'", " /**") and not golden.agrees("cars", "car")
    assert golden.share_in_place(["a", "b"], [" a", " c"]) == 0.5
