"""Pictures of chapter 10: grown images in a grid, and what a facet costs."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmn_utils import plots

TICKS = (0, 0.25, 0.5, 0.75, 1, 2, 5, 10)
"""What `trade` marks across: shares of an answer."""


def grid(
    rows: Sequence[Sequence[object]],
    labels: Sequence[str],
    headings: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Images in rows with a label each, under a heading a column, and a note below each image.

    rows: PIL images or float [RGB, y, x] in [0, 1].
    """
    side = min(1.3, plots.WIDTH / len(headings))
    shape = {"figsize": (side * len(headings), (side + 0.3) * len(rows)), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(rows), len(headings), **shape)
    for k, (line, images, label) in enumerate(zip(axes, rows, labels, strict=True)):
        for j, (ax, image) in enumerate(zip(line, images, strict=True)):
            plots.picture(ax, _upright(image), fill(headings[j], int(14 * side)) if k == 0 else "")
            ax.set_xlabel(notes[k][j] if notes else "", fontsize=7, labelpad=2)
        line[0].set_ylabel(fill(label, 16), fontsize=8)
    return figure


def trade(ax: Axes, table: pd.DataFrame) -> Axes:
    """What a facet gains and costs, as its strength grows: a line of medians for each form, and a dot an image.

    Medians, because a ratio to a small answer can be as large as it likes: from 1 on the axis is logarithmic.

    table: one row an image with `form`, `strength`, `kept` (its neuron's answer over that without a facet) and `gain`
    (of the probe's log odds).
    """
    for (form, rows), colour, marker in zip(table.groupby("form"), (plots.BLUE, plots.ORANGE), "os", strict=False):
        medians = rows.groupby("strength")[["kept", "gain"]].median()
        ax.scatter(rows.kept, rows.gain, s=12, color=colour, alpha=0.4, linewidths=0)
        ax.plot(medians.kept, medians.gain, color=colour, marker=marker, markersize=5)
        ax.annotate(form, medians.iloc[-1], xytext=(6, 4), textcoords="offset points", color=colour, fontsize=8)
    ax.axvline(1, color="0.7", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=1, linscale=2)
    ax.set_xmargin(0.02)
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.set(xlabel="neuron's answer, as a share of that without a facet", ylabel="gain in the probe's log odds")
    return ax


def _upright(image: object) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels
