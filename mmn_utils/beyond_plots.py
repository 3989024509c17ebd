"""Pictures of chapter 08: estimates against the truth, curves over depth, shares by unit and hand."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from mmn_utils import plots
from mmn_utils.metrics import Estimate

LOOKS = (
    (plots.BLUE, "o", "-"),
    (plots.ORANGE, "s", "--"),
    (plots.GREEN, "^", "-."),
    (plots.PURPLE, "D", ":"),
    ("black", "v", (0, (5, 1))),
    (plots.GREY, "x", (0, (1, 2))),
)
"""Colour, marker and line of the first, second, … series."""


def against_truth(ax: Axes, exact: np.ndarray, guess: np.ndarray, *, reach: float, linear: float = 1e-2) -> Axes:
    """One dot a unit: its exact effect over the estimate, float [layer, unit] each; the diagonal is perfect agreement.

    Both axes go to `reach`, linear within `linear` of zero and logarithmic beyond: small and large effects show.
    """
    shades = np.linspace(0.15, 0.85, len(exact))
    for layer, (true, estimated) in enumerate(zip(exact, guess, strict=True)):
        colour = colormaps["viridis"](shades[layer])
        ax.plot(estimated, true, ".", markersize=3, color=colour, alpha=0.6, label=f"layer {layer}", rasterized=True)
    ax.plot([-reach, reach], [-reach, reach], color="0.4", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=linear)
    ax.set_yscale("symlog", linthresh=linear)
    ticks = [t for t in (-10, -1, -0.1, 0, 0.1, 1, 10) if abs(t) <= reach]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return ax


def curves(
    ax: Axes, series: Mapping[str, Sequence[Estimate]], places: Sequence[object], *, unit: str, legend_columns: int = 3
) -> Axes:
    """One line a series with its 95 % intervals as a band; labelled by marker and line style as well as by colour."""
    x = np.arange(len(places))
    for (name, values), (colour, marker, line) in zip(series.items(), LOOKS, strict=False):
        ax.plot(x, [v.value for v in values], marker=marker, linestyle=line, color=colour, markersize=5, label=name)
        ax.fill_between(x, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(x, [str(place) for place in places])
    ax.set_ylabel(unit)
    ax.grid(axis="y", color="0.9")
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=legend_columns)
    return ax


def shares(ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Axes:
    """A table of shares from 0 to 1, float [row, column], as shaded squares with their numbers; nan stays white."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(~np.isnan(values)):
        share = values[row, column]
        colour = "white" if share > 0.6 else "black"
        ax.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.spines[:].set_visible(False)
    return ax
