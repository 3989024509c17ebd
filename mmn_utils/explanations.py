"""What formulas say about many neurons: IoU against length, and against accuracy (Acquaviva & Hensgen, sections 3, 4).

A neuron that was not searched stays in the tables with an IoU that is not a number, and out of every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mmn_utils.formulas import Explanation
from mmn_utils.metrics import Estimate, bootstrap_mean


def formula_table(explanations: Sequence[Explanation], names: Sequence[str]) -> pd.DataFrame:
    """The best formula of each neuron and length: `neuron`, `n_firing`, `max_length`, `formula`, `length`, `iou`.

    names: of the concepts. Where a neuron was not searched, one row with no length, no formula and no IoU.
    """
    columns = ["neuron", "n_firing", "max_length", "formula", "length", "iou"]
    rows = []
    for own in explanations:
        if not own.searched:
            rows.append((own.neuron, own.n_firing, None, None, None, np.nan))
        for max_length, (best, *_) in enumerate(own.beams, start=1):
            text = best.formula.text(names)
            rows.append((own.neuron, own.n_firing, max_length, text, len(best.formula), best.iou))
    return pd.DataFrame(rows, columns=columns).astype({"max_length": "Int64", "length": "Int64"})


def ious(explanations: Sequence[Explanation], max_length: int | None = None) -> np.ndarray:
    """The best IoU of each neuron, float [neuron]; not a number where it was not searched."""
    return np.array([own.best(max_length).iou if own.searched else np.nan for own in explanations])


def iou_by_length(explanations: Sequence[Explanation], seed: int) -> list[Estimate]:
    """The mean of the best IoU over the neurons that were searched, for each maximal length.

    Raises:
        ValueError: none was searched.
    """
    searched = [own for own in explanations if own.searched]
    if not searched:
        raise ValueError(f"none of {len(explanations)} neurons was searched: they fire too seldom for min_firing")
    return [bootstrap_mean(ious(searched, n), seed) for n in range(1, len(searched[0].beams) + 1)]


def distinct_masks(explanations: Sequence[Explanation], concepts: np.ndarray) -> list[float]:
    """How many formulas of a beam are true in different cases, for each maximal length: the mean over searched neurons.

    concepts: bool [case, concept], those of the search.
    """
    counts = [
        [len({scored.formula.mask(concepts).tobytes() for scored in beam}) for beam in own.beams]
        for own in explanations
        if own.searched
    ]
    return np.mean(counts, axis=0).tolist()


def accuracy_when_firing(firing: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """The share of correct predictions among the cases in which each neuron fires, float [neuron].

    Not a number where it never does. firing: bool [case, neuron]; correct: bool [case], of cases with a gold label.
    """
    if firing.shape[:1] != correct.shape:
        raise ValueError(f"expected the same cases in both, found firing {firing.shape}, correct {correct.shape}")
    n_firing = firing.sum(axis=0)
    n_correct = (firing & correct[:, None]).sum(axis=0)
    return np.where(n_firing > 0, n_correct / np.maximum(n_firing, 1), np.nan)


def shuffled(firing: np.ndarray, seed: int) -> np.ndarray:
    """Each neuron's firing in cases drawn anew, as often as before: a neuron with nothing to explain but its rate."""
    return np.random.default_rng(seed).permuted(firing, axis=0)


@dataclass(frozen=True)
class Correlation:
    """Of two numbers a neuron."""

    r: float
    """Pearson's."""
    p: float
    """Of no correlation, two-sided."""
    low: float
    """The lower end of r's 95 % bootstrap interval over neurons."""
    high: float
    """The upper end."""
    spearman: float
    """Of the ranks."""
    spearman_p: float
    """Of no correlation of the ranks, two-sided."""
    n: int
    """Neurons that have both numbers."""

    def __str__(self) -> str:
        return f"r = {self.r:.2f} [{self.low:.2f}, {self.high:.2f}], p = {self.p:.2g}, n = {self.n}"


def correlation(x: np.ndarray, y: np.ndarray, seed: int, *, n_resamples: int = 2000) -> Correlation:
    """Pearson's and Spearman's correlation of x and y, float [neuron]; neurons without one of them are left out.

    Raises:
        ValueError: fewer than three neurons have both, or one number is the same for all of them.
    """
    x, y = _paired(x, y)
    draws = np.random.default_rng(seed).integers(len(x), size=(n_resamples, len(x)))
    low, high = np.nanpercentile((_standard(x[draws]) * _standard(y[draws])).mean(axis=1), [2.5, 97.5])
    pearson, ranks = stats.pearsonr(x, y), stats.spearmanr(x, y)
    values = (pearson.statistic, pearson.pvalue, low, high, ranks.statistic, ranks.pvalue)
    return Correlation(*map(float, values), n=len(x))


def partial_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    r"""Pearson's correlation of x and y, float [neuron], once a third number's linear part is taken from both; and p.

    $p$ is two-sided, by Student's $t = r \sqrt{(n - 3) / (1 - r^2)}$ of $n - 3$ degrees of freedom.

    Raises:
        ValueError: fewer than four neurons have all three, or one number is the same for all of them.
    """
    x, y, given = _paired(x, y, given)
    line = np.column_stack([np.ones_like(given), given])
    left = [v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (x, y)]
    r = float(np.clip((_standard(left[0]) * _standard(left[1])).mean(), -1, 1))
    free = len(x) - 3
    with np.errstate(divide="ignore"):
        return r, float(2 * stats.t.sf(abs(r) * np.sqrt(free / np.float64(1 - r**2)), free))


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 along the last axis; not a number where all are equal."""
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = values.std(axis=-1, keepdims=True)
    return np.divide(centred, deviation, out=np.full_like(centred, np.nan), where=deviation > 0)


def _paired(*values: np.ndarray) -> list[np.ndarray]:
    """The same numbers, of neurons that have all of them."""
    values = [np.asarray(v, dtype=np.float64) for v in values]
    if len({v.shape for v in values}) > 1:
        raise ValueError(f"expected one number a neuron in each, found shapes {[v.shape for v in values]}")
    known = ~np.isnan(values).any(axis=0)
    kept = [v[known] for v in values]
    if known.sum() <= len(values) or any(np.ptp(v) == 0 for v in kept):
        raise ValueError(
            f"a correlation needs more than {len(values)} neurons that differ, found {known.sum()} with all numbers "
            f"of {len(known)}, from {[(v.min(initial=np.inf), v.max(initial=-np.inf)) for v in kept]}"
        )
    return kept
