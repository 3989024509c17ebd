r"""What a neuron says: the tokens that its output vector writes towards (Schwettmann et al. 2023, section 2.2).

A unit adds its column of $W_{out}$ to the residual stream; decoded through the unembedding, $W_U W_{out}^k$ ranks all
tokens, and the ten highest are the unit's text. Decoding every unit is one large matrix product, done tile by tile with
a running top-k, so that units x vocabulary is never in memory at once.
"""

import lzma
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from mmn_utils.neurons import mlp_layers

WORDS = Path(__file__).parent / "sources" / "words.txt.xz"
FINAL_NORMS = ("ln_f", "final_layer_norm", "norm", "norm_f")


@dataclass(frozen=True)
class DecodedUnits:
    """The tokens that every unit writes towards, highest logit first."""

    ids: Tensor
    """int [layer, unit, rank]"""
    logits: Tensor
    """float [layer, unit, rank]: for the sign "-" those of the reversed output vector."""

    def tokens(self, tokenizer: object, layer: int, unit: int) -> list[str]:
        """The texts of one unit's tokens, spaces included."""
        return [tokenizer.decode([i]) for i in self.ids[layer, unit].tolist()]


@torch.no_grad()
def decode_units(
    model: nn.Module,
    *,
    top_k: int = 10,
    sign: str = "+",
    final_norm: bool = False,
    bias: bool = False,
    n_tokens: int | None = None,
    units_at_once: int = 1024,
    tokens_at_once: int = 8192,
) -> DecodedUnits:
    """Decode the output vector of every unit of every layer.

    sign: "+" what the unit promotes when active, "-" what it holds down (or promotes when its activation is negative).
    final_norm, bias: pass the vector through the model's last layer norm, add the unembedding's bias. The paper's
    formula has neither. n_tokens: leave out the rows after it, which pad the unembedding; None keeps all.

    Raises:
        ValueError: the sign is neither "+" nor "-".
    """
    if sign not in ("+", "-"):
        raise ValueError(f"sign: expected '+' or '-', found {sign!r}")
    weight, offset = unembedding(model)
    weight = weight[:n_tokens]
    added = offset[:n_tokens] if bias and offset is not None else None
    norm = last_norm(model) if final_norm else nn.Identity()
    found = []
    for mlp in mlp_layers(model):
        parts = (part if sign == "+" else -part for part in mlp.directions.split(units_at_once))
        parts = (norm(part.to(weight)) for part in parts)
        tops = [_running_top(part, weight, added, top_k, tokens_at_once) for part in parts]
        found.append([torch.cat(column) for column in zip(*tops, strict=True)])
    logits, ids = (torch.stack(column) for column in zip(*found, strict=True))
    return DecodedUnits(ids=ids, logits=logits)


def unembedding(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """What turns the last residual stream into logits: float [token, d_model], and its bias [token] or None.

    Where a model shrinks the stream before the unembedding (small OPTs), the two maps are multiplied.
    """
    head = model.get_output_embeddings()
    shrink = getattr(model.get_decoder(), "project_out", None)
    weight = head.weight.detach()
    bias = getattr(head, "bias", None)
    weight = weight if shrink is None else weight @ shrink.weight.detach()
    return weight, None if bias is None else bias.detach()


def last_norm(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer norm between the last residual stream and the unembedding.

    Raises:
        ValueError: the model has none that goes by a known name.
    """
    children = dict(model.get_decoder().named_children())
    for name in FINAL_NORMS:
        if children.get(name) is not None:
            return children[name]
    raise ValueError(f"no last layer norm in {type(model).__name__}: looked for {', '.join(FINAL_NORMS)}")


def _running_top(
    vectors: Tensor, weight: Tensor, bias: Tensor | None, k: int, tokens_at_once: int
) -> tuple[Tensor, Tensor]:
    """The top `k` logits and ids of vectors [unit, d_model], over the vocabulary in pieces."""
    best, best_ids = None, None
    for start in range(0, len(weight), tokens_at_once):
        rows = slice(start, start + tokens_at_once)
        logits = vectors @ weight[rows].T
        logits = (logits if bias is None else logits + bias[rows]).float()
        values, ids = logits.topk(min(k, logits.shape[1]), dim=1)
        ids = ids + start
        if best is not None:
            values, ids = torch.cat([best, values], dim=1), torch.cat([best_ids, ids], dim=1)
            values, order = values.topk(min(k, values.shape[1]), dim=1)
            ids = ids.gather(1, order)
        best, best_ids = values, ids
    return best, best_ids


# --- the interpretability filter -------------------------------------------------------------------------------------


@cache
def english_words() -> frozenset[str]:
    """Words of three letters or more, lower case: the union of SCOWL's American and British lists.

    As Debian packages them (`wamerican`, `wbritish` 2020.12.07: the default size, SCOWL's levels 10 to 50),
    without possessives and words that are not all letters.
    """
    with lzma.open(WORDS, "rt", encoding="utf-8") as file:
        return frozenset(file.read().split())


def is_interpretable(tokens: Sequence[str], words: Collection[str] | None = None, *, needed: int = 7) -> bool:
    """Whether at least `needed` of a unit's tokens are words of three letters or more (supplement S.2: 7 of 10).

    Case and surrounding spaces do not count; the paper does not say how it treats them. None: `english_words()`.

    >>> is_interpretable([" horses", " racing", "lihood"], needed=2)
    True
    """
    words = english_words() if words is None else words
    return sum(is_word(token, words) for token in tokens) >= needed


def is_word(token: str, words: Collection[str]) -> bool:
    """Whether a token's text is a word of three letters or more."""
    text = token.strip().lower()
    return len(text) >= 3 and text.isalpha() and text in words


def interpretable_units(ids: Tensor, tokenizer: object, words: Collection[str] | None = None) -> Tensor:
    """`is_interpretable` for decoded ids [layer, unit, rank], of which each unit's first ten count: bool [layer, unit].

    With fewer than ten ranks, the same share (7 in 10) is asked for.
    """
    words = english_words() if words is None else words
    used, places = ids[..., :10].unique(return_inverse=True)
    flags = torch.tensor([is_word(tokenizer.decode([i]), words) for i in used.tolist()], device=ids.device)
    return flags[places].sum(-1) * 10 >= 7 * places.shape[-1]
