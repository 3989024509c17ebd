"""A neuron of a sentence-pair classifier on one card, and IoU against length (Acquaviva & Hensgen, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mmn_utils.formulas import Scored
from mmn_utils.metrics import Estimate


@dataclass(frozen=True)
class Card:
    """What a neuron is said to stand for, and where it can be checked."""

    title: str
    """Neuron, formula, IoU, and the weights to the classes."""
    pairs: pd.DataFrame
    """Pairs that the neuron answers most (`top`), and pairs where the formula is true (`formula`), with labels."""
    confusion: pd.DataFrame
    """Of the pairs where the formula is true: counts [label, guess]."""
    entropy: float
    """Of the labels of these pairs, in bits: log2(3) = 1.58 if the formula says nothing about the label."""


def card(
    neuron: int,
    best: Scored,
    *,
    names: Sequence[str],
    concepts: np.ndarray,
    activations: np.ndarray,
    pairs: pd.DataFrame,
    weights: pd.DataFrame,
    n: int = 5,
) -> Card:
    """The card of one neuron.

    Args:
        neuron: its number.
        best: the formula to print.
        names: of the concepts.
        concepts: bool [pair, concept].
        activations: of this neuron, float [pair].
        pairs: `premise`, `hypothesis`, `label` and `guess`, as words.
        weights: of the output layer, [class, neuron].
        n: pairs of each kind.
    """
    mask = best.formula.mask(concepts)
    top, holds = np.argsort(-activations, kind="stable")[:n], np.flatnonzero(mask)
    spread = holds[np.linspace(0, len(holds) - 1, min(n, len(holds))).round().astype(int)] if len(holds) else holds
    shown = pairs.iloc[[*top, *spread]].assign(activation=activations[[*top, *spread]], formula=mask[[*top, *spread]])
    shown.insert(0, "shown", ["top"] * len(top) + ["formula"] * len(spread))
    there, classes = pairs[mask], list(weights.index)
    counts = pd.crosstab(there.label, there.guess).reindex(index=classes, columns=classes, fill_value=0)
    towards = ", ".join(f"{name} {w:+.2f}" for name, w in weights[str(neuron)].items())
    title = f"NLI N{neuron}: {best.formula.text(names)}   IoU {best.iou:.3f}   weights: {towards}"
    return Card(title, shown.reset_index(drop=True), counts, entropy(counts.sum(axis=1).to_numpy()))


def entropy(counts: np.ndarray) -> float:
    """Shannon's, in bits, of a distribution given by counts.

    >>> entropy(np.array([2, 1, 1])), entropy(np.array([3, 0]))
    (1.5, 0.0)
    """
    shares = counts[counts > 0] / counts.sum()
    return float(abs((shares * np.log2(shares)).sum()))


def iou_against_length(ax: Axes, series: dict[str, list[Estimate]]) -> Axes:
    """Mean IoU of the neurons' best formulas against the longest formula allowed, a line with intervals a model."""
    for (name, values), style in zip(series.items(), ("o-", "s--", "^:", "d-."), strict=False):
        lengths = np.arange(1, len(values) + 1)
        ax.plot(lengths, [v.value for v in values], style, label=name)
        ax.fill_between(lengths, [v.low for v in values], [v.high for v in values], alpha=0.2, linewidth=0)
        ax.annotate(name, (lengths[-1], values[-1].value), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set(xlabel="concepts in the formula, at most", ylabel="mean IoU", xticks=lengths, ylim=(0, None))
    return ax


def iou_against_accuracy(ax: Axes, iou: np.ndarray, accuracy: np.ndarray, title: str) -> Axes:
    """Accuracy when a neuron fires against its IoU, a dot a neuron, with the least-squares line."""
    known = ~(np.isnan(iou) | np.isnan(accuracy))
    x, y = iou[known], accuracy[known]
    ax.plot(x, y, ".", markersize=4, alpha=0.6)
    slope, start = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, start + slope * ends, color="black", linewidth=1)
    ax.set(xlabel="IoU of the best formula", ylabel="accuracy when firing")
    ax.set_title(title, fontsize=8)
    return ax
