"""Are image prompts words already? Their nearest tokens, and random vectors' (Schwettmann et al. 2023, section 3.1)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmn_utils import agreement, survey
from mmn_utils.data import CocoScenes
from mmn_utils.metrics import first_noun
from mmn_utils.models.captioner import Captioner
from mmn_utils.profiles import Profile


@torch.no_grad()
def nearest_tokens(vectors: Tensor, embeddings: Tensor, *, k: int = 5, at_once: int = 4096) -> tuple[Tensor, Tensor]:
    """The `k` rows of embeddings [token, d_model] with the highest cosine to each of vectors [..., d_model]: ids, and
    cosines, both [..., k].

    >>> nearest_tokens(torch.tensor([[2.0, 0.1]]), torch.eye(2), k=1)[0]
    tensor([[0]])
    """
    table = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    rows = torch.nn.functional.normalize(vectors.to(table), dim=-1).flatten(0, -2)
    tops = [(part @ table.T).topk(min(k, len(table)), dim=-1) for part in rows.split(at_once)]
    shape = (*vectors.shape[:-1], -1)
    return torch.cat([t.indices for t in tops]).reshape(shape), torch.cat([t.values for t in tops]).reshape(shape)


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
    return NearestWords(tokens=tokens, cosines=cosines[..., 0].cpu().numpy())


def random_vectors(captioner: Captioner, n_images: int, n_vectors: int, *, seed: int) -> Tensor:
    """Vectors [image, vector, d_model] of no direction in particular: standard normal, of which only the direction
    counts here."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_vectors, captioner.d_model, generator=generator).to(captioner.device)


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


def scores(
    tokens: Sequence[Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    words: Sequence[Collection[str]],
    profile: Profile,
    clip_scores: Callable[[Sequence[Sequence[str]]], list[np.ndarray]],
) -> pd.DataFrame:
    """`bertscore` (averaged over an image's captions), `clipscore` and `truth` of each text, one row a (image, text).

    clip_scores: from an image's texts to a float [text] an image (`agreement.clip_of_texts` with images and model).
    """
    texts = [[agreement.listed(text) for text in own] for own in tokens]
    bert, clip = agreement.bert_of_texts(texts, references, profile), clip_scores(texts)
    rows = [
        {"image": image, "text": k, "bertscore": b, "clipscore": c, "truth": agreement.truth_agreement(t, words[image])}
        for image, own in enumerate(tokens)
        for k, (t, b, c) in enumerate(zip(own, bert[image], clip[image], strict=True))
    ]
    return pd.DataFrame(rows)


def example_patches(
    prompts: pd.DataFrame,
    random: pd.DataFrame,
    found: NearestWords,
    drawn: NearestWords,
    *,
    image: int,
    patches: Sequence[int],
) -> pd.DataFrame:
    """Some patches of one image beside as many random vectors, as the paper's Table S.2: tokens and BERTScore."""
    columns = {}
    for name, frame, words in (("image prompt", prompts, found), ("random vector", random, drawn)):
        own = frame[frame["image"] == image].set_index("text").loc[list(patches)]
        columns[name] = [agreement.listed(words.tokens[image][p]) for p in patches]
        columns[f"{name}, BERTScore"] = own["bertscore"].round(2).to_numpy()
    return pd.DataFrame(columns, index=pd.Index(patches, name="patch"))


def by_cover(
    frame: pd.DataFrame, scenes: CocoScenes, images: Sequence[int], *, n_patches: int
) -> dict[str, np.ndarray]:
    """Agreement with the truth of the patches `on_objects` and `off_objects`, averaged within each image that has both
    kinds: float [image].

    frame: `scores` of all patches of `images`, in their order.
    """
    covered = [survey.covered_patches(scenes, image, n_patches) for image in images]
    truth = frame["truth"].to_numpy().reshape(len(images), n_patches)
    both = [(own, on) for own, on in zip(truth, covered, strict=True) if 0 < on.sum() < n_patches]
    return {
        "on_objects": np.array([own[on].mean() for own, on in both]),
        "off_objects": np.array([own[~on].mean() for own, on in both]),
    }
