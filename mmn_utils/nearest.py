"""Are image prompts words already? Their nearest tokens, and random vectors' (Schwettmann et al. 2023, section 3.1)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmn_utils import survey
from mmn_utils.data import CocoScenes
from mmn_utils.metrics import first_noun
from mmn_utils.models.captioner import Captioner


@torch.no_grad()
def nearest_tokens(vectors: Tensor, embeddings: Tensor, *, k: int = 5, at_once: int = 4096) -> tuple[Tensor, Tensor]:
    """The `k` rows of embeddings [token, d_model] with the highest cosine to each of vectors [..., d_model]: ids, and
    cosines, both [..., k]. The vectors may lie on another device; `at_once` of them are compared at a time.

    >>> nearest_tokens(torch.tensor([[2.0, 0.1]]), torch.eye(2), k=1)[0]
    tensor([[0]])
    """
    table = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    parts = (torch.nn.functional.normalize(part.to(table), dim=-1) for part in vectors.flatten(0, -2).split(at_once))
    tops = [(part @ table.T).topk(min(k, len(table)), dim=-1) for part in parts]
    ids, cosines = torch.cat([t.indices.cpu() for t in tops]), torch.cat([t.values.cpu() for t in tops])
    return tuple(found.reshape(*vectors.shape[:-1], -1) for found in (ids, cosines))


@dataclass(frozen=True)
class NearestWords:
    """What vectors are nearest to, image by image."""

    tokens: list[list[list[str]]]
    """[image][vector][rank], spaces kept."""
    cosines: np.ndarray
    """Of the nearest token, float [image, vector]."""


def nearest_words(captioner: Captioner, vectors: Tensor, *, k: int = 5) -> NearestWords:
    """The nearest tokens of vectors [image, vector, d_model]; rows that pad the embedding are left out."""
    table = captioner.language_model.get_input_embeddings().weight[: len(captioner.tokenizer)]
    ids, cosines = nearest_tokens(vectors, table, k=k)
    used = {i: captioner.tokenizer.decode([i]) for i in ids.unique().tolist()}
    tokens = [[[used[i] for i in row] for row in image] for image in ids.tolist()]
    return NearestWords(tokens=tokens, cosines=cosines[..., 0].numpy())


def random_vectors(captioner: Captioner, n_images: int, n_vectors: int, *, seed: int) -> Tensor:
    """Vectors [image, vector, d_model] of no direction in particular, on the CPU: standard normal, of which only the
    direction counts here."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_vectors, captioner.d_model, generator=generator)


def reference_nouns(
    references: Sequence[Sequence[str]], nouns: Collection[str], *, n: int, seed: int
) -> list[list[str]]:
    """Up to `n` different nouns drawn from each image's captions, in the order drawn."""
    generator = np.random.default_rng(seed)
    found = [
        sorted({noun for text in texts for word in text.split() if (noun := first_noun(word, nouns))})
        for texts in references
    ]
    return [[str(noun) for noun in generator.permutation(own)[:n]] for own in found]


def example_patches(prompts: pd.DataFrame, random: pd.DataFrame, *, image: int, patches: Sequence[int]) -> pd.DataFrame:
    """Some patches of one image beside as many random vectors, as the paper's Table S.2: tokens and BERTScore.

    prompts, random: as `agreement.scores` gives them.
    """
    columns = {}
    for name, frame in (("image prompt", prompts), ("random vector", random)):
        own = frame[frame["image"] == image].set_index("text").loc[list(patches)]
        columns |= {name: own["said"].to_numpy(), f"{name}, BERTScore": own["bertscore"].round(2).to_numpy()}
    return pd.DataFrame(columns, index=pd.Index(patches, name="patch"))


def by_cover(
    frame: pd.DataFrame, scenes: CocoScenes, images: Sequence[int], *, n_patches: int
) -> dict[str, np.ndarray]:
    """Agreement with the truth of the patches `on_objects` and `off_objects`, averaged within each image that has both
    kinds: float [image].

    frame: `agreement.scores` of all patches of `images`, in their order.
    """
    covered = [survey.covered_patches(scenes, image, n_patches) for image in images]
    truth = frame["truth"].to_numpy().reshape(len(images), n_patches)
    both = [(own, on) for own, on in zip(truth, covered, strict=True) if 0 < on.sum() < n_patches]
    return {
        "on_objects": np.array([own[on].mean() for own, on in both]),
        "off_objects": np.array([own[~on].mean() for own, on in both]),
    }
