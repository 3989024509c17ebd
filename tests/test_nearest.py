"""Nearest tokens of image prompts, and the test that compares two distributions."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import replicas
import torch

from mmn_utils import nearest, profiles
from mmn_utils.metrics import kolmogorov_smirnov
from mmn_utils.models import Captioner


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def captioner(profile):
    return Captioner.from_profile(profile)


def test_nearest_is_the_highest_cosine():
    torch.manual_seed(0)
    vectors, table = torch.randn(2, 3, 8), torch.randn(50, 8)
    ids, cosines = nearest.nearest_tokens(vectors, table, k=4, at_once=2)
    expected = torch.nn.functional.cosine_similarity(vectors[:, :, None], table, dim=-1).topk(4)
    assert torch.equal(ids, expected.indices) and torch.allclose(cosines, expected.values)
    assert torch.equal(nearest.nearest_tokens(100 * vectors, table, k=4)[0], ids)


def test_a_words_own_embedding_is_nearest_to_it(captioner):
    found = nearest.nearest_words(captioner, captioner.text_embeddings(" horse is")[None], k=3)
    ids = captioner.tokenizer(" horse is")["input_ids"]
    assert [tokens[0] for tokens in found.tokens[0]] == [captioner.tokenizer.decode([i]) for i in ids]
    assert np.allclose(found.cosines, 1, atol=1e-5)


def test_random_vectors_follow_from_the_seed(captioner):
    one, two = (nearest.random_vectors(captioner, 2, 3, seed=5) for _ in range(2))
    assert one.shape == (2, 3, captioner.d_model) and torch.equal(one, two)


def test_nouns_are_drawn_from_the_references():
    references = [["two dogs and a cat", "a dog on grass"], ["it is"]]
    drawn = nearest.reference_nouns(references, {"dog", "cat", "grass"}, n=2, seed=0)
    assert len(drawn[0]) == 2 and set(drawn[0]) <= {"dog", "cat", "grass"} and drawn[1] == []


def test_some_patches_as_table_s2_has_them():
    rows = [(7, 0, "dog, cat", 0.512), (7, 1, "bus, bus", 0.4), (9, 0, "a, b", 0.1)]
    frame = pd.DataFrame(rows, columns=["image", "text", "said", "bertscore"])
    table = nearest.example_patches(frame, frame.assign(said="x"), image=7, patches=[1, 0])
    assert table["image prompt"].tolist() == ["bus, bus", "dog, cat"] and (table["random vector"] == "x").all()
    assert table.loc[0, "random vector, BERTScore"] == 0.51


def test_patches_on_and_off_objects():
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, :2] = True
    scenes = SimpleNamespace(objects=lambda _: [SimpleNamespace(mask=mask)], info=lambda _: {"height": 4, "width": 4})
    where = nearest.by_cover(pd.DataFrame({"truth": [1.0, 0, 1, 0]}), scenes, [0], n_patches=4)
    assert where["on_objects"].tolist() == [1] and where["off_objects"].tolist() == [pytest.approx(1 / 3)]


def test_the_papers_p_follows_from_its_d():
    """D = .037 between two samples of 1000 gives p = .5004."""
    first, second = np.arange(1000) + 0.5, np.arange(1000) + 37.0
    d, p = kolmogorov_smirnov(first, second)
    assert d == pytest.approx(0.037) and p == pytest.approx(0.5004, abs=1e-4)


def test_equal_and_separate_samples():
    sample = np.random.default_rng(0).normal(size=200)
    assert kolmogorov_smirnov(sample, sample) == (0.0, 1.0)
    d, p = kolmogorov_smirnov(sample, sample + 100)
    assert d == 1 and p < 1e-12
