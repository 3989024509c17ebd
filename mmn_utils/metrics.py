"""Scores and their intervals. Every interval is a 95 % interval."""

import math
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmn_utils.profiles import Profile

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point."""

IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "wolves": "wolf", "leaves": "leaf", "knives": "knife",
    "scarves": "scarf", "loaves": "loaf", "calves": "calf",
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A number measured on `n` cases, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


def wilson(successes: int, n: int) -> Estimate:
    r"""A proportion with Wilson's score interval, which stays inside [0, 1] and holds near its ends too.

    $(\hat p + \frac{z^2}{2n} \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4 n^2}) / (1 + z^2 / n)$

    >>> str(wilson(9, 10))
    '0.9 [0.596, 0.982], n = 10'
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    p = successes / n
    centre = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + Z95**2 / n) for sign in (-1, 1))
    return Estimate(value=p, low=min(max(low, 0.0), p), high=max(min(high, 1.0), p), n=n)


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int, *, n_resamples: int = 2000) -> Estimate:
    """The mean of `values` [case] with the percentile interval of its bootstrap distribution (float64 inside)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"expected one number per case, found an array of shape {values.shape}")
    generator = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(values))  # about 32 MB at a time
    sizes = [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
    means = [values[generator.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), n=len(values))


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    r"""The largest gap $D$ between two samples' cumulative distributions, and its p-value.

    $p = 2 \sum_{k \ge 1} (-1)^{k-1} e^{-2 k^2 \lambda^2}$ with $\lambda = D \sqrt{n m / (n + m)}$: for large samples.

    >>> kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([2.5, 3.0]))[0]
    1.0
    """
    first, second = np.sort(first), np.sort(second)
    places = np.concatenate([first, second])
    below = [np.searchsorted(sample, places, side="right") / len(sample) for sample in (first, second)]
    d = float(np.abs(below[0] - below[1]).max())
    scaled = d * math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    if scaled < 0.2:  # the series converges slowly there, and p is 1 to twelve digits
        return d, 1.0
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return d, min(max(p, 0.0), 1.0)


def first_noun(caption: str, nouns: Collection[str]) -> str | None:
    """The first word of `caption` that is in `nouns` (lower case, singular), plurals counted as their singular.

    >>> first_noun("Two small dogs, and a cat.", {"cat", "dog"})
    'dog'
    """
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", caption.lower())
    found = (form for word in words for form in _singulars(word) if form in nouns)
    return next(found, None)


def _singulars(word: str) -> list[str]:
    """What `word` may be a form of, itself first (so that `glasses` stays, if it is in the lexicon)."""
    forms = [word, re.sub(r"['’]s$", "", word)]
    forms += [IRREGULAR[word]] if word in IRREGULAR else []
    for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            forms.append(word.removesuffix(ending) + singular)
    return forms


def bert_scores(
    candidates: Sequence[str], references: Sequence[str], profile: Profile, *, batch_size: int = 64
) -> np.ndarray:
    """BERTScore F1 of each candidate against the reference at its place, float [pair]; not rescaled.

    The matching is the `bert_score` package's; the model is the profile's, in float32. For several references to one
    candidate, repeat it and average (Schwettmann et al.) or take the best (the package's own habit).

    Raises:
        ValueError: different numbers of candidates and references.
    """
    if len(candidates) != len(references):
        raise ValueError(f"expected a reference for each candidate, found {len(candidates)} and {len(references)}")
    if not candidates:
        return np.zeros(0)
    from bert_score.utils import bert_cos_score_idf

    model, tokenizer = bert(profile)
    weights = _UniformWeights({tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
    refs, cands = ([_StableText(text) for text in texts] for texts in (references, candidates))
    scores = bert_cos_score_idf(model, refs, cands, tokenizer, weights, device=model.device, batch_size=batch_size)
    return scores[:, 2].double().cpu().numpy()


class _StableText(str):
    """Text whose hash is the same in every process: `bert_score` batches in the order of a set of its sentences."""

    def __hash__(self) -> int:
        return zlib.crc32(self.encode())


class _UniformWeights(dict):
    """Weight 1 for every token but those given."""

    def __missing__(self, token: int) -> float:
        return 1.0


@lru_cache(maxsize=1)
def _load_bert(source: str, revision: str | None, num_layers: int, cache: Path, device: str) -> tuple:
    """The BERT and its tokenizer, cut after `num_layers` as `bert_score` does."""
    import torch
    from transformers import AutoModel

    from mmn_utils.models.hub import load_pretrained, load_tokenizer

    model = load_pretrained(AutoModel, source, revision=revision, cache=cache, dtype=torch.float32)
    tokenizer = load_tokenizer(source, revision=revision, cache=cache)
    if not 0 < num_layers <= len(model.encoder.layer):
        raise ValueError(f"models.bert.num_layers is {num_layers}, but {source} has {len(model.encoder.layer)} layers")
    model.encoder.layer = model.encoder.layer[:num_layers]
    return model.eval().to(device), tokenizer


def bert(profile: Profile) -> tuple:
    """The profile's BERT and its tokenizer."""
    from mmn_utils.models.captioner import verify_source

    asked = profile.models.bert
    verify_source(profile, asked.source)
    source = profile.locate(asked.source)
    return _load_bert(source, asked.revision, asked.num_layers, profile.cache_folder / "hub", str(profile.torch_device))
