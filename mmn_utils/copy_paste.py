"""Pictures made wrong on purpose: paste what a neuron's formula names, and see what the neuron and the classifier say
(Mu & Andreas 2020, section 6).

A *thing* is an annotated object, cut out along its own mask. It fits a formula if the formula is true of its pixels in
the picture where it was found; it is pasted at its own place and in its own size, so that it still is true there. The
control is a thing of another name of which the formula is true nowhere, the one that covers most nearly the same
pixels. Things, hosts and controls are drawn, never chosen by what the network makes of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from mmn_utils.data.coco import CocoScenes
from mmn_utils.models.clip import Clip
from mmn_utils.multimodal import maps_and_embeddings
from mmn_utils.pixel_concepts import shrunk, square
from mmn_utils.receptive_fields import Versus, versus

KINDS = ("host", "thing", "control")
"""The bare picture, and with what is pasted into it."""
AT_ONCE = 64
"""Pictures in one pass."""
LEAST = 0.02
"""Things that cover a smaller share of the picture are left alone."""


@dataclass(frozen=True)
class Things:
    """What can be cut out of some pictures."""

    frames: list[Image.Image]
    """The pictures as the network sees them, square and of its size."""
    picture: np.ndarray
    """Where each thing is found, int [thing]: a place in `frames`."""
    names: np.ndarray
    """Category of each thing, str [thing]."""
    masks: np.ndarray
    """Its visible part at the size of the frames, bool [thing, y, x]."""
    pixels: np.ndarray
    """The same on the grid of the concepts, bool [thing, side * side]."""


def cut_outs(scenes: CocoScenes, images: Sequence[int], *, size: int, side: int) -> Things:
    """All annotated things of some pictures, by frames of `size` pixels and concepts on a grid of `side`.

    Raises:
        ValueError: there is none.
    """
    frames = [square(scenes.image(i)).resize((size, size), Image.Resampling.BICUBIC) for i in images]
    found = [(k, o.name, o.mask) for k, image in enumerate(images) for o in scenes.objects(image)]
    cut = [(k, name, shrunk(mask, size), shrunk(mask, side)) for k, name, mask in found]
    kept = [row for row in cut if row[3].mean() >= LEAST]
    if not kept:
        raise ValueError(f"expected annotated objects of {LEAST:.0%} of a picture or more, found none in {len(images)}")
    picture, names, masks, pixels = zip(*kept, strict=True)
    return Things(frames, np.array(picture), np.array(names), np.stack(masks), np.stack(pixels).reshape(len(kept), -1))


def pasted(host: Image.Image, home: Image.Image, mask: np.ndarray) -> Image.Image:
    """A picture with part of another, of the same size, in the same place: where the mask, bool [y, x], is true."""
    return Image.fromarray(np.where(mask[..., None], np.asarray(home), np.asarray(host)))


def see(clip: Clip, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """Maps of all neurons, float32 [picture, neuron, y, x], and unit vectors, float32 [picture, d_joint]."""
    return maps_and_embeddings(clip, (images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE)))


# --- what to paste where ---------------------------------------------------------------------------------------------


def shares(masks: Iterable[np.ndarray], things: Things) -> np.ndarray:
    """Of which share of each thing's pixels each formula is true, float [formula, thing], of masks bool [picture, y,
    x].
    """
    covered = (mask.reshape(len(mask), -1)[things.picture] & things.pixels for mask in masks)
    return np.stack([own.sum(1) for own in covered]) / things.pixels.sum(1)


def plan(
    wanted: Sequence[np.ndarray], controls: np.ndarray, hosts: np.ndarray, things: Things, *, seed: int
) -> pd.DataFrame:
    """What to paste into what, one row a paste: `row`, `thing`, `control`, `host`, and `alike`, the IoU of the masks of
    thing and control.

    Args:
        wanted: for each row (a neuron, a class) the things to paste, int [row][paste].
        controls: which things may be a row's controls, bool [row, thing]; taken is the one that is most alike, of
            another name.
        hosts: which pictures may be its hosts, bool [row, picture]; drawn, but never the home of thing or control.
        things: what there is to paste, and where to.
        seed: of the draws.
    """
    rng, alike, rows = np.random.default_rng(seed), _overlaps(things.pixels), []
    for row, own in enumerate(wanted):
        for thing in own:
            others = np.flatnonzero(controls[row] & (things.names != things.names[thing]))
            control = others[alike[thing, others].argmax()] if len(others) else thing
            free = np.setdiff1d(np.flatnonzero(hosts[row]), things.picture[[thing, control]])
            if len(others) and len(free):
                rows.append((row, thing, control, rng.choice(free), alike[thing, control]))
    return pd.DataFrame(rows, columns=["row", "thing", "control", "host", "alike"])


def _overlaps(pixels: np.ndarray) -> np.ndarray:
    """IoU of every two masks, float [mask, mask], of bool [mask, pixel]."""
    flat = pixels.astype(np.float32)
    both, sizes = flat @ flat.T, flat.sum(1)
    return both / (sizes[:, None] + sizes - both)


def class_weights(clip: Clip, maps: Tensor, texts: Tensor) -> np.ndarray:
    """How much each neuron moves each class, float [class, neuron]: the derivative of the class's cosine by the neuron
    after its ReLU, summed over places, mean over pictures.

    maps: float [picture, neuron, y, x]; texts: unit vectors of the classes, float [class, d_joint]. What the weights of
    a last layer are to the classifiers of the paper.
    """
    neurons = maps.to(clip.device).relu().requires_grad_()
    cosines = functional.normalize(clip.visual.attnpool(neurons), dim=-1) @ texts.T
    each = (torch.autograd.grad(own.sum(), neurons, retain_graph=True)[0] for own in cosines.T)
    return torch.stack([slope.sum((2, 3)).mean(0) for slope in each]).cpu().numpy()


# --- what comes of it ------------------------------------------------------------------------------------------------


def picture_of(things: Things, row: Any, kind: str) -> Image.Image:
    """One picture of a planned paste (a row with `host`, `thing`, `control`): `host`, or with `thing` or `control`."""
    host = things.frames[row.host]
    if kind == "host":
        return host
    which = getattr(row, kind)
    return pasted(host, things.frames[things.picture[which]], things.masks[which])


def look(clip: Clip, things: Things, planned: pd.DataFrame) -> dict[str, tuple[Tensor, Tensor]]:
    """What the network makes of each planned paste, by KINDS: the neurons' largest values, float [paste, neuron], and
    the unit vectors, float [paste, d_joint].
    """
    found = {kind: see(clip, [picture_of(things, row, kind) for row in planned.itertuples()]) for kind in KINDS}
    return {kind: (maps.amax((2, 3)), joint) for kind, (maps, joint) in found.items()}


def fired(seen: dict[str, tuple[Tensor, Tensor]], neurons: np.ndarray, cut: Tensor) -> dict[str, np.ndarray]:
    """Whether each paste's neuron (int [paste]) is above its threshold (float [neuron]) anywhere, bool [paste], by
    kind.
    """
    rows = torch.arange(len(neurons))
    chosen = torch.tensor(neurons)
    return {kind: (largest[rows, chosen] > cut[chosen]).numpy() for kind, (largest, _) in seen.items()}


def chances(seen: dict[str, tuple[Tensor, Tensor]], clip: Clip, texts: Tensor) -> dict[str, np.ndarray]:
    """Zero-shot probabilities, float [paste, class], by kind; texts: unit vectors of the classes."""
    scale = clip.scale.cpu()
    return {kind: (scale * joint @ texts.cpu().T).softmax(1).numpy() for kind, (_, joint) in seen.items()}


def compare(rows: pd.Series, outcome: dict[str, np.ndarray], seed: int) -> Versus:
    """Mean outcome with the thing (`ours`) and with the control (`others`), and their difference.

    Means over rows (neurons, classes), each the mean of its pastes; intervals by the bootstrap over rows. outcome:
    float or bool [paste], by kind.
    """
    both = pd.DataFrame({kind: np.asarray(outcome[kind], dtype=float) for kind in ("thing", "control")})
    means = both.groupby(rows.to_numpy()).mean()
    return versus(means.thing.to_numpy(), means.control.to_numpy(), seed)


def decided(found: Versus) -> str:
    """What the interval of the difference decides.

    >>> decided(versus(np.ones(9), np.zeros(9), 0))
    'higher than'
    """
    return "higher than" if found.gain.low > 0 else "lower than" if found.gain.high < 0 else "not clearly higher than"
