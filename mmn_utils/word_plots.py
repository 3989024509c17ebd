"""Figures of what writing does to a model (chapters 12 and 14)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmn_utils.metrics import Estimate
from mmn_utils.miniature.album import INKS
from mmn_utils.plots import BLUE, GREEN, GREY, ORANGE, estimates, picture

DOSES = (GREY, BLUE, GREEN, ORANGE)
NAMES = {"zero_shot": "zero-shot", "linear_probe": "linear probe", "control": "a CLIP without words"}


def likeliest(ax: Axes, p: np.ndarray, names: Sequence[str], *, target: int, n: int = 5) -> Axes:
    """The `n` likeliest classes as bars, the target in orange. p: float [class]."""
    top = np.argsort(-p)[:n][::-1]
    bars = ax.barh([names[k] for k in top], p[top], color=[ORANGE if k == target else BLUE for k in top])
    for bar, k in zip(bars, top, strict=True):
        bar.set(hatch="///" if k == target else "", edgecolor="white")
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1])
    return ax


def before_and_after(
    images: Sequence[Image.Image],
    found: Sequence[dict[str, np.ndarray]],
    names: Sequence[str],
    *,
    target: int,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Each picture with what every classifier makes of it, one row a picture. found: float [class] by classifier."""
    n = len(found[0])
    figure, axes = plt.subplots(
        len(images), 1 + n, figsize=(3 + 3.1 * n, 2.3 * len(images)), width_ratios=[1] + [1.1] * n, layout="constrained"
    )
    for row, image, title, p in zip(axes, images, titles or [""] * len(images), found, strict=True):
        picture(row[0], image, title)
        for ax, (name, chances) in zip(row[1:], p.items(), strict=True):
            likeliest(ax, chances, names, target=target).set_title(NAMES[name])
    for ax in axes[-1, 1:]:
        ax.set_xlabel("probability")
    return figure


def label_grid(
    images: Sequence[Sequence[Image.Image]],
    answers: Sequence[Sequence[Sequence[str]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
) -> Figure:
    """Photos by object (rows) and label (columns); under each, the classifiers' answers in the order given."""
    shape = (len(images), len(images[0]))
    figure, axes = plt.subplots(*shape, figsize=(1.35 * shape[1], 1.7 * shape[0]), layout="constrained")
    for ax, image, said in zip(axes.flat, sum(map(list, images), []), sum(map(list, answers), []), strict=True):
        picture(ax, image)
        ax.set_xlabel("\n".join(said), fontsize=7, color="0.15", labelpad=2)
    for ax, column in zip(axes[0], columns, strict=True):
        ax.set_title(column, fontsize=9)
    for ax, row in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(row, fontsize=9)
    return figure


def successes(table: pd.DataFrame, labels: Sequence[str], classifiers: Sequence[str]) -> Figure:
    """Success of each attack with its interval, one panel a classifier; table from `attacks.rates`."""
    size = (1.6 + 2.8 * len(classifiers), 0.6 + 0.33 * len(table))
    figure, axes = plt.subplots(1, len(classifiers), figsize=size, sharey=True, layout="constrained")
    for ax, name in zip(axes, classifiers, strict=True):
        parts = table[[name, f"{name}_low", f"{name}_high", f"{name}_n"]].itertuples(index=False)
        estimates(ax, labels, [Estimate(*row[:3], int(row[3])) for row in parts], unit="success")
        ax.set(title=NAMES[name], xlim=(-0.05, 1.05))
    axes[0].set_yticks(axes[0].get_yticks(), labels)  # without the numbers of cases, which differ by panel
    return figure


def doses(table: pd.DataFrame, classifiers: Sequence[str]) -> Figure:
    """Success against pixel cover, one line a size of type, one panel a classifier; table from `attacks.dose`."""
    shape = {"figsize": (4.2 * len(classifiers), 3), "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(classifiers), **shape)
    for ax, name in zip(axes[0], classifiers, strict=True):
        for (scale, rows), colour, marker in zip(table.groupby("scale"), DOSES, "os^D", strict=False):
            reach = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
            style = {"marker": marker, "markersize": 4, "capsize": 2, "color": colour, "label": f"× {scale:g}"}
            ax.errorbar(rows.cover, rows[name], yerr=np.abs(reach), **style)
        ax.set(xlabel="share of pixels changed", ylim=(-0.03, 1.03))
        ax.set_title(NAMES[name])
    axes[0, 0].set_ylabel("success")
    axes[0, -1].legend(title="size of type", fontsize=8)
    return figure


def stroop_grid(table: pd.DataFrame) -> Figure:
    """Words in their ink, one row an ink; under each, what CLIP calls its colour. table from `attacks.stroop`."""
    words, inks = (list(dict.fromkeys(table[c])) for c in ("word", "ink"))
    figure, ax = plt.subplots(figsize=(8.6, 4.6), layout="constrained")
    for row in table.itertuples():
        x, y = words.index(row.word), inks.index(row.ink)
        faint = {"congruent": 0.25}.get(row.kind, 1.0)
        ax.text(x, y, row.word, color=np.array(INKS[row.ink]) / 255, weight="bold", ha="center", va="bottom")
        look = {"color": BLUE} if row.answer == row.ink else {"color": GREY, "style": "italic"}
        look = {"color": ORANGE, "weight": "bold"} if row.answer == row.word else look
        ax.text(x, y + 0.06, f"→ {row.answer}", fontsize=8, ha="center", va="top", alpha=faint, **look)
    ax.set(xlim=(-0.5, len(words) - 0.5), ylim=(len(inks) - 0.4, -0.6), xticks=[])
    ax.set_yticks(range(len(inks)), inks)
    ax.set(xlabel="word", ylabel="ink")
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_facecolor("0.985")
    return figure


def cards(images: Sequence[Sequence[Image.Image]], titles: Sequence[str], words: Sequence[str]) -> Figure:
    """One row a neuron: its title, the photos it answers to most, and the words it answers to most."""
    n = len(images[0])
    figure, axes = plt.subplots(
        len(images),
        n,
        figsize=(1.2 * n, 1.75 * len(images)),
        squeeze=False,
        gridspec_kw={"hspace": 0.5, "wspace": 0.04},
    )
    for row, shown, title, said in zip(axes, images, titles, words, strict=True):
        for ax, image in zip(row, shown, strict=True):
            picture(ax, image)
        row[0].set_title(title, fontsize=8.5).set_in_layout(False)
        row[0].set_xlabel(said, fontsize=8.5, ha="left", x=0).set_in_layout(False)
    return figure
