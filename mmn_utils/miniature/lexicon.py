"""What the miniature's text knows of words: a small extract of WordNet 3.0.

`sources/lexicon.json.xz` is made once by `extract` from WordNet's own plain files (Debian: `wordnet-base`) and ships
with the package, so that training needs no download.
"""

import json
import lzma
import re
from functools import cache
from pathlib import Path

from mmn_utils.miniature.concepts import SOURCES, concepts

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
PART_POINTERS, KIND_POINTERS, PARENT_POINTERS = ("%p", "%s", "%m"), ("~", "~i"), ("@", "@i")
STOP_WORDS = frozenset(
    """
    a an the of or and in on to for with by is are as that which its it from used usually any having has have at be one
    two who into not but their they this other some such being often most very can make made large small especially
    more than all you your do does when where was out up etc s e g about between through under over also so if only
    """.split()  # noqa: SIM905
)


@cache
def lexicon() -> dict:
    """The shipped extract: `concepts` (word -> gloss, parents, parts, kinds, cues), `glosses` (lemma, part of speech,
    text), `nouns`.
    """
    with lzma.open(SOURCES / "lexicon.json.xz", "rt", encoding="utf-8") as file:
        return json.load(file)


@cache
def nouns() -> frozenset[str]:
    """Words whose most frequent WordNet reading is a noun, the concepts included."""
    return frozenset(lexicon()["nouns"])


class WordNetFiles:
    """WordNet's data and index files, read as text.

    Raises:
        FileNotFoundError: the folder is not a WordNet `dict` folder.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "data.noun").is_file():
            raise FileNotFoundError(
                f"{folder} is not a WordNet folder: data.noun is missing (Debian: apt-get install wordnet-base)"
            )
        self.synsets = {pos: self._lines(folder / f"data.{pos}") for pos in PARTS_OF_SPEECH}
        self.index = {pos: self._lines(folder / f"index.{pos}") for pos in PARTS_OF_SPEECH}
        self.counts = self._sense_counts(folder / "cntlist.rev")

    @staticmethod
    def _lines(path: Path) -> dict[str, str]:
        return {
            line.split(" ", 1)[0]: line.rstrip() for line in path.open(encoding="latin-1") if not line.startswith(" ")
        }

    @staticmethod
    def _sense_counts(path: Path) -> dict[tuple[str, str], int]:
        """How often each lemma was met in the tagged texts, by part of speech."""
        counts: dict[tuple[str, str], int] = {}
        for line in path.open(encoding="latin-1"):
            key, _, count = line.split()
            lemma, kind = key.split("%")
            pos = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}[kind[0]]
            counts[lemma, pos] = counts.get((lemma, pos), 0) + int(count)
        return counts

    def offset(self, lemma: str, pos: str, sense: int = 1) -> str:
        """Address of the sense-th synset of a lemma."""
        fields = self.index[pos][lemma].split()
        return fields[4 + int(fields[3]) + 2 :][sense - 1]

    def words(self, pos: str, offset: str) -> list[str]:
        """The lemmas of a synset, underscores replaced."""
        fields = self.synsets[pos][offset].split()
        return [re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]

    def related(self, pos: str, offset: str, pointers: tuple[str, ...]) -> list[str]:
        """Addresses of the same part of speech reached by the given pointer symbols."""
        fields = self.synsets[pos][offset].split("|")[0].split()
        start = 4 + 2 * int(fields[3], 16)
        chunks = [fields[i : i + 4] for i in range(start + 1, start + 1 + 4 * int(fields[start]), 4)]
        return [target for symbol, target, kind, _ in chunks if symbol in pointers and kind == pos[0]]

    def gloss(self, pos: str, offset: str) -> str:
        """The definition, and examples, as written."""
        return self.synsets[pos][offset].split("|", 1)[1].strip()


def content_words(text: str) -> list[str]:
    """Lower-case words of at least three letters that are not stop words."""
    return [w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in STOP_WORDS]


def _describe(net: WordNetFiles, lemma: str, sense: int) -> dict[str, object]:
    offset = net.offset(lemma, "noun", sense)
    parents = net.related("noun", offset, PARENT_POINTERS)
    parents += [g for p in parents for g in net.related("noun", p, PARENT_POINTERS)]

    def names(offsets: list[str]) -> list[str]:
        return [w for o in offsets for w in net.words("noun", o)[:1]]

    gloss = net.gloss("noun", offset).split(";")[0]
    return {
        "gloss": gloss,
        "synonyms": [w for w in net.words("noun", offset) if w.lower() != lemma],
        "parents": names(parents)[:4],
        "parts": names(net.related("noun", offset, PART_POINTERS))[:8],
        "kinds": names(net.related("noun", offset, KIND_POINTERS))[:10],
        "cues": sorted(set(content_words(gloss)) - {lemma}),
    }


def extract(folder: Path, *, n_glosses: int = 14_000) -> Path:
    """Write `sources/lexicon.json.xz` from a WordNet `dict` folder: the concepts' entries and the most frequent
    lemmas' glosses.
    """
    net = WordNetFiles(folder)
    lemma_of = {"hotdog": "hotdog", "bulb": "light_bulb", "teddy": "teddy"}
    entries = {}
    for c in concepts():
        lemma, sense = (lemma_of.get(c.word, c.word), 1 if c.word == "bulb" else c.sense)
        entries[c.word] = _describe(net, lemma, sense)
    frequent = sorted(net.counts, key=lambda key: (-net.counts[key], key))
    glosses = [
        (lemma.replace("_", " "), pos, net.gloss(pos, net.offset(lemma, pos)))
        for lemma, pos in frequent
        if lemma in net.index[pos] and re.fullmatch(r"[a-z_]{2,}", lemma)
    ][:n_glosses]
    path = SOURCES / "lexicon.json.xz"
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as file:
        json.dump(
            {"concepts": entries, "glosses": glosses, "nouns": _nouns(net)}, file, ensure_ascii=False, sort_keys=True
        )
    return path


def _nouns(net: WordNetFiles) -> list[str]:
    """Single words that occur most often as a noun."""
    best: dict[str, tuple[int, str]] = {}
    for (lemma, pos), count in net.counts.items():
        if re.fullmatch(r"[a-z]{3,}", lemma):
            best[lemma] = max(best.get(lemma, (0, "")), (count, pos))
    return sorted({w for w, (_, pos) in best.items() if pos == "noun"} | {c.word for c in concepts()})
