"""What feelings are made of: sparse codes over neurons, scored against the recipes that made them (Goh et al. 2021).

A feeling's *attribution* says what each neuron adds to the score of sentences that name it (`linearised_attention`).
Sparse logistic regression tells the feelings' attributions apart; the weights it keeps are the feeling's *code*. In the
miniature, complex feelings are drawn as two cues at once (`icons` of the album's family `feeling`): a code whose
neurons stand for these two has found the recipe.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import NMF, PCA
from torch import Tensor

from mmn_utils import clip_neurons, linearised_attention, multimodal, probes
from mmn_utils.models.clip import Clip

PROMPTS = ("i am feeling {}", "me feeling {} on my face", "a photo of me with a {} expression on my face")
"""The paper's three."""
LEVELS = (0.26, 1.52, 3.13, 4.69)
"""Neurons a word on average, at the paper's four stored levels of sparsity."""
N_SHOWN, LEAST_SHOWN = 4, 0.05
"""Display rule of the paper's figures: neurons shown at most, and the least weight, the largest being 1."""


# ---------------------------------------------------------------------------------------------------------------- codes


def attributions(clip: Clip, words: Sequence[str]) -> np.ndarray:
    """Of each word in each prompt, float32 [word, prompt, neuron], in units of their common root mean square."""
    texts = clip.encode_texts([prompt.format(word) for word in words for prompt in PROMPTS])
    found = linearised_attention.attributions(clip.visual.attnpool, texts).reshape(len(words), len(PROMPTS), -1)
    return found / np.sqrt((found**2).mean())


def code(probe: probes.Probe, word: str) -> pd.Series:
    """A word's neurons with their weights as the paper shows them: the largest is 1, at most four, none below .05."""
    weights = pd.Series(probes.weights(probe)[probe.classes_.tolist().index(word)]).rename_axis("neuron")
    strongest = weights.abs().nlargest(N_SHOWN).index
    shown = weights[strongest] / max(weights.abs().max(), np.finfo(float).tiny)
    return shown[shown.abs() > LEAST_SHOWN]


def labels(
    seen: multimodal.Seen, concepts: Sequence[str], *, facets: Sequence[str] = multimodal.FACETS
) -> pd.DataFrame:
    """Each neuron's best of some concepts, `concept`, and its AUROC among the pictures in `seen`, the mean over facets,
    `auroc`.
    """
    answers, shown = seen.maps.amax((2, 3)).numpy(), seen.pictures.concept.to_numpy()
    among = [(seen.pictures.facet == facet).to_numpy() for facet in facets]
    own = np.array(concepts)[:, None] == shown
    scores = np.mean([multimodal.auroc(answers[rows], own[:, rows]) for rows in among], axis=0)
    table = pd.DataFrame({"concept": np.array(concepts)[scores.argmax(0)], "auroc": scores.max(0)})
    return table.rename_axis("neuron")


def named(found: Mapping[str, pd.Series], cues: pd.Series) -> dict[str, set[str]]:
    """The cues that each code adds: those of its neurons with positive weight; `cues` by neuron."""
    return {word: set(cues[weights.index[weights > 0]]) for word, weights in found.items()}


def recipe_scores(said: Mapping[str, set[str]], recipes: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Of each recipe: `precision`, `recall` and `f1` of the cues said; a code that says nothing scores 0.

    >>> recipe_scores({"proud": {"trophy", "evil", "happy"}}, {"proud": ["trophy", "happy"]}).f1.tolist()
    [0.8]
    """
    rows = []
    for word, recipe in recipes.items():
        right = len(said[word] & set(recipe))
        precision, recall = right / max(len(said[word]), 1), right / len(set(recipe))
        rows.append((word, precision, recall, 2 * right / (len(said[word]) + len(set(recipe)))))
    return pd.DataFrame(rows, columns=["word", "precision", "recall", "f1"]).set_index("word")


def shuffled_f1(said: Mapping[str, set[str]], recipes: Mapping[str, Sequence[str]], *, n: int, seed: int) -> np.ndarray:
    """Mean F1 with the recipes dealt out anew among the words, float [draw]."""
    rng, words, values = np.random.default_rng(seed), list(recipes), list(recipes.values())
    deals = (rng.permutation(len(words)) for _ in range(n))
    dealt = (dict(zip(words, (values[k] for k in deal), strict=True)) for deal in deals)
    return np.array([recipe_scores(said, recipes).f1.mean() for recipes in dealt])


# --------------------------------------------------------------------------------------------------------- intervention


@torch.no_grad()
def raised(clip: Clip, levels: Tensor, texts: Tensor) -> np.ndarray:
    """What happens to each text's logit on a blank image when one neuron is set to its level everywhere.

    levels: before the ReLU, float [neuron]; texts: unit vectors, float [text, d_joint]. Gives float32 [neuron, text].
    """
    blank = Image.new("RGB", (clip.size, clip.size), (128, 128, 128))
    maps = clip_neurons.neuron_maps(clip.model, clip.pixels([blank])).to(clip.device)
    changed = maps.repeat(len(levels), 1, 1, 1)
    changed[range(len(levels)), range(len(levels))] = levels.to(maps)[:, None, None]
    seen = torch.nn.functional.normalize(clip.visual.attnpool(torch.cat([maps, changed]).relu()), dim=1)
    logits = clip.model.logit_scale.exp() * seen @ texts.T
    return (logits[1:] - logits[0]).cpu().numpy()


# ---------------------------------------------------------------------------------------------------------------- atlas


def factors(found: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """How much of each of `k` non-negative factors is in each word, float [word, k]; each factor's largest is 1.

    found: attributions, float [word, neuron]; what is below zero counts as zero.
    """
    shares = NMF(k, init="nndsvda", random_state=seed, max_iter=2000).fit_transform(np.maximum(found, 0))
    return shares / np.maximum(shares.max(0), np.finfo(shares.dtype).tiny)


def groups(words: Sequence[str], recipes: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The generator's groups, int [word]: words that share a cue, directly or by way of others. A cue holds itself."""
    parts = [set(recipes.get(word, [])) | {word} for word in words]
    linked = np.array([[bool(a & b) for a in parts] for b in parts])
    return connected_components(coo_matrix(linked))[1]


def disc(found: np.ndarray) -> np.ndarray:
    """A cell for each word on a disc of unit cells, int [word, 2], so that words with like vectors lie near each other.

    The two main directions of the vectors, scaled to the disc, then the assignment of least total distance. The
    paper's layout is not published.
    """
    length = np.linalg.norm(found, axis=1, keepdims=True)
    places = PCA(2, svd_solver="full").fit_transform(found / np.maximum(length, np.finfo(found.dtype).tiny))
    reach = int(np.ceil(np.sqrt(len(found))))
    grid = np.array([(x, y) for x in range(-reach, reach + 1) for y in range(-reach, reach + 1)])
    cells = grid[np.argsort((grid**2).sum(1), kind="stable")[: len(found)]]
    places = places / np.abs(places).max(0) * np.abs(cells).max()
    distance = ((places[:, None] - cells[None]) ** 2).sum(-1)
    return cells[linear_sum_assignment(distance)[1]]
