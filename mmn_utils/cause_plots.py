"""Figures of ablation: curves over the number of units that are gone, and one caption as they go."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mmn_utils.metrics import Estimate
from mmn_utils.plots import BLUE, GREEN, GREY, ORANGE, PURPLE

LOOKS = ((ORANGE, "o", "-"), (BLUE, "s", "--"), (GREY, "^", ":"), (GREEN, "D", "-."), (PURPLE, "v", "-"))
"""Colour, marker and line of the curves of one figure, in order: told apart in grey too."""


def curves(
    ax: Axes, sizes: Sequence[int], by_label: Mapping[str, Sequence[Estimate]], *, n_units: int, unit: str
) -> Axes:
    """One line a label with its 95 % interval as a band, over the number of ablated units; sizes stand evenly.

    `n_units`: in the whole model, for the shares below the numbers. The lines' names stand at their right ends.
    """
    places = np.arange(len(sizes))
    for (label, estimates), (colour, marker, line) in zip(by_label.items(), LOOKS, strict=False):
        middle, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
        ax.plot(places, middle, line, marker=marker, color=colour, markersize=4, label=label)
        ax.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(places, [f"{size:,}\n{100 * size / n_units:.2g} %" for size in sizes])
    ax.tick_params(axis="x", labelsize=8)
    ax.set(xlabel="ablated units, and their share of all", ylabel=unit)
    ax.grid(axis="y", color="0.9")
    ends = {label: estimates[-1].value for label, estimates in by_label.items()}
    for (label, height), (colour, _, _) in zip(_apart(ax, ends).items(), LOOKS, strict=False):
        ax.annotate(
            label, (places[-1], height), (8, 0), textcoords="offset points", color=colour, va="center", fontsize=9
        )
    return ax


def _apart(ax: Axes, heights: Mapping[str, float], *, least: float = 0.075) -> dict[str, float]:
    """Heights for labels, `least` of the axis apart, in the order given."""
    bottom, top = ax.get_ylim()
    gap, last, placed = least * (top - bottom), -np.inf, {}
    for label in sorted(heights, key=heights.get):
        last = placed[label] = max(heights[label], last + gap)
    return {label: placed[label] for label in heights}


def caption_ladder(ax: Axes, table: pd.DataFrame, names: Mapping[str, str], *, width: int = 24) -> Axes:
    """One image's captions, a row a size and a column a condition; changed ones are in colour and italics.

    table: `condition`, `n_units`, `caption`, `original`. names: conditions and how they are called.
    """
    sizes = sorted(table["n_units"].unique())
    ax.set(xlim=(-0.35, len(names)), ylim=(len(sizes) - 0.4, -1), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    for column, (condition, name) in enumerate(names.items()):
        ax.text(column, -0.7, name, fontsize=9, fontweight="bold", va="center")
        rows = table[table["condition"] == condition].sort_values("n_units")
        for row, (caption, original) in enumerate(zip(rows["caption"], rows["original"], strict=True)):
            look = {"color": "black"} if caption == original else {"color": ORANGE, "style": "italic"}
            ax.text(column, row, fill(caption, width), fontsize=8, va="center", **look)
    for row, size in enumerate(sizes):
        ax.text(-0.05, row, f"{size:,}", fontsize=9, va="center", ha="right", color=GREY)
        ax.axhline(row - 0.5, color="0.9", linewidth=0.7)
    return ax
