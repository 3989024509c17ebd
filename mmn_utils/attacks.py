"""How often writing makes a classifier err: CLIP by its prompts and a linear probe on its neurons, side by side
(Goh et al. 2021, "Typographic attacks").

Both classifiers read the same image tower. Zero-shot compares the joint embedding with the classes' prompts; the probe
is logistic regression on the neurons' spatial means after the ReLU (`probes.dense`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmn_utils.metrics import Estimate, bootstrap_mean, wilson
from mmn_utils.miniature.album import FONTS, INKS
from mmn_utils.models.clip import Clip
from mmn_utils.multimodal import in_one_pass
from mmn_utils.typography import STAMP_SIDE, cover, labelled, stamped, stroop_pairs, success, word_image

CLASSIFIERS = ("zero_shot", "linear_probe")


@torch.no_grad()
def features(clip: Clip, images: Sequence[Image.Image], *, batch_size: int = 64) -> dict[str, Tensor]:
    """What the classifiers read, from one pass: `joint`, unit vectors, float [image, d_joint]; `mean` and `largest`,
    float [image, neuron], of the neurons' places (the mean after the ReLU, the largest before it).
    """
    found: dict[str, list[Tensor]] = {"joint": [], "mean": [], "largest": []}
    for maps, joint in in_one_pass(clip, (images[i : i + batch_size] for i in range(0, len(images), batch_size))):
        found["joint"].append(joint.float().cpu())
        found["mean"].append(maps.relu().mean((2, 3)).float().cpu())
        found["largest"].append(maps.amax((2, 3)).float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class Classifiers:
    """A tower with prompts, and a probe on its neurons if there is one; both know the same classes, by number."""

    clip: Clip
    prompts: Sequence[str]
    """One a class."""
    probe: LogisticRegression | None = None
    """Fitted to every class."""

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Probabilities, float [image, class], by classifier.

        Raises:
            ValueError: the probe knows other classes than the prompts.
        """
        if self.probe is not None and not np.array_equal(self.probe.classes_, np.arange(len(self.prompts))):
            raise ValueError(f"expected a probe for {len(self.prompts)} classes, found {len(self.probe.classes_)}")
        seen, scale = features(self.clip, images), self.clip.scale.cpu()
        said = self.clip.encode_texts(self.prompts).float().cpu()
        found = {"zero_shot": (scale * seen["joint"] @ said.T).softmax(1).numpy()}
        return found if self.probe is None else found | {"linear_probe": self.probe.predict_proba(seen["mean"].numpy())}


def enlarged(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures cut square, at the side that the published stamps are measured on; models make them smaller again."""
    return [ImageOps.fit(image, (STAMP_SIDE, STAMP_SIDE), Image.Resampling.BICUBIC) for image in images]


# ------------------------------------------------------------------------------------------------------------- attacks


def legible(classify: Classifiers, texts: dict[str, int], write: Callable[[Image.Image, str], Image.Image]) -> Estimate:
    """Share of texts that zero-shot takes for their class when they are written over nothing but gray."""
    ground = Image.new("RGB", (STAMP_SIDE, STAMP_SIDE), (128, 128, 128))
    answers = classify([write(ground, text) for text in texts])["zero_shot"].argmax(1)
    return wilson(int((answers == list(texts.values())).sum()), len(texts))


def attack(
    classify: Classifiers,
    images: Sequence[Image.Image],
    before: dict[str, np.ndarray],
    text: str,
    target: int,
    *,
    n: int,
    scale: float,
) -> pd.DataFrame:
    """Stamp a text over pictures: one row a classifier and picture that it did not take for the target before.

    Columns: `classifier`, `image`, `text`, `target`, `hit` (the target is in first place now), `cover`.
    before: what `classify` says of the bare pictures.
    """
    written = [stamped(image, text, n=n, scale=scale) for image in images]
    covers = np.array([cover(*pair) for pair in zip(images, written, strict=True)])
    parts = []
    for name, after in classify(written).items():
        then = before[name].argmax(1)
        free = np.flatnonzero(then != target)
        hits = success(then, after.argmax(1), target)
        row = {"classifier": name, "image": free, "text": text, "target": target, "hit": hits, "cover": covers[free]}
        parts.append(pd.DataFrame(row))
    return pd.concat(parts, ignore_index=True)


def rates(attacks: pd.DataFrame, by: Sequence[str] = ("target", "text")) -> pd.DataFrame:
    """Success of each attack, one row an attack: `cover`, and for each classifier the share of hits with `_low`,
    `_high` and `_n`.
    """
    table = attacks.groupby(list(by), sort=False).cover.mean().to_frame()
    for name, rows in attacks.groupby("classifier", sort=False):
        for key, hits in rows.groupby(list(by), sort=False).hit:
            share = wilson(int(hits.sum()), len(hits))
            table.loc[key, [name, *(f"{name}_{part}" for part in ("low", "high", "n"))]] = vars(share).values()
    return table


def mean_rate(attacks: pd.DataFrame, classifier: str, seed: int) -> Estimate:
    """Success over all attacks; the interval is that of the pictures, each with all its attacks.

    Where no picture differs from another (all or nothing), it is Wilson's for as many pictures.
    """
    shares = attacks[attacks.classifier == classifier].groupby("image").hit.mean().to_numpy()
    return bootstrap_mean(shares, seed) if shares.any() and not shares.all() else wilson(int(shares.sum()), len(shares))


def search(
    classify: Classifiers, images: Sequence[Image.Image], texts: dict[str, int], *, n: int, scale: float
) -> pd.DataFrame:
    """Try every text for its class, and rank the texts by their mean success over the classifiers."""
    before = classify(images)
    tried = [attack(classify, images, before, text, target, n=n, scale=scale) for text, target in texts.items()]
    table = rates(pd.concat(tried))
    return table.loc[table[list(before)].mean(axis=1).sort_values(ascending=False, kind="stable").index]


def dose(
    classify: Classifiers,
    images: Sequence[Image.Image],
    texts: dict[str, int],
    *,
    numbers: Sequence[int],
    scales: Sequence[float],
) -> pd.DataFrame:
    """Success by number and size of the stamps, one row a pair (index `n`, `scale`); columns as `rates`.

    The texts, with their target classes, are dealt out to the pictures in turn: each picture has one.
    """
    before, tried = classify(images), []
    for first, (text, target) in enumerate(texts.items()):
        dealt = slice(first, None, len(texts))
        then = {name: p[dealt] for name, p in before.items()}
        for scale, n in product(scales, numbers):
            found = attack(classify, images[dealt], then, text, target, n=n, scale=scale)
            tried.append(found.assign(n=n, scale=scale))
    return rates(pd.concat(tried), ("n", "scale"))


def label_test(classify: Classifiers, photos: dict[int, Sequence[Image.Image]], words: dict[str, int]) -> pd.DataFrame:
    """Photos of objects by class, bare, under a blank label and under each word: one row a classifier and picture.

    Columns: `classifier`, `object` and `target` (classes; -1 where nothing is written), `label` (bare, blank or the
    word), `photo`, `p_object`, `p_target`, `answer` (the class in first place).
    """
    rows = []
    for thing, images in photos.items():
        for label, target in {"bare": -1, "blank": -1, **words}.items():
            text = "" if label == "blank" else label
            shown = [image if label == "bare" else labelled(image, text) for image in images]
            for name, p in classify(shown).items():
                row = {"classifier": name, "object": thing, "label": label, "target": target}
                rows += [row | {"photo": k} | _told(p[k], thing, target) for k in range(len(shown))]
    return pd.DataFrame(rows)


def _told(p: np.ndarray, thing: int, target: int) -> dict[str, float | int]:
    p_target = float(p[target]) if target >= 0 else np.nan
    return {"p_object": float(p[thing]), "p_target": p_target, "answer": int(p.argmax())}


# -------------------------------------------------------------------------------------------------------------- stroop


def stroop(clip: Clip, words: Sequence[str], inks: Sequence[str], prompt: str) -> pd.DataFrame:
    """Words in coloured ink, and which colour CLIP names: one row a pair, see `stroop_pairs`.

    Further columns: `answer`, the likeliest colour of `inks`; `to_word` and `to_ink`, whether that is what is written,
    or the ink; `p_word` and `p_ink`, their probabilities (nan for a word that is no colour). Each pair is drawn in
    every font, and probabilities are averaged.
    prompt: with a place `{}` for the colour.
    """
    pairs, prompts = stroop_pairs(words, inks), [prompt.format(ink) for ink in inks]
    drawn = [
        word_image(p.word, clip.size, size=0.25, ink=INKS[p.ink], font_name=f)
        for p in pairs.itertuples()
        for f in FONTS
    ]
    p = clip.zero_shot(drawn, prompts).reshape(len(pairs), len(FONTS), -1).mean(1).cpu().numpy()
    chances = [dict(zip(inks, row, strict=True)) for row in p.tolist()]
    answer = np.array(inks)[p.argmax(1)]
    return pairs.assign(
        answer=answer,
        to_word=answer == pairs.word,
        to_ink=answer == pairs.ink,
        p_word=[c.get(word, np.nan) for c, word in zip(chances, pairs.word, strict=True)],
        p_ink=[c[ink] for c, ink in zip(chances, pairs.ink, strict=True)],
    )


# -------------------------------------------------------------------------------------------------- attackable neurons


def two_faced(
    photos: Tensor, shown: np.ndarray, words: Tensor, meant: np.ndarray, *, n_photos: int = 8, n_words: int = 5
) -> pd.DataFrame:
    """Which neurons answer most to a thing and to its word: one row a neuron, by how much of both there is.

    photos: float [image, neuron] with the class shown, int [image]; words: float [word, neuron] with the class meant,
    int [word]. Columns: `concept`, the commonest class of the neuron's top photos; `photos` and `words`, how many of
    the top photos and top words are of it. A neuron is *attackable* by a word if half of its top photos show one class
    and a word for it is among its top words.
    """
    top_photos = shown[photos.topk(n_photos, dim=0).indices.numpy()]
    top_words = meant[words.topk(n_words, dim=0).indices.numpy()]
    concept = np.array([np.bincount(column).argmax() for column in top_photos.T])
    table = pd.DataFrame({"concept": concept})
    table["photos"], table["words"] = (top_photos == concept).sum(0), (top_words == concept).sum(0)
    table["attackable"] = (2 * table.photos >= n_photos) & (table.words > 0)
    return table.rename_axis("neuron").sort_values(["attackable", "photos", "words"], ascending=False, kind="stable")
