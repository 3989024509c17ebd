"""The data of the neuron explorer: a record a neuron, in shards of JSON, and pictures in sheets of tiles.

A neuron's address, `lm/L4/N217`, `clip/N88` or `nli/N870`, says which shard its record is in (`shard_of`), so that a
static page finds it without asking anybody. `index.json` holds what the page needs first: parts, labels to search in,
neurons picked by hand, and the chapters that mention a neuron. Everything is plain text and numbers, rounded to four
digits; the same results give the same bytes.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mmn_utils import __version__, results
from mmn_utils.profiles import Profile, ProfileError
from mmn_utils.untrusted import as_visible

SHARD = 32
"""Neurons in a shard."""
COLUMNS, PER_SHEET = 5, 25
"""Tiles in a row, and in all, of a sheet: small files, as a neuron's page needs some thirty tiles of many sheets."""
TILE = 80
"""Pixels along each side of a tile, at most."""
QUARTERS = ("strongest", "second", "third", "weakest")

Record = dict[str, Any]


@dataclass(frozen=True)
class Pictures:
    """The pictures that the neurons of a part were shown."""

    images: Sequence[Image.Image]
    """In the order of their tiles."""
    titles: Sequence[str]
    """What each one shows, in words."""
    tile: int
    """Pixels along each side of a tile."""

    @classmethod
    def of(cls, images: Sequence[Image.Image], titles: Sequence[str]) -> "Pictures":
        """With tiles as large as the first image, if that is no larger than `TILE`."""
        return cls(images, titles, min(TILE, images[0].width))


@dataclass(frozen=True)
class Part:
    """Everything about the neurons of one network."""

    key: str
    """`lm`, `clip` or `nli`."""
    title: str
    about: str
    activation: str
    """What an activation is, and its unit."""
    definitions: Mapping[str, str]
    """How each field of a record is defined."""
    neurons: Sequence[Sequence[Record | None]]
    """By layer and unit; None where a run keeps no record of a unit."""
    layered: bool = False
    """Whether a neuron's address has its layer in it."""
    picked: Sequence[Mapping[str, str]] = ()
    """From `picked`: neurons to look at first."""
    pictures: Pictures | None = None
    grid: tuple[int, int] | None = None
    """Rows and columns of a map."""
    sheets: Mapping[str, Pictures] = field(default_factory=dict)
    """Further sheets by name, each small enough for one file."""

    @cached_property
    def records(self) -> dict[str, Record]:
        """The neurons that have a record, by address."""
        return {record["address"]: record for layer in self.neurons for record in layer if record}


def address_of(part: str, unit: int, layer: int | None = None) -> str:
    """Where a neuron is found in the explorer.

    >>> address_of("lm", 217, 4), address_of("clip", 88)
    ('lm/L4/N217', 'clip/N88')
    """
    return f"{part}/N{unit}" if layer is None else f"{part}/L{layer}/N{unit}"


def shard_of(part: str, unit: int, layer: int | None = None) -> str:
    """The file that holds a neuron's record.

    >>> shard_of("lm", 217, 4)
    'lm/L4/6.json'
    """
    return "/".join([part, *([] if layer is None else [f"L{layer}"]), f"{unit // SHARD}.json"])


def picked(addresses: pd.Series, rules: Mapping[str, tuple[str, pd.Series]]) -> list[Record]:
    """Neurons to look at first, one a rule: `address`, `kind` (the rule's name) and `why`.

    rules: in words, and as a number a neuron whose largest wins; neurons without a number do not take part. A neuron
    that wins twice stands for the first rule only.
    """
    won = [(addresses[score.idxmax()], kind, why) for kind, (why, score) in rules.items() if score.notna().any()]
    table = pd.DataFrame(won, columns=["address", "kind", "why"])
    return table.drop_duplicates("address").to_dict("records")


def gather(makers: Mapping[str, Callable[[], Part]]) -> tuple[list[Part], list[Record]]:
    """The parts that this profile has the results and data for, and `part` and `why` of those that were left out."""
    parts, left_out = [], []
    for key, make in makers.items():
        try:
            parts.append(make())
        except (FileNotFoundError, ProfileError) as error:
            left_out.append({"part": key, "why": str(error).replace(f"{results.root()}/", "")})
    return parts, left_out


def left(settings: Profile, chapter: str, name: str) -> pd.DataFrame | None:
    """A table that another chapter left, or None where it has not; nothing is run to make it."""
    there = (results.folder_of(settings, chapter) / f"{name}.parquet").is_file()
    return results.load(settings, chapter, name) if there else None


# --- examples of a neuron --------------------------------------------------------------------------------------------


def examples(
    strength: np.ndarray, among: np.ndarray | None = None, *, seed: Sequence[int], n_top: int = 8, n_band: int = 4
) -> list[tuple[str, str, np.ndarray]]:
    """Which cases a neuron's page shows, strongest first: (kind, title, cases).

    The `n_top` strongest; `n_band` drawn from each quarter of the others, by rank; `n_band` drawn from all cases.
    strength: float [case]; among: the cases that top and quarters are taken from (bool [case], default all).
    """
    rng, cases = np.random.default_rng(seed), np.arange(len(strength))
    order = cases if among is None else cases[among]
    order = order[np.argsort(-strength[order], kind="stable")]
    groups = [("top", f"the {len(order[:n_top])} strongest", order[:n_top])]
    for name, quarter in zip(QUARTERS, np.array_split(order[n_top:], len(QUARTERS)), strict=True):
        groups.append(("band", f"{name} quarter of the others", _drawn(quarter, n_band, rng)))
    groups.append(("random", "drawn at random from all", _drawn(cases, n_band, rng)))
    return [(kind, title, chosen[np.argsort(-strength[chosen], kind="stable")]) for kind, title, chosen in groups]


def _drawn(cases: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(cases, min(n, len(cases)), replace=False)


def picture_examples(maps: np.ndarray, *, q: float, seed: Sequence[int]) -> Record:
    """`examples`, `scale` and `threshold` of a neuron: its maps float [picture, row, column] on one scale for all.

    A picture's activation is the largest value of its map. The threshold is the `q` quantile over all places of all
    pictures, as for receptive fields.
    """
    strength, (low, high) = maps.max((1, 2)), (float(maps.min()), float(maps.max()))
    bytes_ = np.round((maps - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    shown = [
        {
            "kind": kind,
            "title": title,
            "picture": chosen.tolist(),
            "activation": strength[chosen].tolist(),
            "maps": base64.b64encode(bytes_[chosen].tobytes()).decode(),
        }
        for kind, title, chosen in examples(strength, seed=seed)
    ]
    return {"examples": shown, "scale": [low, high], "threshold": float(np.quantile(maps, q))}


def maps_of(record: Record, group: int, grid: tuple[int, int]) -> np.ndarray:
    """The maps of a record's group of examples, float [example, row, column], as the page reads them."""
    low, high = record["scale"]
    bytes_ = np.frombuffer(base64.b64decode(record["examples"][group]["maps"]), np.uint8)
    return low + bytes_.reshape(-1, *grid) / 255 * (high - low)


def strip(
    part: Part, address: str, *, n: Mapping[str, int]
) -> tuple[str, list[Image.Image], np.ndarray, float, list[str]]:
    """One row of a neuron's page, for `maps.most_active`: name, images, activations [image, patch], threshold, titles.

    n: how many of each kind of group (`top`, `band`, `random`) are shown.
    """
    record, images, maps, titles = part.records[address], [], [], []
    for number, group in enumerate(record["examples"]):
        some = slice(n[group["kind"]])
        images += [part.pictures.images[k] for k in group["picture"][some]]
        maps.append(maps_of(record, number, part.grid)[some].reshape(-1, part.grid[0] * part.grid[1]))
        titles += [f"{activation:.2f}" for activation in group["activation"][some]]
    return record["name"], images, np.concatenate(maps), record["threshold"], titles


# --- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, parts: Sequence[Part], index: Mapping[str, Any]) -> dict[str, int]:
    """Write shards, sheets and `index.json`, to which the parts' own entries are added; gives bytes by part.

    index: what else the page should know (`profile`, `made`, `left_out`, `mentions`, `chapters`).
    """
    sizes = {part.key: sum(_write(folder / name, content) for name, content in _files(part)) for part in parts}
    labels = {p.key: [[r["label"] if r else "" for r in layer] for layer in p.neurons] for p in parts}
    studied = {p.key: [[k for k, r in enumerate(layer) if r and "examples" in r] for layer in p.neurons] for p in parts}
    own = {"parts": [_entry(part) for part in parts], "labels": labels, "studied": studied}
    picked = [choice for part in parts for choice in part.picked]
    content = {"schema": 1, "package": __version__, "shard_size": SHARD, "picked": picked, **own, **index}
    return sizes | {"index": _write(folder / "index.json", _as_bytes(content))}


def _files(part: Part) -> list[tuple[str, bytes]]:
    """Name and content of each file of a part."""
    files = []
    for number, layer in enumerate(part.neurons):
        for first in range(0, len(layer), SHARD):
            at, records = number if part.layered else None, layer[first : first + SHARD]
            content = {"part": part.key, "layer": at, "first": first, "neurons": records}
            files += [(shard_of(part.key, first, at), _as_bytes(content))] if any(records) else []
    if part.pictures:
        names = [f"{part.key}/pictures-{n}.webp" for n in range(-(-len(part.pictures.images) // PER_SHEET))]
        about = {"tile": part.pictures.tile, "columns": COLUMNS, "per_sheet": PER_SHEET, "sheets": names}
        files.append((f"{part.key}/pictures.json", _as_bytes(about | {"titles": list(part.pictures.titles)})))
        images = part.pictures.images
        files += [
            (name, sheet(images[k * PER_SHEET :][:PER_SHEET], part.pictures.tile)) for k, name in enumerate(names)
        ]
    return files + [(f"{part.key}/{name}.webp", sheet(p.images, p.tile)) for name, p in part.sheets.items()]


def _entry(part: Part) -> Record:
    """What `index.json` says of a part."""
    return {
        "part": part.key,
        "title": part.title,
        "about": part.about,
        "layers": len(part.neurons) if part.layered else None,
        "n_units": max(len(layer) for layer in part.neurons),
        "count": len(part.records),
        "activation": part.activation,
        "definitions": part.definitions,
        "pictures": f"{part.key}/pictures.json" if part.pictures else None,
        "grid": part.grid,
    }


def sheet(images: Sequence[Image.Image], tile: int) -> bytes:
    """Images side by side, `COLUMNS` in a row, as one WebP."""
    whole = Image.new("RGB", (tile * COLUMNS, tile * -(-len(images) // COLUMNS)))
    for k, image in enumerate(images):
        small = image.convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
        whole.paste(small, (k % COLUMNS * tile, k // COLUMNS * tile))
    buffer = io.BytesIO()
    whole.save(buffer, "WEBP", quality=70, method=4)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> int:
    results.write_whole(path, content)
    return len(content)


def _as_bytes(content: Any) -> bytes:
    text = json.dumps(plain(content), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def plain(value: Any) -> Any:
    """`value` as JSON holds it: numbers with four digits, None for what is no finite number, controls written out.

    >>> plain({"a": np.float32(0.123456), "b": [float("nan"), 3, "x"]})
    {'a': 0.1235, 'b': [None, 3, 'x']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, str):
        return as_visible(value)
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
