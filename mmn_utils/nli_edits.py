"""What a formula says of a neuron, tried on the classifier: pairs one word away that turn the formula true or false.

Mu & Andreas (2020) wrote such pairs by hand, a few. Here edits are drawn at random, looking at no neuron, and each is a
trial for every neuron whose formula it turns; edits of the same kind to the same sentence that leave the formula as it
was are its control.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmn_utils.formulas import Explanation
from mmn_utils.nli_concepts import Sentences


class Edit(NamedTuple):
    """One sentence of a pair, one word away."""

    pair: int
    """Number of the pair."""
    side: int
    """0: its premise; 1: its hypothesis."""
    kind: str
    """"put in", "left out" or "replaced"."""
    tokens: tuple[str, ...]
    """The whole new sentence."""
    tags: tuple[str, ...]
    """Its tags; the new word has the tag that it mostly has."""


def followers(sentences: Sentences) -> dict[str, set[str]]:
    """Which words come right after each word somewhere; the empty word begins and ends a sentence."""
    found = defaultdict(set)
    for sentence in sentences:
        for word, following in zip(("", *sentence), (*sentence, ""), strict=True):
            found[word].add(following)
    return dict(found)


def one_word_away(sentence: Sequence[str], follow: Mapping[str, Collection[str]]) -> Iterator[tuple[str, slice, tuple]]:
    """Ways to edit a sentence, as the kind of edit, the tokens that go, and those that come.

    An edit counts if the words that meet by it stand side by side somewhere in the text.

    >>> follow = followers([["a", "dog"], ["a", "red", "dog"]])
    >>> [(kind, new) for kind, _, new in one_word_away(["a", "dog"], follow)]
    [('put in', ('red',))]
    """
    words = ("", *sentence, "")
    for place in range(len(sentence) + 1):
        left, here = words[place : place + 2]
        fitting = sorted(w for w in follow[left] if w)
        yield from (("put in", slice(place, place), (w,)) for w in fitting if here in follow[w])
        if place == len(sentence):
            return
        after = words[place + 2]
        yield from (("replaced", slice(place, place + 1), (w,)) for w in fitting if w != here and after in follow[w])
        if after in follow[left] and len(sentence) > 1:
            yield "left out", slice(place, place + 1), ()


def draw_edits(
    sentences: tuple[Sentences, Sentences],
    tags: tuple[Sentences, Sentences],
    *,
    pairs: Iterable[int],
    n: int,
    seed: int,
) -> list[Edit]:
    """Up to `n` edits of each kind to each side of some of the pairs, at random.

    Args:
        sentences: tokens of all premises, and of all hypotheses.
        tags: theirs.
        pairs: numbers of those to edit.
        n: edits of each kind to one sentence.
        seed: of the draw.
    """
    rng, follow = np.random.default_rng(seed), followers([*sentences[0], *sentences[1]])
    usual = _usual_tags(sentences, tags)
    found = []
    for pair in pairs:
        for side in (0, 1):
            tokens, own = (list(part[side][pair]) for part in (sentences, tags))
            ways = defaultdict(list)
            for kind, where, new in one_word_away(tokens, follow):
                ways[kind].append((where, new))
            for kind, several in ways.items():
                for where, new in (several[k] for k in rng.permutation(len(several))[:n]):
                    edited = (_with(tokens, where, new), _with(own, where, [usual[w] for w in new]))
                    found.append(Edit(int(pair), side, kind, *edited))
    return found


def _with(items: Sequence[str], where: slice, new: Iterable[str]) -> tuple[str, ...]:
    return (*items[: where.start], *new, *items[where.stop :])


def _usual_tags(sentences: tuple[Sentences, Sentences], tags: tuple[Sentences, Sentences]) -> dict[str, str]:
    """The tag that each word has most often; of equally frequent ones, the first met."""
    counts = defaultdict(Counter)
    for side, labels in zip(sentences, tags, strict=True):
        for sentence, own in zip(side, labels, strict=True):
            for word, tag in zip(sentence, own, strict=True):
                counts[word][tag] += 1
    return {word: own.most_common(1)[0][0] for word, own in counts.items()}


def applied(edits: Sequence[Edit], sides: tuple[Sentences, Sentences], part: str) -> tuple[list, list]:
    """The edited pairs' premises and hypotheses: of `sides`, but for the sentence that an edit changed.

    part: "tokens" or "tags", whichever `sides` holds.
    """
    return tuple(
        [getattr(edit, part) if edit.side == side else tuple(sides[side][edit.pair]) for edit in edits]
        for side in (0, 1)
    )


class State(NamedTuple):
    """What is so of each edit's pair, before or after it."""

    truth: np.ndarray
    """Of the concepts, bool [edit, concept]."""
    fires: np.ndarray
    """bool [edit, neuron]."""
    answers: np.ndarray
    """int [edit], the classifier's."""


class Turn(NamedTuple):
    """What edits do for one neuron."""

    open: np.ndarray
    """Edits that can show something, bool [edit]: before them formula, neuron and answer are all as they are not to be.
    """
    formula: np.ndarray
    """After the edit, the formula is as it is to be, bool [edit]."""
    neuron: np.ndarray
    """So is the neuron."""
    answer: np.ndarray
    """So is the answer."""


def turn(own: Explanation, before: State, after: State, weights: np.ndarray, *, on: bool) -> Turn:
    """Which edits turn a neuron's formula, the neuron, and the answer to the class that its weights speak for most.

    on: turn all three on (false, silent and another answer before); else off.
    """
    target, formula = weights[:, own.neuron].argmax(), own.best().formula
    were, are = (
        np.stack([formula.mask(seen.truth), seen.fires[:, own.neuron], seen.answers == target]) == on
        for seen in (before, after)
    )
    return Turn(~were.any(axis=0), *are)


def trials(
    explanations: Iterable[Explanation],
    before: State,
    after: State,
    *,
    weights: np.ndarray,
    strata: np.ndarray,
    least: int = 10,
) -> pd.DataFrame:
    """What follows a formula that is turned, by neuron: columns `neuron`, `on`, `follows`, and those of `Matched`.

    Args:
        explanations: the longest formulas are taken; neurons that were not searched are left out.
        before: the pairs as they were.
        after: the edited pairs.
        weights: of the output layer, float [class, neuron].
        strata: number of each edit's pair, side and kind, int [edit].
        least: edits with a control that a neuron must have, or its row is left out.
    """
    rows = []
    for own, on in itertools.product((own for own in explanations if own.searched), (True, False)):
        turned = turn(own, before, after, weights, on=on)
        for follows in ("neuron", "answer"):
            outcome = getattr(turned, follows)
            found = matched(turned.formula[turned.open], outcome[turned.open], strata[turned.open])
            rows.append((own.neuron, on, follows, *found))
    table = pd.DataFrame(rows, columns=["neuron", "on", "follows", *Matched._fields])
    return table[table.n >= least].reset_index(drop=True)


class Matched(NamedTuple):
    """How often something happens after edits that turn a formula, and after edits that do not."""

    turned: float
    control: float
    """The same pairs, sides and kinds of edit, weighted as the first."""
    n: int
    """Edits that turn it and have a control."""


def matched(turned: np.ndarray, outcome: np.ndarray, strata: np.ndarray) -> Matched:
    """Shares of an outcome, of bool [edit]; compared within strata int [edit] that have edits of either sort."""
    size = int(strata.max(initial=-1)) + 1
    n_turned, n_control = (np.bincount(strata[own], minlength=size) for own in (turned, ~turned))
    hits, control = (np.bincount(strata[own & outcome], minlength=size) for own in (turned, ~turned))
    both = (n_turned > 0) & (n_control > 0)
    weight = n_turned[both]
    if not weight.size:
        return Matched(np.nan, np.nan, 0)
    shares = hits[both].sum(), (weight * control[both] / n_control[both]).sum()
    return Matched(*(float(share / weight.sum()) for share in shares), int(weight.sum()))
