import numpy as np
import pytest
from scipy import stats

from mmn_utils import explanations
from mmn_utils.compositional import search
from mmn_utils.explanations import correlation, partial_correlation

RNG = np.random.default_rng(0)


@pytest.fixture
def case():
    """Neuron 2 never fires."""
    rng = np.random.default_rng(3)
    concepts, fires = rng.random((80, 8)) < 0.3, rng.random((80, 4)) < 0.4
    fires[:, 2] = False
    return fires, concepts


def test_tables_and_means_leave_out_who_was_not_searched(case):
    found = search(*case, max_length=3)
    table = explanations.formula_table(found, [f"c{k}" for k in range(8)])
    assert len(table) == 3 * 3 + 1
    left_out = table[table["neuron"] == 2].iloc[0]
    assert left_out[["formula", "length", "iou"]].isna().all() and left_out["n_firing"] == 0
    own = table[(table["neuron"] == 0) & (table["max_length"] == 1)].iloc[0]
    assert own["formula"] == f"c{found[0].best(1).formula.leaf}" and own["iou"] == found[0].best(1).iou
    means = explanations.iou_by_length(found, seed=0)
    searched = [found[k] for k in (0, 1, 3)]
    assert [m.value for m in means] == pytest.approx([np.mean([x.best(n).iou for x in searched]) for n in (1, 2, 3)])
    assert all(m.n == 3 and m.low <= m.value <= m.high for m in means)
    assert np.isnan(explanations.ious(found)).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="none of 1 neurons was searched"):
        explanations.iou_by_length(found[2:3], seed=0)


def test_distinct_masks_by_hand(case):
    fires, concepts = case
    for deduplicate in (True, False):
        found = search(fires, concepts, max_length=2, beam=4, deduplicate=deduplicate)
        counts = [[len({tuple(s.formula.mask(concepts)) for s in b}) for b in x.beams] for x in found if x.searched]
        means = explanations.distinct_masks(found, concepts)
        assert means == pytest.approx(np.mean(counts, axis=0))
        assert (means == [4, 4]) == deduplicate


def test_accuracy_when_firing_by_hand():
    firing = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=bool)
    found = explanations.accuracy_when_firing(firing, np.array([True, False, True, True]))
    assert found[[0, 2]].tolist() == [2 / 3, 1.0] and np.isnan(found[1])
    with pytest.raises(ValueError, match=r"found firing \(4, 3\), correct \(3,\)"):
        explanations.accuracy_when_firing(firing, np.ones(3, dtype=bool))


def test_shuffling_keeps_the_rate_and_nothing_else():
    firing = np.tile(np.arange(1000)[:, None] < 300, (1, 5))
    null = explanations.shuffled(firing, seed=1)
    assert (null.sum(axis=0) == 300).all() and (null == explanations.shuffled(firing, seed=1)).all()
    assert (np.abs(null[:300].mean(axis=0) - 0.3) < 0.1).all(), "where it fired, it fires as often as elsewhere"
    assert (null[:, 0] != null[:, 1]).any(), "each neuron by itself"


def test_correlation_is_scipys_and_leaves_out_missing_numbers():
    x = RNG.standard_normal(60)
    y = 0.5 * x + RNG.standard_normal(60)
    found = correlation(x, y, seed=0)
    assert (found.r, found.p) == pytest.approx(tuple(stats.pearsonr(x, y)))
    assert (found.spearman, found.spearman_p) == pytest.approx(tuple(stats.spearmanr(x, y)))
    assert found.low < found.r < found.high and found.n == 60
    holes = np.concatenate([x, [np.nan, 1.0]]), np.concatenate([y, [5.0, np.nan]])
    assert correlation(*holes, seed=0) == found
    assert correlation(x, -y, seed=0).r == pytest.approx(-found.r)
    assert str(found).startswith(f"r = {found.r:.2f} [")


def test_intervals_cover():
    """Of 200 samples with a true correlation of .6, about 95 % of the intervals hold it."""
    covered = 0
    for seed in range(200):
        x, noise = np.random.default_rng(seed).standard_normal((2, 80))
        found = correlation(x, 0.6 * x + 0.8 * noise, seed=seed, n_resamples=400)
        covered += found.low <= 0.6 <= found.high
    assert 175 <= covered <= 199


def test_partial_correlation():
    z = RNG.standard_normal(400)
    x, y = z + 0.3 * RNG.standard_normal(400), z + 0.3 * RNG.standard_normal(400)
    assert correlation(x, y, seed=0).r > 0.8
    r, p = partial_correlation(x, y, z)
    a, b, c = (np.corrcoef(*pair)[0, 1] for pair in ((x, y), (x, z), (y, z)))
    assert r == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))  # the textbook's formula
    assert abs(r) < 0.12 and p > 0.01
    linked = partial_correlation(x, y + x, z)
    assert linked[0] > 0.5 and linked[1] < 1e-6


def test_p_of_a_partial_correlation_is_uniform_where_there_is_none():
    ps = []
    for seed in range(300):
        z, e, f = np.random.default_rng(seed).standard_normal((3, 12))
        ps.append(partial_correlation(z + e, z + f, z)[1])
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_refused():
    with pytest.raises(ValueError, match=r"found shapes \[\(3,\), \(4,\)\]"):
        correlation(np.ones(3), np.ones(4), seed=0)
    with pytest.raises(ValueError, match="more than 2 neurons that differ, found 2 with all numbers of 3"):
        correlation(np.array([1.0, 2.0, np.nan]), np.arange(3.0), seed=0)
    with pytest.raises(ValueError, match="found 4 with all numbers of 4"):
        correlation(np.ones(4), np.arange(4.0), seed=0)
    with pytest.raises(ValueError, match="more than 3 neurons"):
        partial_correlation(np.arange(3.0), np.arange(3.0), np.arange(3.0))
