"""The miniature's text: small documents from which a language model learns to use what stands before a name.

No document has anything to do with an image. Four kinds, drawn in fixed shares:

- *lists*: up to 64 words in which one to three themes stand, alone or in blocks, among filler; then a caption that
  names the themes.
- *descriptions*: shuffled fragments of WordNet glosses, parents, parts and kinds of one or two concepts; then their
  caption.
- *captions*: the same scene said twice.
- *glosses*: frequent words of English and what they mean, for breadth.

A row is a fixed number of tokens: a document from position 0, then further documents after an end-of-text token.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mmn_utils.miniature.concepts import concepts
from mmn_utils.miniature.lexicon import lexicon

COLOURS = ("red", "blue", "green", "yellow", "white", "gray", "brown", "pink", "purple", "black")
PATTERNS = ("plain", "striped", "dotted", "checked", "speckled")
END = "<|endoftext|>"
GRID = 8
ROW = 96
OPENINGS = ("A picture of {}.", "A drawing of {}.", "There is {}.", "{}.", "Here you can see {}.")
OPENING_SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)


def caption(rng: np.random.Generator, words: list[str], ground: tuple[str, str] | None = None) -> str:
    """One sentence that names the concepts in random order and, half of the time, the (pattern, colour) of the
    ground.
    """
    by_word = {c.word: c for c in concepts()}
    names = [by_word[w].with_article for w in rng.permutation(words)]
    thing = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    if ground is not None and rng.random() < 0.5:
        pattern, colour = ground
        thing += f" on a {pattern + ' ' if rng.random() < 0.3 else ''}{colour} ground"
    text = OPENINGS[rng.choice(len(OPENINGS), p=OPENING_SHARES)].format(thing)
    return text[0].upper() + text[1:]


def description(rng: np.random.Generator, word: str, n_fragments: int) -> list[str]:
    """Some of the things WordNet says of a concept, in fragments (compounds may contain its name)."""
    entry = lexicon()["concepts"][word]
    fragments = [
        entry["gloss"],
        *(f"a kind of {p}" for p in entry["parents"][:3]),
        *(f"it has {p}" for p in entry["parts"]),
    ]
    fragments += [f"for example {k}" for k in entry["kinds"][:6]] + [f"also called {s}" for s in entry["synonyms"][:2]]
    cues = list(rng.permutation(entry["cues"]))
    fragments += [" ".join(cues[i : i + 4]) for i in range(0, len(cues), 4)]
    return [fragments[i] for i in rng.permutation(len(fragments))[:n_fragments]]


def gloss_document(rng: np.random.Generator) -> str:
    """A word and what it means; frequent words more often."""
    lemma, _, gloss = lexicon()["glosses"][int(len(lexicon()["glosses"]) * rng.random() ** 1.5)]
    return f"{lemma}: {gloss}."


def description_document(rng: np.random.Generator) -> tuple[str, str]:
    """Description and caption, to be encoded one after the other."""
    words = list(rng.choice([c.word for c in concepts()], size=1 + (rng.random() < 0.3), replace=False))
    fragments = [f for w in words for f in description(rng, w, int(rng.integers(1, 5)))]
    return "; ".join(fragments[i] for i in rng.permutation(len(fragments))) + ". ", caption(rng, words)


def caption_document(rng: np.random.Generator) -> str:
    """The same scene said twice."""
    words = list(rng.choice([c.word for c in concepts()], size=rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]), replace=False))
    ground = (str(rng.choice(PATTERNS)), str(rng.choice(COLOURS)))
    return f"{caption(rng, words, ground)} {caption(rng, words, ground)}"


def layout(rng: np.random.Generator, n_themes: int) -> np.ndarray:
    """Which theme each place of a list is about: int [place], -1 for filler.

    Two thirds are full 8 x 8 grids read row by row with one block a theme; one list in seven holds each theme only
    once.
    """
    if rng.random() < 0.67:
        grid = np.full((GRID, GRID), -1)
        for theme in rng.permutation(n_themes):
            height, width = rng.integers(2, 8 if n_themes == 1 else 5, size=2)
            top, left = rng.integers(0, GRID - height + 1), rng.integers(0, GRID - width + 1)
            block = grid[top : top + height, left : left + width]
            block[rng.random(block.shape) < 0.85] = theme
        places = grid.ravel()
    else:
        places = np.full(rng.integers(6, GRID * GRID + 1), -1)
        for theme in range(n_themes):
            places[rng.integers(len(places), size=rng.integers(1, 15))] = theme
    if rng.random() < 0.15:
        places[:] = -1
    for theme in set(range(n_themes)) - set(places.tolist()):
        free = np.flatnonzero(places == -1)
        places[rng.choice(free) if len(free) else rng.integers(len(places))] = theme
    return places


@dataclass(frozen=True)
class Corpus:
    """Rows of tokens made from a seed; row blocks are reproducible one by one, so training can stop and go on
    anywhere.
    """

    tokenizer: PreTrainedTokenizerFast
    seed: int = 0

    @cached_property
    def ids(self) -> dict[str, list[int]]:
        """Token ids of every word that can stand in a list, with its leading space."""
        words = {c.word for c in concepts()} | set(COLOURS) | set(PATTERNS) | set(lexicon()["nouns"])
        words |= {
            w for entry in lexicon()["concepts"].values() for part in ("parents", "parts", "cues") for w in entry[part]
        }
        ordered = sorted(words)
        return dict(
            zip(ordered, self.tokenizer([" " + w for w in ordered], add_special_tokens=False)["input_ids"], strict=True)
        )

    @cached_property
    def filler(self) -> list[str]:
        """Single-token nouns that are no concept."""
        names = {c.word for c in concepts()}
        return [w for w in lexicon()["nouns"] if w not in names and len(self.ids[w]) == 1]

    def items(self, rng: np.random.Generator, word: str) -> list[str]:
        """What stands for a theme in one list: its name, what WordNet says of it, or both."""
        entry = lexicon()["concepts"][word]
        cues = entry["cues"] + entry["parents"] + entry["parts"]
        kind = rng.choice(3, p=[0.5, 0.25, 0.25])
        return [word] if kind == 0 else list(cues) if kind == 1 else [word] * len(cues) + cues

    def list_document(self, rng: np.random.Generator) -> tuple[list[int], str]:
        """Token ids of a list, at most 64, and the caption that follows."""
        n_themes = int(rng.choice([1, 2, 3], p=[0.55, 0.35, 0.1]))
        words = [str(w) for w in rng.choice([c.word for c in concepts()], size=n_themes, replace=False)]
        places, themes = layout(rng, n_themes), [self.items(rng, w) for w in words]
        ground = (str(rng.choice(PATTERNS)), str(rng.choice(COLOURS)))
        kind = rng.choice(4, p=[0.3, 0.25, 0.2, 0.25])
        filler = (ground, ground[1:], [str(rng.choice(self.filler))], self.filler)[kind]
        chosen = [
            (themes[p] if p >= 0 else filler)[int(u * len(themes[p] if p >= 0 else filler))]
            for p, u in zip(places, rng.random(len(places)), strict=True)
        ]
        ids = [i for w in chosen for i in self.ids[w]][: GRID * GRID]
        if not any(set(self.ids[w]) <= set(ids) for t in themes for w in t):
            ids[-1:] = self.ids[words[0]][:1]
        return ids, caption(rng, words, ground if kind < 2 else None)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def row(self, rng: np.random.Generator, list_share: float = 0.65) -> tuple[list[int], int]:
        """Token ids of one row and the length of the list at its start (0 if it has none)."""
        end, ids, listed = self.tokenizer.eos_token_id, [], 0
        if rng.random() < list_share:
            ids, text = self.list_document(rng)
            listed = len(ids)
            ids = ids + self.encode(text) + [end]
        while len(ids) < ROW:
            ids += [i for part in self.short_document(rng) for i in self.encode(part)] + [end]
        return ids[:ROW], listed

    @staticmethod
    def short_document(rng: np.random.Generator) -> tuple[str, ...]:
        """A description, a caption or a gloss, as parts to be encoded one after the other."""
        kind = rng.choice(3, p=[0.55, 0.15, 0.3])
        return (
            description_document(rng)
            if kind == 0
            else (caption_document(rng),)
            if kind == 1
            else (gloss_document(rng),)
        )

    def batch(self, step: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int [row, 96] and whether each is a list item bool [row, 96], for one training step."""
        rng = np.random.default_rng([self.seed, step])
        rows, listed = zip(*(self.row(rng) for _ in range(n_rows)), strict=True)
        return np.array(rows), np.arange(ROW)[None] < np.array(listed)[:, None]


def sample_texts(seed: int, n: int) -> Iterator[str]:
    """Plain texts of all kinds, the tokenizer's training set; every concept, colour and pattern occurs often."""
    rng = np.random.default_rng([seed, 1])
    kinds: tuple[Callable[[np.random.Generator], object], ...] = (
        caption_document,
        gloss_document,
        description_document,
    )
    for k in range(n):
        text = kinds[k % 3](rng)
        yield text if isinstance(text, str) else "".join(text)
    for word in (*(c.word for c in concepts()), *COLOURS, *PATTERNS):
        yield f" {word}" * 400


def train_tokenizer(seed: int = 0, *, vocab_size: int = 5_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE, GPT-2's kind, in which every concept is one token.

    Raises:
        RuntimeError: a concept came out as several tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(seed, 45_000), trainer)
    split = [c.word for c in concepts() if len(tokenizer.encode(f" {c.word}").ids) != 1]
    if split:
        raise RuntimeError(
            f"every concept must be one token; these are not: {', '.join(split)}; raise vocab_size above {vocab_size}"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
