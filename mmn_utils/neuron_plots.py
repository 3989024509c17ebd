"""Pictures of neurons: the schematic, heatmaps over images, counts by layer, distributions of scores."""

import re
from collections.abc import Mapping, Sequence
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mmn_utils import plots
from mmn_utils.neurons import NeuronId

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.GREY, "black")
STYLES = ("-", "--", "-.", ":", (0, (6, 2)), (0, (1, 1)))


def heatmap(ax: Axes, image: object, activity: np.ndarray, title: str = "", *, q: float = 0.95) -> Axes:
    """An activity map [y, x] over its image, in grey; the line goes round the map's highest 1 - `q`."""
    pixels = np.asarray(image).mean(axis=-1)
    plots.picture(ax, np.repeat(pixels[..., None], 3, axis=-1).astype(np.uint8), title)
    shade = np.clip((activity - activity.min()) / max(float(np.ptp(activity)), 1e-9), 0, 1)
    ax.imshow(activity, cmap="inferno", alpha=0.15 + 0.65 * shade, interpolation="bilinear")
    if np.ptp(activity) > 0:
        ax.contour(activity, levels=[np.quantile(activity, q)], colors="white", linewidths=1.2)
    return ax


def in_bold(caption: str, noun: str) -> str:
    r"""A caption whose first word that begins with `noun` is in bold (matplotlib's maths text, to be drawn with
    `parse_math=True`); other dollar signs are escaped, and what is not made of letters stays as it is.

    >>> in_bold("two dogs on grass", "dog")
    'two $\\bf{dogs}$ on grass'
    """

    def bold(found: re.Match[str]) -> str:
        return rf"$\bf{{{found[1].replace(' ', '~')}}}$" if found[1].replace(" ", "").isalpha() else found[1]

    return re.sub(rf"(?i)\b({re.escape(noun)}[^\W\d_]*)", bold, _escaped(caption), count=1)


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")


def unit_lines(rows: pd.DataFrame, *, n_tokens: int = 2) -> list[str]:
    """One line a unit: its name and its first tokens. rows: layer, unit, tokens."""
    names = [NeuronId(layer, unit) for layer, unit in zip(rows["layer"], rows["unit"], strict=True)]
    return [
        f"{name}  {', '.join(t.strip() for t in tokens[:n_tokens])}"
        for name, tokens in zip(names, rows["tokens"], strict=True)
    ]


def image_panels(panels: Sequence[Mapping[str, object]], *, columns: int = 2) -> Figure:
    """For each image: itself, the mean heatmap of its units, and beside them the units' tokens.

    A panel has `title`, `image`, `activity` [y, x], `lines` and `caption` (from `in_bold`).
    """
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, 3 * columns, figsize=(4.7 * columns, 1.85 * rows), width_ratios=(1, 1, 1.3) * columns,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for panel, (left, middle, right) in zip(panels, axes.reshape(-1, 3), strict=False):
        plots.picture(left, panel["image"], panel["title"])
        heatmap(middle, panel["image"], panel["activity"])
        caption = wrap(panel["caption"], 30, break_long_words=False)
        text = "\n".join([*caption, "", *map(_escaped, panel["lines"])])
        right.text(0, 1, text, va="top", fontsize=8, linespacing=1.3, transform=right.transAxes, parse_math=True)
        right.axis("off")
    for ax in axes.reshape(-1, 3)[len(panels) :].flat:
        ax.set_visible(False)
    return figure


def picture_row(images: Sequence[object], titles: Sequence[str]) -> Figure:
    """Images in one row, each under its title."""
    figure, axes = plt.subplots(1, len(images), figsize=(1.35 * len(images), 2.1), squeeze=False, layout="constrained")
    for ax, image, title in zip(axes.flat, images, titles, strict=True):
        plots.picture(ax, image, "\n".join(wrap(title, 20)))
    return figure


def schematic(ax: Axes, *, patches: str, noun: str, unit: str, tokens: Sequence[str]) -> Axes:
    """How a picture becomes a word, and where a multimodal neuron sits (the paper's Fig. 1)."""
    boxes = [
        (0.00, "picture", "white"),
        (0.17, "vision encoder\n(saw no text)", "#DCE9F5"),
        (0.37, "projection\n(one matrix)", "#F6E3D3"),
        (0.57, f"{patches}\nimage prompts", "white"),
        (0.76, "language model\n(saw no picture)", "#DDEFE8"),
    ]
    for x, text, colour in boxes:
        width = 0.12 if text == "picture" else 0.15
        box = FancyBboxPatch((x, 0.56), width, 0.3, boxstyle="round,pad=0.01", facecolor=colour, edgecolor="0.3")
        ax.add_patch(box)
        ax.text(x + width / 2, 0.71, text, ha="center", va="center", fontsize=8)
    for start, end in ((0.13, 0.16), (0.33, 0.36), (0.53, 0.56), (0.73, 0.75)):
        ax.annotate("", (end, 0.71), (start, 0.71), arrowprops={"arrowstyle": "->", "color": "0.3"})
    ax.plot(0.80, 0.56, "o", color=plots.ORANGE, markersize=9, markeredgecolor="black")
    ax.annotate(
        f"neuron {unit} writes towards\n{', '.join(t.strip() for t in tokens[:5])}", (0.80, 0.53), (0.50, 0.12),
        fontsize=9, color=plots.ORANGE, arrowprops={"arrowstyle": "-", "color": plots.ORANGE}, ha="center",
    )  # fmt: skip
    ax.annotate(f"“{noun}”", (0.87, 0.54), (0.87, 0.12), fontsize=11, ha="center", weight="bold",
                arrowprops={"arrowstyle": "<-", "color": "0.3"})  # fmt: skip
    ax.set(xlim=(-0.03, 0.96), ylim=(0, 0.95))
    ax.axis("off")
    return ax


def layer_counts(ax: Axes, counts: pd.DataFrame, *, unit: str) -> Axes:
    """Bars by layer, one group of bars a column of `counts` (index: layer), with the number above each bar."""
    hatches = ("", "//", "..", "xx")
    width = 0.8 / counts.shape[1]
    for k, name in enumerate(counts):
        places = np.arange(len(counts)) + (k - (counts.shape[1] - 1) / 2) * width
        bars = ax.bar(places, counts[name], width, color=COLOURS[k], hatch=hatches[k], edgecolor="white", label=name)
        if len(counts) <= 12:
            ax.bar_label(bars, fontsize=7, fmt="%g")
    ax.set_xticks(np.arange(len(counts)), counts.index)
    ax.set(xlabel="layer (from 0)", ylabel=unit)
    ax.legend(fontsize=8)
    return ax


def distributions(ax: Axes, values: Mapping[str, np.ndarray], *, unit: str, n_bins: int = 40) -> Axes:
    """Outlined histograms on one scale, labelled beside their peaks; each sums to 1."""
    edges = np.histogram_bin_edges(np.concatenate([*values.values()]), bins=n_bins)
    for (name, sample), colour, style in zip(values.items(), COLOURS, STYLES, strict=False):
        share = np.histogram(sample, edges)[0] / len(sample)
        ax.stairs(share, edges, color=colour, linestyle=style, linewidth=1.6, label=name)
    ax.set(xlabel=unit, ylabel="share", ylim=(0, None))
    ax.legend(fontsize=8)
    return ax


def cumulative(ax: Axes, values: Mapping[str, np.ndarray], *, unit: str) -> Axes:
    """Share of each sample that is at most so high; the largest gap between two lines is Kolmogorov and Smirnov's D."""
    for (name, sample), colour, style in zip(values.items(), COLOURS, STYLES, strict=False):
        ax.ecdf(sample, color=colour, linestyle=style, linewidth=1.6, label=name)
    ax.set(xlabel=unit, ylabel="share at most so high", ylim=(0, 1.02))
    ax.legend(fontsize=8, loc="lower right")
    return ax
