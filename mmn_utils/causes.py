"""What captions lose without the units that attribution found for them (Schwettmann et al. 2023, 3.3 and S.5).

For each image the units are ranked by their best patch's attribution to the caption's first noun (`plan`), then ablated
from the top, in sets of growing size; `probabilities` reads the noun's probability, `captions` writes the whole caption
anew. All three are sweeps over images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmn_utils.ablation import ablated_captions, conditions, first_units, probability_curve
from mmn_utils.activity import tensor_digest
from mmn_utils.attribution import Target, attribute_top, target_batches
from mmn_utils.data import CocoScenes
from mmn_utils.metrics import Estimate, bert_scores, bootstrap_mean
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import Positions, mlp_layers
from mmn_utils.profiles import Profile
from mmn_utils.survey import inputs, targets_of
from mmn_utils.sweeps import Sweeps, digest


@dataclass(frozen=True)
class Plan:
    """Which units are to be ablated for which images: a ranking of all, cut where the largest set ends."""

    targets: pd.DataFrame
    """One row an image, as `survey.targets_table` makes them."""
    top: Tensor
    """int [image, rank]: units from the highest attribution down, numbered `layer * n_units + unit`."""
    interpretable: Tensor
    """int [image, rank]: of all units, those that are interpretable."""
    shape: tuple[int, int]
    """Layers, and units in each."""
    sizes: tuple[int, ...]
    seed: int = 0
    leave_out_top: bool = True
    """Whether "random" leaves out the top units."""

    def first(self, n: int) -> "Plan":
        """The plan for the first `n` images."""
        return replace(self, targets=self.targets[:n], top=self.top[:n], interpretable=self.interpretable[:n])

    def masks(self, place: int) -> dict[str, Tensor]:
        """For the image at this place: the paper's three conditions (`ablation.conditions`), "random" drawn for each
        image by itself, and "other", the top units of the image before it; bool [size, layer, unit]."""
        drawn = np.random.SeedSequence([self.seed, int(self.targets["image"].iloc[place])]).generate_state(1)
        masks = conditions(
            self.top[place],
            self.interpretable[place],
            self.sizes,
            shape=self.shape,
            generator=torch.Generator().manual_seed(int(drawn[0])),
            leave_out_top=self.leave_out_top,
        )
        others = [first_units(self.top[place - 1], size, self.shape) for size in self.sizes]
        return masks | {"other": torch.stack(others)}

    @property
    def key(self) -> dict[str, Any]:
        """What the key of a sweep says of it."""
        said = digest(self.targets[["image", "token", "before"]].map(_plain).to_numpy().tolist())
        units = [tensor_digest(self.top), tensor_digest(self.interpretable)]
        return {"targets": said, "units": units, "sizes": self.sizes, "seed": self.seed, "apart": self.leave_out_top}


def plan(
    captioner: Captioner,
    scenes: CocoScenes,
    targets: pd.DataFrame,
    *,
    sizes: Sequence[int],
    sweep: Sweeps,
    interpretable: Tensor | None = None,
    seed: int = 0,
) -> Plan:
    """Rank all units for each of the targets (`survey.targets_table`), by attributions computed here.

    interpretable: bool [layer, unit]; None counts every unit, so that "interpretable" is "top".

    Raises:
        ValueError: fewer interpretable units than the largest size.
    """
    layers, n = mlp_layers(captioner.language_model), max(sizes)
    shape = (len(layers), layers[0].n_units)
    legible = torch.ones(shape, dtype=torch.bool) if interpretable is None else interpretable
    if (there := int(legible.sum())) < n:
        raise ValueError(f"expected at least {n} interpretable units, found {there}; ablate fewer")
    asked = dict(zip(targets["image"].tolist(), targets_of(targets), strict=True))

    def ranked(images: list[int]) -> dict[str, Tensor]:
        prompts = captioner.image_prompts([scenes.image(i) for i in images])
        order = _ranked(captioner, prompts, [asked[i] for i in images])
        readable = torch.stack([row[legible.flatten()[row]][:n] for row in order])
        return {"top": order[:, :n].clone(), "interpretable": readable}

    parameters = {"targets": digest([(i, t.token, t.before) for i, t in asked.items()]), "n": n}
    parameters |= {"interpretable": tensor_digest(legible)}
    found = sweep("rankings", ranked, list(asked), **inputs(captioner, scenes), parameters=parameters).tensors()
    return Plan(targets.reset_index(drop=True), **found, shape=shape, sizes=tuple(sizes), seed=seed)


def _ranked(captioner: Captioner, image_prompts: Tensor, targets: Sequence[Target]) -> Tensor:
    """All units of each image by their best patch's attribution, int [image, rank]."""
    model, patches = captioner.language_model, slice(0, image_prompts.shape[1])
    n_units = [mlp.n_units for mlp in mlp_layers(model)]
    rankings, places = [], []
    for batch in target_batches(captioner, captioner.with_text(image_prompts), targets):
        given = {"k": sum(n_units), "distinct": True, "positions": patches}
        rankings.append(attribute_top(model, batch.embeddings, batch.tokens, **given).flat(n_units[0]).cpu())
        places.append(batch.images)
    return torch.cat(rankings)[torch.cat(places).argsort()]


def probabilities(
    captioner: Captioner, scenes: CocoScenes, plan: Plan, *, sweep: Sweeps, positions: Positions = None
) -> pd.DataFrame:
    """The first noun's probability without the units: one row an image, condition and size.

    Columns: `image`, `condition`, `n_units`, `probability`, and `relative`, the probability divided by that of the
    model as it is (the plan's sizes have to begin with 0). `positions`: where units are held at zero; None is
    everywhere.

    Raises:
        ValueError: the sizes do not begin with 0.
    """
    if not plan.sizes or plan.sizes[0] != 0:
        raise ValueError(f"sizes: expected to begin with 0, the model as it is, found {list(plan.sizes)}")

    def rows(place: int, prompt: Tensor) -> pd.DataFrame:
        (batch,) = target_batches(captioner, prompt, targets_of(plan.targets[place : place + 1]))
        context, token = batch.embeddings, int(batch.tokens)
        p = probability_curve(captioner.language_model, context, token, plan.masks(place), positions=positions)
        return _rows(plan, {name: curve.tolist() for name, curve in p.items()}, "probability")

    table = _each(captioner, scenes, plan, rows, sweep=sweep, name="probabilities", positions=positions)
    as_is = table[table["n_units"] == 0].groupby("image")["probability"].first()
    return table.assign(relative=table["probability"] / table["image"].map(as_is))


def captions(
    captioner: Captioner, scenes: CocoScenes, plan: Plan, *, sweep: Sweeps, positions: Positions = None
) -> pd.DataFrame:
    """The greedy caption without the units: one row an image, condition and size.

    Columns: `image`, `condition`, `n_units`, `caption`. With `positions` None the units are also held at zero where
    the caption itself is written.
    """

    def rows(place: int, prompt: Tensor) -> pd.DataFrame:
        masks = plan.masks(place)
        texts = iter(ablated_captions(captioner, prompt, torch.cat(list(masks.values())), positions=positions))
        return _rows(plan, {name: [next(texts) for _ in plan.sizes] for name in masks}, "caption")

    return _each(captioner, scenes, plan, rows, sweep=sweep, name="ablated_captions", positions=positions)


def _rows(plan: Plan, values: dict[str, list], column: str) -> pd.DataFrame:
    found = [(condition, size, value) for condition, row in values.items() for size, value in zip(plan.sizes, row)]  # noqa: B905
    return pd.DataFrame(found, columns=["condition", "n_units", column])


def _each(
    captioner: Captioner,
    scenes: CocoScenes,
    plan: Plan,
    rows: Callable[[int, Tensor], pd.DataFrame],
    *,
    sweep: Sweeps,
    name: str,
    positions: Positions,
) -> pd.DataFrame:
    """The rows of each image of the plan, from its place and its prompt [1, position, d_model]."""
    ids = plan.targets["image"].tolist()
    places = {image: place for place, image in enumerate(ids)}

    def computed(images: list[int]) -> pd.DataFrame:
        prompts = captioner.prompt_embeddings([scenes.image(i) for i in images])
        tables = [rows(places[i], prompts[k, None]).assign(image=i) for k, i in enumerate(images)]
        return pd.concat(tables, ignore_index=True)

    where = positions if positions is None else str(positions)
    key = inputs(captioner, scenes) | {"parameters": plan.key | {"positions": where}}
    table = sweep(name, computed, ids, **key, size=8).table()
    return table[["image", *(column for column in table if column != "image")]]


def _plain(value: Any) -> Any:
    """Plain numbers, as JSON has them."""
    return value.item() if isinstance(value, np.generic) else [int(x) for x in value] if np.ndim(value) else value


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
