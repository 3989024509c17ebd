r"""Logical formulas over concepts, and how well their truth meets a neuron's firing (Mu & Andreas 2020).

$F := f \mid F\ \text{OR}\ f \mid F\ \text{AND}\ f \mid F\ \text{AND NOT}\ f$, where $f$ is one concept: the formula
grows to the left and takes one concept at a time. The score is $\text{IoU}(m, a) = |m \wedge a| / |m \vee a|$ over the
cases (sentence pairs, or pixels).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPERATORS = ("OR", "AND", "AND NOT")
"""In the order in which the published search tries them, which decides between equally good formulas."""


def combine(mask: np.ndarray, operator: str, leaf: np.ndarray) -> np.ndarray:
    """`mask OPERATOR leaf`, case by case, of booleans or of bits packed in uint8."""
    if operator == "OR":
        return mask | leaf
    return mask & (leaf if operator == "AND" else ~leaf)


@dataclass(frozen=True)
class Formula:
    """A concept, and what was added to it step by step.

    >>> formula = Formula(2, (("AND NOT", 0), ("OR", 1)))
    >>> print(formula, len(formula), formula.n_nodes)
    ((2 AND (NOT 0)) OR 1) 3 4
    >>> print(formula.text(["water", "river", "lake"]))
    ((lake AND (NOT water)) OR river)
    """

    leaf: int
    """Column of the first concept."""
    steps: tuple[tuple[str, int], ...] = ()
    """(operator, column) of each concept added."""

    @property
    def leaves(self) -> tuple[int, ...]:
        """Columns of the concepts, in the order in which they were added."""
        return (self.leaf, *(leaf for _, leaf in self.steps))

    def __len__(self) -> int:
        """The number of concepts in it: the paper's length."""
        return 1 + len(self.steps)

    @property
    def n_nodes(self) -> int:
        """The length as the published code counts it for its penalty: one more for every NOT."""
        return len(self) + sum(operator == "AND NOT" for operator, _ in self.steps)

    def extended(self, operator: str, leaf: int) -> "Formula":
        """With one concept more."""
        return Formula(self.leaf, (*self.steps, (operator, leaf)))

    def mask(self, concepts: np.ndarray) -> np.ndarray:
        """Where the formula is true, bool [case], of concepts bool [case, concept].

        >>> Formula(0, (("AND NOT", 1),)).mask(np.array([[True, False], [True, True]]))
        array([ True, False])
        """
        if max(self.leaves) >= concepts.shape[1]:
            raise ValueError(
                f"{self} needs concept {max(self.leaves)}, found {concepts.shape[1]} concepts, counted from 0"
            )
        mask = concepts[:, self.leaf]
        for operator, leaf in self.steps:
            mask = combine(mask, operator, concepts[:, leaf])
        return mask.copy()

    def text(self, names: Sequence[str], *, alphabetical: bool = False) -> str:
        """In the published notation, with the concepts' names.

        alphabetical: the two sides of each operator in the order of the alphabet, as the published code prints them.
        """
        text = str(names[self.leaf])
        for operator, leaf in self.steps:
            sides = [text, f"(NOT {names[leaf]})" if operator == "AND NOT" else str(names[leaf])]
            text = f" {operator.split()[0]} ".join(sorted(sides) if alphabetical else sides).join("()")
        return text

    def __str__(self) -> str:
        return self.text(range(max(self.leaves) + 1))


@dataclass(frozen=True)
class Scored:
    """A formula beside a neuron's firing."""

    formula: Formula
    """What was scored."""
    score: float
    """IoU times the length penalty: the search's order."""
    intersection: int
    """Cases where the formula is true and the neuron fires."""
    union: int
    """Cases where either is so."""

    @property
    def iou(self) -> float:
        """Intersection over union; 0 where neither ever is true."""
        return self.intersection / self.union if self.union else 0.0


@dataclass(frozen=True)
class Explanation:
    """What the search found for one neuron."""

    neuron: int
    """Its column."""
    n_firing: int
    """Cases in which it fires."""
    beams: tuple[tuple[Scored, ...], ...]
    """[length - 1][rank], best first; empty where the neuron fires too seldom to be searched."""

    @property
    def searched(self) -> bool:
        """Whether the neuron fired often enough; where it did not, it belongs in no mean."""
        return bool(self.beams)

    def best(self, max_length: int | None = None) -> Scored:
        """The best formula of at most `max_length` concepts (by default, of the longest that were tried)."""
        if not self.searched:
            raise ValueError(f"neuron {self.neuron} fires in {self.n_firing} cases, too few: it was not searched")
        if max_length is not None and not 1 <= max_length <= len(self.beams):
            raise ValueError(f"max_length: the search went from 1 to {len(self.beams)}, found {max_length}")
        return self.beams[-1 if max_length is None else max_length - 1][0]
