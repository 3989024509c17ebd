"""Pictures of chapter 18: masks, neurons with their formulas, and pastes."""

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mmn_utils.copy_paste import KINDS, Things, picture_of
from mmn_utils.maps import field
from mmn_utils.plots import BLUE, ORANGE, picture


def mask(ax: Axes, truth: np.ndarray, title: str, *, colour: str = BLUE) -> Axes:
    """A mask bool [y, x] as coloured squares with a grid between them where there are few."""
    shade = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    ax.imshow(np.where(truth[..., None], shade, 245).astype(np.uint8), interpolation="nearest")
    rows, columns = truth.shape
    if rows <= 12:
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="0.75", linewidth=0.6)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(which="both", length=0)
    ax.set_title(title, fontsize=8)
    return ax


def masks(panels: dict[str, np.ndarray], *, fires: Sequence[str] = (), columns: int = 6) -> Figure:
    """Pictures uint8 [y, x, RGB] and masks bool [y, x] under their titles; masks named in `fires` are orange."""
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.45 * columns, 1.7 * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        if panel.ndim == 3:
            picture(ax, panel, title)
        else:
            mask(ax, panel, title, colour=ORANGE if title in fires else BLUE)
    return figure


def cards(
    titles: Sequence[str],
    frames: Sequence[Sequence[Image.Image]],
    maps: Sequence[Tensor],
    cut: Sequence[float],
    formulas: Sequence[np.ndarray],
) -> Figure:
    """One row a neuron under its title: pictures lit where it fires, with the formula's mask as a broken line.

    maps: of the neuron on these pictures, float [picture, y, x] each; formulas: bool [picture, y, x] each.
    """
    n = len(frames[0])
    figure = plt.figure(figsize=(1.45 * n, 1.75 * len(frames)), layout="constrained")
    parts = figure.subfigures(len(frames), 1, squeeze=False)[:, 0]
    for part, title, own, activity, threshold, true in zip(parts, titles, frames, maps, cut, formulas, strict=True):
        part.suptitle(title, fontsize=8, x=0.01, ha="left")
        for ax, image, one, where in zip(part.subplots(1, n), own, activity, true, strict=True):
            target = np.asarray(Image.fromarray(where).resize(image.size, Image.Resampling.NEAREST))
            field(ax, image, one.flatten(), threshold, target=target)
    return figure


def pastes(things: Things, rows: pd.DataFrame, said: Sequence[Sequence[str]], titles: Sequence[str]) -> Figure:
    """One row a paste (from `copy_paste.plan`): the host, with the thing and with the control, each under what was
    found; `titles` beside.
    """
    figure, axes = plt.subplots(len(rows), 3, figsize=(6.5, 1.9 * len(rows)), squeeze=False, layout="constrained")
    for axs, row, words, title in zip(axes, rows.itertuples(), said, titles, strict=True):
        for ax, kind, text in zip(axs, KINDS, words, strict=True):
            picture(ax, picture_of(things, row, kind), text)
        axs[0].set_ylabel(fill(title, 30), fontsize=8, rotation=0, ha="right", va="center", labelpad=8)
    return figure
