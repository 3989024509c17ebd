import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmn_utils import conditional, metrics


def test_the_sd_axis_is_not_centred():
    activations = np.array([1.0, 3.0, 5.0, -1.0])
    np.testing.assert_allclose(conditional.in_sd(activations), activations / activations.std())
    np.testing.assert_allclose(conditional.in_sd(7 * activations), conditional.in_sd(activations))
    assert conditional.in_sd(np.array([0.0, 2.0]))[0] == 0
    with pytest.raises(ValueError, match="that differ, found a standard deviation of 0"):
        conditional.in_sd(np.ones(3))


def test_bins_by_hand():
    x = np.array([-2.0, 8.0, 0.5, 3.0, 2.9, 7.9])  # width 2.5: -2, 0.5, 3, 5.5, 8
    table = conditional.in_bins(x, n_bins=4, quota=9, seed=0)
    found = {low: sorted(rows.picture) for low, rows in table.groupby("low")}
    assert found == {-2.0: [0], 0.5: [2, 4], 3.0: [3], 5.5: [1, 5]}
    np.testing.assert_allclose(table.high - table.low, 2.5)


def test_an_empty_bin_has_no_row():
    table = conditional.in_bins(np.array([0.0, 0.1, 3.0]), n_bins=3, quota=5, seed=0)
    assert table.low.unique().tolist() == [0, 2]


def test_quotas_are_drawn_at_random_and_without_repeats():
    x = np.concatenate([np.zeros(100), [1.0] * 3])
    tables = [conditional.in_bins(x, n_bins=2, quota=10, seed=seed) for seed in range(40)]
    for table in tables:
        assert table.groupby("low").size().tolist() == [10, 3]
        assert table.picture.is_unique
    drawn = np.bincount(np.concatenate([t.picture[t.low == 0] for t in tables]), minlength=100)[:100]
    assert drawn.min() >= 0 and (drawn > 0).mean() > 0.9  # 1 - .9^40 = .985 are expected
    pd.testing.assert_frame_equal(tables[3], conditional.in_bins(x, n_bins=2, quota=10, seed=3))


def test_the_first_rule_decides():
    kinds = conditional.by_rules({"a": np.array([1, 1, 0], bool), "b": np.array([0, 1, 0], bool)}, "rest")
    assert kinds.tolist() == ["a", "a", "rest"]
    assert kinds.categories.tolist() == ["a", "b", "rest"]


def test_shares_by_hand_keep_empty_categories():
    bins = pd.DataFrame({"picture": [3, 0, 1], "low": [0.0, 0.0, 1.0], "high": [1.0, 1.0, 2.0]})
    kinds = conditional.by_rules({"a": np.array([1, 0, 1, 0], bool), "never": np.zeros(4, bool)}, "rest")
    table = conditional.shares(bins, kinds)
    assert table.columns.tolist() == ["n", "a", "never", "rest"]
    assert table.to_numpy().tolist() == [[2, 0.5, 0, 0.5], [1, 0, 0, 1]]
    assert table.index.tolist() == [(0, 1), (1, 2)]
    assert conditional.together(table, ["a", "never"]) == [metrics.wilson(1, 2), metrics.wilson(0, 1)]


def test_a_planted_neuron_is_found_and_a_blind_one_is_not():
    rng = np.random.default_rng(0)
    member = rng.random(4000) < 0.05
    kinds = conditional.by_rules({"it": member}, "else")
    top = {}
    for name, x in (("planted", rng.normal(size=4000) + 8 * member), ("blind", rng.normal(size=4000))):
        bins = conditional.in_bins(conditional.in_sd(x), n_bins=10, quota=50, seed=0)
        table = conditional.shares(bins, kinds)
        np.testing.assert_allclose(table[["it", "else"]].sum(axis=1), 1)
        assert table.n.max() <= 50
        top[name] = conditional.together(table, ["it"])
    assert top["planted"][-1].value == 1 and top["planted"][0].value == 0
    assert top["planted"][-1].low > max(e.value for e in top["blind"][3:7])


def test_groups_by_hand():
    x, groups = np.array([1.0, 2.0, 9.0, 5.0, 5.0]), ["b", "b", "b", "a", "a"]
    table = conditional.by_group(x, groups, seed=0)
    assert table.index.tolist() == ["a", "b"]
    assert table.loc["b", ["n", "median"]].tolist() == [3, 2]
    assert table.loc["b", "sd"] == pytest.approx(np.std([1, 2, 9]))
    assert table.loc["a", ["median", "low", "high", "sd"]].tolist() == [5, 5, 5, 0]
    assert table.loc["b", "low"] == 1 and table.loc["b", "high"] == 9
    row = table.iloc[0]
    assert conditional.middle(row) == metrics.Estimate(row["median"], row["low"], row["high"], row["n"])


def test_rank_agreement_is_spearmans_of_the_medians():
    rng = np.random.default_rng(0)
    names = list("abcdef")
    groups, x = np.repeat(names, 30), rng.normal(size=180) + np.repeat([0, 0.2, 0.1, 0.8, 0.6, 0.3], 30)
    expected = dict(zip(names, [0, 0, 0, 1, 0.3, 0.1], strict=True))
    found = conditional.rank_agreement(x, groups, expected, seed=0)
    medians = [np.median(x[groups == name]) for name in names]
    assert found.value == pytest.approx(stats.spearmanr(medians, [*expected.values()]).statistic)
    assert found.low <= found.value <= found.high and found.n == 6
    assert found.high - found.low > 0.05
    turned = conditional.rank_agreement(-x, groups, expected, seed=0)
    assert turned.value == pytest.approx(-found.value)
