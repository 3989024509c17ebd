"""Figures of ablation: curves over the number of units that are gone, and one caption as they go."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mmn_utils.metrics import Estimate
from mmn_utils.plots import BLUE, GREEN, GREY, ORANGE

LOOKS = {
    "top": (ORANGE, "o", "-"),
    "interpretable": (BLUE, "s", "--"),
    "random": (GREY, "^", ":"),
    "other": (GREEN, "D", "-."),
}
"""Colour, marker and line of each condition of `causes.plans`: told apart in grey too."""


def curves(
    ax: Axes,
    sizes: Sequence[int],
    by_condition: Mapping[str, Sequence[Estimate]],
    names: Mapping[str, str],
    *,
    unit: str,
    n_units: int | None = None,
) -> Axes:
    """One line a condition with its 95 % interval as a band, over the number of ablated units; sizes stand evenly.

    The lines' names stand at their right ends. `n_units`: in the whole model, to print shares below the numbers.
    """
    places = np.arange(len(sizes))
    for condition, estimates in by_condition.items():
        colour, marker, line = LOOKS[condition]
        middle, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
        ax.plot(places, middle, line, marker=marker, color=colour, markersize=4, label=names[condition])
        ax.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    shares = [f"\n{100 * size / n_units:.2g} %" if n_units else "" for size in sizes]
    ax.set_xticks(places, [f"{size:,}{share}" for size, share in zip(sizes, shares, strict=True)])
    ax.tick_params(axis="x", labelsize=8)
    ax.set(xlabel="ablated units, and their share of all" if n_units else "ablated units", ylabel=unit)
    ax.grid(axis="y", color="0.9")
    ends = {condition: estimates[-1].value for condition, estimates in by_condition.items()}
    for condition, height in _apart(ax, ends).items():
        look = {"color": LOOKS[condition][0], "va": "center", "fontsize": 9, "linespacing": 0.95}
        ax.annotate(names[condition], (places[-1], height), (8, 0), textcoords="offset points", **look)
    return ax


def _apart(ax: Axes, heights: Mapping[str, float], *, least: float = 0.12) -> dict[str, float]:
    """Heights for labels, at least `least` of the axis apart."""
    bottom, top = ax.get_ylim()
    gap, last, placed = least * (top - bottom), -np.inf, {}
    for label in sorted(heights, key=heights.get):
        last = placed[label] = max(heights[label], last + gap)
    return placed


def caption_ladder(ax: Axes, table: pd.DataFrame, names: Mapping[str, str], *, width: int = 24) -> Axes:
    """One image's captions, a row a size and a column a condition; changed ones are in colour and italics.

    table: `condition`, `n_units`, `caption`, `original`. names: conditions and how they are called.
    """
    sizes = sorted(table["n_units"].unique())
    ax.set(xlim=(-0.35, len(names)), ylim=(len(sizes) - 0.4, -1), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    for column, (condition, name) in enumerate(names.items()):
        ax.text(column, -0.7, name, fontsize=10, fontweight="bold", va="center")
        rows = table[table["condition"] == condition].sort_values("n_units")
        for row, (caption, original) in enumerate(zip(rows["caption"], rows["original"], strict=True)):
            look = {"color": "black"} if caption == original else {"color": ORANGE, "style": "italic"}
            ax.text(column, row, fill(caption, width), fontsize=9, va="center", **look)
    for row, size in enumerate(sizes):
        ax.text(-0.05, row, f"{size:,}", fontsize=9, va="center", ha="right", color=GREY)
        ax.axhline(row - 0.5, color="0.9", linewidth=0.7)
    return ax
