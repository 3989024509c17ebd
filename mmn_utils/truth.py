r"""How well cheap estimates of a unit's effect agree with the effect itself.

The effect of unit $k$ on the token $c$ is what holding it at zero at all image positions takes from the token's logit,
measured by running the model without it (`ablation.unit_effects`). Attribution is the first term of that change's
Taylor series; the other estimates are those of the literature, each summed over the patches, as the unit is silenced at
all of them at once.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from mmn_utils.ablation import unit_effects
from mmn_utils.attribution import (
    Target,
    attribute,
    gradient_free,
    integrated_gradients,
    objective_values,
    target_batches,
)
from mmn_utils.data import CocoScenes
from mmn_utils.metrics import Estimate, bootstrap_mean
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import Positions, hooked, last_logits, mlp_layers
from mmn_utils.survey import inputs, targets_of
from mmn_utils.sweeps import Sweeps, digest

METHODS = (
    "attribution",
    "attribution, best patch",
    "activation × gradient",
    "integrated gradients",
    "gradient-free",
    "random",
)


@dataclass(frozen=True)
class Effects:
    """What silencing units alone takes from each image's noun, and what the estimates say of it."""

    units: Tensor
    """int [unit]: which units of each layer were measured."""
    exact: Tensor
    """float [image, layer, unit], logits; positive where the unit helped."""
    estimates: dict[str, Tensor]
    """By method (METHODS), in the shape of `exact`."""


def effects(
    captioner: Captioner,
    scenes: CocoScenes,
    targets: pd.DataFrame,
    *,
    units: Tensor,
    n_steps: int = 6,
    batch_size: int = 8,
    generator: torch.Generator,
    sweep: Sweeps,
) -> Effects:
    """The exact and the estimated effects of some `units` of each layer, a sweep over the images of `targets`
    (`survey.targets_table`).

    The last layer is left out: at image positions it reaches no prediction, so that all its effects are zero.
    n_steps: of integrated gradients. batch_size: units ablated at once.
    """
    asked = dict(zip(targets["image"].tolist(), targets_of(targets), strict=True))

    def measured(images: list[int]) -> dict[str, Tensor]:
        found = [_effects(captioner, scenes.image(i), asked[i], units, n_steps, batch_size) for i in images]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    parameters = {"units": units.tolist(), "n_steps": n_steps}
    parameters |= {"targets": digest([(t.token, t.before) for t in asked.values()])}
    key = inputs(captioner, scenes) | {"parameters": parameters, "size": 1}
    found = sweep("effects", measured, list(asked), **key).tensors()
    exact = found.pop("exact")
    found["random"] = torch.rand(exact.shape, generator=generator)
    return Effects(units=units, exact=exact, estimates={name: found[name] for name in METHODS})


def _effects(
    captioner: Captioner, image: Image.Image, target: Target, units: Tensor, n_steps: int, batch_size: int
) -> dict[str, Tensor]:
    """One image's effects, "exact" and by method, each float [layer, unit]."""
    model, prompt = captioner.language_model, captioner.image_prompts([image])
    (batch,) = target_batches(captioner, captioner.with_text(prompt), [target])
    x, token, patches = batch.embeddings, batch.tokens, slice(0, prompt.shape[1])
    layers = range(len(mlp_layers(model)) - 1)
    given = {"positions": patches, "layers": layers, "units": units, "batch_size": batch_size}
    exact = unit_effects(model, x, int(token), **given).logit.cpu()
    estimates = _estimates(model, x, token, patches, units, n_steps)
    return {"exact": exact} | {name: scores[0, : len(layers)].clone() for name, scores in estimates.items()}


def _estimates(
    model: nn.Module, embeddings: Tensor, tokens: Tensor, patches: slice, units: Tensor, n_steps: int
) -> dict[str, Tensor]:
    """Each float [image, layer, unit]."""
    g = attribute(model, embeddings, tokens, positions=patches)[..., units]
    integrated = integrated_gradients(model, embeddings, tokens, positions=patches, n_steps=n_steps)[..., units]
    direct = gradient_free(model, embeddings, tokens, positions=patches)[..., units]
    after = activation_times_gradient(model, embeddings, tokens, positions=patches)[..., units]
    found = (g.sum(2), g.amax(2), after.sum(2), integrated.sum(2), direct.sum(2))
    return {name: scores.cpu() for name, scores in zip(METHODS, found, strict=False)}


def activation_times_gradient(
    model: nn.Module, embeddings: Tensor, tokens: Tensor, *, positions: Positions = None
) -> Tensor:
    r"""The slope after the non-linearity instead of before it, $A_p^k \, \partial y^c / \partial A_p^k$: float [image,
    layer, patch, unit].

    What is silenced is the activation $A$. The paper's $Z \, \partial y / \partial Z$ has this sign times that of
    $Z \, \sigma'(Z) / \sigma(Z)$, which is negative where a GELU falls (below $Z \approx -0.75$).
    """
    kept: dict[int, Tensor] = {}

    def follow(layer: int, a: Tensor, _start: int) -> Tensor:
        kept[layer] = a if a.requires_grad else a.detach().requires_grad_()
        return kept[layer]

    with torch.enable_grad(), hooked(model, follow):
        y = objective_values(last_logits(model, embeddings), tokens, "logit").sum()
    gradients = torch.autograd.grad(y, list(kept.values()))
    picked = slice(None) if positions is None else positions
    scores = [(a.detach() * g)[:, picked] for a, g in zip(kept.values(), gradients, strict=True)]
    return torch.stack([s.to(embeddings.device) for s in scores], dim=1)


def agreement(measured: Effects, *, k: int = 100) -> pd.DataFrame:
    """One row for each method, image and layer ("all" for all units together): columns `spearman` and `precision`.

    Precision: the share of the `k` units of largest exact effect that are among the estimate's first `k`; within one
    of L layers, `k / L` units are compared.
    """
    n_layers = measured.exact.shape[1]
    rows = []
    for method, scores in measured.estimates.items():
        for image, (true, guess) in enumerate(zip(measured.exact.numpy(), scores.numpy(), strict=True)):
            pairs = [("all", true.ravel(), guess.ravel(), k)]
            pairs += [(layer, true[layer], guess[layer], max(1, k // n_layers)) for layer in range(n_layers)]
            rows += [(method, image, layer, spearman(a, b), precision(a, b, n)) for layer, a, b, n in pairs]
    return pd.DataFrame(rows, columns=["method", "image", "layer", "spearman", "precision"])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of the ranks of two arrays [case]; equal values share their mean rank; 0 if one is constant.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 30.0, 20.0])), 2)
    0.5
    """
    first, second = (pd.Series(np.asarray(x)).rank().to_numpy() for x in (a, b))
    if not np.ptp(first) or not np.ptp(second):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def precision(true: np.ndarray, guess: np.ndarray, k: int) -> float:
    """Which share of the `k` highest of `true` [case] is among the `k` highest of `guess`.

    >>> precision(np.array([3.0, 2.0, 1.0, 0.0]), np.array([5.0, 0.0, 4.0, 1.0]), 2)
    0.5
    """
    best, chosen = (set(np.argsort(-x, kind="stable")[:k].tolist()) for x in (true, guess))
    return len(best & chosen) / min(k, len(true))


def mean_by(rows: pd.DataFrame, column: str, seed: int) -> dict[str, Estimate]:
    """The mean of a column over images by method, with its bootstrap interval over images."""
    return {name: bootstrap_mean(rows[rows["method"] == name][column], seed) for name in rows["method"].unique()}


def lead(rows: pd.DataFrame, column: str, first: str, second: str, seed: int) -> Estimate:
    """How much larger a column is for one method than for another on the same images."""
    wide = rows.pivot(index="image", columns="method", values=column)
    return bootstrap_mean(wide[first] - wide[second], seed)


def share_of_harm(measured: Effects, k: int = 100) -> np.ndarray:
    """Of the sum of all positive effects, how much the `k` largest have, float [image]."""
    flat = measured.exact.flatten(1).clamp(min=0)
    return (flat.topk(min(k, flat.shape[1]), dim=1).values.sum(1) / flat.sum(1)).double().numpy()
