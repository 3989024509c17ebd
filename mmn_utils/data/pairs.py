"""Sentence pairs with their labels and tags: the miniature's, or SNLI in its own layout (Part III)."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmn_utils.miniature import inference
from mmn_utils.miniature.world import SPLIT_SEEDS
from mmn_utils.profiles import Profile, ProfileError, nearest

LABELS = inference.LABELS
_LEAF = re.compile(r"\(([^\s()]+) ([^\s()]+)\)")
"""A tag and its token in a parse."""


@dataclass(frozen=True)
class SentencePairs:
    """Premises and hypotheses as tokens, lower-cased, each token with its tag."""

    premises: list[tuple[str, ...]]
    hypotheses: list[tuple[str, ...]]
    premise_tags: list[tuple[str, ...]]
    hypothesis_tags: list[tuple[str, ...]]
    labels: np.ndarray
    """int [pair]: 0 entailment, 1 neutral, 2 contradiction."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """Premises and hypotheses, tokens between blanks."""
        return [" ".join(p) for p in self.premises], [" ".join(h) for h in self.hypotheses]


def sentence_pairs(profile: Profile, name: str) -> SentencePairs:
    """The pairs called `name` in the profile's `data`: `miniature:pairs`, written here, or a folder of SNLI."""
    if name not in profile.data:
        raise ProfileError(f"{profile.file}: data.{name} is not there; {nearest(name, profile.data)}")
    source = profile.data[name]
    if not source.source.startswith("miniature:"):
        return read_snli(profile.path(source.source) / f"snli_1.0_{source.split}.jsonl", n=source.n)
    if source.n is None:
        raise ProfileError(f"{profile.file}: data.{name} needs n, the number of pairs to write")
    seed = 1000 * (profile.seed + source.seed) + SPLIT_SEEDS[source.split]
    made = inference.pairs(seed, source.n)
    sides = [[getattr(p, side) for p in made] for side in ("premise", "hypothesis")]
    tokens, tags = ([[getattr(s, part) for s in side] for side in sides] for part in ("tokens", "tags"))
    return SentencePairs(*tokens, *tags, np.array([LABELS.index(p.label) for p in made]))


def read_snli(file: Path, *, n: int | None = None) -> SentencePairs:
    """SNLI's `jsonl`, tokens and tags from its own parses; pairs without a gold label are left out.

    n: the first so many labelled pairs; None: all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not as SNLI has them; the message gives its number.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; SNLI is snli_1.0.zip, nlp.stanford.edu/projects/snli")
    rows = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if n is not None and len(rows) >= n:
                break
            rows += _row(line, f"{file}, line {number}")
    if not rows:
        raise ValueError(f"{file}: no pair with a gold label")
    sides, labels = [list(side) for side in zip(*(row[:4] for row in rows), strict=True)], [row[4] for row in rows]
    return SentencePairs(*sides, np.array(labels))


def _row(line: str, where: str) -> Sequence[tuple]:
    """Tokens of both, tags of both and the label; nothing where there is no gold label."""
    try:
        record = json.loads(line)
        label, *parses = (record[key] for key in ("gold_label", "sentence1_parse", "sentence2_parse"))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: expected an object with gold_label and two parses, found {line[:60]!r}") from error
    if label == "-":
        return []
    leaves = [_LEAF.findall(parse) for parse in parses]
    if label not in LABELS or not all(leaves):
        raise ValueError(f"{where}: expected a label of {', '.join(LABELS)} and two parses, found {line[:60]!r}")
    tokens, tags = ([tuple(leaf[k].lower() for leaf in side) for side in leaves] for k in (1, 0))
    return [(*tokens, *tags, LABELS.index(label))]
