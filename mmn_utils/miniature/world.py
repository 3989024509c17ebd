"""Scenes of the miniature world: one to three objects, drawn by one hand, on a textured ground, with exact masks.

Everything follows from a seed. `write_scenes` lays a split out as COCO does: `annotations/instances_SPLIT.json`,
`annotations/captions_SPLIT.json` (five captions an image) and `SPLIT/*.png`.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from mmn_utils.miniature.art import SIDE, STYLES, sprites
from mmn_utils.miniature.concepts import concepts
from mmn_utils.miniature.text import COLOURS, PATTERNS, caption

RGB = {
    "red": (205, 70, 60), "blue": (80, 125, 205), "green": (95, 165, 90), "yellow": (235, 210, 95),
    "white": (240, 240, 238), "gray": (155, 157, 160), "brown": (140, 100, 70), "pink": (240, 170, 190),
    "purple": (140, 100, 175), "black": (45, 45, 50),
}  # fmt: skip
SIZES = {1: (30, 55), 2: (23, 37), 3: (18, 29)}
SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3, "encoder": 4}


@dataclass(frozen=True)
class Scene:
    """One picture and the truth about it."""

    image: np.ndarray
    """uint8 [64, 64, RGB]"""
    masks: np.ndarray
    """bool [object, 64, 64]: the visible part of each object"""
    words: tuple[str, ...]
    """name of each object"""
    style: str
    """the hand that drew it"""
    ground: tuple[str, str]
    """pattern and colour"""


def ground_image(rng: np.random.Generator, pattern: str, colour: str, side: int = SIDE) -> np.ndarray:
    """A textured ground: float [side, side, 3] in 0..255, with a random gradient and grain."""
    base = np.array(RGB[colour], dtype=np.float32) + rng.normal(0, 9, 3)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(0.08, 0.25), rng.uniform(0, 1, 2)
    u, v = (
        (np.cos(angle) * x + np.sin(angle) * y) / period + phase[0],
        (np.cos(angle) * y - np.sin(angle) * x) / period + phase[1],
    )
    texture = {
        "plain": lambda: np.zeros((side, side)),
        "striped": lambda: (u % 1 < 0.5) * 1.0,
        "dotted": lambda: (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.28) * 1.0,
        "checked": lambda: ((u % 1 < 0.5) ^ (v % 1 < 0.5)) * 1.0,
        "speckled": lambda: (rng.random((side, side)) < 0.12) * 1.0,
    }[pattern]()
    contrast = rng.uniform(18, 42) * (1 if base.mean() < 130 else -1)
    gradient = rng.uniform(-18, 18) * (x - 0.5) + rng.uniform(-18, 18) * (y - 0.5)
    grain = rng.normal(0, 3, (side, side))
    return base + (contrast * texture + gradient + grain)[..., None]


def place(rng: np.random.Generator, n: int) -> list[tuple[int, int, int]]:
    """Left, top and side of n squares inside the picture that overlap by at most a third of the smaller one."""
    while True:
        squares = []
        for side in rng.integers(*SIZES[n], size=n).tolist():
            for _ in range(20):
                left, top = rng.integers(0, SIDE - side + 1, size=2).tolist()
                if all(_overlap((left, top, side), other) < 0.33 for other in squares):
                    squares.append((left, top, side))
                    break
        if len(squares) == n:
            return squares


def _overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    width, height = (min(a[k] + a[2], b[k] + b[2]) - max(a[k], b[k]) for k in (0, 1))
    return max(0, width) * max(0, height) / min(a[2], b[2]) ** 2


def cut_out(rng: np.random.Generator, sprite: np.ndarray, side: int, *, inverted: bool) -> np.ndarray:
    """A sprite resized, perhaps mirrored, slightly turned and tinted: float [side, side, RGBA], colour 0..255, alpha
    0..1.
    """
    image = Image.fromarray(sprite)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.BOX)
    pixels = np.asarray(image, dtype=np.float32)
    colour = (255 - pixels[..., :3]) if inverted else pixels[..., :3]
    tinted = colour * rng.uniform(0.85, 1.1, 3) * rng.uniform(0.9, 1.08)
    return np.concatenate([tinted, pixels[..., 3:] / 255], axis=-1)


def draw(rng: np.random.Generator, words: Sequence[str], style: str) -> Scene:
    """One scene of the given concepts, later ones in front of earlier ones."""
    index = {c.word: i for i, c in enumerate(concepts())}
    pattern, colour = str(rng.choice(PATTERNS)), str(rng.choice(COLOURS))
    canvas, masks = ground_image(rng, pattern, colour), np.zeros((len(words), SIDE, SIDE), dtype=bool)
    inverted = style == "line" and canvas.mean() < 115  # black line art would vanish on a dark ground
    for k, (word, (left, top, side)) in enumerate(zip(words, place(rng, len(words)), strict=True)):
        piece = cut_out(rng, sprites(style)[index[word]], side, inverted=inverted)
        window = (slice(top, top + side), slice(left, left + side))
        alpha = piece[..., 3:]
        canvas[window] = canvas[window] * (1 - alpha) + piece[..., :3] * alpha
        masks[(slice(None), *window)] &= ~(alpha[..., 0] > 0.5)
        masks[(k, *window)] = alpha[..., 0] > 0.5
    return Scene(canvas.clip(0, 255).astype(np.uint8), masks, tuple(words), style, (pattern, colour))


def scene(seed: Sequence[int], *, styles: Sequence[str] = tuple(STYLES), n_objects: Sequence[int] = (1, 2, 3)) -> Scene:
    """The scene that belongs to a seed: concepts, hand and number of objects are drawn evenly."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice(n_objects))
    words = [str(w) for w in rng.choice([c.word for c in concepts()], size=n, replace=False)]
    return draw(rng, words, str(rng.choice(styles)))


def captions(seed: Sequence[int], words: Sequence[str], ground: tuple[str, str], n: int = 5) -> list[str]:
    """Five ways to say what a scene shows."""
    rng = np.random.default_rng([*seed, 5])
    return [caption(rng, list(words), ground) for _ in range(n)]


def write_scenes(
    folder: Path,
    *,
    split: str,
    n: int,
    seed: int = 0,
    styles: Sequence[str] = tuple(STYLES),
    n_objects: Sequence[int] = (1, 2, 3),
) -> Path:
    """Write n scenes as a COCO split below `folder`; the image records also say `style`, `ground` and `n_objects`.

    The split appears whole or not at all; one that is there already is left as it is.

    Raises:
        ValueError: no such split.
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"unknown split '{split}'; the splits are {', '.join(SPLIT_SEEDS)}")
    done = folder / "annotations" / f"captions_{split}.json"
    if done.is_file():
        return folder
    images, instances, said = [], [], []
    partial = folder / f"{split}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for k in tqdm(range(n), desc=f"drawing {split}", disable=None, leave=False):
        key = (seed, SPLIT_SEEDS[split], k)
        made = scene(key, styles=styles, n_objects=n_objects)
        name = f"{k:06d}.png"
        Image.fromarray(made.image).save(partial / name)
        images.append(_image_record(k, name, made))
        instances += [_instance(len(instances) + i, k, made, i) for i in range(len(made.words))]
        said += [
            {"id": 5 * k + i, "image_id": k, "caption": c} for i, c in enumerate(captions(key, made.words, made.ground))
        ]
    info = {"description": f"miniature world, split {split}, seed {seed}"}
    categories = [{"id": i, "name": c.word, "supercategory": c.family} for i, c in enumerate(concepts(), start=1)]
    shutil.rmtree(folder / split, ignore_errors=True)
    os.replace(partial, folder / split)
    _write(
        folder / "annotations" / f"instances_{split}.json",
        info=info,
        images=images,
        annotations=instances,
        categories=categories,
    )
    _write(done, info=info, images=images, annotations=said)
    return folder


def _image_record(k: int, name: str, made: Scene) -> dict[str, object]:
    return {
        "id": k, "file_name": name, "width": SIDE, "height": SIDE,
        "style": made.style, "ground": " ".join(made.ground), "n_objects": len(made.words),
    }  # fmt: skip


def _instance(number: int, image_id: int, made: Scene, i: int) -> dict[str, object]:
    """One annotation with its mask as compressed run lengths."""
    rle = coco_mask.encode(np.asfortranarray(made.masks[i].astype(np.uint8)))
    category = 1 + next(j for j, c in enumerate(concepts()) if c.word == made.words[i])
    return {
        "id": number + 1, "image_id": image_id, "category_id": category, "iscrowd": 0,
        "area": int(made.masks[i].sum()), "bbox": coco_mask.toBbox(rle).tolist(),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
    }  # fmt: skip


def _write(path: Path, **content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
