"""What neurons cause: the word's probability and the caption without them (Schwettmann et al. 2023, 3.3 and S.5).

To ablate a unit is to hold its activation at zero. Many sets of units for one input go through the model together, each
set a row of a batch; a row begins at the first layer where it differs from the original, so that nothing below is
computed twice. `unit_effects` does the same with every single unit: the truth that attribution estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import Positions, ablate
from mmn_utils.replay import Replay

SIZES = (0, 50, 100, 200, 400, 800, 1600, 3200, 6400)
"""The paper's numbers of ablated units, 6400 of them 1.4 % of GPT-J's 458,752."""


def sizes_for(n_units: int) -> tuple[int, ...]:
    """The paper's sizes as the same shares of a model with `n_units` units in all.

    >>> sizes_for(4608)
    (0, 1, 2, 4, 8, 16, 32, 64)
    """
    shares = (size / 458_752 for size in SIZES)
    return tuple(sorted({round(share * n_units) for share in shares}))


def conditions(
    top: Tensor,
    interpretable: Tensor,
    sizes: Sequence[int],
    *,
    shape: tuple[int, int],
    generator: torch.Generator,
    leave_out_top: bool = True,
) -> dict[str, Tensor]:
    """Which units to ablate in the paper's three conditions, each bool [size, layer, unit].

    "top": the first of `top` (units from the highest attribution down, numbered `layer * n_units + unit`);
    "interpretable": the first of `interpretable`, the same ranking without the others; "random": as many in each layer
    as "top" has there, and none that is in it, unless `leave_out_top` is false. shape: layers, and units in each.

    Raises:
        ValueError: fewer units than a size asks for, or more than half of a layer to be matched at random.
    """
    chosen = torch.stack([first_units(top, size, shape) for size in sizes])
    shown = torch.stack([first_units(interpretable, size, shape, kind="interpretable") for size in sizes])
    order = torch.rand(shape, generator=generator)
    random = torch.stack([_same_layers(one, order, leave_out=leave_out_top) for one in chosen])
    return {"top": chosen, "interpretable": shown, "random": random}


def ablated_logits(
    model: nn.Module, embeddings: Tensor, masks: Tensor, *, positions: Positions = None, batch_size: int = 8
) -> Tensor:
    """What the model predicts after one input with each set of units ablated, logits [..., token].

    embeddings: float [1, position, d_model]; masks: bool [..., layer, unit]; `positions` None ablates everywhere.
    A set that occurs twice is computed once, and an empty one is the model's own prediction, bit for bit. Small batches
    suit a CPU's caches; a GPU wants more.
    """
    replay = Replay(model, embeddings, positions=positions)
    rows, places = _distinct(masks.flatten(0, -3))
    logits = torch.cat([replay_ablated(replay, part) for part in rows.split(batch_size)])
    return logits[places].unflatten(0, masks.shape[:-2])


@torch.no_grad()
def replay_ablated(replay: Replay, masks: Tensor) -> Tensor:
    """`ablated_logits` of one batch: logits [row, token] for masks [row, layer, unit]."""
    masks = masks.to(replay.logits.device)
    touched = masks.any(-1)
    first = torch.where(touched.any(1), touched.int().argmax(1), replay.n_layers)
    logits = replay.logits.repeat(len(masks), 1)
    order = first.argsort(stable=True)
    starts = torch.searchsorted(first[order].contiguous(), torch.arange(replay.n_layers + 1, device=order.device))
    hidden = None
    for layer in range(replay.n_layers):
        running, new = order[: starts[layer]], order[starts[layer] : starts[layer + 1]]
        last = layer == replay.n_layers - 1
        parts = [] if hidden is None else [replay.layer(layer, hidden, masks[running, layer], last_only=last)]
        parts += [replay.after_ablation(layer, masks[new, layer])] if len(new) else []
        hidden = torch.cat(parts) if parts else None
    if hidden is not None:
        logits[order[: len(hidden)]] = replay.head(hidden[:, -1])
    return logits


def probability_curve(
    model: nn.Module,
    embeddings: Tensor,
    token: int,
    masks: dict[str, Tensor],
    *,
    positions: Positions = None,
    batch_size: int = 8,
) -> dict[str, Tensor]:
    """The token's probability by condition, float [size], for masks as `conditions` gives them."""
    together = torch.cat(list(masks.values()))
    logits = ablated_logits(model, embeddings, together, positions=positions, batch_size=batch_size)
    probability = logits.float().softmax(-1)[:, token]
    return dict(zip(masks, probability.split([len(m) for m in masks.values()]), strict=True))


def ablated_captions(
    captioner: Captioner,
    embeddings: Tensor,
    masks: Tensor,
    *,
    positions: Positions = None,
    batch_size: int = 32,
    max_new_tokens: int = 16,
) -> list[str]:
    """The greedy caption of one input [1, position, d_model] with each set of units ablated, masks [row, layer, unit].

    `positions` None also ablates at the tokens that are generated.
    """
    rows, places = _distinct(masks)
    captions: list[str] = []
    for part in rows.split(batch_size):
        with ablate(captioner.language_model, part, positions=positions):
            repeated = embeddings.expand(len(part), -1, -1)
            captions += captioner.complete(repeated, max_new_tokens=max_new_tokens)
    return [captions[i] for i in places.tolist()]


@dataclass(frozen=True)
class UnitEffects:
    """What ablating each unit alone takes from a token, float [layer, unit]; positive where the unit helped."""

    logit: Tensor
    log_probability: Tensor
    probability: Tensor


def unit_effects(
    model: nn.Module,
    embeddings: Tensor,
    token: int,
    *,
    positions: Positions = None,
    layers: Sequence[int] | None = None,
    units: Tensor | None = None,
    batch_size: int = 8,
) -> UnitEffects:
    """The exact effect of every unit of `layers` (None: all), one forward pass each from its layer up.

    embeddings: float [1, position, d_model], up to the position that predicts the token. units: int [unit], of each
    layer only these, in this order; None takes all.
    """
    replay = Replay(model, embeddings, positions=positions)
    layers = range(replay.n_layers) if layers is None else layers
    ablated = torch.stack([_single_units(replay, layer, token, units, batch_size) for layer in layers])
    before = _readings(replay.logits[None], token)
    return UnitEffects(*(before - ablated).unbind(-1))


def _single_units(replay: Replay, layer: int, token: int, units: Tensor | None, batch_size: int) -> Tensor:
    """Readings [unit, reading] with each unit of a layer ablated alone."""
    n_units = replay.mlps[layer].n_units
    units = torch.arange(n_units) if units is None else units.cpu()
    readings = []
    for part in units.split(batch_size):
        masks = torch.zeros(len(part), replay.n_layers, n_units, dtype=torch.bool)
        masks[torch.arange(len(part)), layer, part] = True
        readings.append(_readings(replay_ablated(replay, masks), token))
    return torch.cat(readings)


def _readings(logits: Tensor, token: int) -> Tensor:
    """Logit, log-probability and probability of the token, float [row, 3], from logits [row, token]."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logs = logits.log_softmax(-1)[:, token]
    return torch.stack([logits[:, token], logs, logs.exp()], dim=-1)


def first_units(ranking: Tensor, size: int, shape: tuple[int, int], *, kind: str = "ranked") -> Tensor:
    """The first units of a ranking (numbered `layer * n_units + unit`), bool [layer, unit] of the shape given.

    >>> first_units(torch.tensor([3, 0, 1]), 2, (2, 2))
    tensor([[ True, False],
            [False,  True]])
    """
    if size > len(ranking):
        raise ValueError(f"expected at least {size} {kind} units, found {len(ranking)}; ablate fewer, or rank more")
    return torch.zeros(shape, dtype=torch.bool).flatten().index_fill(0, ranking[:size].cpu(), True).view(shape)


def _same_layers(chosen: Tensor, order: Tensor, *, leave_out: bool) -> Tensor:
    """As many units in each layer as `chosen` [layer, unit] has there, and none of them, the lowest in `order`."""
    counts = chosen.sum(1)
    if leave_out and (2 * counts > chosen.shape[1]).any():
        raise ValueError(
            f"cannot match {int(counts.max())} of {chosen.shape[1]} units of a layer with others at random"
        )
    order = order.masked_fill(chosen, 2.0) if leave_out else order
    return order.argsort(1).argsort(1) < counts[:, None]


def _distinct(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of masks [row, layer, unit], in order, and where each row is among them."""
    keys = [row.numpy().tobytes() for row in masks.cpu()]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    places = torch.tensor([numbers[key] for key in keys])
    firsts = [keys.index(key) for key in numbers]
    return masks[firsts], places
