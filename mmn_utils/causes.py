"""What captions lose without the units that attribution found for them (Schwettmann et al. 2023, 3.3 and S.5).

For each image the units are ranked by their best patch's attribution to the caption's first noun, then ablated from the
top, in sets of growing size; `probabilities` reads the noun's probability, `captions` writes the whole caption anew.
Both go image by image, and keep numbers and texts only.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from mmn_utils.ablation import ablated_captions, conditions, probability_curve
from mmn_utils.attribution import Target, attribute_top, first_noun_target, target_batches
from mmn_utils.metrics import Estimate, bert_scores, bootstrap_mean
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import Positions, mlp_layers
from mmn_utils.profiles import Profile


@dataclass(frozen=True)
class Plan:
    """Which units are to be ablated for one image."""

    image: int
    """Where it stands among the images that were given."""
    context: Tensor
    """float [1, position, d_model]: image prompts, text prompt, and the caption up to the noun."""
    token: int
    """The noun's first token."""
    masks: dict[str, Tensor]
    """bool [size, layer, unit] by condition: "top", "interpretable", "random", and "other", the top units of the
    image before it."""


def image_positions(captioner: Captioner, prompts: Tensor) -> slice:
    """Where the image prompts stand in `prompts` [image, position, d_model]: all but the text prompt."""
    return slice(0, prompts.shape[1] - len(captioner.text_embeddings()))


def plans(
    captioner: Captioner,
    prompts: Tensor,
    targets: Sequence[Target | None],
    *,
    sizes: Sequence[int],
    interpretable: Tensor | None = None,
    leave_out_top: bool = True,
    seed: int = 0,
    batch_size: int = 16,
) -> Iterator[Plan]:
    """The paper's three conditions, and a fourth, for each image that has a target, from attributions computed here.

    prompts: float [image, position, d_model], as `Captioner.prompt_embeddings` gives them. interpretable: bool
    [layer, unit]; None counts every unit, so that "interpretable" is "top". leave_out_top: whether "random" leaves out
    the top units.
    """
    layers = mlp_layers(captioner.language_model)
    legible = torch.ones(len(layers), layers[0].n_units, dtype=torch.bool) if interpretable is None else interpretable
    patches, generator = image_positions(captioner, prompts), torch.Generator().manual_seed(seed)
    before = None
    for batch in target_batches(captioner, prompts, targets, batch_size=batch_size):
        found = attribute_top(
            captioner.language_model,
            batch.embeddings,
            batch.tokens,
            k=legible.numel(),
            distinct=True,
            positions=patches,
        )
        rankings = found.flat(layers[0].n_units).cpu()
        before = rankings[-1] if before is None else before
        for row, image in enumerate(batch.images.tolist()):
            masks = conditions(rankings[row], legible, sizes, generator=generator)
            if not leave_out_top:
                masks["random"] = torch.stack([any_units(top, generator) for top in masks["top"]])
            masks["other"] = torch.stack([first_units(before, size, legible.shape) for size in sizes])
            before = rankings[row]
            yield Plan(image, batch.embeddings[row : row + 1], int(batch.tokens[row]), masks)


def first_units(ranking: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """The first units of a ranking (numbered `layer * n_units + unit`), bool [layer, unit] of the shape given.

    >>> first_units(torch.tensor([3, 0, 1]), 2, (2, 2))
    tensor([[ True, False],
            [False,  True]])
    """
    return torch.zeros(tuple(shape), dtype=torch.bool).flatten().index_fill(0, ranking[:size], True).view(*shape)


def any_units(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """As many random units in each layer as `chosen` [layer, unit] has there, whether or not they are in it."""
    ranks = torch.rand(chosen.shape, generator=generator).argsort(1).argsort(1)
    return ranks < chosen.sum(1, keepdim=True)


def probabilities(
    captioner: Captioner,
    prompts: Tensor,
    targets: Sequence[Target | None],
    *,
    sizes: Sequence[int],
    positions: Positions = None,
    **choice: Any,
) -> pd.DataFrame:
    """The first noun's probability without the units: one row an image, condition and size.

    Columns: `image`, `condition`, `n_units`, `probability`, and `relative`, the probability divided by that of the
    model as it is (`sizes` has to begin with 0). `positions`: where units are held at zero; None is everywhere.
    `choice`: what else `plans` takes.

    Raises:
        ValueError: `sizes` does not begin with 0, or no image has a target.
    """
    if not sizes or sizes[0] != 0:
        raise ValueError(f"sizes: expected to begin with 0, the model as it is, found {list(sizes)}")
    tables = []
    for plan in plans(captioner, prompts, targets, sizes=sizes, **choice):
        curves = probability_curve(captioner.language_model, plan.context, plan.token, plan.masks, positions=positions)
        for condition, p in curves.items():
            rows = {"image": plan.image, "condition": condition, "n_units": list(sizes), "probability": p.tolist()}
            tables.append(pd.DataFrame(rows).assign(relative=(p / p[0]).tolist()))
    if not tables:
        raise ValueError(f"none of {len(targets)} images has a target: no caption holds one of the nouns")
    return pd.concat(tables, ignore_index=True).sort_values("image", kind="stable", ignore_index=True)


def own_probabilities(
    captioner: Captioner,
    images: Sequence[Image.Image],
    nouns: Collection[str],
    *,
    sizes: Sequence[int],
    seed: int = 0,
    batch_size: int = 16,
) -> pd.DataFrame:
    """`probabilities` for whatever this captioner says of the images itself; those without a noun are left out."""
    prompts = captioner.prompt_embeddings(images)
    said = [text for part in prompts.split(batch_size) for text in captioner.complete(part)]
    targets = [first_noun_target(captioner, text, nouns) for text in said]
    return probabilities(captioner, prompts, targets, sizes=sizes, seed=seed, batch_size=batch_size)


def captions(
    captioner: Captioner,
    prompts: Tensor,
    targets: Sequence[Target | None],
    *,
    sizes: Sequence[int],
    positions: Positions = None,
    **choice: Any,
) -> pd.DataFrame:
    """The greedy caption without the units: one row an image, condition and size.

    Columns: `image`, `condition`, `n_units`, `caption`. With `positions` None the units are also held at zero where
    the caption itself is written.
    """
    rows = []
    for plan in plans(captioner, prompts, targets, sizes=sizes, **choice):
        masks = torch.cat(list(plan.masks.values()))
        texts = ablated_captions(captioner, prompts[plan.image, None], masks, positions=positions)
        keys = ((condition, size) for condition in plan.masks for size in sizes)
        rows += [(plan.image, *key, text) for key, text in zip(keys, texts, strict=True)]
    table = pd.DataFrame(rows, columns=["image", "condition", "n_units", "caption"])
    return table.sort_values("image", kind="stable", ignore_index=True)


def against_original(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """`captions` with two columns more: `original`, the caption of the model as it is, and `bertscore` against it.

    An empty caption scores 0, as in the `bert_score` package.
    """
    as_is = table[table["n_units"] == 0].groupby("image")["caption"].first()
    table = table.assign(original=table["image"].map(as_is))
    pairs = table.loc[table["caption"] != "", ["caption", "original"]].drop_duplicates()
    scores = bert_scores(pairs["caption"].tolist(), pairs["original"].tolist(), profile)
    known = dict(zip(pairs.itertuples(index=False, name=None), scores.tolist(), strict=True))
    asked = zip(table["caption"], table["original"], strict=True)
    return table.assign(bertscore=[known.get(pair, 0.0) for pair in asked])


def curve(table: pd.DataFrame, column: str, condition: str, seed: int) -> list[Estimate]:
    """The mean over images of a column at each size, ascending, with its bootstrap interval."""
    rows = table[table["condition"] == condition]
    return [bootstrap_mean(group[column].to_numpy(), seed) for _, group in rows.groupby("n_units")]


def drops(table: pd.DataFrame, condition: str, n_units: int) -> np.ndarray:
    """By how much of itself the noun's probability falls, one number an image in order: 1 - `relative`."""
    rows = table[(table["condition"] == condition) & (table["n_units"] == n_units)]
    return 1 - rows.sort_values("image")["relative"].to_numpy()


def units_until(table: pd.DataFrame, condition: str, drop: float, *, seed: int, n_resamples: int = 2000) -> Estimate:
    """The smallest size that was tried at which the noun's probability is down by `drop` on average.

    Bootstrapped over images. Where no size is enough, the largest stands for it.
    """
    rows = table[table["condition"] == condition].pivot(index="image", columns="n_units", values="relative")
    sizes, fallen = rows.columns.to_numpy(), 1 - rows.to_numpy()
    draws = np.random.default_rng(seed).integers(len(fallen), size=(n_resamples, len(fallen)))
    means = np.stack([fallen.mean(axis=0), *(fallen[draw].mean(axis=0) for draw in draws)])
    found = np.where((means >= drop).any(axis=1), (means >= drop).argmax(axis=1), len(sizes) - 1)
    low, high = np.percentile(sizes[found[1:]], [2.5, 97.5], method="inverted_cdf")
    value = float(sizes[found[0]])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=len(fallen))
