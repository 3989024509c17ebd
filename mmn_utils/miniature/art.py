"""The pictures of the miniature world: every concept drawn by five hands, rendered once from open icon sets.

`render` is a build step (extra `train`, and the npm packages unpacked in one folder); the package ships its sheets.
"""

import csv
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from mmn_utils.miniature.concepts import SOURCES, concepts

STYLES = {
    "noto": "noto",
    "twemoji": "twemoji",
    "openmoji": "openmoji",
    "fluent": "fluent-emoji-flat",
    "line": "fluent-emoji-high-contrast",
}
SIDE = 64
COLUMNS = 12


@cache
def sprites(style: str) -> np.ndarray:
    """All concepts in one hand: uint8 [concept, y, x, RGBA], 64 x 64 pixels each.

    Raises:
        ValueError: no such style; the message lists them.
    """
    if style not in STYLES:
        raise ValueError(f"unknown art style '{style}'; the styles are {', '.join(STYLES)}")
    return _tiles(SOURCES / f"sprites_{style}.png")[: len(concepts())]


@cache
def icons(style: str) -> dict[str, np.ndarray]:
    """Every picture of one hand by its icon's name, uint8 [y, x, RGBA]: the concepts' and those only the album uses."""
    own = zip(_album_icons(), _tiles(SOURCES / f"album_{style}.png"), strict=False)
    return {c.icon: tile for c, tile in zip(concepts(), sprites(style), strict=True)} | dict(own)


def _album_icons() -> list[str]:
    """Icons that album.tsv names, sorted."""
    with (SOURCES / "album.tsv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["mode"] in ("any", "region")]
    return sorted({name for r in rows for name in r["icons"].split()})


def _tiles(path: Path) -> np.ndarray:
    """A sheet cut up: uint8 [tile, y, x, RGBA]."""
    sheet = np.asarray(Image.open(path).convert("RGBA"))
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    return sheet.reshape(rows, SIDE, columns, SIDE, 4).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 4)


def render(icons: Path) -> None:
    """Write `sources/{sprites,album}_STYLE.png` from a folder that holds the unpacked packages `@iconify-json/*` by
    set name.

    Raises:
        KeyError: a set lacks a concept's icon.
    """
    import resvg_py

    for style, package in STYLES.items():
        collection = json.loads((icons / package / "icons.json").read_text(encoding="utf-8"))
        for sheet, names in {"sprites": [c.icon for c in concepts()], "album": _album_icons()}.items():
            tiles = [_tile(resvg_py, collection, name) for name in names]
            tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
            laid = np.stack(tiles).reshape(-1, COLUMNS, SIDE, SIDE, 4).swapaxes(1, 2).reshape(-1, COLUMNS * SIDE, 4)
            Image.fromarray(laid).save(SOURCES / f"{sheet}_{style}.png", optimize=True)


def _tile(resvg_py: object, collection: dict, name: str) -> np.ndarray:
    """One icon, uint8 [64, 64, 4], cut to what is drawn and enlarged to fill the tile."""
    icon = collection["icons"].get(name) or collection["icons"][collection["aliases"][name]["parent"]]
    width, height = (icon.get(k, collection.get(k, 16)) for k in ("width", "height"))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" color="black">{icon["body"]}</svg>'
    image = Image.open(
        io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIDE, height=4 * SIDE)))
    ).convert("RGBA")
    drawn = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    tile, scale = Image.new("RGBA", (SIDE, SIDE)), SIDE / max(drawn.size)
    size = [max(1, round(scale * n)) for n in drawn.size]
    tile.paste(drawn.resize(size, Image.Resampling.LANCZOS), tuple((SIDE - n) // 2 for n in size))
    return np.asarray(tile)
