"""Which written words a neuron answers to, and what words become in a network that only sees them (Goh et al. 2021,
"Typographic neurons" and "Image-based word embedding").
"""

from collections.abc import Callable, Collection, Sequence
from string import ascii_lowercase

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def edit_distance(a: str, b: str) -> int:
    """How many letters must be put in, left out or replaced to make one string the other (Levenshtein).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b):
            row.append(min(above[j + 1] + 1, row[j] + 1, above[j] + (letter != other)))
    return row[-1]


def misspelt(words: Sequence[str], known: Collection[str], *, distance: int, seed: int) -> list[str]:
    """Each word with `distance` of its letters replaced at random: as long, no known word, and just so far away.

    Raises:
        ValueError: a word with fewer letters than that, or with no such misspelling found in a hundred tries.
    """
    rng, made = np.random.default_rng(seed), []
    for word in words:
        tries = [_replaced(word, distance, rng) for _ in range(100)] if len(word) >= distance else []
        good = [t for t in tries if t not in known and edit_distance(t, word) == distance]
        if not good:
            raise ValueError(f"no misspelling of {word!r} with {distance} other letters; leave the word out")
        made.append(good[0])
    return made


def _replaced(word: str, n: int, rng: np.random.Generator) -> str:
    letters = list(word)
    for place in rng.choice(len(word), n, replace=False):
        letters[place] = str(rng.choice(list(ascii_lowercase)))
    return "".join(letters)


def ranks(activations: Tensor, own: Sequence[Collection[int]]) -> np.ndarray:
    """Place of each neuron's best own string, from 1: one more than the other strings that move it at least as much.

    activations: float [string, neuron]; own: numbers of the strings that are the neuron's. Gives int [neuron].
    """
    columns, places = activations.numpy().T, []
    for column, mine in zip(columns, own, strict=True):
        others = np.delete(column, list(mine))
        places.append(1 + int((others >= column[list(mine)].max()).sum()))
    return np.array(places)


def by_distance(activations: Tensor, strings: Sequence[str], own: Sequence[str]) -> pd.DataFrame:
    """Each neuron's answers by spelling: mean over strings 0, 1, 2 letters and farther from its own word.

    Columns 0, 1, 2 and 3 (three letters or more); in the neuron's standard deviations over all strings, from their
    mean. activations: float [string, neuron]; own: one word a neuron.
    """
    z = ((activations - activations.mean(0)) / activations.std(0)).numpy()
    far = np.array([[min(3, edit_distance(string, word)) for string in strings] for word in own])
    return pd.DataFrame([pd.Series(z[:, k]).groupby(far[k]).mean() for k in range(len(own))]).reset_index(drop=True)


def census(activations: Tensor, of_kind: np.ndarray, *, top: int = 5) -> np.ndarray:
    """Neurons whose `top` strings are all of a kind, bool [neuron].

    activations: float [string, neuron]; of_kind: bool [string].
    """
    return of_kind[activations.topk(top, dim=0).indices.numpy()].all(0)


# --------------------------------------------------------------------------------------------- words as they are seen


def embedded(activations: Tensor) -> Tensor:
    """Image-based word embeddings: what the neurons say of each word, less the mean over all words; unit length.

    activations: float [word, neuron]; the same shape comes back.
    """
    centred = activations - activations.mean(0)
    return centred / centred.norm(dim=1, keepdim=True)


def spelling(words: Sequence[str]) -> Tensor:
    """Likeness by spelling: edit distance over the length of the longer word, negative; float [word, word]."""
    return -Tensor([[edit_distance(a, b) / max(len(a), len(b)) for b in words] for a in words])


def neighbours_agree(likeness: Tensor, group: np.ndarray) -> np.ndarray:
    """Share of each word's nearest neighbours that are of its group, float [word that is not alone in its group].

    One neighbour, or all that are equally near. likeness: float [word, word], higher is nearer; group: int [word].
    """
    like = likeness.numpy().astype(float).copy()
    np.fill_diagonal(like, -np.inf)
    nearest, same = like == like.max(1, keepdims=True), group[:, None] == group
    shares = (nearest & same).sum(1) / nearest.sum(1)
    return shares[same.sum(1) > 1]


def co_occurrence(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """In how many captions two words stand together, float [word, word]; the diagonal: captions with the word."""
    number = {word: k for k, word in enumerate(words)}
    said = np.zeros((len(captions), len(words)), np.float32)
    for row, caption in zip(said, captions, strict=True):
        row[[number[word] for word in caption.lower().split() if word in number]] = 1
    return Tensor(said.T @ said)


def completed(vectors: Tensor, quadruples: np.ndarray, *, analogy: bool = True) -> np.ndarray:
    """Which analogies come out, $a : b = c : d$ with $d$ nearest to $e(b) - e(a) + e(c)$; bool [quadruple].

    The three words given are no answers. `analogy=False`: nearest to $e(c)$, as a baseline. vectors: float
    [word, neuron], of unit length; quadruples: numbers of words, int [quadruple, 4].
    """
    a, b, c, d = quadruples.T
    wanted = vectors[c] + (vectors[b] - vectors[a] if analogy else 0)
    cosines = (wanted @ vectors.T).scatter(1, torch.as_tensor(quadruples[:, :3]), -np.inf)
    return cosines.argmax(1).numpy() == d


def letter_bound(of_words: Tensor, of_misspelt: Tensor) -> np.ndarray:
    """How far a neuron goes by letters: correlation of its answers to words and to the same words misspelt.

    of_words, of_misspelt: float [word, neuron]. Gives float [neuron].
    """
    a, b = (x - x.mean(0) for x in (of_words, of_misspelt))
    return ((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).numpy()


# ------------------------------------------------------------------------------------------------------- maximal texts


def climb(
    score: Callable[[list[str]], Tensor], vocabulary: Sequence[str], *, longest: int = 4, penalty: float = 0.0
) -> tuple[str, float]:
    """The text that hill climbing finds for a score, and its score, from the best single word on.

    A step tries every word at every place, put in or in place of another, and each word left out, and takes the best
    text if that is better. `longest`: in words; `penalty`: what each word costs. score: texts to float [text].
    """
    tried = score(list(vocabulary))
    text, best = [vocabulary[int(tried.argmax())]], float(tried.max()) - penalty
    while True:
        near = _moves(text, vocabulary, longest)
        values = score([" ".join(words) for words in near]) - penalty * Tensor([len(words) for words in near])
        if float(values.max()) <= best + 1e-6:
            return " ".join(text), best
        text, best = near[int(values.argmax())], float(values.max())


def _moves(text: list[str], vocabulary: Sequence[str], longest: int) -> list[list[str]]:
    """All texts one step away."""
    replaced = [[*text[:i], word, *text[i + 1 :]] for i in range(len(text)) for word in vocabulary]
    room = range(len(text) + 1) if len(text) < longest else ()
    inserted = [[*text[:i], word, *text[i:]] for i in room for word in vocabulary]
    return replaced + inserted + ([[*text[:i], *text[i + 1 :]] for i in range(len(text))] if len(text) > 1 else [])
