"""How CLIP is trained and what a classifier of sentence pairs takes from it, drawn (Acquaviva & Hensgen, Fig. 2)."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from mmn_utils.plots import BLUE, GREY, ORANGE

CAPTIONS = ("a photo of a dog", "a red car on a road", "two cups", "no rain today")
CELL = 0.9
"""Side of a cell of the matrix."""


def _box(ax: Axes, x: float, y: float, size: tuple[float, float], text: str, colour: str = BLUE) -> None:
    """A rounded box with its lower left corner at (x, y)."""
    width, height = size
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "facecolor": "white", "edgecolor": colour}
    ax.add_patch(FancyBboxPatch((x, y), width, height, linewidth=1.4, **style))
    turned = 90 if height > 1.5 * width else 0
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", rotation=turned, fontsize=8)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9})


def _plain(ax: Axes, title: str, right: float, top: float) -> None:
    ax.set(xlim=(-0.05, right + 0.1), ylim=(-0.1, top), aspect="equal", title=title)
    ax.set_axis_off()


def contrast(ax: Axes, captions: Sequence[str] = CAPTIONS) -> Axes:
    """CLIP's training: two towers, and a matrix of cosines whose diagonal is pushed up and all else down."""
    n, left, top = len(captions), 4.1, len(captions) * CELL
    _box(ax, 2.75, 0, (0.65, top), "text tower")
    _box(ax, left + 0.6, top + 1.0, (top, 0.6), "image tower", ORANGE)
    for k, caption in enumerate(captions):
        middle, along = top - (k + 0.5) * CELL, left + 0.6 + (k + 0.5) * CELL
        ax.text(2.3, middle, f"“{caption}”", ha="right", va="center", fontsize=8)
        _arrow(ax, (2.35, middle), (2.75, middle))
        _arrow(ax, (3.42, middle), (3.9, middle))
        ax.text(left, middle, f"t{k + 1}", ha="center", va="center", color=BLUE)
        _box(ax, along - 0.38, top + 2.0, (0.76, 0.62), f"image\n{k + 1}", GREY)
        _arrow(ax, (along, top + 2.0), (along, top + 1.62))
        _arrow(ax, (along, top + 1.0), (along, top + 0.55))
        ax.text(along, top + 0.3, f"i{k + 1}", ha="center", va="center", color=ORANGE)
        for j in range(n):
            corner = left + 0.6 + j * CELL, middle - CELL / 2
            ax.add_patch(Rectangle(corner, CELL, CELL, facecolor="#9CC8E8" if j == k else "white", edgecolor=GREY))
            ax.text(corner[0] + CELL / 2, middle, f"t{k + 1}·i{j + 1}", ha="center", va="center", fontsize=7.5)
    _plain(ax, "In training: captions and pictures", left + 0.6 + top, top + 2.7)
    return ax


def pair_classifier(ax: Axes) -> Axes:
    """What is kept for sentence pairs: the text tower, frozen, and a head that learns."""
    for y, text, name in ((4.3, "premise", "u"), (1.9, "hypothesis", "v")):
        ax.text(0.8, y, text, ha="center", va="center", fontsize=8.5)
        _arrow(ax, (1.6, y), (2.1, y))
        _arrow(ax, (3.0, y), (3.4, y))
        ax.text(3.6, y, name, ha="center", va="center", color=BLUE)
        _arrow(ax, (3.8, y), (4.3, 3.1 + (y - 3.1) / 3))
    _box(ax, 2.1, 1.3, (0.85, 3.6), "text tower, frozen")
    _box(ax, 4.3, 1.3, (0.75, 3.6), "u, v, u − v, u * v", GREY)
    _box(ax, 5.6, 1.3, (0.75, 3.6), "neurons (ReLU)", ORANGE)
    _arrow(ax, (5.07, 3.1), (5.6, 3.1))
    for y, label in ((4.3, "entailment"), (3.1, "neutral"), (1.9, "contradiction")):
        _arrow(ax, (6.37, y), (6.8, y))
        ax.text(6.9, y, label, va="center", fontsize=8.5)
    _plain(ax, "Here: pairs of sentences", 8.9, 6.3)
    return ax
