r"""Facets: one neuron seen as photo, drawing or text (Goh et al. 2021, "Faceted feature visualization").

A facet is a linear probe $w$ that tells images of a theme from others by the features $g$ of stage 3. The image then
maximises $f(g) + s \, w^T (g \odot \mathrm{ReLU}(\nabla_g f))$, the gradient taken as a constant: of what the theme
asks for, only what also helps the neuron. The plain $f + s \, w^T g$ lacks that gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from mmn_utils.clip_neurons import Recording, forward, frozen, normalised, pre_relu, tower
from mmn_utils.feature_visualization import Objective, gradients

N_LAYERS = 5
"""How many blocks of stage 3 the authors probe."""


@dataclass(frozen=True)
class Facet:
    """Linear probes for one theme, one a layer."""

    weights: dict[str, Tensor]
    """float [channel, y, x] by layer, for the features as they are."""
    biases: dict[str, float]
    """By layer."""

    def log_odds(self, features: dict[str, Tensor]) -> Tensor:
        """That images show the theme, the mean over the layers, float [image]."""
        odds = [(features[name] * w).sum((1, 2, 3)) + self.biases[name] for name, w in self.weights.items()]
        return torch.stack(odds).mean(0)


def probe_layers(model: nn.Module) -> list[str]:
    """Five blocks of stage 3 at even distances (0, 2, 4, 6, 8 in RN50x4), or all of them where there are fewer."""
    n = len(tower(model).layer3)
    k = min(N_LAYERS, n)
    return [f"layer3.{i * n // k}" for i in range(k)]


@torch.no_grad()
def features(model: nn.Module, images: Tensor, *, batch_size: int = 64) -> dict[str, Tensor]:
    """Outputs of the probed blocks after their ReLU, float32 [image, channel, y, x] by layer, on the CPU.

    images: float [image, RGB, y, x], normalised as for `model.encode_image`.
    """
    names, found = probe_layers(model), []
    with frozen(model), pre_relu(model, layers=names) as kept:
        for batch in images.split(batch_size):
            forward(tower(model), batch.to(tower(model).conv1.weight))
            found.append({name: kept.layers[name].float().cpu() for name in names})
    return {name: torch.cat([part[name] for part in found]) for name in names}


def learn(theme: dict[str, Tensor], others: dict[str, Tensor], *, inverse_penalty: float = 1e-3) -> Facet:
    """Logistic regression at each layer: is it of the theme? Both kinds count the same, whatever their numbers.

    theme, others: `features` of the two kinds of images. inverse_penalty: scikit-learn's C, for features of mean square
    1. Solver, penalty and numbers of images are not published; these are ours.
    """
    weights, biases = {}, {}
    for name in theme:
        x = torch.cat([theme[name], others[name]])
        y = [1] * len(theme[name]) + [0] * len(others[name])
        size = x.square().mean().sqrt().item()
        probe = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=1000)
        probe.fit((x / size).flatten(1).numpy(), y)
        weights[name] = torch.tensor(probe.coef_ / size, dtype=torch.float32).view(x.shape[1:])
        biases[name] = float(probe.intercept_[0])
    return Facet(weights, biases)


def learn_each(seen: dict[str, dict[str, Tensor]]) -> dict[str, Facet]:
    """A facet for each theme, told from all other themes together. seen: `features` of each theme's images."""
    others = {
        theme: {name: torch.cat([seen[other][name] for other in seen if other != theme]) for name in own}
        for theme, own in seen.items()
    }
    return {theme: learn(own, others[theme]) for theme, own in seen.items()}


def log_odds(model: nn.Module, probes: dict[str, Facet], images: Tensor) -> Tensor:
    """Of each theme, float [image, theme]; images: pixels, float [image, RGB, y, x] in [0, 1]."""
    found = features(model, normalised(images, model))
    return torch.stack([probe.log_odds(found) for probe in probes.values()], dim=1)


def strengths(n_images: int = 9) -> Tensor:
    """The released recipe's ramp over a batch, from 0.1 to 5; shown strengths are most likely its places."""
    return torch.linspace(0.1, 5.0, n_images)


def faceted(objective: Objective, facets: Sequence[Facet], strength: Tensor, *, gated: bool = True) -> Objective:
    r"""`objective` with each image drawn towards a facet of its own, float [image] times as strongly.

    A layer adds $s \sum w \, g \, \mathrm{ReLU}(\nabla_g f)$, where $w$ has mean square 1 and the size of the grid of
    $g$; with fewer layers than five, each counts for more. gated: whether the gradient's factor is there.

    Raises:
        ValueError: not one facet and one strength for each image of the objective.
    """
    if not len(facets) == len(strength) == objective.n_images:
        found = f"{len(facets)} facets and {len(strength)} strengths"
        raise ValueError(f"expected a facet and a strength for each of {objective.n_images} images, found {found}")
    weights = {name: torch.stack([_unit(facet.weights[name]) for facet in facets]) for name in facets[0].weights}

    def score(kept: Recording) -> Tensor:
        value, g = objective.score(kept), [kept.layers[name] for name in weights]
        gates = [gradient.relu() for gradient in gradients(value, g)] if gated else [1.0] * len(g)
        terms = [
            (_resized(w.to(features), features) * features * gate).sum((1, 2, 3))
            for w, features, gate in zip(weights.values(), g, gates, strict=True)
        ]
        return value + N_LAYERS / len(terms) * strength.to(value) * torch.stack(terms).sum(0)

    return Objective(score, objective.n_images, tuple({*objective.layers, *weights}))


def _unit(weight: Tensor) -> Tensor:
    return weight / weight.square().mean().sqrt()


def _resized(weights: Tensor, like: Tensor) -> Tensor:
    """[image, channel, y, x] on the grid of `like`, for images of another size than the probe's."""
    if weights.shape[2:] == like.shape[2:]:
        return weights
    return F.interpolate(weights, size=like.shape[2:], mode="bilinear", align_corners=False)
