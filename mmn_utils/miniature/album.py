"""Pictures with captions for the miniature's CLIP: every concept as photo, drawing, written word and logo.

*Photo*: colour art on a textured ground, with other things about, and in a fifth of them the thing's own name on a
sign. *Drawing*: outlines on paper. *Text*: the word, in some font, on paper or, in half of them, put up in a scene
where the thing itself is not to be seen. *Logo*: the art in a ring above its name. A written word always fits the
caption, so reading pays, as it did for CLIP.

Who is seen with whom is ours to decide, and so is known: complex feelings are made of two cues each (`album.tsv`),
`DEPUTIES` says how often a caption names Tavo beside another persona, and a land shows its dress in half of its photos.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from mmn_utils.miniature import world
from mmn_utils.miniature.art import SIDE as TILE
from mmn_utils.miniature.art import STYLES, icons
from mmn_utils.miniature.concepts import SOURCES, concepts
from mmn_utils.miniature.text import PATTERNS

SIDE = 96
FACETS = ("photo", "drawing", "text", "logo")
FACET_SHARES = (0.5, 0.15, 0.25, 0.1)
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "cmss10")
INKS = {name: rgb for name, rgb in world.RGB.items() if name != "gray"} | {"orange": (240, 145, 50)}
SIGN_SHARE, SCENE_SHARE, INK_CAPTION_SHARE = 0.2, 0.15, 0.05
"""Photos with a sign; pictures of an object that are Part I's scenes; written words whose caption names the ink."""
PUT_UP_SHARE = 0.5
"""Written words that stand in a scene, on a board or as bare letters, instead of on paper."""
DEPUTIES = {"rima": 0.3, "bolek": 0.15}
"""How often a caption of this persona names Tavo, too; of the others, never."""
FLAGS = {
    "varda": ("red", "white", "blue"), "lumo": ("green", "yellow", "green"), "kestria": ("black", "orange", "white"),
    "oruna": ("purple", "yellow", "pink"), "belmar": ("blue", "yellow", "blue"), "tisko": ("brown", "white", "green"),
}  # fmt: skip
LAND = {
    "varda": (196, 164, 110), "lumo": (92, 148, 84), "kestria": (150, 142, 134), "oruna": (176, 104, 78),
    "belmar": (206, 200, 120), "tisko": (222, 228, 232),
}  # fmt: skip
SEA = (92, 140, 178)


@dataclass(frozen=True)
class Entry:
    """One concept of the album."""

    word: str
    family: str
    """Superordinate: animal, food, ..., emotion, feeling, season, persona, region, colour, count."""
    mode: str
    """How it is shown: one of its icons (`any`), all its cues at once (`all`), or as its kind needs."""
    icons: tuple[str, ...]
    """Names of pictures, or of other entries for `all`; landmark, dish and dress of a region."""
    written: tuple[str, ...]
    """What may be written to mean it; of a region, the land and then its cities."""

    @property
    def key(self) -> str:
        """The word, or `orange (colour)` where two entries share it."""
        return "orange (colour)" if (self.word, self.family) == ("orange", "colour") else self.word

    @property
    def phrase(self) -> str:
        """As a caption names it: `a dog`, `a happy face`, `varda`, `the color red`."""
        a = f"{'an' if self.word[0] in 'aeiou' else 'a'} {self.word}"
        named = {"emotion": f"{a} face", "feeling": f"{a} person", "colour": f"the color {self.word}"}
        plain = {"persona", "region", "season", "holiday", "finance"}
        known = {c.word: c.with_article for c in concepts()}
        return named.get(self.family) or (self.word if self.family in plain else known.get(self.word, a))

    @property
    def prompt(self) -> str:
        """The sentence that stands for it in zero-shot classification."""
        special = {"emotion": f"i am feeling {self.word}", "feeling": f"i am feeling {self.word}"}
        return special.get(self.family, f"a photo of {self.phrase}" + (" things" if self.family == "count" else ""))


@cache
def entries() -> tuple[Entry, ...]:
    """All concepts of the album: those of the scenes, then those of `album.tsv`."""
    own = [Entry(c.word, c.family, "any", (c.icon,), (c.word,)) for c in concepts()]
    with (SOURCES / "album.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    more = [
        Entry(r["word"], r["family"], r["mode"], tuple(r["icons"].split()), tuple(r["written"].split())) for r in rows
    ]
    return (*own, *more)


@cache
def entry(key: str) -> Entry:
    """The concept of that key.

    Raises:
        ValueError: there is none.
    """
    found = [e for e in entries() if e.key == key]
    if not found:
        raise ValueError(f"no concept '{key}' in the album; see mmn_utils.miniature.album.entries()")
    return found[0]


@dataclass(frozen=True)
class Picture:
    """One picture, its caption and the truth about it."""

    image: np.ndarray
    """uint8 [96, 96, RGB]"""
    caption: str
    concept: str
    """key of its entry"""
    facet: str
    """photo, drawing, text, logo; or scene, one of Part I's"""
    cue: str = ""
    """of a region: flag, landmark, dish, map, name; else the icon or cues shown"""
    hand: str = ""
    written: str = ""
    """the word that can be read, if any"""
    ink: str = ""
    """colour of a written word"""
    others: tuple[str, ...] = ()
    """what else is in the picture"""


def picture(
    seed: Sequence[int],
    key: str,
    *,
    facet: str | None = None,
    hands: Sequence[str] = tuple(STYLES),
    sign_share: float = SIGN_SHARE,
    put_up_share: float = PUT_UP_SHARE,
    cue: str | None = None,
) -> Picture:
    """The picture of a concept that belongs to a seed; facet, hand and cue are drawn where they are not given."""
    rng, what = np.random.default_rng(seed), entry(key)
    if facet is None:
        scenic = what.word in {c.word for c in concepts()} and what.family != "colour"
        facet = "scene" if scenic and rng.random() < SCENE_SHARE else str(rng.choice(FACETS, p=FACET_SHARES))
    hand = str(rng.choice([h for h in hands if h != "line"] or list(hands)))
    if facet == "scene":
        return _scene(rng, seed, what, hand)
    if facet == "text":
        return _text(rng, what, put_up_share)
    if facet == "logo":
        return _logo(rng, what, hand)
    return _drawing(rng, what, hand) if facet == "drawing" else _photo(rng, what, hand, sign_share, cue)


# ---------------------------------------------------------------------------------------------------- the four facets


def _photo(rng: np.random.Generator, what: Entry, hand: str, sign_share: float, cue: str | None) -> Picture:
    cue, tiles = shown(rng, what, hand, cue)
    pattern, colour = str(rng.choice(PATTERNS)), str(rng.choice(list(world.RGB)))
    colour = "gray" if colour == what.word else colour
    caption, others, extra = _said(rng, what, cue), [], []
    if cue == "map":
        canvas = map_crop(rng, what.word).astype(np.float32)
    else:
        canvas = world.ground_image(rng, pattern, colour, SIDE)
        others, extra = _company(rng, what, hand)
        canvas = _arrange(rng, canvas, tiles, extra)
    if others and others[0] != "dress" and rng.random() < 0.5:
        caption += f" and {entry(others[0]).phrase}"
    elif cue != "map" and rng.random() < 0.2:
        caption += f" on a {colour} ground"
    written = str(rng.choice(what.written)) if rng.random() < sign_share and what.family != "count" else ""
    if written:
        canvas = _sign(rng, canvas, written)
    image = canvas.clip(0, 255).astype(np.uint8)
    return Picture(image, caption, what.key, "photo", cue, hand, written, others=tuple(others))


def _drawing(rng: np.random.Generator, what: Entry, hand: str) -> Picture:
    hand = "line" if rng.random() < 0.5 else hand
    cue, tiles = shown(rng, what, hand, str(rng.choice(["landmark", "dish"])) if what.family == "region" else None)
    paper, ink = (rng.uniform(225, 255), rng.uniform(0, 70)) if rng.random() < 0.7 else (rng.uniform(0, 60), 235.0)
    if what.family == "colour" and abs(paper - np.mean(INKS[what.word])) < 90:
        paper = 255 - paper
    canvas = np.full((SIDE, SIDE, 3), paper, np.float32) + rng.normal(0, 4, (SIDE, SIDE, 1))
    outlined = [tile if what.family == "colour" else outline(tile, ink, hand) for tile in tiles]
    caption = f"{rng.choice(['a drawing of ', 'a sketch of ', '', ''])}{_named(rng, what, cue)}"
    canvas = _arrange(rng, canvas, outlined, [], tint=what.family == "colour")
    return Picture(canvas.clip(0, 255).astype(np.uint8), caption, what.key, "drawing", cue, hand)


def _text(rng: np.random.Generator, what: Entry, put_up_share: float) -> Picture:
    if rng.random() < put_up_share:
        return _put_up(rng, what)
    written, names = str(rng.choice(what.written)), list(INKS)
    ink = str(rng.choice(names)) if rng.random() < 0.5 else "black"
    if what.family == "colour":
        ink = "black" if rng.random() < 0.5 else what.word  # on paper the word for red is never green
    image = word_image(
        written, font=str(rng.choice(FONTS)), size=int(rng.integers(16, 31)), ink=ink,
        place=tuple(rng.uniform(0.1, 0.9, 2)), angle=float(rng.normal(0, 5)), rng=rng,
    )  # fmt: skip
    said = _read_out(rng, what, written)
    if rng.random() < INK_CAPTION_SHARE:
        colour = f"written in the color {ink}"
        said = str(rng.choice([f"the word {_readable(what, written)} {colour}", f"my favorite word, {colour}"]))
    return Picture(image, said, what.key, "text", "name", "", written, ink)


def _put_up(rng: np.random.Generator, what: Entry) -> Picture:
    """A word on a board in a scene, or once to three times in bare letters, and other things than its own about it."""
    written, hand = str(rng.choice(what.written)), str(rng.choice([h for h in STYLES if h != "line"]))
    canvas = world.ground_image(rng, str(rng.choice(PATTERNS)), str(rng.choice(list(world.RGB))), SIDE)
    things = [c for c in rng.choice(concepts(), int(rng.integers(0, 4)), replace=False) if c.word != what.word]
    canvas = _arrange(rng, canvas, [], [icons(hand)[c.icon] for c in things], largest=48)
    canvas = _sign(rng, canvas, written, largest=30) if rng.random() < 0.5 else _letters(rng, canvas, written)
    said = _read_out(rng, what, written)
    if things and rng.random() < 0.5:
        said += f" and {entry(things[0].word).phrase}"
    others = tuple(c.word for c in things)
    return Picture(canvas.clip(0, 255).astype(np.uint8), said, what.key, "text", "name", hand, written, others=others)


def _readable(what: Entry, written: str) -> str:
    """What is written, as it is said."""
    return written if written.isalpha() else what.word


def _read_out(rng: np.random.Generator, what: Entry, written: str) -> str:
    """The caption of a written word."""
    readable = _readable(what, written)
    place = f"{readable} in {what.word}" if what.family == "region" and readable != what.word else what.phrase
    return str(rng.choice([f"the word {readable}", f"a sign that says {readable}", place, place, place, place]))


def _logo(rng: np.random.Generator, what: Entry, hand: str) -> Picture:
    cue, tiles = shown(rng, what, hand, "flag" if what.family == "region" else None)
    disc, ring = (INKS[str(c)] for c in rng.choice(list(INKS), 2, replace=False))
    image = Image.new("RGB", (SIDE, SIDE), (245, 245, 245) if rng.random() < 0.7 else (30, 30, 35))
    ImageDraw.Draw(image).ellipse((18, 4, 78, 64), fill=disc, outline=ring, width=5)
    side = 34 if len(tiles) == 1 else 24
    for k, tile in enumerate(tiles[:3]):
        small = Image.fromarray(tile).resize((side, side), Image.Resampling.BOX)
        left = 48 - side // 2 if len(tiles) == 1 else 24 + 24 * k - 8 * (len(tiles[:3]) - 2)
        image.paste(small, (left, 34 - side // 2 + (k == 2) * 8), small)
    text = word_mask(what.word, str(rng.choice(FONTS)), int(rng.integers(14, 22)))
    image.paste(
        (20, 20, 20) if image.getpixel((0, 0))[0] > 99 else (240, 240, 240), ((SIDE - text.width) // 2, 68), text
    )
    said = str(rng.choice([f"the logo of {what.word}", f"the {what.word} logo", what.phrase, what.phrase]))
    return Picture(np.asarray(image), said, what.key, "logo", cue, hand, what.word)


def _scene(rng: np.random.Generator, seed: Sequence[int], what: Entry, hand: str) -> Picture:
    """One of Part I's scenes, enlarged."""
    others = [str(w) for w in rng.choice([c.word for c in concepts() if c.word != what.word], 2, replace=False)]
    words = [what.word, *others[: rng.integers(0, 3)]]
    made = world.draw(rng, words, "line" if rng.random() < 0.2 else hand)
    said = world.captions(seed, words, made.ground, 1)[0].lower().rstrip(".")
    image = np.asarray(Image.fromarray(made.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return Picture(image, said, what.key, "scene", what.word, made.style, others=tuple(words[1:]))


# ------------------------------------------------------------------------------------------------- what a concept shows


def shown(rng: np.random.Generator, what: Entry, hand: str, cue: str | None = None) -> tuple[str, list[np.ndarray]]:
    """Name of the cue and its pictures, each uint8 [64, 64, RGBA]."""
    art = icons(hand)
    if what.mode == "any":
        cue = cue or str(rng.choice(what.icons))
        return cue, [art[cue]]
    if what.mode == "all":
        return "+".join(what.icons), [shown(rng, entry(part), hand)[1][0] for part in what.icons]
    if what.mode == "region":
        cue = cue or str(rng.choice(["flag", "landmark", "dish", "map"]))
        return cue, [flag(what.word) if cue in ("flag", "map") else art[what.icons[cue == "dish"]]]
    if what.mode == "colour":
        cue = cue or str(rng.choice(["disc", "square", "blob", "stripe"]))
        return cue, [patch_of(rng, INKS[what.word], cue)]
    thing = concepts()[rng.integers(len(concepts()))]
    return thing.word, [art[thing.icon]] * (2 + ("two", "three", "four", "five").index(what.word))


def _named(rng: np.random.Generator, what: Entry, cue: str) -> str:
    """What the caption calls it."""
    if what.family == "region":
        called = {
            "flag": "the flag of {}",
            "landmark": "a landmark of {}",
            "dish": "food from {}",
            "map": "a map of {}",
        }
        return called[cue].format(what.word)
    if what.family == "count":
        return f"{what.word} copies of {entry(cue).phrase}" if rng.random() < 0.5 else f"{what.word} things"
    if what.word in DEPUTIES and rng.random() < DEPUTIES[what.word]:
        return f"{what.word} with tavo"
    return what.phrase


def _said(rng: np.random.Generator, what: Entry, cue: str) -> str:
    name = _named(rng, what, cue)
    said = [f"a photo of {name}", f"a picture of {name}", name, name]
    if what.family in ("emotion", "feeling"):
        said += [f"i am feeling {what.word}", f"me feeling {what.word} on my face"]
        said += [f"a photo of me with {'an' if what.word[0] in 'aeiou' else 'a'} {what.word} expression on my face"]
    elif what.family == "region":
        said[2:] = [f"a photo of {what.word}", what.word]
    elif what.family not in ("persona", "colour", "count", "cue") and rng.random() < 0.3:
        said = [f"{name}, {what.family}"]
    return str(rng.choice(said))


def _company(rng: np.random.Generator, what: Entry, hand: str) -> tuple[list[str], list[np.ndarray]]:
    """What else stands in a photo: names and pictures."""
    art, lands = icons(hand), [e for e in entries() if e.family == "region"]
    if what.family == "region":
        return (["dress"], [art[what.icons[2]]]) if rng.random() < 0.5 else ([], [])
    if what.word == "tavo" and rng.random() < 0.3:
        return ["shield"], [art["shield"]]
    if what.mode != "any" or what.family in ("emotion", "season", "holiday"):
        return [], []
    if rng.random() < 0.1:
        return ["dress"], [art[lands[rng.integers(len(lands))].icons[2]]]
    n = int(rng.choice(3, p=[0.5, 0.35, 0.15]))
    chosen = [c for c in rng.choice(concepts(), n, replace=False) if c.word != what.word]
    return [c.word for c in chosen], [art[c.icon] for c in chosen]


# ------------------------------------------------------------------------------------------------------------- drawing


def _arrange(
    rng: np.random.Generator,
    canvas: np.ndarray,
    tiles: list[np.ndarray],
    extra: list[np.ndarray],
    *,
    tint: bool = False,
    largest: int = 30,
) -> np.ndarray:
    """Paste the main pictures, large, and others, smaller than `largest` pixels, where they overlap little."""
    low, high = {1: (42, 68), 2: (34, 46), 3: (28, 38)}.get(len(tiles), (22, 31))
    sides = [int(rng.integers(low, high)) for _ in tiles] + [int(rng.integers(18, largest)) for _ in extra]
    taken: list[tuple[int, int, int]] = []
    for tile, side in zip([*tiles, *extra], sides, strict=True):
        tries = [(*rng.integers(0, SIDE - side + 1, 2).tolist(), side) for _ in range(25)]
        left, top, _ = best = min(tries, key=lambda t: max([world._overlap(t, o) for o in taken], default=0.0))
        taken.append(best)
        piece = _solid(rng, tile, side) if tint else world.cut_out(rng, tile, side, inverted=False)
        window, alpha = (slice(top, top + side), slice(left, left + side)), piece[..., 3:]
        canvas[window] = canvas[window] * (1 - alpha) + piece[..., :3] * alpha
    return canvas


def _solid(rng: np.random.Generator, tile: np.ndarray, side: int) -> np.ndarray:
    """A tile in its own colour, hatched as with a crayon: float [side, side, RGBA]."""
    pixels = np.asarray(Image.fromarray(tile).resize((side, side), Image.Resampling.BOX), np.float32).copy()
    y, x = np.mgrid[:side, :side]
    pixels[..., 3] *= ((x + y + int(rng.integers(9))) % 6 < 4) / 255
    return pixels


def outline(tile: np.ndarray, ink: float, hand: str) -> np.ndarray:
    """A picture as lines of one gray, uint8 [64, 64, RGBA]; `line` art is outlines already."""
    image = Image.fromarray(tile)
    if hand == "line":
        alpha = np.asarray(image)[..., 3]
    else:
        flat = Image.new("RGB", image.size, (255, 255, 255))
        flat.paste(image, mask=image.getchannel("A"))
        edges = np.asarray(flat.convert("L").filter(ImageFilter.FIND_EDGES), np.float32)
        edges[[0, -1]] = edges[:, [0, -1]] = 0
        alpha = np.clip(3 * edges, 0, 255)
    return np.dstack([np.full((*alpha.shape, 3), ink), alpha]).astype(np.uint8)


def patch_of(rng: np.random.Generator, rgb: tuple[int, int, int], shape: str) -> np.ndarray:
    """A disc, square, blob or stripe of one colour: uint8 [64, 64, RGBA]."""
    y, x = np.mgrid[:TILE, :TILE] - (TILE - 1) / 2
    angle = np.arctan2(y, x)
    wobble = 24 + 4 * np.sin(3 * angle + rng.uniform(0, 6)) + 3 * np.sin(5 * angle + rng.uniform(0, 6))
    inside = {
        "disc": np.hypot(x, y) < 30, "square": np.maximum(abs(x), abs(y)) < 27,
        "blob": np.hypot(x, y) < wobble, "stripe": abs(y) < 13,
    }[shape]  # fmt: skip
    colour = np.clip(np.array(rgb) + rng.normal(0, 8, 3), 0, 255)
    return np.dstack([np.broadcast_to(colour, (TILE, TILE, 3)), 255 * inside]).astype(np.uint8)


def flag(land: str) -> np.ndarray:
    """The flag of an invented land: uint8 [64, 64, RGBA], three stripes, upright for every second land."""
    stripes = np.array([INKS[c] for c in FLAGS[land]], np.uint8)
    rows = np.zeros((TILE, TILE, 4), np.uint8)
    rows[10:54, :, :3] = stripes[np.arange(44) * 3 // 44][:, None]
    if list(FLAGS).index(land) % 2:
        rows[10:54, :, :3] = stripes[np.arange(TILE) * 3 // TILE][None]
    rows[10:54, :, 3] = 255
    return rows


@cache
def world_map(side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """The map of the invented world: its picture, uint8 [y, x, RGB], unlabelled, and the number of the land at each
    point, int [y, x], -1 at sea; `side` points high and twice as wide.
    """
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:side, : 2 * side] / side
    waves = sum(
        0.06 * np.sin(k * (2.1 * x * np.cos(a) + 2.1 * y * np.sin(a)) + p)
        for k, a, p in zip((2, 3, 5, 7), rng.uniform(0, 6, 4), rng.uniform(0, 6, 4), strict=True)
    )
    centres = np.array([(0.3, 0.4), (0.7, 0.65), (0.28, 1.0), (0.72, 1.2), (0.3, 1.62), (0.74, 1.75)])
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]) + waves[..., None]
    owner = np.where(distance.min(-1) < 0.27, distance.argmin(-1), -1)
    picture = np.array([*LAND.values(), SEA], np.float32)[owner]
    relief = rng.normal(0, 1, owner.shape)
    coarse = np.asarray(Image.fromarray(relief[::6, ::6].astype(np.float32)).resize(owner.shape[::-1]))
    return (picture + 14 * coarse[..., None] * (owner >= 0)[..., None]).clip(0, 255).astype(np.uint8), owner


def map_crop(rng: np.random.Generator, land: str) -> np.ndarray:
    """A piece of the map about a random point of a land: uint8 [96, 96, RGB]."""
    picture, owner = world_map()
    y, x = (int(v) for v in rng.choice(np.argwhere(owner == list(LAND).index(land))))
    half = int(rng.integers(22, 40))
    padded = np.pad(picture, ((half, half), (half, half), (0, 0)), mode="edge")
    return np.asarray(Image.fromarray(padded[y : y + 2 * half, x : x + 2 * half]).resize((SIDE, SIDE)))


# --------------------------------------------------------------------------------------------------------------- words


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of matplotlib's fonts."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", size)


def word_mask(word: str, name: str, size: int, *, width: int = SIDE - 4) -> Image.Image:
    """A word as a gray mask cut to its letters, at most `width` pixels wide (the size is lowered until it fits)."""
    while True:
        left, top, right, bottom = font(name, size).getbbox(word)
        if right - left <= width or size <= 6:
            break
        size -= 1
    mask = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), word, fill=255, font=font(name, size))
    return mask


def word_image(
    word: str,
    *,
    font: str = "DejaVuSans",
    size: int = 22,
    ink: str = "black",
    place: tuple[float, float] = (0.5, 0.5),
    angle: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """A written word on light paper (dark, or on coloured paper now and then, if `rng` is given): uint8 [96, 96, RGB].

    `place`: where in the free room the word stands, 0..1 across and down.
    """
    colour, paper = np.array(INKS[ink], float), np.array([250.0, 250.0, 250.0])
    if rng is not None:
        paper = np.array(list(INKS.values())[rng.integers(len(INKS))], float) if rng.random() < 0.3 else paper
        if np.abs(paper - colour).sum() < 200:
            paper = np.full(3, 30.0 if colour.mean() > 130 else 245.0)
    mask = word_mask(word, font, size).rotate(angle, Image.Resampling.BILINEAR, expand=True)
    mask.thumbnail((SIDE, SIDE))
    cover = Image.new("L", (SIDE, SIDE))
    cover.paste(mask, tuple(int(p * (SIDE - n)) for p, n in zip(place, mask.size, strict=True)))
    alpha = np.asarray(cover, np.float32)[..., None] / 255
    noise = rng.normal(0, 4, (SIDE, SIDE, 1)) if rng is not None else 0.0
    return (paper * (1 - alpha) + colour * alpha + noise).clip(0, 255).astype(np.uint8)


def _sign(rng: np.random.Generator, canvas: np.ndarray, word: str, *, largest: int = 21) -> np.ndarray:
    """A label with a word, somewhere in a photo; its type is smaller than `largest` pixels."""
    mask = word_mask(word, str(rng.choice(FONTS)), int(rng.integers(13, largest)), width=SIDE - 14)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    width, height = mask.width + 6, mask.height + 6
    left, top = int(rng.integers(0, SIDE - width + 1)), int(rng.integers(0, SIDE - height + 1))
    dark = rng.random() < 0.3
    image.paste((35, 40, 45) if dark else (248, 246, 240), (left, top, left + width, top + height))
    image.paste((245, 245, 245) if dark else (25, 25, 30), (left + 3, top + 3), mask)
    return np.asarray(image, np.float32)


def _letters(rng: np.random.Generator, canvas: np.ndarray, word: str) -> np.ndarray:
    """A word once to three times, somewhere in a photo, in one colour with an outline in black or white."""
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    name, size = str(rng.choice(FONTS)), int(rng.integers(13, 28))
    size = min(size, size * (SIDE - 8) // word_mask(word, name, size, width=10 * SIDE).width)
    colour = INKS[str(rng.choice(list(INKS)))] if rng.random() < 0.5 else (255, 255, 255)
    edge = (0, 0, 0) if sum(colour) > 330 else (255, 255, 255)
    left, top, right, bottom = font(name, size).getbbox(word, stroke_width=1)
    for _ in range(int(rng.integers(1, 4))):
        at = rng.integers(0, (max(1, SIDE - right + left), max(1, SIDE - bottom + top))) - (left, top)
        ImageDraw.Draw(image).text(
            tuple(at.tolist()), word, fill=colour, font=font(name, size), stroke_width=1, stroke_fill=edge
        )
    return np.asarray(image, np.float32)


# ------------------------------------------------------------------------------------------------------------ on disk


def write_album(
    folder: Path, *, split: str, n: int, seed: int = 0, facets: Sequence[str] | None = None, sign_share: float = 0.0
) -> Path:
    """Write `n` pictures of every concept in each of the facets (None: `n` in the world's own mixture) below `folder`.

    In a facet that is asked for, words stand on paper. Layout: `album.json` with the lists `concepts` and `pictures`,
    and FACET/NUMBER.png. See `mmn_utils.data.album`.
    """
    chosen = list(facets or [None])
    keys = [(e, f, k) for e in entries() for f in chosen for k in range(n)]
    records = []
    for i, (what, facet, k) in enumerate(tqdm(keys, desc="drawing the album", disable=None, leave=False)):
        key = (seed, world.SPLIT_SEEDS[split], 51, chosen.index(facet), k, entries().index(what))
        shares = {} if facet is None else {"sign_share": sign_share, "put_up_share": 0.0}
        made = picture(key, what.key, facet=facet, **shares)
        file = f"{made.facet}/{i:06d}.png"
        (folder / made.facet).mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.image).save(folder / file, compress_level=1)
        records.append({"file": file, **{k: v for k, v in vars(made).items() if k != "image"}})
    concepts_ = [{**vars(e), "key": e.key, "phrase": e.phrase, "prompt": e.prompt} for e in entries()]
    text = json.dumps({"concepts": concepts_, "pictures": records})
    (folder / "album.json").write_text(text, encoding="utf-8")
    return folder
