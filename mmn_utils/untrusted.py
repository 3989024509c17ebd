"""Reading what others wrote: files that may be broken, or made to break whoever reads them.

Profiles, annotations, images and results come through here. A reader either gives plain data or raises a ValueError
(for images an OSError) that names the file and says what is wrong; nothing is executed, and nothing grows far beyond
the size of the file.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What images may be. Others that Pillow knows are left out: for EPS it would start another program."""
MOST_PIXELS = 2**27
"""Of one image or mask: 11,585 x 11,585. A small file can ask for far more."""
MOST_YAML = 2**20
"""Bytes of a yaml file."""


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, if that is below `folder`.

    Raises:
        ValueError: `name` is empty or absolute, climbs out by `..`, or has a control character.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or not is_plain(name):
        raise ValueError(f"{name!r} does not name a place below {folder}: give a relative path without '..'")
    return folder / name


def is_plain(text: str) -> bool:
    """Whether `text` has neither control characters nor halves of characters, which files and pages cannot hold."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def as_visible(text: str) -> str:
    r"""`text` with its control characters, line breaks excepted, and invisible marks of direction written out.

    >>> as_visible("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in set(text) if c != "\n" and _hides(c)})


def _hides(character: str) -> bool:
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return (
        unicodedata.category(character) in {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in turns
    )


def as_markdown(text: str) -> str:
    r"""`text` as a Markdown page shows it to the letter, on one line, in a table too.

    >>> print(as_markdown("a|b <b>"))
    a\|b \<b\>
    """
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", as_visible(" ".join(text.splitlines())))


def read_json(path: Path) -> Any:
    """The content of a JSON file: UTF-8, no key twice in one mapping, no NaN or Infinity.

    Raises:
        ValueError: it is none; the message names the file and the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def read_yaml(path: Path) -> Any:
    """The content of a yaml file: null, true and false, finite numbers, text, and lists and mappings of these.

    Mappings have text for keys and no key twice. Tags and aliases, which can make objects of any kind or more of them
    than fit into memory, are refused. Dates stay text.

    Raises:
        ValueError: it is none; the message names the file and the place.
    """
    if path.stat().st_size > MOST_YAML:
        raise ValueError(f"{path}: not a yaml file: {path.stat().st_size:,} bytes, at most {MOST_YAML:,} are read")
    try:
        loader = _PlainLoader(path.read_text(encoding="utf-8"))
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a yaml file: {error}") from error


def read_image(path: Path) -> Image.Image:
    """An image file of one of `FORMATS`, RGB.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is damaged, of another format, or has more than `MOST_PIXELS`; the message says what to do.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            check_size(*image.size)
            return image.convert("RGB")
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever comes: struct.error, IndexError, ...
        raise OSError(f"{path} cannot be read ({error}); delete it and fetch it again") from error


def check_size(width: int, height: int) -> None:
    """Refuse a picture that would fill the memory."""
    if not 0 < width * height <= MOST_PIXELS or width < 0:
        raise ValueError(f"{width:,} x {height:,} pixels, expected 1 to {MOST_PIXELS:,}; make it smaller")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError(f"the key {_first_twice(key for key, _ in pairs)!r} is given twice")
    return mapping


def _first_twice(keys: Iterable[Any]) -> Any:
    seen: set[Any] = set()
    return next(key for key in keys if key in seen or seen.add(key))


def _refuse_number(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader, less whatever is more than plain data."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases are not read here: write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (place, _), key in zip(node.value, keys, strict=True):
            if not isinstance(key, str):
                self._refuse(place, f"the key {place.value!r} is not text: put it in quotes")
        if len(set(keys)) != len(keys):
            self._refuse(node, f"the key {_first_twice(keys)!r} is given twice")
        return super().construct_mapping(node, deep=deep)

    def _text(self, node: yaml.ScalarNode) -> str:
        text = self.construct_scalar(node)
        if not is_plain(text.replace("\n", "").replace("\t", "")):
            self._refuse(node, "text with a control character")
        return text

    def _finite(self, node: yaml.ScalarNode) -> float:
        number = self.construct_yaml_float(node)
        return number if math.isfinite(number) else self._refuse(node, f"{number} is not a finite number")

    def _tagged(self, node: yaml.Node) -> None:
        self._refuse(node, f"{node.tag} is not plain data")

    def _refuse(self, node: yaml.Node, why: str) -> None:
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)


_TAG = "tag:yaml.org,2002:"
for _kind in ("binary", "set", "omap", "pairs", "merge"):
    _PlainLoader.add_constructor(_TAG + _kind, _PlainLoader._tagged)
for _kind in ("str", "timestamp"):
    _PlainLoader.add_constructor(_TAG + _kind, _PlainLoader._text)
_PlainLoader.add_constructor(_TAG + "float", _PlainLoader._finite)
