import zlib

import numpy as np
import pytest
import replicas

from mmn_utils import profiles
from mmn_utils.metrics import Estimate, bert_scores, bootstrap_mean, first_noun, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_as_in_newcombe_1998(successes, n, low, high):
    estimate = wilson(successes, n)
    assert (estimate.value, estimate.n) == (successes / n, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_is_the_solution_of_its_own_equation():
    estimate = wilson(37, 50)
    for p in (estimate.low, estimate.high):
        assert abs(estimate.value - p) / np.sqrt(p * (1 - p) / 50) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_wilson_of_nonsense(successes, n):
    with pytest.raises(ValueError, match=rf"found {successes} of {n}"):
        wilson(successes, n)


def test_bootstrap_is_repeatable_and_close_to_the_normal_interval():
    values = np.random.default_rng(1).normal(3, 2, 400)
    estimate = bootstrap_mean(values, seed=0)
    assert estimate == bootstrap_mean(list(values), seed=0) != bootstrap_mean(values, seed=1)
    half = 1.96 * values.std() / 20
    expected = (values.mean(), values.mean() - half, values.mean() + half)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected, abs=0.03)


def test_bootstrap_of_a_constant_and_of_nothing():
    assert bootstrap_mean([2.0] * 5, seed=0) == Estimate(2.0, 2.0, 2.0, 5)
    with pytest.raises(ValueError, match=r"one number per case, found an array of shape \(0,\)"):
        bootstrap_mean([], seed=0)


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("a horse and a dog.", "horse"),
        ("two DOGS, running", "dog"),
        ("(bus)", "bus"),
        ("buses and cherries", "bus"),
        ("some cherries", "cherry"),
        ("the dog's bus", "dog"),
        ("two men on a hot-dog", "man"),
        ("glasses on a glass", "glasses"),
        ("a doghouse", None),
        ("", None),
    ],
)
def test_first_noun(caption, noun):
    assert first_noun(caption, {"horse", "dog", "bus", "cherry", "man", "glasses", "glass"}) == noun


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    replicas.save_bert(folder / "bert")
    return profiles.read(replicas.save_profile(folder / "p.yml"), check_folders=False)


CANDIDATES = ["a dog", "a cat on the grass", "the bus", "a horse", "A picture of two dogs"]
REFERENCES = ["a cat", "a cat on the grass", "a train, a bus", "the man is riding", "a dog"]


def test_bert_scores_are_the_packages_own(profile, capsys):
    import bert_score

    ours = bert_scores(CANDIDATES, REFERENCES, profile, batch_size=2)
    folder = profile.locate(profile.models.bert.source)
    theirs = bert_score.score(CANDIDATES, REFERENCES, model_type=folder, num_layers=1, device="cpu")[2]
    assert ours.shape == (5,) and ours[1] == pytest.approx(1.0, abs=1e-5)
    assert ours == pytest.approx(theirs.numpy(), abs=5e-3), "theirs computes in half precision"
    assert np.argsort(ours).tolist() == np.argsort(theirs.numpy()).tolist()


def test_bert_scores_do_not_depend_on_pythons_hash_seed(profile, monkeypatch, capfd):
    import bert_score.utils

    real, given = bert_score.utils.bert_cos_score_idf, []
    monkeypatch.setattr(
        bert_score.utils, "bert_cos_score_idf", lambda _m, refs, *a, **k: given.extend(refs) or real(_m, refs, *a, **k)
    )
    bert_scores(CANDIDATES, REFERENCES, profile)
    assert [hash(text) for text in given] == [zlib.crc32(text.encode()) for text in REFERENCES]
    assert capfd.readouterr() == ("", ""), "silent"


def test_bert_scores_of_unequal_lists(profile):
    with pytest.raises(ValueError, match="expected a reference for each candidate, found 1 and 2"):
        bert_scores(["a"], ["a", "b"], profile)
    assert bert_scores([], [], profile).shape == (0,)
