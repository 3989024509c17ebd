import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mmn_utils import probes

NAMES = ["ant", "bee", "cow", "dog", "elk"]


@pytest.fixture(scope="module")
def planted():
    """Five classes of 30 images; class k is carried by neurons 2k and 2k + 1 of 40, the rest is noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 30)
    features = rng.normal(0, 1, (150, 40))
    features[np.arange(150), 2 * labels] += 2
    features[np.arange(150), 2 * labels + 1] += 2
    return features, np.array(NAMES)[labels]


@pytest.mark.parametrize("target", [1, 3, 8])
def test_the_bisection_reaches_its_mean(planted, target):
    fits = probes.sparse(*planted, nonzeros=target)
    assert (
        abs(probes.mean_nonzeros(fits[-1]) - target) <= 0.2
    )  # five classes: one weight more or less moves the mean .2
    gaps = [abs(probes.mean_nonzeros(fit) - target) for fit in fits]
    assert gaps == sorted(gaps, reverse=True)


def test_two_weights_a_class_are_the_planted_ones(planted):
    found = probes.weights(probes.sparse(*planted, nonzeros=2)[-1])
    expected = np.zeros((5, 40), bool)
    for k in range(5):
        expected[k, 2 * k : 2 * k + 2] = True
    assert (found > 0).sum() == 10 and (expected == (found > 0)).all()


def test_no_weight_before_the_first_strength_and_one_soon_after(planted):
    first = probes.first_strength(*planted)
    before, after = (probes.mean_nonzeros(probes._fit(*planted, c * first)) for c in (0.97, 1.1))
    assert before == 0 < after


def test_the_sparse_probe_is_the_optimum(planted):
    """Karush, Kuhn, Tucker: the gradient of the losses is C's inverse where a weight is, and no larger elsewhere."""
    features, labels = planted
    probe = probes.sparse(features, labels, nonzeros=4)[-1]
    for name, one in zip(probe.classes_, probe.estimators_, strict=True):
        gradient = features.T @ (one.predict_proba(features)[:, 1] - (labels == name))
        used = one.coef_[0] != 0
        np.testing.assert_allclose(gradient[used] * one.C, -np.sign(one.coef_[0][used]), rtol=0.03)
        assert np.abs(gradient * one.C).max() < 1.03


def test_impossible_requests_are_refused(planted):
    features, labels = planted
    with pytest.raises(ValueError, match="fewer than 40 weights a class and three classes or more, found 40 and 5"):
        probes.sparse(features, labels, nonzeros=40)
    with pytest.raises(ValueError, match="found 3 and 2"):
        probes.sparse(features[:60], labels[:60], nonzeros=3)


def test_top_k_by_hand():
    probe = LogisticRegression()
    probe.classes_, probe.coef_, probe.intercept_ = np.array(["a", "b", "c"]), np.eye(3), np.zeros(3)
    features = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]])
    labels = ["a", "b", "c", "c"]
    assert probes.accuracy(probe, features, labels).value == 0.5
    assert probes.accuracy(probe, features, labels, top=2).value == 0.75
    assert probes.accuracy(probe, features, labels, top=3).value == 1


def test_the_dense_probe_learns_and_uses_all(planted):
    probe = probes.dense(*planted)
    assert probes.mean_nonzeros(probe) == 40
    assert probes.accuracy(probe, *planted).value > 0.95


def test_sharing_by_hand():
    code = np.array([[1.0, 0, 0], [2, 0.5, 0], [0, -1, 0], [0, 0, 3]])  # pairs that share: 0-1 by one, 1-2 by another
    assert probes.sharing(code, ["fish", "fish", "bird", "bird"]) == 0.5
    assert probes.sharing(code, ["fish", "fish", "fish", "bird"]) == 1
    assert np.isnan(probes.sharing(np.eye(4), ["fish", "fish", "bird", "bird"]))
    draws = probes.shuffled_sharing(code, ["fish", "fish", "bird", "bird"], n=50, seed=0)
    assert set(draws) <= {0.0, 0.5, 1.0} and len(set(draws)) > 1


def test_the_interval_of_sharing_draws_the_neurons_anew():
    fish = np.tile([1.0, 1, 0, 0], (3, 1))  # three neurons of two fish each, one of a fish and a bird, one of one class
    code = np.concatenate([fish, [[0, 1, 1, 0]], [[0, 0, 0, 1]]]).T
    groups = ["fish", "fish", "bird", "bird"]
    found = probes.bootstrap_sharing(code, groups, seed=0)
    assert (found.value, found.high, found.n) == (0.75, 1, 4)  # binomial, four draws of .75
    assert found.low == 0.25
    alike = probes.bootstrap_sharing(fish.T, groups, seed=0)
    assert (alike.low, alike.value, alike.high, alike.n) == (1, 1, 1, 3)
