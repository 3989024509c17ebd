"""The concepts of the miniature world: one English word each, with its picture's name, COCO category, family and
WordNet sense.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "sources"


@dataclass(frozen=True)
class Concept:
    """One thing that can stand in a scene."""

    word: str
    """The one word that names it in captions; a single token of the miniature's tokenizer."""
    icon: str
    """Its name in the icon sets."""
    coco: str | None
    """The COCO category it belongs to, or None."""
    family: str
    """Superordinate used to group results (animal, food, ...)."""
    sense: int
    """Number of the WordNet 3.0 noun sense of `word` that is meant, from 1."""

    @property
    def article(self) -> str:
        """What stands before the word: `a`, `an` or `some`."""
        return "some" if self.word == "scissors" else "an" if self.word[0] in "aeiou" else "a"

    @property
    def with_article(self) -> str:
        """`a dog`, `an apple`, `some scissors`."""
        return f"{self.article} {self.word}"


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the order of the sprite sheet."""
    with (SOURCES / "concepts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(
        Concept(r["word"], r["icon"], None if r["coco"] == "-" else r["coco"], r["family"], int(r["sense"]))
        for r in rows
    )
