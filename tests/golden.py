"""What the paper prints and weights alone must reproduce (Schwettmann et al. 2023, Fig. 1, Tables S.1 and S.3).

Printed, and so firm: the tokens, in order, and the scores to two digits. Not said, and so to be found out: whether
layers count from 0 or 1; whether the output vector goes through the last norm and the unembedding's bias; which BERT.
"""

import re
from itertools import product

import numpy as np
import torch
from torch import nn

from mmn_utils.decoding import last_norm, unembedding
from mmn_utils.neurons import mlp_layers

DECODED = """
14.2019 horses racing ponies ridden
12.9058 swimming Swim swim fishes water
7.15772 animals embryos kittens mammals eggs
5.4923 birds cages species breeding insects
7.12134 aircraft flight airplanes Flight Aircraft
8.2012 whales turtles whale birds fishes
8.15435 tennis tournaments tournament golf racing
5.9667 workouts workout Training trainer exercises
6.14388 march treadmill Championships racing marathon
8.14504 upstairs homeowners apartments houses apartment
13.15107 meals meal dinner dishes cuisine
8.13681 sandwiches foods salad sauce pizza
5.13680 driver drivers cars 'heading' 'cars'
8.562 vehicles vehicle cars 'veh' Vehicles
13.5734 Chevrolet Motorsport cars automotive vehicle
7.3273 'ride' riders rides ridden rider
17.10507 rivers river lake lakes River
7.3138 basin ocean islands valleys mountains
6.5868 'water' water waters river River
9.15864 'lihood' '/**' 'Advertisements' '.".' '\"\"\"'
10.927 'onds' 'rog' 'lys' 'arrow' 'ond'
"""
"""Layer.unit and its first tokens; in quotes those without a leading space. The first is Fig. 1's, four tokens as
printed; all others Table S.1's. Of the last two, which are no words, quotes say nothing of the space."""

PAIRS = {
    "a dog with a cat": {
        "a dog and a cat": 0.83, "a dog and cat": 0.80, "a lion and a zebra": 0.71, "a lion and a lioness": 0.64,
        "a tiger and a tiger": 0.63, "a tiger": 0.67, "a tiger in the jungle": 0.60,
    },
    "the facade of the cathedral": {
        "the facade of the church": 0.93, "the exterior of the church": 0.80, "the facade": 0.75, "the dome": 0.65,
        "the exterior": 0.61,
    },
    "a man surfing on a wave": {
        "a man surfing a wave": 0.94, "a surfer riding a wave": 0.84, "a man in a kayak on a lake": 0.74,
        "a girl in a red dress": 0.53,
    },
    "a man and his horse.": {"the soldiers on the road": 0.47, "the soldiers": 0.46},
    "the bridge at night": {"the street at night": 0.82, "the bridge": 0.70, "the night": 0.61, "the street": 0.55},
}  # fmt: skip
"""BERTScore F1 by reference and candidate, Table S.3."""

WAYS = {"plain": (False, False), "last norm": (True, False), "last norm and bias": (True, True)}
READINGS = list(product((0, 1), WAYS))
"""What the first layer is called, and how a unit's output vector becomes logits."""
OURS = (0, "plain")
"""The book's."""


def decoded() -> dict[tuple[int, int], list[str]]:
    """The printed tokens by layer and unit."""
    rows = [line.split() for line in DECODED.strip().splitlines()]
    return {tuple(map(int, name.split("."))): tokens for name, *tokens in rows}


@torch.no_grad()
def first_tokens(
    model: nn.Module, tokenizer: object, layer: int, unit: int, *, way: str = "plain", n: int = 5
) -> list[str]:
    """The first tokens of one unit, layers counted from 0, by a plain product."""
    norm, bias = WAYS[way]
    weight, offset = (part if part is None else part[: len(tokenizer)] for part in unembedding(model))
    vector = mlp_layers(model)[layer].directions[unit].to(weight)
    vector = last_norm(model)(vector) if norm else vector
    logits = weight @ vector if not bias or offset is None else weight @ vector + offset
    return [tokenizer.decode([i]) for i in logits.topk(n).indices.tolist()]


def agrees(printed: str, token: str) -> bool:
    """Whether a token is the printed one: in quotes, without a leading space (words only); else whatever spaces."""
    bare = printed.strip("'") if len(printed) > 1 else printed
    is_word = re.fullmatch(r"[A-Za-z]+", bare) is not None
    return token == bare if printed.startswith("'") and is_word else token.strip() == bare


def share_in_place(printed: list[str], tokens: list[str]) -> float:
    """How many of the printed tokens stand in their places."""
    return float(np.mean([agrees(p, t) for p, t in zip(printed, tokens, strict=False)]))


def by_reading(model: nn.Module, tokenizer: object, expected: dict[tuple[int, int], list[str]]) -> dict[tuple, float]:
    """For each reading, the share of all printed tokens that stand in their places."""
    shares = {}
    for first, way in READINGS:
        rows = [
            share_in_place(printed, first_tokens(model, tokenizer, layer - first, unit, way=way, n=len(printed)))
            for (layer, unit), printed in expected.items()
        ]
        shares[first, way] = float(np.mean(rows))
    return shares
