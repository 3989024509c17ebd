"""How well words fit an image: BERTScore against its captions, CLIPScore against the image, and, where the scene is
known, the truth itself (`truth_agreement`, which needs no learned metric).
"""

from collections.abc import Collection, Sequence
from functools import cache, partial

import numpy as np
import pandas as pd
from PIL import Image

from mmn_utils.data import CocoScenes
from mmn_utils.metrics import bert, bert_scores, bootstrap_mean, first_noun
from mmn_utils.miniature.lexicon import content_words, lexicon
from mmn_utils.models.clip import Clip
from mmn_utils.profiles import Profile
from mmn_utils.sweeps import Sweeps, digest

Text = str | Sequence[str]
"""A sentence, or tokens."""


@cache
def cues(name: str) -> frozenset[str]:
    """Words that speak of an object: its name, and what WordNet has for it (synonyms, definition, kinds, parts, what
    it is a kind of), where the lexicon knows it.
    """
    entry = lexicon()["concepts"].get(name, {})
    lists = (entry.get(field, []) for field in ("cues", "synonyms", "parents", "kinds", "parts"))
    described = {word for phrases in lists for phrase in phrases for word in content_words(phrase)}
    return frozenset(described | set(name.lower().split()))


def scene_cues(scenes: CocoScenes, image: int) -> frozenset[str]:
    """`cues` of all objects of a scene."""
    return frozenset().union(*(cues(o.name) for o in scenes.objects(image)))


def truth_agreement(tokens: Sequence[str], words: Collection[str]) -> float:
    """Share of tokens that are one of `words`, plurals counted as their singular.

    >>> truth_agreement([" horses", " rider", "lihood", " red"], {"horse", "rider"})
    0.5
    """
    return sum(first_noun(token, words) is not None for token in tokens) / max(1, len(tokens))


def own_minus_other(texts: pd.Series, scenes: CocoScenes) -> pd.Series:
    """How much better each image's best unit agrees with its own scene than with the next one's, by image.

    texts: lists of units' tokens, by image (`survey.texts_of_images`).
    """
    words = [scene_cues(scenes, image) for image in texts.index]
    rows = zip(texts, words, shifted(words), strict=True)
    gains = [_best_truth(own, true) - _best_truth(own, other) for own, true, other in rows]
    return pd.Series(gains, index=texts.index)


def _best_truth(units: Sequence[Sequence[str]], words: Collection[str]) -> float:
    return max(truth_agreement(tokens, words) for tokens in units)


def by_layer(table: pd.DataFrame, scenes: CocoScenes, *, seed: int) -> pd.DataFrame:
    """Agreement of the units of `table` (image, layer, tokens) with their own scene, with the next image's, and the
    difference (`gain`), in percent of their tokens, averaged within each image: `Estimate`s, a row a layer.
    """
    images = table["image"].unique().tolist()
    words = {image: scene_cues(scenes, image) for image in images}
    other = dict(zip(images, shifted(images), strict=True))
    pairs = list(zip(table["tokens"], table["image"], strict=True))
    scored = table[["image", "layer"]].assign(
        own=[truth_agreement(tokens, words[image]) for tokens, image in pairs],
        other=[truth_agreement(tokens, words[other[image]]) for tokens, image in pairs],
    )
    means = scored.groupby(["layer", "image"]).mean()
    means["gain"] = means["own"] - means["other"]
    return (100 * means).groupby("layer").agg(partial(bootstrap_mean, seed=seed))


def scores(
    scenes: CocoScenes,
    images: Sequence[int],
    texts: Sequence[Sequence[Text]],
    profile: Profile,
    clip: Clip,
    *,
    sweep: Sweeps,
) -> pd.DataFrame:
    """What each of an image's texts has to do with the image: one row (image, text), a sweep over images.

    texts: by image; a list of tokens is scored as one text, joined by commas. Columns: image, text (its number),
    `said`, `bertscore` (F1, averaged over the image's first five captions), `clipscore`, `truth` (`truth_agreement`).
    """
    given = dict(zip(images, texts, strict=True))

    def scored(some: list[int]) -> pd.DataFrame:
        said = [[listed(text) for text in given[i]] for i in some]
        references, words = [scenes.captions(i)[:5] for i in some], [scene_cues(scenes, i) for i in some]
        truth = [truth_agreement(_tokens(t), true) for i, true in zip(some, words, strict=True) for t in given[i]]
        columns = {
            "image": np.repeat(some, [len(own) for own in said]),
            "text": [k for own in said for k in range(len(own))],
            "said": [text for own in said for text in own],
            "bertscore": np.concatenate(bert_of_texts(said, references, profile)),
            "clipscore": np.concatenate(clip_of_texts(said, [scenes.image(i) for i in some], clip)),
        }
        return pd.DataFrame(columns | {"truth": truth})

    asked = digest([[listed(text) for text in own] for own in texts])
    key = {"models": (clip.model, bert(profile)[0]), "data": scenes.identity, "parameters": {"texts": asked}}
    return sweep("scores", scored, list(given), **key).table()


def bert_of_texts(
    texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]], profile: Profile
) -> list[np.ndarray]:
    """BERTScore F1 of each of an image's texts, averaged over the image's references: a float [text] an image."""
    rows = [
        (image, k, text, reference)
        for image, (own, others) in enumerate(zip(texts, references, strict=True))
        for k, text in enumerate(own)
        for reference in others
    ]
    frame = pd.DataFrame(rows, columns=["image", "k", "text", "reference"])
    unique = frame[["text", "reference"]].drop_duplicates()
    f1 = bert_scores(unique["text"].tolist(), unique["reference"].tolist(), profile, batch_size=512)
    frame = frame.merge(unique.assign(f1=f1), on=["text", "reference"], how="left")
    means = frame.groupby(["image", "k"])["f1"].mean()
    return [means.loc[image].to_numpy() for image in range(len(texts))]


def clip_of_texts(texts: Sequence[Sequence[str]], images: Sequence[Image.Image], clip: Clip) -> list[np.ndarray]:
    """CLIPScore of each of an image's texts, 100 max(cos, 0) (Hessel et al. 2021, without their factor 2.5): a
    float [text] an image.
    """
    unique = sorted({text for own in texts for text in own})
    row = {text: i for i, text in enumerate(unique)}
    cosines = (clip.encode_texts(unique) @ clip.encode_images(images).T).clamp(min=0).cpu().numpy()
    return [100 * cosines[[row[text] for text in own], image] for image, own in enumerate(texts)]


def listed(text: Text) -> str:
    """Tokens as one text, separated by commas, as the paper gives them to the metrics; a text as it is."""
    return text if isinstance(text, str) else ", ".join(token.strip() for token in text)


def _tokens(text: Text) -> Sequence[str]:
    """The words of a sentence; tokens as they are."""
    return text.strip(".").split() if isinstance(text, str) else text


def shifted(things: Sequence) -> list:
    """Everything one place on, the first last: pairs each image with what belongs to another."""
    return [*things[1:], things[0]]
