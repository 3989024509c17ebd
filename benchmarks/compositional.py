"""The search for formulas in the published size: 10,000 sentence pairs, 4,003 concepts, 1,024 neurons, length 3.

`MMN_SNLI_DEV` names a folder with `snli_1.0_dev.tok` (premise and hypothesis on alternating lines); without it the text
is made up, with as many words, about the same lengths, and repeated premises. The neurons are random
projections of each pair's concepts that fire on 5 to 60 % of the pairs.
"""

import os
import resource
import statistics
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from benchmarks.timing import compared, interleaved, seconds
from mmn_utils.compositional import ROWS_AT_ONCE, SPARSE_ROWS_AT_ONCE, search
from mmn_utils.formulas import Explanation
from mmn_utils.nli_concepts import pair_concepts

BEAM, LENGTH = 10, 3
Texts = list[list[str]]


def sentence_pairs(n: int) -> tuple[str, Texts, Texts]:
    """Which text it is, premises, hypotheses."""
    folder = os.environ.get("MMN_SNLI_DEV")
    if folder is None:
        return "made up", *made_up_pairs(n)
    lines = [line.split() for line in (Path(folder) / "snli_1.0_dev.tok").read_text(encoding="utf-8").splitlines()]
    return "SNLI dev", lines[: 2 * n : 2], lines[1 : 2 * n : 2]


def made_up_pairs(n: int) -> tuple[Texts, Texts]:
    """Three hypotheses a premise, of 14 and 8 words drawn by Zipf's law; half of a hypothesis's words are its
    premise's."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(6_338) + 2.7)
    draw = rng.choice(len(share), p=share / share.sum(), size=(n, 22))
    premises = draw[np.arange(n) // 3 * 3, :14]
    copied = np.take_along_axis(premises, rng.integers(14, size=(n, 8)), axis=1)
    hypotheses = np.where(rng.random((n, 8)) < 0.5, copied, draw[:, 14:])
    return tuple([[f"w{word:04}" for word in row] for row in rows.tolist()] for rows in (premises, hypotheses))


def firing_of(truth: np.ndarray, n_neurons: int) -> np.ndarray:
    """Random projections of the concepts, each above a quantile of its own: bool [pair, neuron]."""
    rng = np.random.default_rng(1)
    activations = truth.astype(np.float32) @ rng.standard_normal((truth.shape[1], n_neurons), dtype=np.float32)
    ranks = activations.argsort(axis=0).argsort(axis=0)
    return ranks >= len(truth) * (1 - rng.uniform(0.05, 0.6, size=n_neurons))


def one_formula_after_the_other(fires: np.ndarray, truth: np.ndarray) -> list[tuple[float, tuple]]:
    """The published search of one neuron as it is written, a mask and an IoU a formula: the last beam.

    Spared, in the loop's favour: keeping all masks, and working out a beam formula's own mask again and again.
    """
    columns = list(np.ascontiguousarray(truth.T))

    def iou(mask: np.ndarray) -> float:
        return np.logical_and(mask, fires).sum() / (np.logical_or(mask, fires).sum() + np.finfo(np.float32).tiny)

    formulas = [(iou(column), (leaf,)) for leaf, column in enumerate(columns)]
    operands = [formula[0] for score, formula in formulas if score > 0]
    beam = sorted(formulas, key=lambda entry: -entry[0])[:BEAM]
    masks = {formula: columns[formula[0]] for _, formula in beam}
    for _ in range(1, LENGTH):
        formulas = list(beam)
        for _, formula in beam:
            mask = masks[formula]
            for leaf in operands:
                formulas.append((iou(np.logical_or(mask, columns[leaf])), (*formula, "OR", leaf)))
                formulas.append((iou(np.logical_and(mask, columns[leaf])), (*formula, "AND", leaf)))
                formulas.append(
                    (iou(np.logical_and(mask, 1 - columns[leaf].view(np.int8))), (*formula, "AND NOT", leaf))
                )
        beam = sorted(formulas, key=lambda entry: -entry[0])[:BEAM]
        masks = {formula: mask_of(formula, columns) for _, formula in beam}
    return beam


def mask_of(formula: tuple, columns: list[np.ndarray]) -> np.ndarray:
    mask = columns[formula[0]]
    for operator, leaf in zip(formula[1::2], formula[2::2], strict=True):
        added = ~columns[leaf] if operator == "AND NOT" else columns[leaf]
        mask = mask | added if operator == "OR" else mask & added
    return mask


def as_loop(own: Explanation) -> list[tuple[float, tuple]]:
    """Our last beam in the loop's words."""
    steps = ((s.score, s.formula) for s in own.beams[-1])
    return [(score, (f.leaf, *(x for step in f.steps for x in step))) for score, f in steps]


def bare(truth: np.ndarray, n_neurons: int) -> dict[str, object]:
    """The products that the search needs and nothing else: of dense matrices, and as sums over what is true.

    Both in blocks of as many masks as the search takes at once.
    """
    rows = torch.rand(ROWS_AT_ONCE, len(truth), generator=torch.Generator().manual_seed(2)).lt(0.2).float()
    dense, columns = torch.from_numpy(truth).float(), rows[:SPARSE_ROWS_AT_ONCE].T.contiguous()
    leaves, cases = (torch.from_numpy(x.copy()) for x in truth.T.nonzero())
    starts = torch.searchsorted(leaves, torch.arange(truth.shape[1]))
    n_masks = 2 * BEAM * (LENGTH - 1) * n_neurons
    return {
        "products": lambda: [rows @ dense for _ in range(n_masks // len(rows))],
        "sums": lambda: [embedding_bag(cases, columns, starts, mode="sum") for _ in range(n_masks // columns.shape[1])],
    }


def peak_gib() -> float:
    """The most memory that this process ever held (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def formulas(
    *,
    n_pairs: int = 10_000,
    n_words: int = 2_000,
    n_neurons: int = 1_024,
    sample: int = 128,
    n_looped: int = 2,
    repeats: int = 3,
) -> dict[str, dict]:
    """The whole search once, with its memory; then samples of neurons beside the bare products and the loop.

    `vs_bare_products` is the target, at most 2: the dense products of masks and concepts that every round needs.
    `vs_bare_sums` is a harder peer: sums over the true entries alone, of masks that lie ready. What the search does
    beyond them is to turn its masks round, to choose ten of 120,000 extensions a neuron and round, and, once for all
    neurons, to pack the concepts.

    sample: neurons that are compared with the bare products, a multiple of 64.
    """
    text, premises, hypotheses = sentence_pairs(n_pairs)
    truth = pair_concepts(premises, hypotheses, n_words=n_words).truth
    fires = firing_of(truth, n_neurons)
    found = []
    whole = seconds(lambda: found.extend(search(fires, truth, max_length=LENGTH, beam=BEAM)))
    about = {"peak_gib": peak_gib(), "whole_s": whole, "text": text, "shape": [*truth.shape, n_neurons]}
    looped, theirs = np.linspace(0, n_neurons - 1, n_looped).astype(int), []
    times = [seconds(lambda k=k: theirs.append(one_formula_after_the_other(fires[:, k], truth))) for k in looped]
    if [as_loop(found[k]) for k in looped] != theirs:
        raise ValueError(f"the search and the loop disagree on neurons {looped.tolist()}")
    loop = statistics.median(times)
    rows = {
        "vs_loop": {"ours": whole / n_neurons, "theirs": loop, "ratio": whole / n_neurons / loop, "unit": "s", "n": 1}
    }
    pair = interleaved(
        {"ours": lambda: search(fires[:, :sample], truth, max_length=LENGTH, beam=BEAM), **bare(truth, sample)},
        repeats=repeats,
    )
    rows |= {f"vs_bare_{name}": compared(pair["ours"], pair[name]) for name in ("products", "sums")}
    return {f"compositional.search.{name}": row | about for name, row in rows.items()}
