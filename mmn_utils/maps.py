"""Pictures of where units look, and of which class they are for. Drawn in the book's style (`plots`)."""

from collections.abc import Mapping, Sequence
from textwrap import shorten

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmn_utils.metrics import Estimate
from mmn_utils.neurons import NeuronId
from mmn_utils.plots import BLUE, GREY, ORANGE, picture
from mmn_utils.receptive_fields import receptive_fields

SHADE = 0.3
"""How bright a picture stays where the unit does not look."""


def field(
    ax: Axes, image: object, activations: Tensor, threshold: float, title: str = "", *, target: np.ndarray | None = None
) -> Axes:
    """An image lit where a unit looks (activations [patch] above the threshold) and dark elsewhere.

    `target`: the true mask [y, x], outlined with a broken line.
    """
    pixels = np.asarray(image) / 255
    size = pixels.shape[:2]
    lit = receptive_fields(activations[None], torch.tensor([float(threshold)]), size)[0].cpu().numpy()
    picture(ax, np.where(lit[..., None], pixels, SHADE * pixels), title)
    for mask, colour, line in ((lit, ORANGE, "solid"), (target, "white", "dashed")):
        if mask is not None and mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors=colour, linewidths=0.9, linestyles=line)
    return ax


def unit_id(unit: int | Tensor, n_units: int) -> NeuronId:
    """The neuron with a number through all layers (`layer * n_units + unit`)."""
    return NeuronId(*divmod(int(unit), n_units))


def unit_name(decoded: pd.DataFrame, unit: int, *, n_tokens: int = 3) -> str:
    """A neuron and its first tokens, from the table of all units (`survey.decoded_table`) and its number there."""
    row = decoded.iloc[unit]
    return f"{NeuronId(row['layer'], row['unit'])}\n" + "\n".join(token.strip() for token in row["tokens"][:n_tokens])


def unit_line(decoded: pd.DataFrame, unit: int, *, n_tokens: int = 2) -> str:
    """The same on one line: `L0.7 dogs, puppy`."""
    row = decoded.iloc[unit]
    return f"{NeuronId(row['layer'], row['unit'])} {', '.join(token.strip() for token in row['tokens'][:n_tokens])}"


def fields(
    images: Sequence[object],
    maps: Tensor,
    thresholds: Tensor,
    titles: Sequence[Sequence[str]],
    *,
    targets: Sequence[np.ndarray | None],
    names: Sequence[str],
) -> Figure:
    """One row an image: the image under its name, then a field for each of its maps.

    maps: float [image, column, patch]; thresholds: float [image, column]; titles [image][column] (in order).
    """
    n_rows, n_columns = maps.shape[:2]
    figure, axes = plt.subplots(
        n_rows, n_columns + 1, figsize=(1.25 * n_columns + 1.25, 1.5 * n_rows), squeeze=False, layout="constrained"
    )
    for row, (image, name, target) in enumerate(zip(images, names, targets, strict=True)):
        picture(axes[row, 0], image, name)
        for column in range(n_columns):
            cut = float(thresholds[row, column])
            field(axes[row, column + 1], image, maps[row, column], cut, titles[row][column], target=target)
    return figure


def most_active(
    rows: Sequence[tuple[str, Sequence[object], Tensor, float]], *, titles: Sequence[Sequence[str]] | None = None
) -> Figure:
    """One row a unit: its name, then the images that excite it most, lit where it looks.

    rows: (name, images, activations [image, patch], threshold).
    """
    n_columns = max(len(images) for _, images, _, _ in rows)
    figure, axes = plt.subplots(
        len(rows), n_columns, figsize=(1.4 * n_columns + 1, 1.5 * len(rows)), squeeze=False, layout="constrained"
    )
    for row, (name, images, activations, threshold) in enumerate(rows):
        for column, (image, one) in enumerate(zip(images, activations, strict=True)):
            field(axes[row, column], image, one, threshold, titles[row][column] if titles else "")
        axes[row, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", labelpad=8)
    return figure


def compared(
    ax: Axes, labels: Sequence[str], first: Sequence[Estimate], second: Sequence[Estimate], names: tuple[str, str]
) -> Axes:
    """Two estimates a label, one above the other: the first filled and round, the second open and square."""
    places = np.arange(len(labels))[::-1]
    looks = ((first, 0.14, BLUE, "o", BLUE, names[0]), (second, -0.14, GREY, "s", "white", names[1]))
    for values, shift, colour, marker, face, name in looks:
        middle = np.array([v.value for v in values])
        reach = np.array([[v.value - v.low, v.high - v.value] for v in values]).T
        ax.errorbar(
            middle, places + shift, xerr=reach, fmt=marker, color=colour, markerfacecolor=face, capsize=2,
            markersize=5, label=name,
        )  # fmt: skip
    ax.set_yticks(places, [f"{label} (n = {v.n})" for label, v in zip(labels, first, strict=True)])
    ax.set_ylim(-0.6, len(labels) - 0.4)
    ax.grid(axis="x", color="0.9")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def matrix(ax: Axes, values: np.ndarray, labels: Sequence[str], title: str = "") -> Axes:
    """Units of a class (rows) on images of a class (columns), best of each row 1; each row's best is framed."""
    lowest = min(float(values.min()), 0.9)
    shown = ax.imshow(values, cmap="Blues", vmin=lowest, vmax=1)
    ax.figure.colorbar(shown, ax=ax, shrink=0.7, label="mean activation, best of the row = 1")
    for row, column in np.ndindex(values.shape):
        dark = values[row, column] > (1.4 + lowest) / 2.4
        ax.text(
            column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=6.5,
            color="white" if dark else "black",
        )  # fmt: skip
    for row, best in enumerate(values.argmax(1)):
        ax.add_patch(plt.Rectangle((best - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2))
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel="images of", ylabel="units of", title=title)
    return ax


def counts(ax: Axes, draws: np.ndarray, found: Mapping[str, Estimate], *, n: int) -> Axes:
    """How often random sets won so many of `n` rows, as bars, and the wins found, as lines with their names."""
    shares = np.bincount(draws.astype(int), minlength=n + 1) / len(draws)
    ax.bar(range(n + 1), shares, color="0.75", width=0.8)
    ax.text(int(shares.argmax()), shares.max(), "random units", ha="center", va="bottom", fontsize=8)
    for (name, estimate), height in zip(found.items(), np.linspace(0.85, 0.5, len(found)), strict=True):
        x, y = estimate.value, height * shares.max()
        ax.errorbar([x], [y], xerr=[[x - estimate.low], [estimate.high - x]], fmt="o", color=BLUE, capsize=3)
        ax.annotate(name, (x, y), xytext=(0, 7), textcoords="offset points", ha="right", fontsize=8, color=BLUE)
    ax.set(xticks=range(n + 1), xlabel=f"rows of {n} whose best is their own class", ylabel="share of draws")
    return ax


def class_page(images: Sequence[Sequence[object]], labels: Sequence[str], units: Sequence[Sequence[str]]) -> Figure:
    """One row a class: some of its images, then what its units say, one line a unit."""
    n_columns = len(images[0])
    figure, axes = plt.subplots(
        len(images), n_columns + 1, figsize=(1.3 * n_columns + 4, 1.5 * len(images)), squeeze=False,
        width_ratios=[1] * n_columns + [3], layout="constrained",
    )  # fmt: skip
    for row, (pictures, label, lines) in enumerate(zip(images, labels, units, strict=True)):
        for column, image in enumerate(pictures):
            picture(axes[row, column], image, label if column == 0 else "")
        axes[row, -1].axis("off")
        text = "\n".join(shorten(line, 64, placeholder=" …") for line in lines)
        axes[row, -1].text(0, 0.5, text, va="center", fontsize=8)
    return figure
