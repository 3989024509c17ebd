r"""Which neurons answer to a concept however it is shown: as photo, as drawing, as written word (Goh et al. 2021).

A unit's *answer* to a picture is the largest value of its map before the last ReLU (or the mean, where said). For one
concept in one facet,

$$\mathrm{AUROC} = P(\text{answer to the concept} > \text{answer to another concept}) + \tfrac12 P(\text{equal}),$$

both pictures in that facet. Unit and concept are a *multimodal* pair if it exceeds .9 in each of `FACETS`. A unit's
concept is chosen on one album and the pair judged on another, so that nothing passes by having been searched for.
The paper names such neurons from examples and gives no number; the measure is ours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from mmn_utils.clip_neurons import pre_relu
from mmn_utils.data.album import Album
from mmn_utils.metrics import Estimate, wilson
from mmn_utils.models.clip import Clip

FACETS = ("photo", "drawing", "text")
THRESHOLD = 0.9
Pool = Literal["max", "mean"]


@dataclass(frozen=True)
class Seen:
    """What a tower makes of some pictures of an album."""

    pictures: pd.DataFrame
    """One row a picture, with `facet` and `concept`; the index is its number in the album."""
    concepts: tuple[str, ...]
    """Keys of all concepts of the album, in order."""
    maps: Tensor
    """Residual sums before the last ReLU, float32 [picture, unit, y, x]."""
    embeddings: Tensor
    """Unit vectors, float32 [picture, d_joint]."""

    def answers(self, pool: Pool = "max") -> np.ndarray:
        """The largest or the mean value of each map, float32 [picture, unit]."""
        return (self.maps.amax((2, 3)) if pool == "max" else self.maps.mean((2, 3))).numpy()


def first(album: Album, *, facets: Sequence[str] = FACETS, n: int) -> np.ndarray:
    """Numbers of the first `n` pictures of every concept in each facet.

    Raises:
        ValueError: a concept has fewer in one of them.
    """
    rows = album.pictures[album.pictures.facet.isin(facets)]
    sizes = rows.groupby(["facet", "concept"]).size()
    expected = pd.MultiIndex.from_product([facets, album.concepts.key])
    poorest = sizes.reindex(expected, fill_value=0)
    if poorest.min() < n:
        facet, concept = poorest.idxmin()
        raise ValueError(
            f"{album.folder}: expected {n} pictures a cell, found {poorest.min()} of {concept!r} as {facet}"
        )
    return rows.groupby(["facet", "concept"]).head(n).index.to_numpy()


def look(clip: Clip, album: Album, numbers: Sequence[int], *, batch_size: int = 32) -> Seen:
    """Show pictures of an album to a CLIP; maps and embeddings come from the same pass."""
    batches = (album.images(numbers[i : i + batch_size]) for i in range(0, len(numbers), batch_size))
    return Seen(album.pictures.loc[numbers], tuple(album.concepts.key), *maps_and_embeddings(clip, batches))


def maps_and_embeddings(clip: Clip, batches: Iterable[Sequence[Image.Image]]) -> tuple[Tensor, Tensor]:
    """Of all batches together what `in_one_pass` gives: maps float32 [image, neuron, y, x], and unit vectors float32
    [image, d_joint].
    """
    parts = [(maps.float().cpu().contiguous(), joint.float().cpu()) for maps, joint in in_one_pass(clip, batches)]
    return tuple(torch.cat(own) for own in zip(*parts, strict=True))


@torch.no_grad()
def in_one_pass(clip: Clip, batches: Iterable[Sequence[Image.Image]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch of images the neurons' maps, float [image, neuron, y, x], and the tower's unit vectors, float
    [image, d_joint].
    """
    clip.model.to(memory_format=torch.channels_last)  # a third faster, the same numbers to rounding
    with pre_relu(clip.visual) as kept:
        for images in batches:
            joint = clip.model.encode_image(clip.pixels(images), normalize=True)
            yield kept.neurons, joint


def auroc(answers: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each unit for each set of positives, float [set, unit]; ties count one half.

    answers: float [picture, unit]; positive: bool [set, picture]. By rank sums (Mann and Whitney). A set that is empty
    or holds every picture gives nan.
    """
    ranks, n = pd.DataFrame(answers).rank().to_numpy(), positive.sum(1, keepdims=True).astype(float)
    with np.errstate(invalid="ignore"):
        return (positive.astype(float) @ ranks - n * (n + 1) / 2) / (n * (len(answers) - n))


def by_facet(seen: Seen, *, pool: Pool = "max") -> np.ndarray:
    """AUROC of every unit for every concept among the pictures of each of `FACETS`, float [facet, concept, unit]."""
    concept, answers, scores = seen.pictures.concept.to_numpy(), seen.answers(pool), []
    for facet in FACETS:
        rows = (seen.pictures.facet == facet).to_numpy()
        scores.append(auroc(answers[rows], np.array(seen.concepts)[:, None] == concept[rows]))
    return np.stack(scores)


def judge(
    found: np.ndarray, measured: np.ndarray, concepts: Sequence[str], *, chosen_by: Sequence[str] = FACETS
) -> pd.DataFrame:
    """One row a unit: its best concept, and how well it holds on pictures that had no part in choosing it.

    found, measured: from `by_facet` on two albums, float [facet, concept, unit], facets as in `FACETS`. The concept is
    the one whose weakest facet among `chosen_by` is strongest in `found`. Columns: `concept`; `found`, that value; one
    column a facet, AUROC in `measured`; `weakest`, the lowest of these; `multimodal`, both `found` and `weakest` > .9.
    """
    search = found[[FACETS.index(facet) for facet in chosen_by]].min(0)
    best, units = search.argmax(0), np.arange(search.shape[1])
    table = pd.DataFrame({"concept": np.array(concepts)[best], "found": search[best, units]})
    table[list(FACETS)] = measured[:, best, units].T
    table["weakest"] = table[list(FACETS)].min(axis=1)
    table["multimodal"] = (table.found > THRESHOLD) & (table.weakest > THRESHOLD)
    return table.rename_axis("unit")


def counted(table: pd.DataFrame) -> Estimate:
    """How many units of a table from `judge` are multimodal, with Wilson's interval (the units taken as a sample)."""
    n, share = len(table), wilson(int(table.multimodal.sum()), len(table))
    return Estimate(share.value * n, share.low * n, share.high * n, n)


def rotated(seen: Seen, *, seed: int) -> Seen:
    """The same space seen along other axes: as many random orthogonal directions as there are neurons.

    The rotation is applied at every place; nothing is lost by it but the neurons' own axes.
    """
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(2 * seen.maps.shape[1:2], generator=generator))
    return replace(seen, maps=torch.einsum("pnyx,nd->pdyx", seen.maps, axes))


def random_counts(found: Seen, measured: Seen, *, n_draws: int, seed: int, pool: Pool = "max") -> list[int]:
    """Multimodal units among random directions, in each of `n_draws` rotations."""
    counts = []
    for draw in range(seed, seed + n_draws):
        search, held_out = (by_facet(rotated(side, seed=draw), pool=pool) for side in (found, measured))
        counts.append(int(judge(search, held_out, found.concepts).multimodal.sum()))
    return counts


def second_concepts(table: pd.DataFrame, scores: np.ndarray, families: pd.Series) -> pd.DataFrame:
    """Each unit's best concept outside its first one's family, and how well it holds: columns `second`, `holds`.

    scores: the weakest facet's AUROC, float [concept, unit]; families: by concept key, in the order of `scores`.
    """
    own = families.to_numpy()[:, None] == families[table.concept].to_numpy()
    others = np.where(own, -np.inf, scores)
    best = others.argmax(0)
    return pd.DataFrame({"second": families.index[best], "holds": others.max(0)}, index=table.index)


def most_active(seen: Seen, unit: int, *, n: int) -> list[int]:
    """Rows of `seen` (counted from 0) that a unit answers most, strongest first."""
    return np.argsort(-seen.answers()[:, unit], kind="stable")[:n].tolist()


def peak(activity: Tensor, size: int) -> tuple[float, float, float]:
    """Left, top and side, in pixels of a picture `size` wide, of the cell where a map [y, x] is largest."""
    row, column = divmod(int(activity.argmax()), activity.shape[1])
    side = size / activity.shape[1]
    return column * side, row * side, side
