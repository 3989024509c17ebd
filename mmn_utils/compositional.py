r"""Which formula over concepts is true where a neuron fires (Mu & Andreas 2020; Acquaviva & Hensgen, section 3).

The published beam search scores a hundred thousand formulas a neuron and round, one by one. All that their scores need
are counts of cases, and those of every extension of a formula with mask $m$ by a concept $f$, for a neuron firing in
$a$, follow from $m \cdot f$ and $(m \wedge a) \cdot f$:

OR: $|m \wedge a| + a \cdot f - (m \wedge a) \cdot f$ of $|m| + |f| - m \cdot f$;
AND: $(m \wedge a) \cdot f$ of $m \cdot f$; AND NOT: $|m \wedge a| - (m \wedge a) \cdot f$ of $|m| - m \cdot f$.

So one round is one matrix product for many neurons at once, of whole numbers that floating point holds exactly.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from mmn_utils.formulas import OPERATORS, Explanation, Formula, Scored, combine

CASES_AT_ONCE = 2**14
ROWS_AT_ONCE = 1280
"""Masks multiplied at once: with the cases at once, 84 MB."""
SPARSE_ROWS_AT_ONCE = 320
"""Masks summed at once, fewer because sums go through memory again and again: with the cases at once, 21 MB."""
SPARSE = 0.05
"""Where a smaller share of a concept matrix is true, sums over the true entries beat the dense product."""


def firing(activations: np.ndarray, *, top: float | None = None) -> np.ndarray:
    """Where each neuron fires, bool [case, neuron], of activations float [case, neuron].

    top: share of the cases with the highest activations, neuron by neuron; None takes those above 0 (units behind a
    ReLU). Strictly above the threshold in both, as published.

    Raises:
        ValueError: an activation is not a number.
    """
    activations = np.asarray(activations)
    bad = np.isnan(activations)
    if bad.any():
        neurons = np.flatnonzero(bad.any(axis=0))
        raise ValueError(
            f"activations: expected numbers, found {bad.sum()} NaN, in neurons {neurons[:5].tolist()} "
            f"({len(neurons)} in all): leave these out, or look at what made them"
        )
    return activations > (0 if top is None else np.quantile(activations, 1 - top, axis=0))


class Concepts:
    """Concepts bool [case, concept], kept as bits, and the products of masks with all of them."""

    def __init__(self, truth: np.ndarray) -> None:
        self.n_cases, self.n = truth.shape
        self.bits = pack(truth)
        """uint8 [concept, case / 8]."""
        self.dtype = torch.float32 if self.n_cases <= 2**22 else torch.float64
        self.sizes = truth.sum(axis=0).astype(str(self.dtype).removeprefix("torch."))
        """Cases in which each is true, float [concept]."""
        self.sparse = self.sizes.mean() < SPARSE * self.n_cases
        self.starts = range(0, self.n_cases, CASES_AT_ONCE)
        self.bags = [_bags(self._block(self.bits, start).numpy()) for start in self.starts] if self.sparse else []

    def _block(self, bits: np.ndarray, start: int) -> Tensor:
        """Some cases of bits [row, case / 8]: uint8 [row, case]."""
        n = min(CASES_AT_ONCE, self.n_cases - start)
        return torch.from_numpy(np.unpackbits(bits[:, start // 8 : (start + n + 7) // 8], axis=1, count=n))

    def _columns(self, bits: np.ndarray, start: int) -> Tensor:
        """`_block` the other way round, uint8 [case, row]: bits are turned round, eight times fewer than cases."""
        n = min(CASES_AT_ONCE, self.n_cases - start)
        turned = np.ascontiguousarray(bits[:, start // 8 : (start + n + 7) // 8].T)
        places = np.arange(7, -1, -1, dtype=np.uint8)[:, None]
        return torch.from_numpy((turned[:, None] >> places & 1).reshape(-1, len(bits))[:n])

    def count(self, masks: np.ndarray) -> np.ndarray:
        """Cases in which a mask and a concept are both true, float [mask, concept], of bits [mask, case / 8].

        Whole numbers, exact: float32 up to four million cases, float64 above.
        """
        total = torch.zeros(self.n, len(masks), dtype=self.dtype)
        for block, start in enumerate(self.starts):
            rows = self._columns(masks, start).float()
            if self.sparse:
                total += embedding_bag(self.bags[block][0], rows, self.bags[block][1], mode="sum")
            else:
                total += self._block(self.bits, start).float() @ rows
        return total.T.contiguous().numpy()


def pack(truth: np.ndarray) -> np.ndarray:
    """Bits uint8 [column, case / 8] of bool [case, column]."""
    return np.packbits(np.ascontiguousarray(truth.T), axis=1)


def _bags(truth: np.ndarray) -> tuple[Tensor, Tensor]:
    """For each row of uint8 [concept, case]: the cases in which it is true, one row after the other, and where each
    begins."""
    rows, cases = truth.nonzero()
    return torch.from_numpy(cases), torch.from_numpy(np.searchsorted(rows, np.arange(len(truth))))


def search(
    firing: np.ndarray,
    concepts: np.ndarray,
    *,
    max_length: int,
    beam: int = 10,
    min_firing: int = 1,
    operands: str = "matching",
    deduplicate: bool = False,
    length_penalty: float = 1.0,
) -> list[Explanation]:
    """The best formulas of 1 to `max_length` concepts for each neuron, of firing bool [case, neuron] and concepts bool
    [case, concept].

    With the other settings as they are, formulas, their order and their IoUs are those of the published search, ties
    included: the earlier formula of old beam, then formula, concept and operator.

    Args:
        firing: where each neuron fires.
        concepts: where each concept is true.
        max_length: concepts in a formula, at most.
        beam: formulas kept after each round.
        min_firing: a neuron that fires in fewer cases, or in none, is not searched.
        operands: concepts to add: "matching" takes those that meet the neuron's firing at least once; "all" every one,
            since AND NOT may gain by another too.
        deduplicate: keep only the first of formulas that are true in the same cases.
        length_penalty: the score is IoU * length_penalty ** (n_nodes - 1).

    Raises:
        ValueError: masks of another kind or shape, no concept, or a setting out of its range.
    """
    firing, concepts = _checked(firing, "firing", "neuron"), _checked(concepts, "concepts", "concept")
    if len(firing) != len(concepts):
        raise ValueError(f"expected the same cases in both, found {len(firing)} in firing, {len(concepts)} in concepts")
    if operands not in ("matching", "all"):
        raise ValueError(f'operands: expected "matching" or "all", found {operands!r}')
    if max_length < 1 or beam < 1 or not 0 < length_penalty <= 1:
        found = f"{max_length}, {beam}, {length_penalty}"
        raise ValueError(
            f"max_length, beam, length_penalty: expected at least 1, 1, and above 0 up to 1; found {found}"
        )
    rules = Rules(beam, operands, deduplicate, length_penalty)
    table, n_firing, bits = Concepts(concepts), firing.sum(axis=0), pack(firing)
    often = np.flatnonzero(n_firing >= max(1, min_firing))
    n_together = max(1, (SPARSE_ROWS_AT_ONCE if table.sparse else ROWS_AT_ONCE) // (2 * beam))
    found = dict.fromkeys(range(len(bits)), ())
    for some in (often[start : start + n_together] for start in range(0, len(often), n_together)):
        beams = [Beam(table, rules, bits[k], int(n)) for k, n in zip(some, n_firing[some], strict=True)]
        found |= zip(some.tolist(), _grown(table, beams, bits[some], max_length), strict=True)
    return [Explanation(k, int(n_firing[k]), tuple(history)) for k, history in found.items()]


def _checked(masks: np.ndarray, name: str, column: str) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.ndim != 2 or 0 in masks.shape:
        raise ValueError(
            f"{name}: expected booleans [case, {column}], at least one of each, "
            f"found {masks.dtype} of shape {masks.shape}"
        )
    return masks


def _grown(table: Concepts, beams: list["Beam"], bits: np.ndarray, max_length: int) -> list[list[tuple[Scored, ...]]]:
    """The formulas of each beam after every round, [neuron][length - 1]."""
    for own, meets in zip(beams, table.count(bits), strict=True):
        own.start(meets)
    history = [[own.formulas] for own in beams]
    for _ in range(1, max_length):
        counts = table.count(np.concatenate([masks for own in beams for masks in (own.masks, own.masks & own.firing)]))
        ends = np.cumsum([len(own.masks) for own in beams for _ in range(2)])[:-1]
        parts = np.split(counts, ends)
        for own, past, true, both in zip(beams, history, parts[::2], parts[1::2], strict=True):
            own.grow(true, both)
            past.append(own.formulas)
    return history


class Rules(NamedTuple):
    """Settings of `search` that a beam needs."""

    width: int
    operands: str
    deduplicate: bool
    penalty: float


Entry = tuple[Scored, np.ndarray]
"""A formula and its mask's bits."""


class Beam:
    """One neuron's best formulas so far, and their masks as bits [rank, case / 8]."""

    def __init__(self, concepts: Concepts, rules: Rules, firing: np.ndarray, n_firing: int) -> None:
        self.concepts, self.rules, self.firing, self.n_firing = concepts, rules, firing, n_firing
        self.formulas: tuple[Scored, ...] = ()
        self.masks = np.zeros((0, len(firing)), dtype=np.uint8)

    def start(self, meets: np.ndarray) -> None:
        """The best single concepts; `meets` [concept]: cases in which each is true and the neuron fires."""
        self.meets = meets
        self._keep(meets[None, None], self.concepts.sizes[None, None], np.ones((1, 1)))

    def grow(self, true: np.ndarray, both: np.ndarray) -> None:
        """One round, of counts [formula, concept] of cases: both are true; both are, and the neuron fires."""
        m_and_a = np.array([[own.intersection] for own in self.formulas], dtype=true.dtype)
        m = np.array([[own.union - self.n_firing] for own in self.formulas], dtype=true.dtype) + m_and_a
        intersection = np.stack([m_and_a + self.meets - both, both, m_and_a - both])
        size = np.stack([m + self.concepts.sizes - true, true, m - true])
        nodes = [own.formula.n_nodes for own in self.formulas]
        self._keep(intersection, size, np.array([[self.rules.penalty ** (n + no) for n in nodes] for no in (0, 0, 1)]))

    def _keep(self, intersection: np.ndarray, size: np.ndarray, factor: np.ndarray) -> None:
        """The best of the old formulas and the extensions, which are counted as [operator, formula, concept]."""
        union = self.n_firing + size - intersection
        scores = np.divide(intersection, union, dtype=np.float64)
        scores *= factor[..., None]
        if self.formulas and self.rules.operands == "matching":
            scores[..., self.meets == 0] = -1
        above = self.formulas[-1].score if len(self.formulas) == self.rules.width else -1
        places = ranked(scores, above=above, n=None if self.rules.deduplicate else self.rules.width)
        new = (self._extended(*p, scores[p], intersection[p], union[p]) for p in zip(*places, strict=True))
        merged = heapq.merge(zip(self.formulas, self.masks, strict=True), new, key=lambda entry: -entry[0].score)
        first = itertools.islice(distinct(merged) if self.rules.deduplicate else merged, self.rules.width)
        self.formulas, masks = zip(*first, strict=True)
        self.masks = np.stack(masks)

    def _extended(self, operator: int, rank: int, leaf: int, *counted: float) -> Entry:
        """A formula and its mask; in the first round, the concept alone."""
        score, intersection, union = float(counted[0]), int(counted[1]), int(counted[2])
        added = self.concepts.bits[leaf]
        if not self.formulas:
            return Scored(Formula(int(leaf)), score, intersection, union), added
        formula = self.formulas[rank].formula.extended(OPERATORS[operator], int(leaf))
        return Scored(formula, score, intersection, union), combine(self.masks[rank], OPERATORS[operator], added)


def distinct(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Without those whose mask came before."""
    seen = set()
    for entry in entries:
        bits = entry[1].tobytes()
        if bits not in seen:
            seen.add(bits)
            yield entry


def ranked(scores: np.ndarray, *, above: float, n: int | None) -> tuple[np.ndarray, ...]:
    """Places of the `n` best scores [operator, formula, concept] that are greater than `above`, best first; equal ones
    by formula, then concept, then operator. None: all of them.

    >>> [place.tolist() for place in ranked(np.array([[[0.1, 0.5]], [[0.5, 0.2]]]), above=0.1, n=2)]
    [[1, 0], [0, 0], [0, 1]]
    """
    flat = scores.ravel()
    good = np.flatnonzero(flat > above)
    if n is not None and len(good) > n:
        values = flat[good]
        good = good[values >= np.partition(values, -n)[-n]]
    operator, rank, leaf = np.unravel_index(good, scores.shape)
    order = np.lexsort((operator, leaf, rank, -flat[good]))[:n]
    return operator[order], rank[order], leaf[order]
