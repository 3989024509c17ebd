"""Pictures of chapter 09: the world, one neuron in three facets, scores by facet, and margin cards."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmn_utils import plots
from mmn_utils.data.album import Album
from mmn_utils.multimodal import FACETS, THRESHOLD, Seen, auroc, most_active, peak


def world(album: Album, keys: Sequence[str], facets: Sequence[str]) -> Figure:
    """The first picture of each concept (columns) in each facet (rows), under its caption."""
    figure, axes = plt.subplots(
        len(facets), len(keys), figsize=(1.06 * len(keys), 1.7 * len(facets)), squeeze=False, layout="constrained"
    )
    for row, facet in zip(axes, facets, strict=True):
        for ax, key in zip(row, keys, strict=True):
            here = album.pictures[(album.pictures.facet == facet) & (album.pictures.concept == key)]
            plots.picture(ax, album.image(here.index[0]), fill(here.caption.iloc[0], 15))
        row[0].set_ylabel(facet)
    return figure


def three_faces(rows: Mapping[str, tuple[Seen, int]], album: Album, concept: str) -> Figure:
    """One row a unit, one column a facet: the concept's picture with the middle answer, and all answers beside it."""
    figure = plt.figure(figsize=(9.6, 1.95 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2 * len(FACETS), width_ratios=(1, 1.15) * len(FACETS), squeeze=False)
    for axes, (label, (seen, unit)) in zip(grid, rows.items(), strict=True):
        for k, facet in enumerate(FACETS):
            face(axes[2 * k], axes[2 * k + 1], seen, unit, album=album, concept=concept, facet=facet)
        axes[0].set_ylabel(label, fontsize=8)
    for ax in grid[-1, 1::2]:
        ax.set_xlabel("answer", fontsize=8)
    return figure


def face(left: Axes, right: Axes, seen: Seen, unit: int, *, album: Album, concept: str, facet: str) -> None:
    """A concept's picture with the unit's middle answer in a facet; beside it its answers (lines) to the concept's
    pictures over those to all others (histogram).
    """
    here = (seen.pictures.facet == facet).to_numpy()
    own, answers = (seen.pictures.concept[here] == concept).to_numpy(), seen.answers()[here, unit]
    score = auroc(answers[:, None], own[None]).item()
    order = np.argsort(answers[own])
    middle = seen.pictures[here][own].index[order[len(order) // 2]]
    colour = plots.BLUE if score > THRESHOLD else plots.ORANGE
    plots.picture(left, album.image(middle))
    left.set_title(f"{facet}: {score:.2f} {'✓' if score > THRESHOLD else '✗'}", fontsize=8.5, color=colour)
    right.hist(answers[~own], bins=30, density=True, color="0.75")
    right.vlines(answers[own], 0, 0.5 * right.get_ylim()[1], color=colour, linewidth=1.2)
    right.set(yticks=[])
    right.tick_params(labelsize=7)


def photo_against_text(ax: Axes, table: pd.DataFrame, title: str) -> Axes:
    """Each unit of a table from `judge`: AUROC on photos across, on words up, and the two lines at .9."""
    dots = {"s": 9, "linewidths": 0}
    ax.scatter(table.photo, table.text, color="0.6", **dots)
    passed = table[table.multimodal]
    ax.scatter(passed.photo, passed.text, color=plots.BLUE, marker="s", **dots)
    ax.axhline(THRESHOLD, color="0.3", linewidth=0.7, linestyle=":")
    ax.axvline(THRESHOLD, color="0.3", linewidth=0.7, linestyle=":")
    ax.set(xlim=(0.4, 1.01), ylim=(0, 1.02), title=f"{title}: {len(passed)} in all three", xlabel="AUROC on photos")
    return ax


def cards(seen: Seen, album: Album, units: Mapping[int, str], *, n: int = 6) -> Figure:
    """One row a unit under its heading: the pictures it answers most, the place of its largest answer outlined."""
    figure = plt.figure(figsize=(1.5 * n, 2.05 * len(units)), layout="constrained")
    for part, (unit, heading) in zip(figure.subfigures(len(units), 1, squeeze=False).flat, units.items(), strict=True):
        part.suptitle(heading, fontsize=9, x=0.01, ha="left")
        for ax, row in zip(part.subplots(1, n), most_active(seen, unit, n=n), strict=True):
            shown = seen.pictures.iloc[row]
            image = album.image(shown.name)
            plots.picture(ax, image, f"{shown.concept}, {shown.facet}")
            left, top, side = peak(seen.maps[row, unit], image.width)
            ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=plots.ORANGE))
    return figure
