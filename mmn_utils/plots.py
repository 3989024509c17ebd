"""The figures' common look. Every function draws on the axes it is given and returns them."""

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmn_utils.metrics import Estimate

# Okabe and Ito's colours: told apart with any kind of colour vision. In grey the first three are alike, so that shape,
# line or hatch says the same as colour.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6E6E6E"
WIDTH = 9.6
"""Inches of the widest figure: on a page 7 pt are then 7 pixels high, and a phone shows it at the same size."""
STYLE = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, "black", GREY]),
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # tokens and captions have dollar signs of their own
}


def use_style() -> None:
    """Make a notebook's figures and tables look like the book's; dollar signs stay what they are, in tables too."""
    plt.rcParams.update(STYLE)
    pd.set_option("display.precision", 3)
    pd.set_option("display.html.use_mathjax", False)


def picture(ax: Axes, image: object, title: str = "", *, grid: int | None = None) -> Axes:
    """An image without ticks; `grid` draws the borders of grid x grid patches over it."""
    pixels = np.asarray(image)
    ax.imshow(pixels, interpolation="nearest")
    for k in range(1, grid or 0):
        ax.axhline(k * pixels.shape[0] / grid - 0.5, color="white", linewidth=0.7)
        ax.axvline(k * pixels.shape[1] / grid - 0.5, color="white", linewidth=0.7)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8)
    ax.spines[:].set_visible(False)
    return ax


def gallery(images: Sequence[object], captions: Sequence[str], right: Sequence[bool], *, columns: int = 4) -> Figure:
    """Pictures with what was said of them, a tick or a cross before it."""
    rows = -(-len(images) // columns)
    size = (WIDTH / 5 * columns, 2.35 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(images) :]:
        ax.set_visible(False)
    for ax, image, caption, ok in zip(axes.flat, images, captions, right, strict=False):
        picture(ax, image)
        ax.set_title(f"{'✓' if ok else '✗'} {fill(caption, 26)}", fontsize=7.5, color=BLUE if ok else ORANGE)
    return figure


def estimates(ax: Axes, labels: Sequence[str], values: Sequence[Estimate], *, unit: str, colour: str = BLUE) -> Axes:
    """One line an estimate: its value as a dot with the number beside it, its 95 % interval as a bar."""
    places = np.arange(len(labels))[::-1]
    middle = np.array([v.value for v in values])
    reach = np.array([[v.value - v.low, v.high - v.value] for v in values]).T
    ax.errorbar(middle, places, xerr=reach, fmt="o", color=colour, capsize=3, markersize=5)
    for place, v in zip(places, values, strict=True):
        ax.annotate(
            f"{v.value:.2f}", (v.value, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    ax.set_yticks(places, [f"{label} (n = {v.n})" for label, v in zip(labels, values, strict=True)])
    ax.set(xlabel=unit, ylim=(-0.6, len(labels) - 0.3))
    ax.grid(axis="x", color="0.9")
    return ax


def sequence(ax: Axes, vectors: np.ndarray, words: Sequence[str], *, colour_range: float) -> Axes:
    """What the language model reads, one column a position: float [position, d_model]; the last positions are words."""
    ax.imshow(vectors.T, aspect="auto", cmap="RdBu_r", vmin=-colour_range, vmax=colour_range, interpolation="nearest")
    n_patches = len(vectors) - len(words)
    ax.axvline(n_patches - 0.5, color="black", linewidth=1)
    ax.set_xticks([0, n_patches - 1], ["patch 0", f"patch {n_patches - 1}"])
    ax.set(ylabel="entry of the vector")
    ax.text(len(vectors) - 0.5, -4, " ".join(words), ha="right", va="bottom", fontsize=8)
    return ax
