r"""Concepts of pixels, and where a neuron fires among them (Mu & Andreas 2020, section 3; Network Dissection).

What a sentence pair is to chapter 16, a pixel is here: a case. A concept is true of the pixels that it covers, a neuron
fires at those where its map, enlarged to their grid, is above its own highest values. Pictures come one after the
other, each as `side` x `side` pixels in raster order, so that `mmn_utils.compositional` reads both as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from mmn_utils.data.coco import CocoScenes, SceneObject
from mmn_utils.formulas import Explanation
from mmn_utils.receptive_fields import upsample

COLOURS = {
    "black": (30, 30, 35), "gray": (150, 150, 150), "white": (245, 245, 245), "red": (205, 50, 45),
    "orange": (240, 145, 50), "yellow": (240, 215, 85), "green": (85, 160, 80), "blue": (75, 125, 205),
    "purple": (135, 90, 170), "pink": (240, 160, 185), "brown": (125, 85, 55),
}  # fmt: skip
"""The eleven basic colour terms of English, each by one RGB value; a pixel has the name of the nearest."""
SIZES = {"small": (0.0, 0.05), "middle": (0.05, 0.15), "large": (0.15, 1.01)}
"""Share of the picture that an object covers: from, up to."""


@dataclass(frozen=True)
class PixelConcepts:
    """Which concept is true of which pixel."""

    names: tuple[str, ...]
    """`object:dog`, `family:animal`, `size:large`, `hand:line`, `colour:red`, `ground:blue`, `pattern:dotted`,
    `place:top`: kind and word."""
    truth: np.ndarray
    """bool [picture * pixel, concept]"""
    images: tuple[int, ...]
    """ids of the pictures, in order"""
    side: int
    """pixels along each side"""

    def of_picture(self, k: int) -> dict[str, np.ndarray]:
        """The masks bool [y, x] of the concepts that picture number `k` has anywhere, by name."""
        own = self.truth.reshape(len(self.images), self.side, self.side, -1)[k]
        return {name: own[..., c] for c, name in enumerate(self.names) if own[..., c].any()}

    def mask(self, own: Explanation, max_length: int | None = None) -> np.ndarray:
        """Where a neuron's best formula is true, bool [picture, y, x]; nowhere, if it was not searched."""
        shape = (len(self.images), self.side, self.side)
        if not own.searched:
            return np.zeros(shape, dtype=bool)
        return own.best(max_length).formula.mask(self.truth).reshape(shape)


def pixel_concepts(scenes: CocoScenes, images: Sequence[int], *, side: int, names: Sequence[str] = ()) -> PixelConcepts:
    """The concepts of some pictures, all kinds that the annotations know.

    names: which concepts, in order; by default, all that are true of some pixel, in the order of their kinds and words.
    Pass those of other pictures to have the same columns.
    """
    found = [_of_picture(scenes, image, side) for image in images]
    names = tuple(names) or tuple(sorted({name for own in found for name in own}))
    column = {name: k for k, name in enumerate(names)}
    truth = np.zeros((len(names), len(found), side * side), dtype=bool)
    for k, own in enumerate(found):
        for name in own.keys() & column.keys():
            truth[column[name], k] = own[name].ravel()
    return PixelConcepts(names, truth.reshape(len(names), -1).T, tuple(images), side)


def _of_picture(scenes: CocoScenes, image: int, side: int) -> dict[str, np.ndarray]:
    """Masks bool [y, x] by name; empty ones are left out."""
    masks, info = _places(side) | colour_masks(scenes.image(image), side), scenes.info(image)
    taken = np.zeros((side, side), dtype=bool)
    for o in scenes.objects(image):
        mask = shrunk(o.mask, side)
        taken |= mask
        for name in _names(o, scenes.families[o.name], info.get("style")):
            masks[name] = masks.get(name, False) | mask
    if "ground" in info:
        pattern, colour = info["ground"].split()
        masks |= {f"pattern:{pattern}": ~taken, f"ground:{colour}": ~taken}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _names(o: SceneObject, family: str, hand: str | None) -> list[str]:
    """Concepts that an object's pixels have for being its pixels."""
    size = next(name for name, (low, high) in SIZES.items() if low <= o.mask.mean() < high)
    return [f"object:{o.name}", f"family:{family}", f"size:{size}"] + ([f"hand:{hand}"] if hand else [])


def _places(side: int) -> dict[str, np.ndarray]:
    """Thirds of the picture, down and across."""
    third = np.arange(side) * 3 // side
    down, across = np.broadcast_arrays(third[:, None], third[None])
    rows = {f"place:{name}": down == k for k, name in enumerate(("top", "centre row", "bottom"))}
    return rows | {f"place:{name}": across == k for k, name in enumerate(("left", "centre column", "right"))}


def colour_masks(image: Image.Image, side: int) -> dict[str, np.ndarray]:
    """Where each colour of COLOURS is the nearest to the picture's, made smaller: bool [y, x] by name."""
    pixels = np.asarray(square(image).resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    nearest = ((pixels[..., None, :] - np.array(list(COLOURS.values()))) ** 2).sum(-1).argmin(-1)
    return {f"colour:{name}": nearest == k for k, name in enumerate(COLOURS)}


def square(image: Image.Image) -> Image.Image:
    """The largest square about the middle, which is what CLIP sees of a picture."""
    return ImageOps.fit(image, (min(image.size),) * 2, centering=(0.5, 0.5))


def shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask bool [y, x], cut square about its middle, on `side` x `side` pixels: true where half a pixel is."""
    size = min(mask.shape)
    top, left = ((n - size) // 2 for n in mask.shape)
    cut = torch.from_numpy(np.ascontiguousarray(mask[top : top + size, left : left + size])).float()
    return (functional.interpolate(cut[None, None], size=(side, side), mode="area")[0, 0] >= 0.5).numpy()


# --- where neurons fire ----------------------------------------------------------------------------------------------


def thresholds(maps: Tensor, *, top: float = 0.005) -> Tensor:
    """What the share `top` of a neuron's places is above, float [neuron], of maps [picture, neuron, y, x]: before they
    are enlarged, as published.
    """
    return torch.from_numpy(np.quantile(maps.transpose(0, 1).flatten(1).numpy(), 1 - top, axis=1)).float()


def pixel_firing(maps: Tensor, cut: Tensor, *, side: int) -> np.ndarray:
    """Where each neuron fires, bool [picture * pixel, neuron]: its map [picture, neuron, y, x], enlarged bilinearly to
    `side` x `side`, is above its threshold (float [neuron]), strictly.

    Raises:
        ValueError: a map has a value that is no number.
    """
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).any(dim=3).any(dim=2).any(dim=0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"maps: expected finite numbers, found others in neurons {bad[:5]} ({len(bad)} in all): leave these out"
        )
    grid = tuple(maps.shape[2:])
    fires = np.empty((maps.shape[1], len(maps), side * side), dtype=bool)
    for k, own in enumerate(maps):
        fires[:, k] = (upsample(own.flatten(1), (side, side), grid=grid) > cut[:, None, None]).flatten(1).numpy()
    return fires.reshape(len(fires), -1).T


def shuffled_pictures(fires: np.ndarray, n_pictures: int, seed: int) -> np.ndarray:
    """The firing in each picture beside the concepts of another one: every neuron keeps its rate, its places and the
    shapes of its masks, and has nothing to explain. No picture keeps its own.

    >>> shuffled_pictures(np.array([[True], [True], [False], [False]]), 2, seed=0)[:, 0].tolist()
    [False, False, True, True]
    """
    order = np.random.default_rng(seed).permutation(n_pictures)
    whose = np.empty_like(order)
    whose[order] = np.roll(order, 1)
    return fires.T.reshape(-1, n_pictures, len(fires) // n_pictures)[:, whose].reshape(fires.shape[::-1]).T


def by_picture(masks: np.ndarray, n_pictures: int) -> np.ndarray:
    """Whether each of masks [picture * pixel, mask] is true anywhere in each picture, bool [picture, mask].

    >>> by_picture(np.array([[True], [False], [False], [False]]), 2)[:, 0].tolist()
    [True, False]
    """
    return masks.reshape(n_pictures, -1, masks.shape[1]).any(axis=1)


def ious_elsewhere(
    explanations: Sequence[Explanation], fires: np.ndarray, truth: np.ndarray, max_length: int
) -> np.ndarray:
    """The IoU of each neuron's formula in other cases than it was found in, float [neuron].

    fires: bool [case, neuron]; truth: bool [case, concept], columns as in the search. Not a number where the neuron was
    not searched or does not fire there.
    """
    found = np.full(len(explanations), np.nan)
    for own in explanations:
        fired = fires[:, own.neuron]
        if own.searched and fired.any():
            mask = own.best(max_length).formula.mask(truth)
            found[own.neuron] = (mask & fired).sum() / (mask | fired).sum()
    return found
