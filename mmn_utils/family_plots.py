"""Pictures of chapter 11: stacked shares by activation, medians by group, lands on the map, names by neuron."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mmn_utils import plots

NAMED = {"ha": "center", "va": "center", "fontsize": 9, "weight": "bold"}
NAMED |= {"path_effects": [withStroke(linewidth=2.5, foreground="white")]}
"""How a land's name is written on a map: with a rim, so that it stands out from any colour."""


def stacks(panels: Mapping[str, pd.DataFrame], colours: Sequence[str]) -> Figure:
    """P(category | activation), one panel a table of `conditional.shares`; the first category lies at the bottom.

    Written above each bin: how many pictures were labelled in it.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.6), squeeze=False, sharey=True, layout="constrained")
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=True):
        stacked(ax, table, colours)
        ax.set_title(title, pad=16)
    axes[0, 0].set_ylabel("share of the labelled pictures")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8)
    return figure


def stacked(ax: Axes, table: pd.DataFrame, colours: Sequence[str]) -> Axes:
    """One panel of `stacks`."""
    low, high = (table.index.get_level_values(name).to_numpy() for name in ("low", "high"))
    base = np.zeros(len(table))
    for k, (name, colour) in enumerate(zip(table.columns.drop("n"), colours, strict=True)):
        hatch = ("", "///", "...")[k % 3]
        ax.bar(low, table[name], high - low, bottom=base, align="edge", color=colour, hatch=hatch, label=name,
               edgecolor="white", linewidth=0.6)  # fmt: skip
        base += table[name].to_numpy()
    for place, n in zip((low + high) / 2, table.n, strict=True):
        ax.text(place, 1.01, str(n), ha="center", fontsize=7)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(xlabel="activation (SD from zero)", ylim=(0, 1))
    return ax


def medians(ax: Axes, table: pd.DataFrame, *, marked: Mapping[str, str]) -> Axes:
    """P(activation | group), one line a row of `conditional.by_group`: bar to the median, whisker of one SD.

    marked: a colour for some of the groups.
    """
    places = np.arange(len(table))[::-1]
    colours = [marked.get(name, plots.GREY) for name in table.index]
    bars = ax.barh(places, table["median"], xerr=table["sd"], color=colours, height=0.65, ecolor="0.3", capsize=2)
    for bar, name in zip(bars, table.index, strict=True):
        bar.set(hatch="///" if name in marked else "", edgecolor="white")
    ax.set_yticks(places, [f"{name} (n = {n})" for name, n in zip(table.index, table.n, strict=True)])
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("activation (SD from zero): median, whisker ± 1 SD")
    return ax


def blended(maps: np.ndarray) -> np.ndarray:
    r"""Several units on one map, RGB [y, x, 3] in 0..1: unit $i$ of $N$ has the hue $i / N$, the stronger the darker.

    Each unit is put between its median cell (0) and its strongest (1). A cell's hue is the mean of the units' on the
    circle, weighted by the square of what they say; where they disagree the colour goes grey, as in the paper.
    """
    middle, top = np.median(maps, axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    strength = np.clip((maps - middle) / np.maximum(top - middle, 1e-9), 0, 1)
    angles = np.exp(2j * np.pi * np.arange(len(maps)) / len(maps))[:, None, None]
    weights = strength**2
    mean = (weights * angles).sum(0) / np.maximum(weights.sum(0), 1e-9)
    peak = strength.max(0)
    return hsv_to_rgb(np.stack([np.angle(mean) / (2 * np.pi) % 1, np.abs(mean) * peak, 1 - 0.25 * peak], axis=-1))


def on_map(ax: Axes, maps: np.ndarray, owner: np.ndarray, names: Sequence[str]) -> Axes:
    """`blended` maps, with the borders of the lands and their names in the colour of their own unit."""
    ax.imshow(blended(maps), interpolation="nearest", aspect="equal")
    for k, name in enumerate(names):
        y, x = np.nonzero(owner == k)
        colour = hsv_to_rgb((k / len(names), 1, 0.55))
        ax.contour(owner == k, levels=[0.5], colors="black", linewidths=0.8)
        ax.text(x.mean(), y.mean(), name, color=colour, **NAMED)
    ax.set(xticks=[], yticks=[])
    return ax


def shaded(ax: Axes, values: np.ndarray, owner: np.ndarray, outlined: np.ndarray) -> Axes:
    """A small map: each land as light as its value, float [land]; some outlined, bool [land]. owner: int [y, x]."""
    picture = np.where(owner >= 0, values[owner], np.nan)
    ax.imshow(picture, cmap="viridis", interpolation="nearest")
    for k in np.flatnonzero(outlined):
        ax.contour(owner == k, levels=[0.5], colors=plots.ORANGE, linewidths=1.6)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def names(ax: Axes, table: pd.DataFrame) -> Axes:
    """What each unit (column) says of each written name (row), each column between its smallest and largest value."""
    values = (table - table.min()) / (table.max() - table.min())
    ax.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(table)), table.index, fontsize=6.5)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=30, ha="right", fontsize=8)
    return ax
