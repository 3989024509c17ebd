"""Where in the image a neuron is active (Schwettmann et al. 2023, section 3.2 and supplement S.1).

A unit's activations at the image patches are a small picture; enlarged bilinearly and cut at a high quantile it is a
mask, the unit's receptive field, to be compared with the objects' own masks by intersection over union (IoU).

Differs: the text speaks of a "0.95 percentile" without saying of what. A mask of each image's own highest 5 % could not
reach the IoUs that the paper prints, so that the default is the unit's quantile over a data set, as in Network
Dissection (`RunningQuantile`); `own_threshold` is the other reading.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmn_utils.data.coco import CocoScenes
from mmn_utils.metrics import Estimate, bootstrap_mean
from mmn_utils.neurons import hooked, last_logits, mlp_layers

# --- maps and masks --------------------------------------------------------------------------------------------------


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


# --- what a model's units do at the image positions -------------------------------------------------------------------


@torch.no_grad()
def patch_activations(
    model: nn.Module, prompts: Tensor, *, layers: Sequence[int] | None = None, batch_size: int = 32
) -> Iterator[Tensor]:
    """Every unit's activation at every image position, batch by batch: float [image, patch, unit].

    prompts: image prompts [image, patch, d_model]. Units are numbered through all layers (`layer * n_units + unit`),
    or through `layers`. The model reads from left to right, so that no text after the image could change these numbers.
    """
    mlps = mlp_layers(model)
    asked = mlps if layers is None else [mlps[layer] for layer in layers]
    for batch in prompts.split(batch_size):
        found: list[Tensor] = []
        with hooked(model, lambda _layer, a, _start, found=found: found.append(a.float()), layers=asked):
            last_logits(model, batch.to(model.dtype))
        yield torch.cat([a.to(prompts.device) for a in found], dim=-1)


@torch.no_grad()
def unit_maps(model: nn.Module, prompts: Tensor, units: Tensor) -> Tensor:
    """The activations of each image's own `units` (int [image, unit], numbered through all layers): float [image,
    unit, patch], holding one layer's activations at a time."""
    n_units, units = mlp_layers(model)[0].n_units, units.to(prompts.device)
    found = torch.zeros(*units.shape, prompts.shape[1], device=prompts.device)

    def pick(layer: int, a: Tensor, _start: int) -> None:
        row, place = (units // n_units == layer).nonzero(as_tuple=True)
        found[row, place] = a[row.to(a.device), :, (units[row, place] % n_units).to(a.device)].to(found)

    with hooked(model, pick):
        last_logits(model, prompts.to(model.dtype))
    return found


def unit_thresholds(
    model: nn.Module,
    prompts: Tensor,
    *,
    q: float = 0.95,
    layers: Sequence[int] | None = None,
    groups: Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """The `q` quantile over all patches of all images, float [unit], units numbered through all layers or `layers`.

    groups: int [group, member] of unit numbers asks instead for the quantile of each group's mean activation, float
    [group]; a group of one is the unit itself.
    """
    running = RunningQuantile(q, n_values=prompts.shape[0] * prompts.shape[1])
    for activations in patch_activations(model, prompts, layers=layers, batch_size=batch_size):
        values = activations.flatten(0, 1)
        running.add(values if groups is None else values[:, groups.flatten()].unflatten(1, groups.shape).mean(-1))
    return running.result()


def matched_units(units: Tensor, n_units: int, *, generator: torch.Generator) -> Tensor:
    """Random units instead of `units` [image, unit]: place by place of the same layer, none of the image's own.

    n_units: how many a layer has. No unit is drawn twice for one image.

    >>> matched_units(torch.tensor([[0, 3]]), 2, generator=torch.Generator())
    tensor([[1, 2]])
    """
    drawn = torch.empty_like(units)
    for row, given in zip(drawn, units.to(drawn), strict=True):
        for layer in (given // n_units).unique().tolist():
            here = given // n_units == layer
            free = torch.ones(n_units, dtype=torch.bool).index_fill_(0, given[here].cpu() % n_units, False)
            others = free.nonzero()[:, 0]
            if len(others) < here.sum():
                raise ValueError(f"layer {layer}: {int(here.sum())} of {n_units} units cannot be matched by others")
            order = torch.randperm(len(others), generator=generator)[: int(here.sum())]
            row[here] = (layer * n_units + others[order]).to(row)
    return drawn


# --- against the truth -----------------------------------------------------------------------------------------------


def field_ious(maps: Tensor, thresholds: Tensor, targets: Sequence[Tensor | np.ndarray]) -> Tensor:
    """IoU of each unit's receptive field with its image's mask, float [image, unit].

    maps: float [image, unit, patch]; thresholds: float [image, unit]; targets: one mask [y, x] an image, whose sizes
    may differ: the fields are drawn at the mask's own size.
    """
    masks = [torch.as_tensor(target, device=maps.device) for target in targets]
    rows = zip(maps, thresholds.to(maps.device), masks, strict=True)
    return torch.stack([iou(receptive_fields(m, t, tuple(mask.shape)), mask) for m, t, mask in rows])


def first_allowed(units: Tensor, allowed: Tensor, n: int) -> Tensor:
    """The first `n` allowed units of each image in their order, int [image, n]; others fill up where there are fewer.

    >>> first_allowed(torch.tensor([[5, 6, 7]]), torch.tensor([[False, True, True]]), 2)
    tensor([[6, 7]])
    """
    order = (~allowed).int().argsort(dim=1, stable=True)
    return units.gather(1, order)[:, :n]


@dataclass(frozen=True)
class Company:
    """An image in which the caption's first noun names one of several annotated categories."""

    image: int
    named: np.ndarray
    """bool [y, x]: the union of the named category's instances."""
    other: np.ndarray
    """The same for another category of the image."""


def in_company(scenes: CocoScenes, images: Sequence[int], nouns: Sequence[str]) -> list[Company]:
    """The images whose noun is a word of exactly one of several annotated categories; the other is the first such.

    Raises:
        ValueError: there is no such image.
    """
    found = []
    for image, noun in zip(images, nouns, strict=True):
        masks: dict[str, list[np.ndarray]] = {}
        for o in scenes.objects(image):
            masks.setdefault(o.name, []).append(o.mask)
        named = [name for name in masks if noun in name.split()]
        others = [name for name in masks if name not in named]
        if len(named) == 1 and others:
            unions = (union(masks[name]).numpy() for name in (named[0], others[0]))
            found.append(Company(image, *unions))
    if not found:
        raise ValueError(f"in none of {len(images)} images does the noun name one of several annotated categories")
    return found


@dataclass(frozen=True)
class Versus:
    """Two means over the same images and the mean of the differences, each with its interval."""

    ours: Estimate
    others: Estimate
    gain: Estimate


def versus(ours: np.ndarray, others: np.ndarray, seed: int) -> Versus:
    """Paired comparison of two arrays [image]; images where either is nan are left out."""
    kept = ~(np.isnan(ours) | np.isnan(others))
    ours, others = ours[kept], others[kept]
    return Versus(*(bootstrap_mean(values, seed) for values in (ours, others, ours - others)))


def means_where(values: Tensor, allowed: Tensor) -> np.ndarray:
    """Each image's mean over its allowed units, float [image], from values and allowed [image, unit]; nan if it has
    none."""
    values, allowed = values.cpu().double(), allowed.cpu()
    total = values.masked_fill(~allowed, 0).sum(1)
    return (total / allowed.sum(1)).numpy()


def categories_won(
    categories: Sequence[str], ours: np.ndarray, others: np.ndarray, seed: int, *, n_resamples: int = 2000
) -> Estimate:
    """In how many categories the mean of `ours` [image] is above that of `others`, with a bootstrap interval.

    Images are drawn again within their category; `n` is the number of categories.
    """
    gain = np.asarray(ours) - np.asarray(others)
    rng = np.random.default_rng(seed)
    groups = [gain[np.asarray(categories) == name] for name in sorted(set(categories))]
    draws = [g[rng.integers(len(g), size=(n_resamples, len(g)))].mean(axis=1) > 0 for g in groups]
    value = sum(float(g.mean()) > 0 for g in groups)
    low, high = np.percentile(np.sum(draws, axis=0), [2.5, 97.5])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=len(groups))


def coverage(target: Tensor | np.ndarray, n_patches: int) -> Tensor:
    """How much of each patch a mask [y, x] covers, from 0 to 1, float [patch]: the map of an ideal unit."""
    mask = torch.as_tensor(target).float()[None, None]
    side = math.isqrt(n_patches)
    return F.interpolate(mask, size=(side, side), mode="area").flatten()


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
