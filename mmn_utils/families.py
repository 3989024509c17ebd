"""What kinds of things a neuron's strongest pictures are of (Goh et al. 2021, "Guided tour of neuron families")."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SPLIT = 0.25
"""A neuron is split between families if each of two has at least this share of its strongest pictures."""


def of_strongest(answers: np.ndarray, families: Sequence[str], *, n: int) -> pd.DataFrame:
    """One row a unit: the two commonest families among the `n` pictures it answers most, and whether it is split.

    answers: float [picture, unit]; families: one a picture. Columns: `family`, `share`, `second`, `second_share`,
    `split` (`second_share` is at least `SPLIT`). Families equally common: the one that comes first in the alphabet.
    """
    names, numbers = np.unique(np.asarray(families), return_inverse=True)
    strongest = numbers[np.argsort(-answers, axis=0, kind="stable")[:n]]
    counts = np.stack([(strongest == k).sum(0) for k in range(len(names))])
    first, second = np.argsort(-counts, axis=0, kind="stable")[:2]
    units = np.arange(answers.shape[1])
    table = pd.DataFrame({"family": names[first], "share": counts[first, units] / n})
    table["second"], table["second_share"] = names[second], counts[second, units] / n
    return table.assign(split=table.second_share >= SPLIT).rename_axis("unit")
