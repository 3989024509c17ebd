r"""Which neurons made the model say a word (Schwettmann et al. 2023, section 2.1).

The attribution of unit $k$ at image patch $p$ to the token $c$ is its pre-activation times the gradient of the token's
logit, a first-order estimate of what setting $Z$ to zero would take away:

$$g_{k,c,p} = Z_p^k \, \frac{\partial y^c}{\partial Z_p^k} \qquad \text{(eq. 2)}$$

One forward and one backward pass give all units of all layers. Differs: eq. 2 has no index $p$, but Table S.1 ranks
(unit, patch) pairs, and so does `top_pairs`; `top_units` takes each unit once, at its best patch.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmn_utils.decoding import unembedding
from mmn_utils.metrics import first_noun
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import NeuronId, Positions, hooked, last_logits, mlp_layers, record

Objective = Literal["logit", "log_probability"]
HALF_SCALE = 1024.0
"""Gradients of a float16 model are computed this many times larger, so that the small ones are not lost."""


# --- what is attributed: the first noun ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """The first noun of a caption as the language model predicts it."""

    noun: str
    """Lower case, singular."""
    token: int
    """The noun's first token."""
    before: tuple[int, ...]
    """The caption's tokens before it."""


def first_noun_target(captioner: Captioner, caption: str, nouns: Collection[str]) -> Target | None:
    """Where the first of `nouns` stands in a caption (as `Captioner.complete` gives it); None if there is none.

    The caption is tokenised as what follows the prompt, one space between them.
    """
    words = re.finditer(r"\w[\w'’-]*", f" {caption}")
    found = next(((word, noun) for word in words if (noun := first_noun(word[0], nouns))), None)
    if found is None:
        return None
    word, noun = found
    coded = captioner.tokenizer(f" {caption}", add_special_tokens=False, return_offsets_mapping=True)
    place = next(i for i, (_, end) in enumerate(coded["offset_mapping"]) if end > word.start())
    ids = coded["input_ids"]
    return Target(noun=noun, token=ids[place], before=tuple(ids[:place]))


@dataclass(frozen=True)
class TargetBatch:
    """Images whose contexts are equally long, so that no padding changes what the model computes."""

    images: Tensor
    """int [row]: where each row stands in the sequence that was given."""
    embeddings: Tensor
    """float [row, position, d_model]: image prompts, text prompt, and the caption up to the noun."""
    tokens: Tensor
    """int [row]: the token to be predicted next."""


def target_batches(
    captioner: Captioner, prompts: Tensor, targets: Sequence[Target | None], *, batch_size: int = 16
) -> Iterator[TargetBatch]:
    """The contexts that predict the targets, in batches of one length; images without a target are left out.

    prompts: float [image, position, d_model], as `Captioner.prompt_embeddings` gives them.
    """
    lengths = sorted({len(target.before) for target in targets if target})
    embed = captioner.language_model.get_input_embeddings()
    for length in lengths:
        same = [i for i, target in enumerate(targets) if target and len(target.before) == length]
        for start in range(0, len(same), batch_size):
            images = torch.tensor(same[start : start + batch_size])
            chosen = [targets[i] for i in images.tolist()]
            before = torch.tensor([t.before for t in chosen], dtype=torch.long, device=embed.weight.device)
            with torch.no_grad():
                embeddings = torch.cat([prompts[images.to(prompts.device)], embed(before).to(prompts)], dim=1)
            yield TargetBatch(images, embeddings, torch.tensor([t.token for t in chosen], device=embeddings.device))


# --- scores ----------------------------------------------------------------------------------------------------------


def attribute(
    model: nn.Module,
    embeddings: Tensor,
    tokens: Tensor,
    *,
    positions: Positions = None,
    objective: Objective = "logit",
) -> Tensor:
    """Attribution of every unit at every position, float [image, layer, patch, unit] (at least float32).

    embeddings: float [image, position, d_model], up to the position that predicts `tokens` (int [image]).
    positions: the image prompts' (`slice(0, n_patches)`); None takes all. In gated MLPs, $Z$ is the gate's output.
    Unit: logits, or natural logarithms of probability. The model's parameters gather no gradient.

    Raises:
        ValueError: not one token for each image, or an unknown objective.
    """
    by_layer = attribution_by_layer(model, embeddings, tokens, positions=positions, objective=objective)
    return torch.stack([g.to(embeddings.device) for _, g in by_layer], dim=1)


def attribution_by_layer(
    model: nn.Module,
    embeddings: Tensor,
    tokens: Tensor,
    *,
    positions: Positions = None,
    objective: Objective = "logit",
) -> Iterator[tuple[int, Tensor]]:
    """The same, one layer at a time, float [image, patch, unit]: for models whose scores fill the memory together."""
    zs: dict[int, Tensor] = {}

    def follow(layer: int, z: Tensor, _start: int) -> Tensor:
        zs[layer] = z if z.requires_grad else z.detach().requires_grad_()
        return zs[layer]

    scale = HALF_SCALE if embeddings.dtype == torch.float16 else 1.0
    with torch.enable_grad(), hooked(model, follow, where="pre_activation"):
        y = scale * objective_values(last_logits(model, embeddings), tokens, objective).sum()
    gradients = list(torch.autograd.grad(y, list(zs.values())))
    picked = slice(None) if positions is None else positions
    for layer in list(zs):
        z, gradient = _wide(zs.pop(layer).detach()[:, picked]), _wide(gradients.pop(0)[:, picked])
        yield layer, z * gradient / scale if scale != 1 else z * gradient


def objective_values(logits: Tensor, tokens: Tensor, objective: Objective) -> Tensor:
    """What is explained: the tokens' logits or log-probabilities, float [row], from logits [row, token]."""
    if tokens.shape != logits.shape[:1]:
        raise ValueError(f"expected one token for each of {len(logits)} images, found tokens of {[*tokens.shape]}")
    if objective not in ("logit", "log_probability"):
        raise ValueError(f"objective: expected 'logit' or 'log_probability', found {objective!r}")
    logits = _wide(logits)
    values = logits if objective == "logit" else logits.log_softmax(-1)
    return values.gather(1, tokens.to(logits.device)[:, None])[:, 0]


# --- rankings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Neurons from the highest score down, each field [image, rank]."""

    layer: Tensor
    unit: Tensor
    patch: Tensor
    """Counted within the positions that were attributed; of several equal ones the first."""
    score: Tensor

    def neurons(self, image: int = 0) -> list[NeuronId]:
        """The neurons of one image in order; a ranking of pairs may name one several times."""
        return [NeuronId(*pair) for pair in zip(self.layer[image].tolist(), self.unit[image].tolist(), strict=True)]

    def flat(self, n_units: int) -> Tensor:
        """Units numbered through all layers (`layer * n_units + unit`), int [image, rank]."""
        return self.layer * n_units + self.unit


def top_pairs(g: Tensor, k: int = 100) -> Ranking:
    """The `k` highest (layer, unit, patch) of scores [image, layer, patch, unit], each image by itself.

    >>> ranking = top_pairs(torch.tensor([[[[1.0, 9.0], [3.0, 2.0]]]]), 2)
    >>> ranking.unit, ranking.patch
    (tensor([[1, 0]]), tensor([[0, 1]]))
    """
    _, n_patches, n_units = _check_scores(g)
    score, place = g.flatten(1).topk(min(k, g[0].numel()), dim=1)
    return Ranking(place // (n_patches * n_units), place % n_units, place // n_units % n_patches, score)


def top_units(g: Tensor, k: int = 100) -> Ranking:
    """The `k` highest distinct units of scores [image, layer, patch, unit]; a unit's score is its best patch's."""
    _, _, n_units = _check_scores(g)
    best, patches = g.max(dim=2)
    score, place = best.flatten(1).topk(min(k, best[0].numel()), dim=1)
    return Ranking(place // n_units, place % n_units, patches.flatten(1).gather(1, place), score)


def attribute_top(
    model: nn.Module,
    embeddings: Tensor,
    tokens: Tensor,
    *,
    k: int = 100,
    distinct: bool = False,
    positions: Positions = None,
    objective: Objective = "logit",
) -> Ranking:
    """`top_pairs` (or, if `distinct`, `top_units`) of `attribute`, never holding more than one layer's scores."""
    by_layer = attribution_by_layer(model, embeddings, tokens, positions=positions, objective=objective)
    return rank_layers(by_layer, ((top_units if distinct else top_pairs, k),))[0]


def rank_layers(
    by_layer: Iterable[tuple[int, Tensor]], rankings: Sequence[tuple[Callable[[Tensor, int], Ranking], int]]
) -> list[Ranking]:
    """Several rankings (`top_pairs` or `top_units`, and how many to keep) of what `attribution_by_layer` gives, in one
    go."""
    best: list[Ranking | None] = [None] * len(rankings)
    for layer, g in by_layer:
        best = [_merged(old, rank(g[:, None], k), layer, k) for old, (rank, k) in zip(best, rankings, strict=True)]
    return best


def _merged(best: Ranking | None, found: Ranking, layer: int, k: int) -> Ranking:
    """The `k` best of a ranking and of that of one more layer, on the first one's device."""
    found = Ranking(found.layer + layer, found.unit, found.patch, found.score)
    if best is None:
        return found
    names = ("layer", "unit", "patch", "score")
    both = {n: torch.cat([getattr(best, n), getattr(found, n).to(best.score.device)], dim=1) for n in names}
    order = both["score"].topk(min(k, both["score"].shape[1]), dim=1).indices
    return Ranking(**{n: values.gather(1, order) for n, values in both.items()})


# --- comparators -----------------------------------------------------------------------------------------------------


def integrated_gradients(
    model: nn.Module, embeddings: Tensor, tokens: Tensor, *, positions: Positions = None, n_steps: int = 16
) -> Tensor:
    r"""Integrated gradients of each layer from $Z = 0$ at `positions`, float [image, layer, patch, unit].

    $Z_p^k \int_0^1 \partial y^c / \partial Z_p^k (\alpha Z)\, d\alpha$ by Gauss and Legendre's rule, one layer at a
    time (Sundararajan et al. 2017). A layer's scores sum to what setting all its $Z$ at `positions` to zero takes from
    $y^c$.
    """
    with torch.no_grad(), record(model, where="pre_activation", positions=positions) as zs:
        last_logits(model, embeddings)
    steps, weights = _gauss_legendre(n_steps)
    scores = []
    for layer, z in enumerate(zs):
        gradients = (w * _gradient_at(model, embeddings, tokens, layer, positions, a) for a, w in zip(steps, weights))  # noqa: B905
        scores.append(_wide(z) * sum(gradients))
    return torch.stack(scores, dim=1)


def gradient_free(model: nn.Module, embeddings: Tensor, tokens: Tensor, *, positions: Positions = None) -> Tensor:
    """Activation times what the unit's output vector writes towards the token, float [image, layer, patch, unit].

    $a_p^k \\, (W_{out}^k \\cdot W_U^c)$: no gradient, and so no way through later layers (Pan et al. 2023, section 2).
    """
    with torch.no_grad(), record(model, positions=positions) as activations:
        last_logits(model, embeddings)
    rows = _wide(unembedding(model)[0][tokens])
    towards = [rows.to(mlp.w_out.weight.device) @ _wide(mlp.directions).T for mlp in mlp_layers(model)]
    scores = [_wide(a) * t[:, None] for a, t in zip(activations, towards, strict=True)]
    return torch.stack([s.to(embeddings.device) for s in scores], dim=1)


def _gradient_at(
    model: nn.Module, embeddings: Tensor, tokens: Tensor, layer: int, positions: Positions, alpha: float
) -> Tensor:
    """The gradient where one layer's Z is `alpha` times what it would be, float [image, patch, unit]."""
    picked = slice(None) if positions is None else positions
    scaled: list[Tensor] = []

    def scale(_layer: int, z: Tensor, _start: int) -> Tensor:
        z = z.detach().clone()
        z[:, picked] *= alpha
        scaled.append(z.requires_grad_())
        return z

    with torch.enable_grad(), hooked(model, scale, where="pre_activation", layers=[mlp_layers(model)[layer]]):
        y = objective_values(last_logits(model, embeddings), tokens, "logit").sum()
    return _wide(torch.autograd.grad(y, scaled)[0][:, picked])


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Points in (0, 1) and weights that sum to 1."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(n)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


def _wide(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _check_scores(g: Tensor) -> tuple[int, int, int]:
    if g.ndim != 4:
        raise ValueError(f"expected scores [image, layer, patch, unit], found {[*g.shape]}")
    return g.shape[1], g.shape[2], g.shape[3]
