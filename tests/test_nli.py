import json

import numpy as np
import pandas as pd
import pytest
import torch

from mmn_utils import profiles
from mmn_utils.data import pairs as data
from mmn_utils.models import nli


@pytest.fixture
def toy():
    """Two-word sentences: 0 if their first words agree, else 1 or 2 by the second word of the hypothesis."""
    rng = np.random.default_rng(0)
    words = [[f"w{a}", f"w{b}"] for a in range(4) for b in range(4)]
    sides = rng.integers(16, size=(600, 2))
    texts = [[" ".join(words[k]) for k in side] for side in sides.T]
    first, second = sides // 4, sides % 4
    labels = np.where(first[:, 0] == first[:, 1], 0, 1 + (second[:, 1] > 1))
    return texts, labels


def test_the_head_by_hand():
    """Unit weights on one part of [u; v; u - v; u * v] at a time; batch norm at its start changes nothing but 1e-5."""
    model = nli.on_vectors(torch.tensor([[2.0, 3.0], [5.0, -1.0]]), n_neurons=4, seed=0).eval()
    u, v = np.array([2.0, 3.0]), np.array([5.0, -1.0])
    with torch.no_grad():
        model.hidden[2].bias.zero_()
        model.hidden[2].weight.copy_(torch.eye(4).repeat_interleave(2, dim=1))
    parts = [u.sum(), v.sum(), (u - v).sum(), (u * v).sum()]
    _, neurons = nli.run(model, np.array([[0, 1]]))
    assert neurons[0] == pytest.approx(np.maximum(parts, 0), rel=1e-4)


def test_both_models_learn_what_can_be_learned_and_the_table_stays(toy):
    texts, labels = toy
    made = nli.numbered(texts)
    assert [made.sentences[k] for k in made.pairs[0][:, 1]] == texts[1]
    known = sorted({w for s in made.sentences for w in s.split()})
    one_hot = torch.stack(
        [sum(torch.eye(8)[int(w[1]) + 4 * k] for k, w in enumerate(s.split())) for s in made.sentences]
    )
    table = nli.on_vectors(one_hot.clone(), n_neurons=32, seed=0)
    lstm = nli.on_words(made.sentences, known, d_word=8, d_state=16, n_neurons=32, seed=0)
    for model in (table, lstm):
        nli.fit(model, made.pairs[0][:500], labels[:500], n_epochs=40, seed=0)
        guessed, neurons = nli.run(model, made.pairs[0][500:])
        assert (guessed == labels[500:]).mean() > 0.9
        assert neurons.shape == (100, 32) and neurons.min() == 0
    assert torch.equal(table.encoder.weight, one_hot)


def test_an_lstms_vector_does_not_depend_on_its_neighbours():
    model = nli.on_words(["a b c", "a", "c b"], ["a", "b"], d_word=3, d_state=5, n_neurons=2, seed=0)
    together = model.encoder(torch.tensor([0, 1, 2]))
    alone = torch.cat([model.encoder(torch.tensor([k])) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)
    _, (state, _) = model.encoder.lstm(model.encoder.embedding(torch.tensor([[1, 3]])))
    assert torch.allclose(state[0, 0], alone[2], atol=1e-6)


def test_runs_are_the_same_twice_and_in_evaluation_mode_only(toy):
    texts, labels = toy
    made = nli.numbered(texts)
    vectors = torch.randn(len(made.sentences), 6, generator=torch.Generator().manual_seed(0))
    models = [nli.on_vectors(vectors, n_neurons=8, seed=0) for _ in range(2)]
    runs = [nli.run(nli.fit(m, made.pairs[0], labels, n_epochs=2, seed=3), made.pairs[0])[1] for m in models]
    assert np.array_equal(*runs)
    with pytest.raises(ValueError, match="expected a model in evaluation mode"):
        nli.run(models[0].train(), made.pairs[0])


def test_a_head_is_kept_and_put_on_other_vectors(toy, tmp_path):
    texts, labels = toy
    made = nli.numbered(texts)
    vectors = torch.randn(len(made.sentences), 6, generator=torch.Generator().manual_seed(0))
    model = nli.fit(nli.on_vectors(vectors, n_neurons=8, seed=0), made.pairs[0], labels, n_epochs=2, seed=3)
    nli.head_table(model).to_parquet(tmp_path / "head.parquet")
    kept = pd.read_parquet(tmp_path / "head.parquet")
    again = nli.with_head(vectors.flip(0), kept)  # sentence k is now the k-th from the end
    turned = len(vectors) - 1 - made.pairs[0]
    for ours, theirs in zip(nli.run(again, turned), nli.run(model, made.pairs[0]), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(ValueError, match="expected vectors of 6 entries, as the head was trained on, found 5"):
        nli.with_head(vectors[:, :5], kept)


def test_the_miniatures_pairs_come_by_split():
    settings = profiles.read("miniature")
    test = data.sentence_pairs(settings, "pairs")
    assert len(test) == 10_000 and np.bincount(test.labels).tolist() == [3334, 3333, 3333]
    assert all(len(p) == len(t) for p, t in zip(test.premises, test.premise_tags, strict=True))
    with pytest.raises(profiles.ProfileError, match="data.pears is not there"):
        data.sentence_pairs(settings, "pears")


def write(path, *records):
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return path


RECORD = {
    "gold_label": "neutral",
    "sentence1_parse": "(ROOT (S (NP (DT A) (NN dog)) (VP (VBZ runs)) (. .)))",
    "sentence2_parse": "(ROOT (NP (NN Rain)))",
}


def test_snli_is_read_by_its_parses(tmp_path):
    found = data.read_snli(write(tmp_path / "a.jsonl", RECORD, RECORD | {"gold_label": "-"}))
    assert found.premises == [("a", "dog", "runs", ".")] and found.premise_tags == [("dt", "nn", "vbz", ".")]
    assert found.hypotheses == [("rain",)] and found.labels.tolist() == [1] and found.texts[1] == ["rain"]
    assert len(data.read_snli(write(tmp_path / "b.jsonl", RECORD, RECORD, "broken"), n=2)) == 2


@pytest.mark.parametrize(
    "bad", ["nonsense\n", {}, RECORD | {"gold_label": "maybe"}, RECORD | {"sentence2_parse": ""}, []]
)
def test_a_bad_line_is_named(tmp_path, bad):
    with pytest.raises(ValueError, match=r"a.jsonl, line 2: expected"):
        data.read_snli(write(tmp_path / "a.jsonl", RECORD, bad))


def test_no_snli(tmp_path):
    with pytest.raises(FileNotFoundError, match="SNLI is snli_1.0.zip"):
        data.read_snli(tmp_path / "snli_1.0_dev.jsonl")
    with pytest.raises(ValueError, match="no pair with a gold label"):
        data.read_snli(write(tmp_path / "a.jsonl", RECORD | {"gold_label": "-"}))
