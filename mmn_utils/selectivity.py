"""Which kind of image a neuron is for (Schwettmann et al. 2023, supplement S.4).

For each class, the units that are among the top ones of most of its images; then how active each class's units are on
the images of every class. Selective units are most active on their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def frequent_units(rankings: Tensor, *, n: int = 20, allowed: Tensor | None = None) -> Tensor:
    """The `n` units that are among the top ones of most images, int [unit], the most frequent first.

    rankings: int [image, rank] of units numbered `layer * n_units + unit` (`Ranking.flat`); a unit counts once an
    image. allowed: bool over all units, flattened or [layer, unit] (the interpretable ones); None allows all. Of
    equally frequent units the lower number comes first; fewer than `n` come back if there are no more.
    """
    seen = torch.cat([row.unique() for row in rankings])
    seen = seen if allowed is None else seen[allowed.flatten()[seen]]
    units, counts = seen.unique(return_counts=True)
    return units[counts.argsort(descending=True, stable=True)[:n]]


def selectivity(mean_activations: Tensor, unit_sets: Sequence[Tensor]) -> Tensor:
    """How active each class's units are on each class, float [units of class, images of class]; best of each row = 1.

    mean_activations: float [class, unit], over all patches of all images of the class, units numbered through all
    layers. Each row is divided by its own maximum.

    Raises:
        ValueError: a class without units, or units that are on average not active on any class.
    """
    for number, units in enumerate(unit_sets):
        if len(units) == 0:
            raise ValueError(f"class {number} has no units: no allowed unit is among the top ones of its images")
    raw = torch.stack([mean_activations[:, units].mean(1) for units in unit_sets])
    best = raw.max(1).values
    if (best <= 0).any():
        where = (best <= 0).nonzero()[:, 0].tolist()
        raise ValueError(f"the units of classes {where} have no positive mean activation; their rows have no scale")
    return raw / best[:, None]


def diagonal_wins(matrix: Tensor) -> int:
    """How many classes' units are most active on their own class, from the matrix of `selectivity`."""
    return int((matrix.argmax(1) == torch.arange(len(matrix), device=matrix.device)).sum())


class RunningMean:
    """Mean of tensors [..., unit] over everything but units, as they come."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._n = 0

    def add(self, values: Tensor) -> "RunningMean":
        """Take values [..., unit] in (summed in float64)."""
        values = values.flatten(0, -2)
        total = values.double().sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._n += len(values)
        return self

    def result(self) -> Tensor:
        """The mean, float64 [unit]."""
        if self._sum is None:
            raise ValueError("no values have come yet")
        return self._sum / self._n
