"""Pictures of chapter 13: weights of probes, codes of feelings, and the atlas."""

from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmn_utils import plots
from mmn_utils.metrics import Estimate


def curve(ax: Axes, nonzeros: Sequence[float], values: Sequence[Estimate], *, label: str, colour: str) -> Axes:
    """Estimates with their 95 % intervals over the mean number of weights a class."""
    order = np.argsort(nonzeros)
    x, v = np.array(nonzeros)[order], [values[k] for k in order]
    ax.fill_between(x, [e.low for e in v], [e.high for e in v], color=colour, alpha=0.15, linewidth=0)
    ax.plot(x, [e.value for e in v], "o-", color=colour, markersize=4)
    ax.annotate(label, (x[-1], v[-1].value), xytext=(6, 0), textcoords="offset points", va="center", color=colour)
    return ax


def weights(ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Axes:
    """Weights, float [row, column], as squares: red above zero, blue below, white where there is none."""
    reach = np.abs(values).max() or 1.0
    image = ax.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.88", linewidth=0.6)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(image, ax=ax, label="weight, per SD of the neuron", shrink=0.7)
    return ax


def codes(found: dict[str, pd.Series], cues: pd.Series, recipes: dict[str, Collection[str]]) -> Figure:
    """One panel a feeling: its neurons' weights under the names of their cues; filled where the recipe has the cue."""
    rows = -(-len(recipes) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(9.5, 1.45 * rows), squeeze=False, layout="constrained", sharex=True)
    for ax in axes.flat[len(recipes) :]:
        ax.set_visible(False)
    for ax, (word, recipe) in zip(axes.flat, recipes.items(), strict=False):
        shown = found[word]
        names = [f"{cues[neuron]} ({neuron})" for neuron in shown.index]
        colours = [plots.BLUE if cues[n] in recipe and w > 0 else "0.8" for n, w in shown.items()]
        places = np.arange(len(shown))
        ax.barh(places, shown, color=colours, edgecolor="0.4", linewidth=0.6)
        ax.set_yticks(places, names, fontsize=7.5)
        ax.axvline(0, color="0.3", linewidth=0.6)
        ax.set(ylim=(3.6, -0.6), xlim=(-1.1, 1.1))
        ax.set_title(f"{word} = {' + '.join(recipe)}", fontsize=8)
        ax.tick_params(axis="x", labelsize=7)
    for lowest in axes.flat[max(0, len(recipes) - 4) : len(recipes)]:
        lowest.tick_params(labelbottom=True)
    figure.supxlabel("weight, the largest being 1", fontsize=8)
    return figure


def atlas(ax: Axes, cells: np.ndarray, words: Sequence[str], shares: np.ndarray) -> Axes:
    """A word a cell, int [word, 2], in the colour of its leading factor and the stronger, the more that factor leads.

    shares: float [word, factor].
    """
    palette = np.array(plt.get_cmap("tab10").colors)
    total = np.maximum(shares.sum(1), np.finfo(float).tiny)
    for (x, y), word, leading, lead in zip(cells, words, shares.argmax(1), shares.max(1) / total, strict=True):
        ax.add_patch(plt.Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=palette[leading], alpha=0.25 + 0.5 * lead))
        ax.text(x, y, f"{word}\n{leading + 1}", ha="center", va="center", fontsize=7.5)
    low, high = cells.min(0) - 0.6, cells.max(0) + 0.6
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
