"""Concepts of sentence pairs: words and tags of each sentence, and their overlap (Mu & Andreas 2020, section 4).

Columns: `pre:tok:W` for the most frequent words, `pre:tag:T` for the tags, the same for the hypothesis (`hyp:`), then
`oth:overlap:overlap25`, `50` and `75`: shared words over words that are not shared, above .25, .5, .75.

Differs from the published code: equally frequent words come in alphabetical order (its sort leaves their order open);
padding is no word, which there counts as shared or not by the length of other pairs in a batch.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmn_utils.miniature.lexicon import PARTS_OF_SPEECH
from mmn_utils.wordnet import WordNet

Sentences = Sequence[Sequence[str]]
"""Tokens of each sentence; their case does not count."""

NO_CONCEPTS = frozenset(["a", "an", "the", "of", ".", ","])
OVERLAPS = (25, 50, 75)
SIDES = ("pre", "hyp")
VARIANTS = ("all", "first", "tag", "lemma")
TAGS = {
    "nn": "noun", "noun": "noun", "vb": "verb", "verb": "verb", "jj": "adj", "adj": "adj", "rb": "adv", "adv": "adv",
}  # fmt: skip
"""How tags begin for which WordNet has words, in the Penn Treebank and in Universal Dependencies."""

Signs = Mapping[object, Collection[str]]
"""Which words a token, or a (token, tag), is a sign of."""


@dataclass(frozen=True)
class PairConcepts:
    """What is true of which pair."""

    names: tuple[str, ...]
    """Of the columns."""
    truth: np.ndarray
    """bool [pair, concept]."""


def frequent_words(sentences: Iterable[Sequence[str]], n: int = 2000) -> list[str]:
    """The `n` most frequent tokens, lower-cased, equally frequent ones in alphabetical order; articles, `of`, full stop
    and comma left out.

    >>> frequent_words([["A", "dog", "and", "a", "cat"], ["Dog", "."]])
    ['dog', 'and', 'cat']
    """
    counts = Counter(token.lower() for sentence in sentences for token in sentence)
    words = sorted(counts.keys() - NO_CONCEPTS, key=lambda word: (-counts[word], word))
    return words[:n]


def overlap(premises: Sentences, hypotheses: Sentences) -> np.ndarray:
    r"""Whether $|P \cap H| / (|P \setminus H| + |H \setminus P| + 10^{-5})$ is above .25, .5 and .75, bool [pair, 3].

    Not intersection over union, although its name would say so: two equal sentences reach far above 1.
    """
    sets = [({t.lower() for t in p}, {t.lower() for t in h}) for p, h in zip(premises, hypotheses, strict=True)]
    shares = np.array([len(p & h) / (len(p ^ h) + 1e-5) for p, h in sets])
    return shares[:, None] > np.array(OVERLAPS) / 100


def pair_concepts(
    premises: Sentences,
    hypotheses: Sentences,
    *,
    tags: tuple[Sentences, Sentences] | None = None,
    n_words: int = 2000,
    signs: Signs | None = None,
) -> PairConcepts:
    """All concepts of sentence pairs, given as tokens.

    Args:
        premises: of each pair.
        hypotheses: of each pair.
        tags: a tag for each token of the premises, and of the hypotheses, by any tagger; None leaves tags out.
        n_words: how many of the most frequent words are concepts.
        signs: as `wordnet_signs` finds them; None: each word of itself.

    Raises:
        ValueError: no pairs, or not as many hypotheses, tagged sentences or tags as there should be.
    """
    if not premises or len(premises) != len(hypotheses):
        raise ValueError(f"expected pairs, found {len(premises)} premises and {len(hypotheses)} hypotheses")
    words = frequent_words([*premises, *hypotheses], n_words)
    kinds = sorted({tag.lower() for side in tags or () for sentence in side for tag in sentence})
    sides = [[f"{side}:tok:{word}" for word in words] + [f"{side}:tag:{kind}" for kind in kinds] for side in SIDES]
    names = (*sides[0], *sides[1], *(f"oth:overlap:overlap{share}" for share in OVERLAPS))
    return PairConcepts(names, truth_of(names, premises, hypotheses, tags=tags, signs=signs))


def truth_of(
    names: Sequence[str],
    premises: Sentences,
    hypotheses: Sentences,
    *,
    tags: tuple[Sentences, Sentences] | None = None,
    signs: Signs | None = None,
) -> np.ndarray:
    """Whether the concepts called so are true of each pair, bool [pair, concept]; the rest as for `pair_concepts`.

    Raises:
        ValueError: no concept is called so, or it is a tag and tags are not given.
    """
    given = {("oth", "overlap"): None}
    for place, (side, own) in enumerate(zip(SIDES, map(_lowered, (premises, hypotheses)), strict=True)):
        labels = _lowered(tags[place]) if tags else None
        given[side, "tok"] = _with_tags(own, labels, side) if tags else own
        given |= {(side, "tag"): labels} if tags else {}
    parts = [np.zeros((len(premises), 0), dtype=bool)]
    for kind, group in itertools.groupby((name.split(":", 2) for name in names), key=lambda name: (*name[:2],)):
        if kind not in given:
            raise ValueError(f"expected concepts of {', '.join(map(':'.join, given))}, found {':'.join(kind)}")
        words = [word for *_, word in group]
        if kind[0] == "oth":
            parts.append(overlap(premises, hypotheses)[:, [OVERLAPS.index(int(word[-2:])) for word in words]])
        else:
            parts.append(_presence(given[kind], words, signs if kind[1] == "tok" else None))
    return np.concatenate(parts, axis=1)


def _lowered(sentences: Sentences) -> list[list[str]]:
    return [[token.lower() for token in sentence] for sentence in sentences]


def _with_tags(tokens: Sentences, tags: Sentences, side: str) -> list[list[object]]:
    """Each sentence's tokens, then its (token, tag) pairs."""
    lengths = ([len(sentence) for sentence in own] for own in (tokens, tags))
    for place, (n_tokens, n_tags) in enumerate(itertools.zip_longest(*lengths)):
        if n_tokens != n_tags:
            raise ValueError(f"tags: expected one a token, found {n_tags} for {n_tokens} in {side} sentence {place}")
    return [[*sentence, *zip(sentence, own, strict=True)] for sentence, own in zip(tokens, tags, strict=True)]


def _presence(sentences: Iterable[Iterable[object]], words: Sequence[str], signs: Signs | None = None) -> np.ndarray:
    """Whether a sentence has a sign of each word, bool [sentence, word]."""
    column = {word: k for k, word in enumerate(words)}
    columns = {sign: [column[word] for word in of] for sign, of in (signs or {w: [w] for w in words}).items()}
    truth = np.zeros((len(sentences), len(words)), dtype=bool)
    for row, sentence in zip(truth, sentences, strict=True):
        row[[k for token in sentence for k in columns.get(token, ())]] = True
    return truth


def wordnet_signs(
    words: Collection[str], wordnet: WordNet, *, variant: str = "all", tokens: Iterable[str | tuple[str, str]] = ()
) -> dict[object, set[str]]:
    """Which of `words` a token is a sign of: those that have it for a synonym, and always itself.

    Args:
        words: the words that are concepts.
        wordnet: where synonyms come from.
        variant: "all" synsets of a word; the "first" one; "lemma": all of them, and a token counts by its base forms
            too; "tag": those of the token's own part of speech. The paper does not say; the first is ours.
        tokens: those of the text, needed for "lemma"; for "tag", pairs (token, tag).

    Raises:
        ValueError: another variant, or one that needs tokens without any.
    """
    tokens = {t.lower() if isinstance(t, str) else tuple(x.lower() for x in t) for t in tokens}
    if variant not in VARIANTS or (variant in ("lemma", "tag") and not tokens):
        raise ValueError(f"variant: expected {', '.join(VARIANTS)}, the last two with tokens; found {variant!r}")
    synonyms = defaultdict(set, {word: {word} for word in words})
    if variant == "tag":
        return synonyms | _by_tag(words, wordnet, tokens)
    for word in words:
        for synonym in wordnet.synonyms(word, first_only=variant == "first"):
            synonyms[synonym].add(word)
    if variant != "lemma":
        return dict(synonyms)
    forms = {t: {t, *(form for pos in PARTS_OF_SPEECH for form in wordnet.base_forms(t, pos))} for t in tokens}
    return synonyms | {t: set().union(*(synonyms.get(form, ()) for form in own)) for t, own in forms.items()}


def _by_tag(
    words: Collection[str], wordnet: WordNet, tokens: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], set[str]]:
    """Which words share a synset of the token's part of speech with it."""
    found = {pos: defaultdict(set) for pos in PARTS_OF_SPEECH}
    for pos, word in itertools.product(found, words):
        for synonym in wordnet.synonyms(word, pos=pos):
            found[pos][synonym].add(word)
    parts = {
        (token, tag): next((p for start, p in TAGS.items() if tag.startswith(start)), None) for token, tag in tokens
    }
    return {(token, tag): found[pos].get(token, set()) for (token, tag), pos in parts.items() if pos}
