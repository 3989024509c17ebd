"""Part I of the explorer: what each unit of the language model says, did for the captions, and where it looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mmn_utils import data, results
from mmn_utils.data import CocoScenes
from mmn_utils.decoding import decode_units
from mmn_utils.explorer import Part, Pictures, Record, address_of, left, picked, picture_examples
from mmn_utils.models import Captioner
from mmn_utils.neurons import NeuronId
from mmn_utils.profiles import Profile
from mmn_utils.receptive_fields import patch_activations

DEFINITIONS = {
    "tokens": "The ten tokens whose logits the unit's output vector raises most, and lowers most (chapter 04).",
    "interpretable": "Whether at least seven of the ten raised tokens are English words (chapter 04).",
    "attribution": "Pre-activation times gradient for the caption's first noun, at the unit's best patch (chapter 03). "
    "Mean over all captioned images, where one that does not list the unit counts as 0; largest value; rank by the "
    "mean; in how many images the unit is among the 20 best.",
    "ablation": "Logits that the caption's first noun loses when the unit is held at zero at all patches (chapter 08).",
    "categories": "Kinds of object in whose pictures the unit is most active: its mean activation over pictures with "
    "such an object, less that over all pictures, in standard deviations over pictures.",
    "threshold": "The unit's quantile over all patches of all pictures shown here; the mask is where the enlarged map "
    "exceeds it (chapter 05).",
}


@dataclass(frozen=True)
class Units:
    """What chapters 03 and 08 know of all units; a unit's number is `layer * n_units + unit`."""

    targets: pd.DataFrame
    decoded: pd.DataFrame
    ranked: pd.DataFrame
    """Chapter 03's `attributions`, with `number`."""
    effects: pd.DataFrame | None
    """Chapter 08's, with `number`; None where it has not run."""

    @classmethod
    def load(cls, settings: Profile) -> "Units":
        """From the results of a profile."""
        names = ("targets", "decoded", "attributions")
        targets, decoded, ranked = (results.load(settings, "03_finding_neurons", name) for name in names)
        effects, n = left(settings, "08_beyond_the_paper", "effects"), int(decoded["unit"].max()) + 1
        ranked, effects = (t if t is None else t.assign(number=t["layer"] * n + t["unit"]) for t in (ranked, effects))
        return cls(targets, decoded, ranked, effects)

    @cached_property
    def attribution(self) -> pd.DataFrame:
        """`mean`, `max`, `rank`, `n_top` and `n_images` of each unit that any image lists, by its number."""
        scores = self.ranked.groupby("number")["score"]
        table = pd.DataFrame({"mean": scores.sum() / len(self.targets), "max": scores.max()})
        table["n_top"] = self.ranked[self.ranked["rank"] < 20].groupby("number").size()
        return _ranked(table.fillna({"n_top": 0}).astype({"n_top": int}), n_images=len(self.targets))

    @cached_property
    def ablation(self) -> pd.DataFrame:
        """`mean`, `max`, `rank` and `n_images` of each unit that chapter 08 silenced, by its number."""
        if self.effects is None:
            return pd.DataFrame()
        table = self.effects.set_index("number")
        return _ranked(table[["mean", "max"]], n_images=int(table["n_images"].iloc[0]))

    def record(self, number: int) -> Record:
        """What is known of one unit without showing it pictures."""
        row = self.decoded.iloc[number]
        at, tokens = NeuronId(int(row["layer"]), int(row["unit"])), list(row["tokens"])
        measured = {"attribution": self.attribution, "ablation": self.ablation}
        return {
            "address": address_of("lm", at.index, at.layer),
            "name": str(at),
            "label": ", ".join(token.strip() for token in tokens[:6]) or str(at),
            "tokens": {"positive": tokens},
            "interpretable": bool(row["interpretable"]),
            **{name: table.loc[number].to_dict() for name, table in measured.items() if number in table.index},
        }


def _ranked(table: pd.DataFrame, *, n_images: int) -> pd.DataFrame:
    """With the place of each row by its mean, from 1, and columns that keep whole numbers whole."""
    rank = table["mean"].rank(ascending=False, method="first").astype(int)
    return table.assign(rank=rank, n_images=n_images).astype(object)


def part(
    settings: Profile, *, first: int, n_pictures: int, every_unit: bool, q: float, batch_size: int, seed: int
) -> Part:
    """The units of the language model.

    Those among the `first` of any image are studied: they get examples from `n_pictures` of chapter 03's pictures.
    every_unit: whether units that no image lists have a record as well.
    """
    units, captioner, scenes = Units.load(settings), Captioner.from_profile(settings), data.scenes(settings)
    ids = sorted(np.random.default_rng(seed).permutation(units.targets["image"])[:n_pictures].tolist())
    listed = np.arange(len(units.decoded)) if every_unit else units.attribution.index.to_numpy()
    studied = np.unique(units.ranked.loc[units.ranked["rank"] < first, "number"])
    means, maps = seen_by(captioner, scenes, ids, listed, studied, batch_size=batch_size)
    negative, best = lowered_tokens(captioner), top_categories(means, categories(scenes, ids))
    records: list[Record | None] = [None] * len(units.decoded)
    for number, own in zip(listed, best, strict=True):
        records[number] = units.record(number) | {"categories": own}
        records[number]["tokens"]["negative"] = negative[number]
    for number, own in zip(studied, maps.swapaxes(0, 1), strict=True):
        records[number] |= picture_examples(own, q=q, seed=[seed, int(number)])
    n_units = int(units.decoded["unit"].max()) + 1
    return Part(
        key="lm",
        title="Part I: a language model that sees",
        about="MLP units of the language model that captions pictures.",
        activation="activation after the non-linearity, largest over the patches",
        definitions=DEFINITIONS,
        neurons=[records[k : k + n_units] for k in range(0, len(records), n_units)],
        layered=True,
        picked=pick([records[number] for number in studied]),
        pictures=pictures(scenes, ids, units.targets),
        grid=maps.shape[2:],
    )


def pictures(scenes: CocoScenes, ids: Sequence[int], targets: pd.DataFrame) -> Pictures:
    """The scenes with these numbers, under the model's caption and what they really show."""
    captions = targets.set_index("image")["caption"]
    titles = [f"{captions[i]} (shows: {', '.join(o.name for o in scenes.objects(i))})" for i in ids]
    return Pictures.of([scenes.image(i) for i in ids], titles)


def seen_by(
    captioner: Captioner,
    scenes: CocoScenes,
    ids: Sequence[int],
    listed: np.ndarray,
    studied: np.ndarray,
    *,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean activations float [picture, listed unit], and maps float [picture, studied unit, row, column]."""
    prompts = captioner.image_prompts([scenes.image(i) for i in ids])
    means, maps = [], []
    for activations in patch_activations(captioner.language_model, prompts, batch_size=batch_size):
        means.append(activations.mean(1)[:, listed].cpu().numpy())
        maps.append(activations[:, :, studied].transpose(1, 2).cpu().numpy())
    side = round(prompts.shape[1] ** 0.5)
    return np.concatenate(means), np.concatenate(maps).reshape(len(ids), len(studied), side, side)


def categories(scenes: CocoScenes, ids: Sequence[int], *, least: int = 5) -> pd.DataFrame:
    """Which categories each picture has, bool [picture, category]; of those with at least `least` pictures."""
    has = pd.DataFrame([{o.name: True for o in scenes.objects(i)} for i in ids]).notna()
    return has.loc[:, has.sum() >= least].sort_index(axis=1)


def top_categories(means: np.ndarray, has: pd.DataFrame, *, n: int = 5) -> list[list[tuple[str, float]]]:
    """The `n` categories in whose pictures each unit is most active, with how far above its mean, in SD over pictures.

    means: float [picture, unit]; has: bool [picture, category].
    """
    z = (means - means.mean(0)) / np.maximum(means.std(0), 1e-12)
    by_category = (has.to_numpy(float) / has.sum().to_numpy()).T @ z
    order = np.argsort(-by_category, axis=0, kind="stable")[:n].T
    return [[(has.columns[c], by_category[c, unit]) for c in row] for unit, row in enumerate(order)]


def lowered_tokens(captioner: Captioner) -> list[list[str]]:
    """The ten tokens that each unit's output vector lowers most, by its number."""
    tokenizer = captioner.tokenizer
    ids = decode_units(captioner.language_model, sign="-", n_tokens=len(tokenizer)).ids.flatten(0, 1).tolist()
    texts = {i: tokenizer.decode([i]) for i in {token for row in ids for token in row}}
    return [[texts[token] for token in row] for row in ids]


def pick(studied: Sequence[Record]) -> list[Record]:
    """Units to look at first."""
    table = pd.DataFrame(list(studied))
    mean, words = table["attribution"].str["mean"].astype(float), table["interpretable"]
    one, two = (table["categories"].str[k].str[1].astype(float) for k in (0, 1))
    said = [{token.strip().lower() for token in both["positive"]} for both in table["tokens"]]
    named = [[z for name, z in own if name in s] for own, s in zip(table["categories"], said, strict=True)]
    agree = pd.Series([max(own, default=np.nan) for own in named])
    rules = {
        "well explained": ("its tokens are words, one for a kind of object that excites it", agree.where(words)),
        "busiest": ("the highest mean attribution of all units whose tokens are words", mean.where(words)),
        "badly explained": ("the highest mean attribution of all units whose tokens are no words", mean.where(~words)),
        "polysemantic": ("two kinds of object excite it, the second nearly as much", two.where(two > 0.9 * one)),
        "unselective": ("studied, and yet no kind of object excites it much more than any other", -one),
        "typical": ("in the middle of the studied units by mean attribution", -(mean - mean.median()).abs()),
    }
    return picked(table["address"], rules)
