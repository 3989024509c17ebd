"""Which kind of image a neuron is for (Schwettmann et al. 2023, supplement S.4).

For each class, the units that are among the top ones of most of its images; then how active each class's units are on
the images of every class. Selective units are most active on their own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmn_utils.metrics import Estimate
from mmn_utils.receptive_fields import matched_units, patch_activations


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


def particular_unit(rankings: Tensor, inside: Tensor, *, allowed: Tensor) -> int:
    """The allowed unit whose share of images with it among their top ones is most larger inside a class than outside.

    rankings: int [image, rank] of units numbered through all layers; inside: bool [image]; allowed: bool over all
    units.

    >>> rankings = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 2]])
    >>> particular_unit(rankings, torch.tensor([True, True, False, False]), allowed=torch.ones(3, dtype=torch.bool))
    1
    """
    flags = torch.zeros(len(rankings), allowed.numel(), dtype=torch.bool)
    flags[torch.arange(len(rankings))[:, None], rankings] = True
    lead = flags[inside].float().mean(0) - flags[~inside].float().mean(0)
    return int(lead.masked_fill(~allowed.flatten(), -2.0).argmax())


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


def image_means(model: nn.Module, prompts: Tensor, *, batch_size: int = 32) -> Tensor:
    """Every unit's mean activation over the patches of each image, float [image, unit], from image prompts."""
    return torch.cat([a.mean(1) for a in patch_activations(model, prompts, batch_size=batch_size)]).cpu()


def set_means(means: Tensor, unit_sets: Sequence[Tensor]) -> Tensor:
    """The mean of each set's units on each image, float [image, set], from `image_means`."""
    return torch.stack([means[:, units].mean(1) for units in unit_sets], dim=1)


def class_means(means: Tensor, classes: Sequence[int]) -> Tensor:
    """The mean over each class's images, float [class, ...], from values [image, ...] and class numbers from 0."""
    numbers = torch.as_tensor(classes)
    return torch.stack([means[numbers == c].mean(0) for c in range(int(numbers.max()) + 1)])


def wins(by_image: Tensor, classes: Sequence[int], seed: int, *, n_resamples: int = 2000) -> Estimate:
    """How many sets are most active on their own class, with a bootstrap interval (images drawn again in their class).

    by_image: float [image, set], as `set_means` gives it; set k is that of class k.
    """
    numbers, rng = np.asarray(classes), np.random.default_rng(seed)
    drawn = np.stack([_resampled(by_image.numpy()[numbers == c], rng, n_resamples) for c in sorted(set(numbers))], 1)
    counts = (drawn.argmax(1) == np.arange(drawn.shape[2])).sum(1)
    value = diagonal_wins(class_means(by_image, classes).T)
    low, high = np.percentile(counts, [2.5, 97.5])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=by_image.shape[1])


def random_wins(
    means: Tensor, unit_sets: Sequence[Tensor], classes: Sequence[int], n_units: int, *, n_draws: int, seed: int
) -> np.ndarray:
    """`diagonal_wins` of sets of random units of the same layers, int [draw]."""
    generator = torch.Generator().manual_seed(seed)
    by_class = class_means(means, classes)
    draws = ([matched_units(u[None], n_units, generator=generator)[0] for u in unit_sets] for _ in range(n_draws))
    return np.array([diagonal_wins(set_means(by_class, sets).T) for sets in draws])


def shared(unit_sets: Sequence[Tensor]) -> Tensor:
    """In how many sets each unit of each set is, int [unit] for each set, one after the other."""
    everything = torch.cat(list(unit_sets))
    return (everything[:, None] == everything[None]).sum(1)


def _resampled(values: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Bootstrap means [resample, set] of values [image, set]."""
    return values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1)


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
