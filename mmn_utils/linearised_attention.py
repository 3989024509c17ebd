r"""From neurons to words in one matrix: CLIP's attention pool without its attention (Goh et al. 2021).

The pool attends with the average place as its query. If every place says the same $x$, attention has nothing to choose
between, and the pool is affine: $F(x) = W_o (W_v x + b_v) + b_o$. So the part of a picture's score for a text that
depends on the neurons is a bilinear form, $x^\top W t$ with $W = (W_o W_v)^\top$, and $a(t) = W \hat t$ says what each
neuron adds to it.

Differs: the paper calls the pool affine on constant maps. A learnt positional embedding is added before keys and values
are taken, so it is so only where that embedding is zero; `relative_error` measures the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


def bilinear(pool: nn.Module) -> Tensor:
    """W of an open_clip `AttentionPool2d`, float [neuron, d_joint]."""
    return (pool.c_proj.weight @ pool.v_proj.weight).T


@torch.no_grad()
def attributions(pool: nn.Module, texts: Tensor) -> np.ndarray:
    """What one unit of each neuron adds to a text's score, before the picture's own length is divided out.

    texts: unit vectors, float [text, d_joint]. Gives float32 [text, neuron].
    """
    return (texts @ bilinear(pool).T).cpu().numpy()


@contextmanager
def without_positions(pool: nn.Module) -> Iterator[None]:
    """The positional embedding is zero while the block lasts."""
    kept = pool.positional_embedding.data
    try:
        pool.positional_embedding.data = torch.zeros_like(kept)
        yield
    finally:
        pool.positional_embedding.data = kept


def constant(maps: Tensor) -> Tensor:
    """Every place says what the places say on average; maps float [image, neuron, y, x]."""
    return maps.mean((2, 3), keepdim=True).expand_as(maps)


@torch.no_grad()
def relative_error(pool: nn.Module, maps: Tensor) -> np.ndarray:
    r"""How far the pool is from affine on each image: $|F(x) - W^\top \bar x - c| / |F(x)|$, float [image].

    maps: the pool's input, after the ReLU, float [image, neuron, y, x]. The constant $c$ is the one that fits these
    images best, their mean residual: the claim holds up to a constant.
    """
    exact, linear = pool(maps), maps.mean((2, 3)) @ bilinear(pool)
    rest = exact - linear
    return ((rest - rest.mean(0)).norm(dim=1) / exact.norm(dim=1)).cpu().numpy()


@torch.no_grad()
def agreement(pool: nn.Module, maps: Tensor, texts: Tensor) -> np.ndarray:
    r"""Correlation over images between each text's true score and $\bar x^\top W \hat t / |\bar x|$, float [text].

    maps: float [image, neuron, y, x]; texts: unit vectors, float [text, d_joint].
    """
    seen, mean = nn.functional.normalize(pool(maps), dim=1), nn.functional.normalize(maps.mean((2, 3)), dim=1)
    exact, linear = seen @ texts.T, mean @ bilinear(pool) @ texts.T
    exact, linear = exact - exact.mean(0), linear - linear.mean(0)
    return ((exact * linear).sum(0) / (exact.norm(dim=0) * linear.norm(dim=0))).cpu().numpy()
