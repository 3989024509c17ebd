r"""What an activation says about a picture, and a picture about the activation (Goh et al. 2021, Figs. 2, 3, 5 and 7).

Activations are in units of the unit's standard deviation over all pictures, $x = a / \sigma$, and *not* centred: zero
stays zero. For $P(\text{category} \mid x)$ the range from the most negative to the most positive activation is cut
into bins of equal width, and of each bin at most a quota of pictures is labelled, drawn at random. Bins differ in
density by orders of magnitude, so the shares show precision, not recall. $P(x \mid \text{group})$: the other way round.

The authors labelled by hand, blind to the activation. Where the truth about each picture is kept, rules do it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmn_utils.metrics import Estimate, wilson


def in_sd(activations: np.ndarray) -> np.ndarray:
    """Activations of one unit, float [picture], in their standard deviations from zero (not from their mean).

    Raises:
        ValueError: they are all the same.
    """
    sigma = np.std(activations)
    if not sigma > 0:
        raise ValueError(f"expected activations that differ, found a standard deviation of {sigma}")
    return np.asarray(activations) / sigma


def in_bins(x: np.ndarray, *, n_bins: int, quota: int, seed: int) -> pd.DataFrame:
    """Which pictures are labelled: one row each, with `picture` (its place in `x`) and its bin's `low` and `high`.

    x: float [picture]. A bin with fewer pictures than its quota gives all it has; an empty one gives no row.
    """
    edges = np.linspace(x.min(), x.max(), n_bins + 1)
    order = np.random.default_rng(seed).permutation(len(x))
    bins = np.digitize(x, edges[1:-1])[order]
    table = pd.DataFrame({"picture": order, "low": edges[bins], "high": edges[bins + 1]})
    return table.groupby("low").head(quota).sort_values(["low", "picture"], ignore_index=True)


def by_rules(rules: Mapping[str, np.ndarray], otherwise: str) -> pd.Categorical:
    """Each picture's category: the first rule that holds of it (bool [picture] by name), or `otherwise`."""
    names = [*rules, otherwise]
    return pd.Categorical(np.select([*rules.values()], [*rules], default=otherwise), categories=names, ordered=True)


def shares(bins: pd.DataFrame, categories: pd.Categorical) -> pd.DataFrame:
    """P(category | activation): one row a bin (index `low`, `high`) with `n`, and the share of each category.

    bins: from `in_bins`; categories: of every picture.
    """
    flags = pd.get_dummies(categories[bins.picture]).set_axis(bins.index)
    grouped = flags.groupby([bins.low, bins.high])
    table = grouped.mean()
    table.insert(0, "n", grouped.size())
    return table


def together(table: pd.DataFrame, names: Sequence[str]) -> list[Estimate]:
    """The share that some categories have together in each bin of `shares`, with Wilson's interval."""
    hits = (table[[*names]].sum(axis=1) * table.n).round().astype(int)
    return [wilson(int(k), int(n)) for k, n in zip(hits, table.n, strict=True)]


def by_group(x: np.ndarray, groups: Sequence[str], *, seed: int, n_resamples: int = 2000) -> pd.DataFrame:
    """P(activation | group): one row a group with `n`, `median`, `sd` and the median's interval, `low` to `high`.

    x: float [picture], in any unit; the interval is the bootstrap's, over the group's pictures.
    """
    rows = {}
    for name, values in pd.Series(x).groupby(np.asarray(groups)):
        low, high = np.percentile(_medians(values.to_numpy(), seed, n_resamples), [2.5, 97.5])
        rows[name] = {"n": len(values), "median": values.median(), "sd": values.std(ddof=0), "low": low, "high": high}
    return pd.DataFrame(rows).T.astype({"n": int})


def middle(group: pd.Series) -> Estimate:
    """The median of one row of `by_group`, with its interval."""
    return Estimate(float(group["median"]), float(group.low), float(group.high), int(group.n))


def rank_agreement(
    x: np.ndarray, groups: Sequence[str], expected: Mapping[str, float], *, seed: int, n_resamples: int = 2000
) -> Estimate:
    """Spearman's correlation of the groups' medians with a number expected of each; `n` counts groups.

    The interval resamples the pictures of every group, not the groups; it is widened to hold the value itself.
    """
    samples = [np.asarray(x)[np.asarray(groups) == name] for name in expected]
    drawn = [_medians(values, seed + k, n_resamples) for k, values in enumerate(samples)]
    medians = pd.DataFrame([[np.median(values) for values in samples], *zip(*drawn, strict=True)])
    wanted = pd.Series([*expected.values()]).rank()
    value, *others = medians.rank(axis=1).corrwith(wanted, axis=1).fillna(0.0)
    low, high = np.percentile(others, [2.5, 97.5])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), len(samples))


def _medians(values: np.ndarray, seed: int, n_resamples: int) -> np.ndarray:
    """Medians of resampled values, float [resample]."""
    rng = np.random.default_rng(seed)
    return np.median(values[rng.integers(len(values), size=(n_resamples, len(values)))], axis=1)
