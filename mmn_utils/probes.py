r"""Linear probes on neurons: all of them, or about three a class (Goh et al. 2021, "Using abstractions").

On $x$, what each neuron says after the ReLU, averaged over the picture, each class has a score $w_c \cdot x + b_c$: by
multinomial logistic regression with an L2 penalty (dense), or by one logistic regression a class with an L1 penalty
(sparse), as strong as it takes for a class to keep so many weights on average.

The paper gives neither penalty nor solver. The number of weights is the paper's, both probes are scikit-learn's; the
sparse one by its coordinate descent, since its solver for the multinomial L1 problem takes minutes to converge.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import LabelBinarizer

from mmn_utils.metrics import Estimate, wilson

TOLERANCE, N_FITS = 0.05, 30
"""How near the mean number of weights must come; fits at most."""

Probe = LogisticRegression | OneVsRestClassifier


def dense(features: np.ndarray, labels: Sequence[str], *, inverse_penalty: float = 0.316) -> LogisticRegression:
    """All neurons for every class; features float [image, neuron]. The penalty is the example in CLIP's own code."""
    return LogisticRegression(C=inverse_penalty, max_iter=1000).fit(features, labels)


def sparse(features: np.ndarray, labels: Sequence[str], *, nonzeros: float) -> list[OneVsRestClassifier]:
    """L1 probes on the way to `nonzeros` weights a class on average, the one that is nearest last.

    C is doubled from where no weight is, then bisected in its logarithm until the mean is within `TOLERANCE`.
    features: float [image, neuron], each neuron in units of its own deviation where weights are to be compared.

    Raises:
        ValueError: no more neurons than weights asked for, or fewer than three classes.
    """
    n_classes = len(set(labels))
    if not 0 < nonzeros < features.shape[1] or n_classes < 3:
        raise ValueError(
            f"expected fewer than {features.shape[1]} weights a class and three classes or more, found "
            f"{nonzeros} and {n_classes}"
        )
    low, high, strength, fitted = 0.0, np.inf, 2 * first_strength(features, labels), []
    while len(fitted) < N_FITS:
        fitted.append(_fit(features, labels, strength))
        gap = mean_nonzeros(fitted[-1]) - nonzeros
        if abs(gap) <= TOLERANCE:
            break
        low, high = (strength, high) if gap < 0 else (low, strength)
        strength = 2 * low if high == np.inf else float(np.sqrt(low * high)) if low else high / 2
    return sorted(fitted, key=lambda probe: -abs(mean_nonzeros(probe) - nonzeros))


def first_strength(features: np.ndarray, labels: Sequence[str]) -> float:
    r"""The C up to which all weights are zero: $1 / \max |X^\top (Y - \bar Y)|$, Y one column a class."""
    member = LabelBinarizer().fit_transform(labels).astype(float)
    return float(1 / np.abs(features.T.astype(float) @ (member - member.mean(0))).max())


def weights(probe: Probe) -> np.ndarray:
    """Of either probe, float [class, neuron]."""
    return probe.coef_ if hasattr(probe, "coef_") else np.concatenate([one.coef_ for one in probe.estimators_])


def mean_nonzeros(probe: Probe) -> float:
    """Weights that are not zero, of a class on average."""
    return float((weights(probe) != 0).sum(1).mean())


def accuracy(probe: Probe, features: np.ndarray, labels: Sequence[str], *, top: int = 1) -> Estimate:
    """Share of images whose class is among the `top` likeliest, with Wilson's interval."""
    best = probe.classes_[np.argsort(-probe.decision_function(features), axis=1, kind="stable")[:, :top]]
    right = (best == np.asarray(labels)[:, None]).any(1)
    return wilson(int(right.sum()), len(right))


def sharing(code: np.ndarray, groups: Sequence[str]) -> float:
    """Of all pairs of classes that use one neuron, the share from one group; code: weights, float [class, neuron].

    nan where no neuron serves two classes.
    """
    groups, used = np.asarray(groups), (code != 0).astype(float)
    together = used @ used.T
    pairs = np.triu_indices(len(groups), 1)
    same = (groups[:, None] == groups[None])[pairs]
    return float(together[pairs][same].sum() / together[pairs].sum()) if together[pairs].any() else float("nan")


def bootstrap_sharing(code: np.ndarray, groups: Sequence[str], *, seed: int, n_resamples: int = 1000) -> Estimate:
    """`sharing` with its interval, for which the neurons that serve two classes or more are drawn anew."""
    rng, code = np.random.default_rng(seed), code[:, (code != 0).sum(0) > 1]
    n = code.shape[1]
    draws = [sharing(code[:, rng.integers(n, size=n)], groups) for _ in range(n_resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(sharing(code, groups), float(low), float(high), n)


def shuffled_sharing(code: np.ndarray, groups: Sequence[str], *, n: int, seed: int) -> np.ndarray:
    """`sharing` with the groups dealt out anew among the classes, float [draw]."""
    rng = np.random.default_rng(seed)
    return np.array([sharing(code, rng.permutation(np.asarray(groups))) for _ in range(n)])


def _fit(features: np.ndarray, labels: Sequence[str], strength: float) -> OneVsRestClassifier:
    """Each class against the rest; liblinear's penalty falls on the bias, too, so the bias is made cheap."""
    one = LogisticRegression(l1_ratio=1, solver="liblinear", C=strength, tol=1e-3, intercept_scaling=30, random_state=0)
    return OneVsRestClassifier(one).fit(features, labels)
