"""Does a unit know a land: on a map without names, and by the names of its places (Goh et al. 2021, Fig. 6).

The map is cut into square pieces at random. Each piece is shown to the tower by itself, what a unit says at its places
is laid over the piece, and the pieces' contributions are averaged cell by cell. The names of places are written on
paper: `typography.word_activations`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from torch.nn import functional as F

from mmn_utils.clip_neurons import neuron_maps
from mmn_utils.models.clip import Clip
from mmn_utils.untrusted import read_image

GRID = (40, 80)
"""Cells of the map, down and across, as in the authors' own files."""
REACH = (5, 10)
"""Half the side of a piece, in cells: the shortest and the longest."""


def read_map(folder: str = "") -> tuple[Image.Image, np.ndarray]:
    """The unlabelled map, and the number of the land that each cell of `GRID` belongs to, int [y, x]; -1 at sea.

    `folder`: one with `map.png`, twice as wide as high, and `lands.png`, whose grey value is the land's number in the
    order of the album's regions (255: none). Empty: the invented world's map.

    Raises:
        FileNotFoundError: the folder lacks one of the two.
    """
    if folder:
        picture, owner = (read_image(Path(folder) / name) for name in ("map.png", "lands.png"))
        numbers = np.asarray(owner.convert("L"), int)
        numbers[numbers == 255] = -1
    else:
        from mmn_utils.miniature.album import world_map

        pixels, numbers = world_map()
        picture = Image.fromarray(pixels)
    rows, columns = ((np.arange(n) + 0.5) * s / n for n, s in zip(GRID, numbers.shape, strict=True))
    return picture.convert("RGB"), numbers[rows.astype(int)[:, None], columns.astype(int)[None]]


def pieces(n: int, *, seed: int) -> list[tuple[int, int, int]]:
    """Left, top and side, in cells, of `n` square pieces of the map; their centres may be anywhere on it."""
    rng = np.random.default_rng(seed)
    half = rng.integers(REACH[0], REACH[1] + 1, n)
    y, x = (rng.integers(0, size, n) for size in GRID)
    return list(zip((x - half).tolist(), (y - half).tolist(), (2 * half).tolist(), strict=True))


def cut(picture: Image.Image, piece: tuple[int, int, int]) -> Image.Image:
    """One piece of the map; beyond the map's border, its border goes on."""
    cell = picture.height / GRID[0]
    left, top, side = (round(cell * n) for n in piece)
    margin = round(cell * REACH[1])
    wide = np.pad(np.asarray(picture), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return Image.fromarray(wide[top + margin : top + margin + side, left + margin : left + margin + side])


def spread(values: torch.Tensor, where: list[tuple[int, int, int]]) -> np.ndarray:
    """Average over pieces of what is said at each cell, float [unit, y, x]; a cell that no piece covers is 0.

    values: float [piece, unit, y, x], on a grid of any size, laid over the piece from edge to edge.
    """
    margin, (height, width) = REACH[1], GRID
    total = torch.zeros(values.shape[1], height + 2 * margin, width + 2 * margin)
    count = torch.zeros(total.shape[1:])
    for maps, (left, top, side) in zip(values, where, strict=True):
        window = (slice(top + margin, top + margin + side), slice(left + margin, left + margin + side))
        total[:, *window] += F.interpolate(maps[None], size=(side, side), mode="bilinear", align_corners=False)[0]
        count[window] += 1
    return (total / count.clamp(min=1))[:, margin:-margin, margin:-margin].numpy()


def look(clip: Clip, picture: Image.Image, *, n_pieces: int, seed: int, batch_size: int = 100) -> np.ndarray:
    """What each neuron says at each cell of the map, before the ReLU: float32 [neuron, y, x]."""
    where = pieces(n_pieces, seed=seed)
    batches = [where[k : k + batch_size] for k in range(0, n_pieces, batch_size)]
    values = [neuron_maps(clip.model, clip.pixels([cut(picture, piece) for piece in batch])) for batch in batches]
    return spread(torch.cat(values), where)


def compare(clip: Clip, picture: Image.Image, texts: Sequence[str], *, n_pieces: int, seed: int) -> np.ndarray:
    """How well each text fits the map at each cell, by the whole model: float32 [text, y, x].

    A piece's cosine with a text is laid over all of the piece, so that this is coarser than what neurons say.
    """
    where = pieces(n_pieces, seed=seed)
    cosines = clip.encode_images([cut(picture, piece) for piece in where]) @ clip.encode_texts(texts).T
    return spread(cosines.cpu()[..., None, None], where)


def overlap(maps: np.ndarray, owner: np.ndarray, n_lands: int) -> np.ndarray:
    """Intersection over union of each land with a unit's strongest cells, as many as the land has: float [land, unit].

    maps: float [unit, y, x]; owner: int [y, x].
    """
    ranks = (-maps.reshape(len(maps), -1)).argsort(axis=1).argsort(axis=1)
    lands = owner.reshape(-1) == np.arange(n_lands)[:, None]
    both = np.stack([(ranks[:, land] < land.sum()).sum(1) for land in lands])
    return both / (2 * lands.sum(1, keepdims=True) - both)


def by_land(answers: np.ndarray, shown: Sequence[str], lands: Sequence[str]) -> np.ndarray:
    """What units say of each land in standard deviations, each unit from its own mean over lands: float [land, unit].

    answers: float [picture, unit]; shown: the land that each picture (or written name) means.
    """
    table = pd.DataFrame(answers / answers.std(axis=0)).groupby(np.asarray(shown)).mean().loc[list(lands)]
    return (table - table.mean()).to_numpy()


def apart(said: np.ndarray) -> np.ndarray:
    """How far apart some units put each two lands, float [pair], in standard scores over the pairs.

    said: float [land, unit]. The mean of the product of two such lists is Pearson's correlation.
    """
    distances = pdist(said)
    return (distances - distances.mean()) / distances.std()
