"""Where in the image a neuron is active (Schwettmann et al. 2023, section 3.2 and supplement S.1).

A unit's activations at the image patches are a small picture; enlarged bilinearly and cut at a high quantile it is a
mask, the unit's receptive field, to be compared with the objects' own masks by intersection over union (IoU).

Differs: the text speaks of a "0.95 percentile" without saying of what. A mask of each image's own highest 5 % could not
reach the IoUs that the paper prints, so that the default is the unit's quantile over a data set, as in Network
Dissection (`RunningQuantile`); `own_threshold` is the other reading.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(activations: Tensor, size: tuple[int, int], *, grid: tuple[int, int] | None = None) -> Tensor:
    """Patch activations [..., patch] in raster order as maps [..., y, x] of `size`; bilinear, float32.

    `grid` is (rows, columns) of patches; None takes a square.

    Raises:
        ValueError: the number of patches is no square, or not that of `grid`.
    """
    n_patches = activations.shape[-1]
    side = math.isqrt(n_patches)
    rows, columns = grid or (side, side)
    if rows * columns != n_patches:
        raise ValueError(f"expected {rows} x {columns} patches, found {n_patches}; give `grid` as (rows, columns)")
    maps = activations.reshape(-1, 1, rows, columns).float()
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).reshape(*activations.shape[:-1], *size)


def receptive_fields(
    activations: Tensor, thresholds: Tensor, size: tuple[int, int], *, grid: tuple[int, int] | None = None
) -> Tensor:
    """Masks of where units are more active than their thresholds, bool [..., unit, y, x].

    activations: float [..., unit, patch]; thresholds: float [unit], or [..., unit].
    """
    return upsample(activations, size, grid=grid) > thresholds.float()[..., None, None]


def own_threshold(activations: Tensor, q: float = 0.95) -> Tensor:
    """The `q` quantile of each unit within each image, float [..., unit], from activations [..., unit, patch]."""
    return activations.float().quantile(q, dim=-1)


class RunningQuantile:
    """High quantiles of many units over data that come in pieces: exact, holding only what lies above them.

    As `torch.quantile` (linear interpolation). `state` and `from_state` let a run stop and go on.

    >>> running = RunningQuantile(0.5, n_values=4)
    >>> running.add(torch.tensor([[1.0], [2.0]])).add(torch.tensor([[3.0], [4.0]])).result()
    tensor([2.5000])
    """

    def __init__(self, q: float, *, n_values: int) -> None:
        """`n_values`: how many values of each unit will come in all."""
        if not 0 <= q <= 1 or n_values < 1:
            raise ValueError(f"expected a quantile from 0 to 1 of at least one value, found q = {q} of {n_values}")
        self.q, self.n_values, self.n_seen = q, n_values, 0
        self._place = q * (n_values - 1)
        self._n_kept = n_values - math.floor(self._place)
        self._highest: Tensor | None = None

    def add(self, values: Tensor) -> "RunningQuantile":
        """Take values [n, unit] in."""
        self.n_seen += len(values)
        if self.n_seen > self.n_values:
            raise ValueError(f"expected {self.n_values} values of each unit in all, found {self.n_seen}")
        pool = values if self._highest is None else torch.cat([self._highest, values])
        self._highest = pool.topk(min(self._n_kept, len(pool)), dim=0).values
        return self

    def result(self) -> Tensor:
        """The quantile of each unit, float [unit].

        Raises:
            ValueError: not all values have come.
        """
        if self.n_seen != self.n_values:
            raise ValueError(f"expected {self.n_values} values of each unit in all, found {self.n_seen} so far")
        low, high = self._highest[self._n_kept - 1], self._highest[max(self._n_kept - 2, 0)]
        return low + (high - low) * (self._place - math.floor(self._place))

    def state(self) -> dict[str, object]:
        """Everything that is needed to go on."""
        return {"q": self.q, "n_values": self.n_values, "n_seen": self.n_seen, "highest": self._highest}

    @classmethod
    def from_state(cls, state: dict[str, object]) -> "RunningQuantile":
        """Go on where `state` was taken."""
        running = cls(state["q"], n_values=state["n_values"])
        running.n_seen, running._highest = state["n_seen"], state["highest"]
        return running


def union(masks: Iterable[Tensor]) -> Tensor:
    """One mask [y, x] of all instances of a category."""
    masks = [torch.as_tensor(mask, dtype=torch.bool) for mask in masks]
    if not masks:
        raise ValueError("expected at least one mask, found none: the image has no object of that category")
    return torch.stack(masks).any(0)


def iou(masks: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of masks [..., y, x] with a mask [y, x], float [...]; two empty masks have 0.

    >>> iou(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]]))
    tensor(0.3333)
    """
    if masks.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"expected masks of one size, found {[*masks.shape[-2:]]} and {[*target.shape[-2:]]}")
    both = (masks & target).sum((-2, -1))
    either = (masks | target).sum((-2, -1))
    return both / either.clamp(min=1)
