"""A classifier of sentence pairs on top of a sentence encoder (Acquaviva & Hensgen, section 2; Bowman et al. 2015).

From vectors $u$ of the premise and $v$ of the hypothesis, $[u; v; u - v; u * v]$ goes through batch norm, dropout, one
hidden layer with a ReLU, dropout, and a linear layer to three classes. The hidden units are the neurons of Part III.
Sentences are numbered, so that an encoder is a table of vectors computed once (CLIP's text tower, frozen) or a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from mmn_utils.models.clip import Clip

DROPOUT = 0.1


@dataclass(frozen=True)
class Numbered:
    """Sentences, each once, and the pairs of their numbers."""

    sentences: list[str]
    pairs: list[np.ndarray]
    """For each set of pairs, int [pair, 2]: premise, hypothesis."""


def numbered(*sets: tuple[Sequence[str], Sequence[str]]) -> Numbered:
    """Number the distinct sentences of several sets of (premises, hypotheses).

    >>> numbered((["a dog"], ["a dog"]), (["a cat"], ["a dog"])).pairs[1].tolist()
    [[0, 1]]
    """
    sentences = sorted({s for side in sets for part in side for s in part})
    number = {s: k for k, s in enumerate(sentences)}
    return Numbered(sentences, [np.array([[number[s] for s in part] for part in both]).T for both in sets])


@torch.no_grad()
def clip_vectors(clip: Clip, sentences: Sequence[str], *, batch_size: int = 512) -> Tensor:
    """What the text tower makes of each sentence: float [sentence, d_joint]; projected, not of unit length."""
    batches = [list(sentences[i : i + batch_size]) for i in range(0, len(sentences), batch_size)]
    return torch.cat([clip.model.encode_text(clip.tokenizer(batch).to(clip.device)).cpu() for batch in batches])


class LastState(nn.Module):
    """One LSTM layer over words learned from nothing: the state after a sentence's last word."""

    def __init__(self, sentences: Sequence[str], words: Sequence[str], *, d_word: int, d_state: int) -> None:
        """words: those that are known; all others are one and the same."""
        super().__init__()
        number = {word: k for k, word in enumerate(words, start=2)}
        self.tokens = [torch.tensor([number.get(w, 1) for w in s.split()]) for s in sentences]
        self.embedding = nn.Embedding(len(words) + 2, d_word, padding_idx=0)
        self.lstm = nn.LSTM(d_word, d_state, batch_first=True)

    def forward(self, numbers: Tensor) -> Tensor:
        """Vectors of sentences by number, float [sentence, d_state]."""
        rows = [self.tokens[k] for k in numbers.tolist()]
        lengths = torch.tensor([len(row) for row in rows])
        embedded = self.embedding(pad_sequence(rows, batch_first=True))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][0]


class Classifier(nn.Module):
    """Encoder and head; the classes are `mmn_utils.data.pairs.LABELS`."""

    def __init__(self, encoder: nn.Module, d: int, *, n_neurons: int) -> None:
        """encoder: makes float [sentence, d] of numbers int [sentence]."""
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Sequential(nn.BatchNorm1d(4 * d), nn.Dropout(DROPOUT), nn.Linear(4 * d, n_neurons), nn.ReLU())
        self.out = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(n_neurons, 3))

    def neurons(self, pairs: Tensor) -> Tensor:
        """Hidden units, float [pair, neuron], of numbers int [pair, 2]."""
        u, v = self.encoder(pairs.T.reshape(-1)).chunk(2)
        return self.hidden(torch.cat([u, v, u - v, u * v], dim=1))

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits, float [pair, class]."""
        return self.out(self.neurons(pairs))


def on_vectors(vectors: Tensor, *, n_neurons: int, seed: int) -> Classifier:
    """Untrained, on vectors float [sentence, d] that stay as they are."""
    table = nn.Embedding(*vectors.shape)
    table.weight = nn.Parameter(vectors, requires_grad=False)
    torch.manual_seed(seed)
    return Classifier(table, vectors.shape[1], n_neurons=n_neurons)


def head_table(model: Classifier) -> pd.DataFrame:
    """All that a classifier has but its encoder, to be kept: one row a number, with `name` and `value`."""
    parts = {name: part for name, part in model.state_dict().items() if not name.startswith("encoder.")}
    names = np.repeat([*parts], [part.numel() for part in parts.values()])
    values = np.concatenate([part.float().numpy().ravel() for part in parts.values()])
    return pd.DataFrame({"name": pd.Categorical(names, [*parts]), "value": values})


def with_head(vectors: Tensor, table: pd.DataFrame) -> Classifier:
    """The classifier that `head_table` kept, on vectors float [sentence, d] of other sentences, in evaluation mode.

    Raises:
        ValueError: the head is of vectors of another length.
    """
    kept = {name: own.to_numpy() for name, own in table.groupby("name", observed=True).value}
    model = on_vectors(vectors, n_neurons=len(kept["hidden.2.bias"]), seed=0)
    parts = {name: part for name, part in model.state_dict().items() if not name.startswith("encoder.")}
    if kept["hidden.0.weight"].size != parts["hidden.0.weight"].numel():
        d = kept["hidden.0.weight"].size // 4
        raise ValueError(f"expected vectors of {d} entries, as the head was trained on, found {vectors.shape[1]}")
    state = {name: torch.tensor(kept[name]).reshape(part.shape).to(part.dtype) for name, part in parts.items()}
    model.load_state_dict(state, strict=False)
    return model.eval()


def on_words(
    sentences: Sequence[str], words: Sequence[str], *, d_word: int, d_state: int, n_neurons: int, seed: int
) -> Classifier:
    """Untrained, on an LSTM that learns with it; see `LastState`."""
    torch.manual_seed(seed)
    return Classifier(LastState(sentences, words, d_word=d_word, d_state=d_state), d_state, n_neurons=n_neurons)


def fit(
    model: Classifier, pairs: np.ndarray, labels: np.ndarray, *, n_epochs: int, seed: int, batch_size: int = 100
) -> Classifier:
    """Train by cross-entropy with Adam at its own rate, on pairs int [pair, 2]; gives the model back, in evaluation
    mode.

    Differs from the published code: the last epoch counts (no choice by held-out accuracy), and what is analysed later
    is the network in evaluation mode; there, dropout and the batches' own statistics went into the activations.
    """
    torch.manual_seed(seed)  # dropout draws from torch's own generator, as the order does
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    pairs, labels = torch.from_numpy(pairs), torch.from_numpy(labels)
    model.train()
    for _ in range(n_epochs):
        order = torch.randperm(len(pairs))
        for some in order[: len(order) // batch_size * batch_size].split(batch_size):
            optimiser.zero_grad()
            F.cross_entropy(model(pairs[some]), labels[some]).backward()
            optimiser.step()
    return model.eval()


@torch.no_grad()
def run(model: Classifier, pairs: np.ndarray, *, batch_size: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """The class given to each pair, int [pair], and the neurons' activations, float [pair, neuron].

    Raises:
        ValueError: the model is in training mode, in which it is another network for every batch.
    """
    if model.training:
        raise ValueError("expected a model in evaluation mode, found training mode: call its eval() first")
    starts = range(0, len(pairs) + batch_size, batch_size)
    parts = [model.neurons(torch.from_numpy(pairs[i:j])) for i, j in pairwise(starts) if i < len(pairs)]
    hidden = torch.cat(parts)
    return model.out(hidden).argmax(1).numpy(), hidden.numpy()
