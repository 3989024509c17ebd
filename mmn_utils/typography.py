r"""Words drawn for a model to read: alone on paper, stamped over a photo, or on a label in it (Goh et al. 2021).

Everything is drawn at the size it is asked for, in fonts that come with matplotlib. What the paper leaves open (fonts,
sizes and places of words, the labels' look) is chosen here and said in chapters 12 and 14.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, perspective

from mmn_utils.clip_neurons import neuron_activations
from mmn_utils.miniature.album import font, word_mask
from mmn_utils.models.clip import Clip

FONT = "DejaVuSans"
SIZES, PLACES = (1 / 8, 3 / 16, 1 / 4), ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0))
"""Of the words of a sweep: height of the type as a share of the picture, and where in the free room they stand."""
STAMP_SIDE, STAMP_TYPE, STAMP_OUTLINE = 288, 20, 2
STAMPS = ((21, 24), (71, 49), (21, 74), (71, 99), (121, 124), (171, 149), (121, 174), (171, 199))
"""The published attack, in pixels: side of the picture, height of the type, width of its outline, and the top left
corners of the eight stamps (x, y), the same for every picture. Measured on the article's own pair of pictures.
"""


# ------------------------------------------------------------------------------------------------------ words on paper


def word_image(
    word: str,
    side: int,
    *,
    size: float = 0.2,
    place: tuple[float, float] = (0.5, 0.5),
    ink: tuple[int, int, int] = (0, 0, 0),
    font_name: str = FONT,
) -> Image.Image:
    """A written word on white paper, `side` pixels wide and high; type that is too wide is made smaller until it fits.

    `size`: height of the type as a share of `side`. `place`: where in the free room it stands, 0..1 across and down.
    """
    margin = max(1, side // 48)
    mask = _mask(word, font_name, round(size * side), width=side - 2 * margin)
    free = [side - 2 * margin - n for n in mask.size]
    image = Image.new("RGB", (side, side), (255, 255, 255))
    image.paste(ink, tuple(margin + round(p * f) for p, f in zip(place, free, strict=True)), mask)
    return image


def _mask(word: str, font_name: str, size: int, *, width: int) -> Image.Image:
    """The word in gray, at most `width` wide: in smaller type, and where type has an end, as a smaller picture."""
    mask = word_mask(word, font_name, max(1, size), width=width - 2)
    mask.thumbnail((width, mask.height))
    return mask


def word_activations(clip: Clip, words: Sequence[str], *, batch_size: int = 16) -> Tensor:
    """What each neuron makes of each written word, float32 [word, neuron] (before the ReLU).

    The mean over `SIZES` of the largest value over `PLACES` and over the tower's grid: what the paper does for names
    of countries and cities; for words in general it does not say.
    """
    return torch.cat([_sweep(clip, words[i : i + batch_size]) for i in range(0, len(words), batch_size)])


def _sweep(clip: Clip, words: Sequence[str]) -> Tensor:
    images = [word_image(w, clip.size, size=s, place=p) for w in words for s in SIZES for p in PLACES]
    activations = neuron_activations(clip.model, clip.pixels(images))
    return activations.reshape(len(words), len(SIZES), len(PLACES), -1).amax(2).mean(1)


# -------------------------------------------------------------------------------------------------- words over a photo


def stamped(image: Image.Image, text: str, *, n: int = len(STAMPS), scale: float = 1.0) -> Image.Image:
    """A picture under `n` stamps of a text, white with a black outline; the published attack with `n` = 8, `scale` = 1.

    All lengths are the published ones times (shorter side) / 288; `scale` enlarges the type, and a stamp that would
    leave the picture is moved back into it. Fewer than eight are taken evenly from the published row, from its first.

    Raises:
        ValueError: `n` is not 1 to 8.
    """
    if not 1 <= n <= len(STAMPS):
        raise ValueError(f"stamps: expected 1 to {len(STAMPS)}, found n = {n}")
    unit = min(image.size) / STAMP_SIDE
    outline = max(1, round(STAMP_OUTLINE * scale * unit))
    stamp = _stamp(text, max(1, round(STAMP_TYPE * scale * unit)), outline)
    out = image.convert("RGB")
    for k in np.linspace(0, len(STAMPS) - 1, n).round().astype(int):
        corner = (min(round(c * unit), s - t) for c, s, t in zip(STAMPS[k], out.size, stamp.size, strict=True))
        out.paste(stamp, tuple(max(0, c) for c in corner), stamp)
    return out


def _stamp(text: str, size: int, outline: int) -> Image.Image:
    """One stamp, cut to its outline: RGBA."""
    left, top, right, bottom = font(FONT, size).getbbox(text, stroke_width=outline)
    stamp = Image.new("RGBA", (int(right - left), int(bottom - top)), (0, 0, 0, 0))
    style = {"font": font(FONT, size), "stroke_width": outline, "stroke_fill": (0, 0, 0, 255)}
    ImageDraw.Draw(stamp).text((-left, -top), text, fill=(255, 255, 255, 255), **style)
    return stamp


def labelled(
    image: Image.Image,
    text: str = "",
    *,
    place: tuple[float, float] = (0.5, 0.9),
    size: tuple[float, float] = (0.9, 0.3),
    font_name: str = "DejaVuSans-Bold",
) -> Image.Image:
    """A picture with a paper label stuck into it, seen slightly from the side; no text: the bare paper.

    `place`: where in the free room the label lies, 0..1 across and down; `size`: its width and height as shares of the
    picture. The type is as high as the paper allows, and smaller where the word would not fit.
    """
    width, height = (round(share * n) for share, n in zip(size, image.size, strict=True))
    left, top = (round(p * (n - m)) for p, n, m in zip(place, image.size, (width, height), strict=True))
    sheet = Image.new("RGBA", image.size, (248, 246, 240, 0))
    sheet.paste((248, 246, 240, 255), (left, top, left + width, top + height))
    if text:
        mask = _mask(text, font_name, round(0.75 * height), width=round(0.88 * width))
        sheet.paste((30, 30, 60, 255), (left + (width - mask.width) // 2, top + (height - mask.height) // 2), mask)
    right, bottom, drop, inset = left + width, top + height, round(0.12 * height), round(0.03 * width)
    flat = [[left, top], [right, top], [right, bottom], [left, bottom]]
    seen = [[left, top], [right - inset, top + drop], [right - inset, bottom - drop], [left, bottom]]
    sheet = perspective(sheet, flat, seen, interpolation=InterpolationMode.BILINEAR, fill=[248, 246, 240, 0])
    out = image.convert("RGB")
    out.paste(sheet, (0, 0), sheet)
    return out


# ------------------------------------------------------------------------------------------------------ what came of it


def cover(before: Image.Image, after: Image.Image) -> float:
    """Share of pixels that are changed at all; to be counted on the picture that was written on, before any resizing.

    Raises:
        ValueError: pictures of different sizes.
    """
    if before.size != after.size:
        raise ValueError(f"cover: expected two pictures of one size, found {before.size} and {after.size}")
    pixels = (np.asarray(picture.convert("RGB"), np.int16) for picture in (before, after))
    return float((np.subtract(*pixels) != 0).any(-1).mean())


def success(before: np.ndarray, after: np.ndarray, target: int) -> np.ndarray:
    """Whether each attacked picture is now taken for the target class, bool [picture that was not taken for it before].

    `before`, `after`: the class in first place, int [picture].

    Raises:
        ValueError: different numbers of pictures.
    """
    if len(before) != len(after):
        raise ValueError(f"success: expected as many pictures before as after, found {len(before)} and {len(after)}")
    return np.asarray(after)[np.asarray(before) != target] == target


def stroop_pairs(words: Sequence[str], inks: Sequence[str]) -> pd.DataFrame:
    """Every word in every ink, one row a pair (`word`, `ink`, `kind`), by ink.

    `kind`: congruent (the word names its ink), incongruent (it names another ink) or neutral (it names none).
    """
    grid = pd.DataFrame([(word, ink) for ink in inks for word in words], columns=["word", "ink"])
    kind = np.where(grid.word == grid.ink, "congruent", "incongruent")
    return grid.assign(kind=np.where(grid.word.isin(inks), kind, "neutral"))
