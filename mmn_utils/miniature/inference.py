"""Sentence pairs of the miniature world: does the premise entail the hypothesis, leave it open, or contradict it?

The hypothesis is drawn first, whatever the label; then a premise is written that settles the label: it says the same or
something more special (WordNet: a dog is an animal), says nothing of it, or says what excludes it (a negation, another
colour, number, place or feeling). So a hypothesis alone tells no more than `SHARES` lets it. Around that core stands
company that settles nothing.

Templates hold their own tags (Penn Treebank's, lower-cased): by the list `TAGS`, else as `word/tag`, else nouns.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from mmn_utils.miniature.album import entries
from mmn_utils.miniature.concepts import concepts
from mmn_utils.miniature.lexicon import lexicon

LABELS = ("entailment", "neutral", "contradiction")
LONGEST = 19
"""Tokens that the miniature's CLIP reads, its end token not counted."""
KINDS_OF = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe tiger monkey pig rabbit panda penguin owl duck "
    "rooster fish shark whale octopus crab snake turtle frog butterfly bee snail camel",
    "bird": "penguin owl duck rooster",
    "vehicle": "bicycle car motorcycle airplane truck boat rocket tractor helicopter skateboard",
    "food": "banana apple sandwich orange broccoli hotdog pizza doughnut cake strawberry pineapple watermelon lemon "
    "tomato bread cheese hamburger",
    "sandwich": "hotdog hamburger",
    "furniture": "chair couch bed",
    "instrument": "guitar violin trumpet drum",
    "tool": "hammer axe knife",
    "toy": "frisbee kite teddy",
    "clothing": "hat shirt tie",
    "plant": "tree cactus sunflower rose",
    "device": "laptop keyboard clock candle robot bell",
    "equipment": "television phone camera ball",
}
"""WordNet's hyponyms among the concepts; the words of the keys are in the CLIP's vocabulary."""
MASS = frozenset(["food", "furniture", "clothing", "equipment", "bread", "cheese", "broccoli"])
"""Nouns that take `some`."""
INSTEAD = {"large": ("big",), "big": ("large",), "small": ("little",), "little": ("small",)}
"""Synonyms that these sentences use, beside those of things in the shipped extract of WordNet."""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
PATTERNS = ("striped", "dotted", "checked", "speckled", "plain")
NUMBERS = ("two", "three", "four", "five")
OPPOSITES = {
    "above": "below", "below": "above", "in front of": "behind", "behind": "in front of",
    "to the left of": "to the right of", "to the right of": "to the left of",
}  # fmt: skip
POSTURES = ("stands", "sits", "lies")
TAGS = {
    word: tag
    for tag, words in {
        "dt": "a an the no some any", "ex": "there", "in": "of in on to above below behind inside outside near at with "
        "without from than by", "cc": "and but", "rb": "not here only also", "prp": "it you they i", "md": "can",
        "vbz": "is has holds wears stands sits lies shows contains", "vb": "see", "vbp": "are am", "vbg": "feeling",
        "cd": "one two three four five", "jjs": "least", "jjr": "more", "nns": "copies things scissors games",
        "jj": "next empty full small little large big " + " ".join(COLOURS[:1] + COLOURS[2:] + PATTERNS),
        "nnp": "tavo rima bolek sunna orlo mirel dask zevi varda lumo kestria oruna belmar tisko",
    }.items()
    for word in words.split()
}  # fmt: skip
SHARES = {
    "presence": (1.1, 1.0, 0.9), "absence": (0.8, 1.0, 1.2), "attribute": (1.0, 1.1, 0.9), "count": (1.0, 0.9, 1.1),
    "place": (1.0, 1.0, 1.0), "ground": (1.0, 1.1, 0.9), "feeling": (1.0, 0.9, 1.1), "holding": (1.1, 1.0, 0.9),
    "posture": (1.0, 1.0, 1.0),
}  # fmt: skip
"""How often each kind of hypothesis comes with each label: people, too, deny more when they contradict."""


@dataclass(frozen=True)
class Sentence:
    """Tokens and their tags."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """Tokens between blanks."""
        return " ".join(self.tokens)


@dataclass(frozen=True)
class Pair:
    """A premise, a hypothesis, and what follows."""

    premise: Sentence
    hypothesis: Sentence
    label: str
    """One of `LABELS`."""
    kind: str
    """What the hypothesis is about: a key of `SHARES`."""


def pairs(seed: int, n: int) -> list[Pair]:
    """`n` pairs, every label equally often (up to two), each pair once; a longer list begins like a shorter one."""
    draw, made, seen = random.Random(seed), [], set()  # noqa: S311
    weights = {label: [share[k] for share in SHARES.values()] for k, label in enumerate(LABELS)}
    while len(made) < n:
        label = LABELS[len(made) % 3]
        (kind,) = draw.choices(list(SHARES), weights[label])
        premise, hypothesis = (tagged(text) for text in _WRITERS[kind](draw, label))
        texts = premise.text, hypothesis.text
        if texts not in seen and texts[0] != texts[1] and len(premise.tokens) <= LONGEST:
            seen.add(texts)
            made.append(Pair(premise, hypothesis, label, kind))
    return made


def tagged(text: str) -> Sentence:
    """A sentence from a template's words, which may carry their tag.

    >>> tagged("an orange/jj cat sits on it")
    Sentence(tokens=('an', 'orange', 'cat', 'sits', 'on', 'it'), tags=('dt', 'jj', 'nn', 'vbz', 'in', 'prp'))
    """
    parts = [part.partition("/") for part in text.split()]
    return Sentence(tuple(word for word, _, _ in parts), tuple(tag or TAGS.get(word, "nn") for word, _, tag in parts))


# ---------------------------------------------------------------------------------------------------------- words


@cache
def things() -> tuple[str, ...]:
    """Words of things that can be counted and coloured."""
    return tuple(c.word for c in concepts() if c.family != "sky" and c.word not in ("scissors", "person"))


@cache
def of_family(name: str) -> tuple[str, ...]:
    """Words of a family of the album."""
    return tuple(e.word for e in entries() if e.family == name)


@cache
def kinds_above(word: str) -> tuple[str, ...]:
    """What a thing is a kind of."""
    return tuple(kind for kind, words in KINDS_OF.items() if word in words.split())


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """What a thing or a size may be called instead, in one word."""
    found = {word: tuple(s for s in entry["synonyms"] if s.isalpha() and s.islower() and s != word)
             for word, entry in lexicon()["concepts"].items()}  # fmt: skip
    return {word: others for word, others in found.items() if others} | INSTEAD


def vocabulary() -> set[str]:
    """All words of these sentences, and what things may be called instead."""
    tokens = {word for p in pairs(1, 20_000) for sentence in (p.premise, p.hypothesis) for word in sentence.tokens}
    return tokens | {word for others in synonyms().values() for word in others}


def a(noun: str) -> str:
    """With its article.

    >>> a("orange/jj cat"), a("red bread")
    ('an orange/jj cat', 'some red bread')
    """
    mass = noun.split()[-1] in MASS
    return f"{'some' if mass else 'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _jj(word: str) -> str:
    return f"{word}/jj"


def _other(draw: random.Random, words: Sequence[str], *but: str) -> str:
    return draw.choice([w for w in words if w not in but])


@cache
def strangers(word: str) -> tuple[str, ...]:
    """Things that are no kind of what the word is a kind of."""
    family = {w for kind in (*kinds_above(word), word) for w in KINDS_OF.get(kind, "").split()}
    return tuple(w for w in things() if w != word and w not in family)


def _unrelated(draw: random.Random, word: str) -> str:
    return draw.choice(strangers(word))


def _also_called(draw: random.Random, word: str) -> str:
    """The word, now and then what it is a kind of."""
    return draw.choice(kinds_above(word)) if kinds_above(word) and draw.random() < 0.45 else word


def _somebody(draw: random.Random) -> str:
    return draw.choice((*of_family("persona"), "the person"))


# ---------------------------------------------------------------------------------------------------------- sentences


def _there_is(draw: random.Random, what: str) -> str:
    """A sentence that something is to be seen."""
    return draw.choice(
        (
            f"there is {what}", f"there is {what} here", f"a photo of {what}", f"a picture of {what}",
            f"here is {what}", f"you can see {what}", f"it shows {what}", what,
        )
    )  # fmt: skip


def _company(draw: random.Random, *but: str) -> str:
    """What else may be said of a scene that settles nothing; without the things in `but` and their kind."""
    thing = draw.choice(things())
    while any(kind in but for kind in (thing, *kinds_above(thing))):
        thing = draw.choice(things())
    noun = a(draw.choice((thing, thing, f"small {thing}", f"large {thing}", f"{_jj(draw.choice(COLOURS))} {thing}")))
    place = draw.choice(("next to", "near", "and", "and", "with", "behind", "to the left of"))
    return f"{place} {noun}"


def _scene(draw: random.Random, what: str, *but: str) -> str:
    """A sentence that something is to be seen, mostly with company."""
    return _there_is(draw, f"{what} {_company(draw, *but)}" if draw.random() < 0.7 else what)


def _absent(draw: random.Random, word: str) -> str:
    """A sentence that there is none."""
    other = _unrelated(draw, word)
    told = f"only {a(other)} and no {word}", f"no {word} but {a(other)}", f"{a(other)} without {a(word)}", f"no {word}"
    return _there_is(draw, draw.choice(told))


Written = tuple[str, str]
"""Premise and hypothesis."""


def _presence(draw: random.Random, label: str) -> Written:
    word = draw.choice(things())
    said = _also_called(draw, word)
    hypothesis = _there_is(draw, a(draw.choice((said, *synonyms().get(said, ())[:2])) if draw.random() < 0.3 else said))
    if label == "entailment":
        return _scene(draw, a(word)), hypothesis
    if label == "contradiction":
        return _absent(draw, draw.choice((said, *kinds_above(said)))), hypothesis
    above = [kind for kind in kinds_above(said) if draw.random() < 0.5]
    return _scene(draw, a(above[0] if above else _unrelated(draw, word)), word, said, *kinds_above(word)), hypothesis


def _absence(draw: random.Random, label: str) -> Written:
    word = draw.choice(things())
    said = _also_called(draw, word)
    hypothesis = draw.choice((f"there is no {said}", f"a photo without {a(said)}", f"no {said} is here"))
    if label == "entailment":
        return _absent(draw, draw.choice((said, *kinds_above(said)))), hypothesis
    if label == "contradiction":
        return _scene(draw, a(word)), hypothesis
    return _scene(draw, a(_unrelated(draw, word)), word, said, *kinds_above(word)), hypothesis


def _attribute(draw: random.Random, label: str) -> Written:
    word = draw.choice(things())
    group = draw.choice((COLOURS, COLOURS, ("small", "large"), ("little", "big"), ("empty", "full")))
    if group[0] == "empty":
        word = draw.choice(("bottle", "cup", "bowl", "vase", "handbag", "suitcase", "backpack", "house", "bus"))
    value, other = draw.sample(group, 2)
    said = _also_called(draw, word)
    hypothesis = draw.choice((f"the {said} is {_jj(value)}", _there_is(draw, f"the {_jj(value)} {said}")))
    if label == "neutral":
        stray = f"{a(word)} and {a(f'{_jj(value)} {_unrelated(draw, word)}')}"
        return _there_is(draw, stray) if draw.random() < 0.5 else _scene(draw, a(word), said, word), hypothesis
    told = value if label == "entailment" else other
    if label == "entailment" and draw.random() < 0.3:
        told = synonyms().get(told, (told,))[0]
    place = f"{draw.choice(('is', 'stands', 'lies'))} {draw.choice(('next to', 'near', 'behind'))}"
    sentence = f"the {word} is {_jj(told)} and {place} {a(_unrelated(draw, word))}"
    whole = _scene(draw, a(f"{_jj(told)} {word}"), word, said, *kinds_above(word))
    return draw.choice((whole, whole, sentence)), hypothesis


def _count(draw: random.Random, label: str) -> Written:
    word, k = draw.choice(things()), draw.randrange(4)
    copies = f"copies of {a(word)}"
    if k < 3 and draw.random() < 0.4:
        hypothesis, fits = f"there are at least {NUMBERS[k + 1]} {copies}", NUMBERS[k + 1 :]
    else:
        hypothesis, fits = (
            draw.choice((f"there are {NUMBERS[k]} {copies}", f"{NUMBERS[k]} {copies}")),
            NUMBERS[k : k + 1],
        )
    if label == "neutral":
        told = draw.choice((f"there are some {copies}", f"a photo of {copies}", f"here are {copies}"))
        return f"{told} {_company(draw, word)}" if draw.random() < 0.6 else told, hypothesis
    told = draw.choice(fits if label == "entailment" else [n for n in NUMBERS if n not in fits])
    company = f" {_company(draw, word)}" if draw.random() < 0.6 else ""
    return (
        f"{draw.choice(('a photo of', 'there are', 'a picture of', 'here are'))} {told} {copies}{company}",
        hypothesis,
    )


def _place(draw: random.Random, label: str) -> Written:
    first = draw.choice(things())
    second, relation = _unrelated(draw, first), draw.choice((*OPPOSITES, "inside", "outside"))
    said = _also_called(draw, first)
    if relation in ("inside", "outside"):
        second = _other(draw, ("house", "castle", "tent", "car", "bus", "suitcase", "bowl"), first)
        hypothesis, opposite = f"the {said} is {relation} the {second}", {"inside": "outside", "outside": "inside"}
        same = [(first, relation, second)]
    else:
        hypothesis, opposite = f"the {said} is {relation} the {second}", OPPOSITES
        same = [(first, relation, second), (second, OPPOSITES[relation], first)]
    x, told, y = draw.choice(same)
    if label == "neutral":
        told = draw.choice(("and", "near", "and") if relation == "inside" else ("and", "with", "and"))
    told = opposite[told] if label == "contradiction" else told
    extra = f" on {a(f'{_jj(draw.choice(COLOURS))} ground')}" if draw.random() < 0.4 else ""
    core = f"{a(x)} {told} {a(y)}{extra}"
    plain = f"the {x} is {told} the {y}{extra}"
    return (_there_is(draw, core) if told in ("and", "with") or draw.random() < 0.6 else plain), hypothesis


def _ground(draw: random.Random, label: str) -> Written:
    group = COLOURS if draw.random() < 0.6 else PATTERNS
    value, other = (_jj(v) for v in draw.sample(group, 2))
    hypothesis = draw.choice((f"the ground is {value}", f"it is on {a(value)} ground", f"{a(value)} ground"))
    word = draw.choice(things())
    if label == "neutral":
        stray = a(f"{value} {word}") if group is COLOURS and draw.random() < 0.5 else a(word)
        ground = draw.choice(("", f" on {a(_jj(draw.choice(PATTERNS if group is COLOURS else COLOURS)))} ground"))
        return _there_is(draw, f"{stray} {_company(draw, word)}{ground}"), hypothesis
    told = value if label == "entailment" else other
    if draw.random() < 0.4:
        pattern = group is PATTERNS
        told = f"{told} {_jj(draw.choice(COLOURS))}" if pattern else f"{_jj(draw.choice(PATTERNS))} {told}"
    company = f" {_company(draw, word)}" if draw.random() < 0.4 else ""
    return _there_is(draw, f"{a(word)}{company} on {a(told)} ground"), hypothesis


def _feeling(draw: random.Random, label: str) -> Written:
    who, (value, other) = _somebody(draw), (_jj(v) for v in draw.sample(of_family("emotion"), 2))
    said = draw.choice((who, who, "someone"))
    hypothesis = draw.choice((f"{said} is {value}", f"{said} is feeling {value}", f"{said} has {a(value)} face"))
    holding = f"holds {a(draw.choice(things()))}"
    if label == "neutral":
        stray = f"{_other(draw, of_family('persona'), who)} is {value} and {who} {holding}"
        silent = f"{who} {draw.choice(POSTURES)} near {a(draw.choice(things()))} and {holding}"
        return silent if said == "someone" else draw.choice((stray, silent)), hypothesis
    if said == "someone" and label == "contradiction":
        return draw.choice((f"nobody is {value} here", f"there is no {value} face {_company(draw)}")), hypothesis
    told = value if label == "entailment" else other
    forms = f"{who} is {told} and {holding}", f"{who} {holding} and has {a(told)} face", f"{who} is feeling {told}"
    return draw.choice(forms), hypothesis


def _holding(draw: random.Random, label: str) -> Written:
    who, word = _somebody(draw), draw.choice(things())
    verb = "wears" if word in ("hat", "shoe", "shirt", "tie", "backpack") else draw.choice(("holds", "holds", "has"))
    said, subject = _also_called(draw, word), draw.choice((who, who, "someone"))
    hypothesis = f"{subject} {verb} {a(said)}"
    posture = f"{draw.choice(POSTURES)} {draw.choice(('near', 'next to', 'behind'))} {a(_unrelated(draw, word))}"
    if label == "entailment":
        return draw.choice(
            (f"{who} {verb} {a(word)} and {posture}", f"{who} {posture} and {verb} {a(word)}")
        ), hypothesis
    if label == "neutral":
        other = f"{who} {posture} and there is {a(word)}", f"{who} {draw.choice(POSTURES)} near {a(word)}"
        return draw.choice((*other, f"{who} {posture}")), hypothesis
    nobody = (f"nobody {verb} {a(said)}", f"there is {a(word)} but nobody {verb} it")
    somebody = (f"{who} {posture} without {a(said)}", f"{who} {verb} no {said}", f"{who} {verb} nothing and {posture}")
    return draw.choice(nobody if subject == "someone" else somebody), hypothesis


def _posture(draw: random.Random, label: str) -> Written:
    who, (value, other) = _somebody(draw), draw.sample(POSTURES, 2)
    word = draw.choice(things())
    said, subject = _also_called(draw, word), draw.choice((who, who, "someone"))
    hypothesis = f"{subject} {value} {draw.choice(('near', 'next to'))} {a(said)}"
    holding = f" and holds {a(_unrelated(draw, word))}" if draw.random() < 0.6 else ""
    if label == "neutral":
        return draw.choice(
            (f"{who} is near {a(word)}", f"{who} is with {a(word)}", f"{who} {value}")
        ) + holding, hypothesis
    if label == "contradiction" and subject == "someone":
        return draw.choice(
            (f"nobody {value} near {a(said)}", f"there is {a(word)} but nobody {value} near it")
        ), hypothesis
    return f"{who} {value if label == 'entailment' else other} next to {a(word)}{holding}", hypothesis


_WRITERS: dict[str, Callable[[random.Random, str], Written]] = {
    "presence": _presence, "absence": _absence, "attribute": _attribute, "count": _count, "place": _place,
    "ground": _ground, "feeling": _feeling, "holding": _holding, "posture": _posture,
}  # fmt: skip
