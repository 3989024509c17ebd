"""Attribution over many images, as tables: chapter 03 writes them once, later chapters read them.

`targets`: one row an image, what its caption's first noun is and which tokens stand before it. `attributions` and
`pairs`: the best units, and the best (unit, patch) pairs, of each image. `decoded`: what each unit of the model says.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from mmn_utils.attribution import (
    Objective,
    Ranking,
    Target,
    attribution_by_layer,
    first_noun_target,
    rank_layers,
    target_batches,
    top_pairs,
    top_units,
)
from mmn_utils.data import CocoScenes, Pictures
from mmn_utils.decoding import decode_units, interpretable_units
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import NeuronId, last_logits, record
from mmn_utils.sweeps import Sweeps, digest

FIELDS = ("layer", "unit", "patch", "score")


def captions(captioner: Captioner, scenes: CocoScenes | Pictures, ids: Sequence[int], *, sweep: Sweeps) -> pd.DataFrame:
    """What the captioner says of each image; columns: image, caption. Images that cannot be read are left out."""

    def said(images: list[int]) -> pd.DataFrame:
        return pd.DataFrame({"image": images, "caption": captioner.caption([scenes.image(i) for i in images])})

    return sweep("captions", said, ids, **inputs(captioner, scenes)).table()


def targets_table(
    captioner: Captioner, ids: Sequence[int], captions: Sequence[str], nouns: Collection[str]
) -> pd.DataFrame:
    """The target of each image; images whose caption has no noun are left out.

    Columns: image, caption, noun, token, token_text (spaces kept), before (the caption's tokens before the noun).
    """
    found = [(i, c, first_noun_target(captioner, c, nouns)) for i, c in zip(ids, captions, strict=True)]
    rows = [
        {
            "image": image,
            "caption": caption,
            "noun": target.noun,
            "token": target.token,
            "token_text": captioner.tokenizer.decode([target.token]),
            "before": list(target.before),
        }
        for image, caption, target in found
        if target
    ]
    return pd.DataFrame(rows, columns=["image", "caption", "noun", "token", "token_text", "before"])


def targets_of(table: pd.DataFrame) -> list[Target]:
    """The targets in a table of `targets_table`, in its order."""
    rows = zip(table["noun"], table["token"], table["before"], strict=True)
    return [Target(noun=noun, token=int(token), before=tuple(int(t) for t in before)) for noun, token, before in rows]


def rank_neurons(
    captioner: Captioner,
    image_prompts: Tensor,
    targets: Sequence[Target],
    *,
    n_units: int = 400,
    n_pairs: int = 100,
    objective: Objective = "logit",
    batch_size: int = 16,
) -> tuple[Ranking, Ranking]:
    """The best distinct units and the best (unit, patch) pairs of each image, in one pass for both.

    image_prompts: float [image, patch, d_model], as `Captioner.image_prompts` gives them.
    """
    wanted = ((top_units, n_units), (top_pairs, n_pairs))
    order, found = [], []
    for batch in target_batches(captioner, captioner.with_text(image_prompts), targets, batch_size=batch_size):
        patches = slice(0, image_prompts.shape[1])
        by_layer = attribution_by_layer(
            captioner.language_model, batch.embeddings, batch.tokens, positions=patches, objective=objective
        )
        order.append(batch.images)
        found.append(rank_layers(by_layer, wanted))
    units, pairs = zip(*found, strict=True)
    back = torch.cat(order).argsort()
    return _joined(units, back), _joined(pairs, back)


def attributions(
    captioner: Captioner,
    scenes: CocoScenes | Pictures,
    ids: Sequence[int],
    targets: pd.DataFrame,
    *,
    sweep: Sweeps,
    **choice: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `rank_neurons`, units and pairs, for the images of `targets`, from `ids` that `captions` went over.

    Images are encoded in the shards that they were captioned in, whichever of them are explained, so that the same
    numbers come out. `choice`: what else `rank_neurons` takes.
    """
    asked = dict(zip(targets["image"].tolist(), targets_of(targets), strict=True))

    def ranked(images: list[int]) -> pd.DataFrame:
        places = [place for place, i in enumerate(images) if i in asked]
        if not places:
            return pd.DataFrame()
        explained = [images[place] for place in places]
        prompts = captioner.image_prompts([scenes.image(i) for i in images])[places]
        both = rank_neurons(captioner, prompts, [asked[i] for i in explained], **choice)
        tables = [ranking_table(found, explained) for found in both]
        return pd.concat([table.assign(pair=pair) for pair, table in enumerate(tables)], ignore_index=True)

    parameters = choice | {"targets": digest([(i, target.token, target.before) for i, target in asked.items()])}
    rows = sweep("attributions", ranked, ids, **inputs(captioner, scenes), parameters=parameters).table()
    units, pairs = (rows[rows["pair"] == pair].drop(columns="pair").reset_index(drop=True) for pair in (0, 1))
    return units, pairs


def ranking_table(ranking: Ranking, images: Sequence[int]) -> pd.DataFrame:
    """A ranking as rows: image, rank (from 0), layer, unit, patch, score."""
    n_images, n_ranks = ranking.score.shape
    columns = {"image": np.repeat(np.asarray(images), n_ranks), "rank": np.tile(np.arange(n_ranks), n_images)}
    return pd.DataFrame(columns | {name: getattr(ranking, name).flatten().numpy() for name in FIELDS})


def ranking(table: pd.DataFrame, images: Sequence[int] | None = None) -> Ranking:
    """The ranking [image, rank] in a table of `ranking_table`; `images` chooses and orders, None takes all.

    Raises:
        KeyError: an image that the table does not have.
    """
    chosen = table["image"].unique() if images is None else np.asarray(images)
    indexed = table.set_index(["image", "rank"]).sort_index()
    missing = set(chosen.tolist()) - set(table["image"])
    if missing:
        raise KeyError(f"no attributions of image {min(missing)}: its caption has no noun, or it was not in the sample")
    n_ranks = int(table["rank"].max()) + 1
    rows = indexed.loc[[(i, r) for i in chosen for r in range(n_ranks)]]
    return Ranking(*(torch.tensor(rows[name].to_numpy()).reshape(len(chosen), n_ranks) for name in FIELDS))


def decoded_table(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, final_norm: bool = False, bias: bool = False
) -> pd.DataFrame:
    """What each unit of a model says: layer, unit, its ten tokens (best first, spaces kept), whether it is
    interpretable.
    """
    decoded = decode_units(model, final_norm=final_norm, bias=bias, n_tokens=len(tokenizer))
    flags = interpretable_units(decoded.ids, tokenizer)
    n_layers, n_units, _ = decoded.ids.shape
    texts = np.array([tokenizer.decode([i]) for i in range(len(tokenizer))], dtype=object)
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(n_layers), n_units),
            "unit": np.tile(np.arange(n_units), n_layers),
            "tokens": [texts[row].tolist() for row in decoded.ids.flatten(0, 1).cpu().numpy()],
            "interpretable": flags.flatten().cpu().numpy(),
        }
    )


def interpretable_mask(decoded: pd.DataFrame) -> Tensor:
    """Which units are interpretable, bool [layer, unit], from `decoded_table`."""
    n_layers = int(decoded["layer"].max()) + 1
    return torch.tensor(decoded["interpretable"].to_numpy()).reshape(n_layers, -1)


def with_texts(table: pd.DataFrame, decoded: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns layer and unit, to which each unit's tokens and `interpretable` are added."""
    return table.merge(decoded, on=["layer", "unit"], how="left", validate="many_to_one")


# --- what the tables show --------------------------------------------------------------------------------------------


def distinct_units(pairs: pd.DataFrame, *, first: int) -> pd.Series:
    """How many distinct units each image's `first` pairs have."""
    return _first(pairs, first).groupby("image").apply(lambda rows: len(rows[["layer", "unit"]].drop_duplicates()))


def share_of_commonest_patch(pairs: pd.DataFrame, *, first: int) -> pd.Series:
    """Share of each image's `first` pairs that lie on one and the same patch."""
    return _first(pairs, first).groupby("image")["patch"].agg(lambda patches: patches.value_counts().iloc[0] / first)


def shared_units(some: pd.DataFrame, others: pd.DataFrame, *, first: int = 100) -> pd.Series:
    """Share of the units in each image's `first` rows that are also in the first rows of another table."""
    keys = ["image", "layer", "unit"]
    own, theirs = (_first(table, first)[keys].drop_duplicates() for table in (some, others))
    found = own.merge(theirs.assign(found=True), on=keys, how="left")
    return found["found"].notna().groupby(found["image"]).mean()


def units_by_layer(pairs: pd.DataFrame, decoded: pd.DataFrame) -> pd.DataFrame:
    """How many unique units each layer has among the pairs of all images: columns `all`, `interpretable`."""
    unique = with_texts(pairs[["layer", "unit"]].drop_duplicates(), decoded)
    layers = sorted(decoded["layer"].unique())
    counts = {"all": unique, "interpretable": unique[unique["interpretable"]]}
    found = {name: rows["layer"].value_counts().reindex(layers, fill_value=0) for name, rows in counts.items()}
    return pd.DataFrame(found)


def example_rows(pairs: pd.DataFrame, decoded: pd.DataFrame, images: Sequence[int], *, first: int = 20) -> pd.DataFrame:
    """The first pairs of some images as the paper's Table S.1 prints them; images are lettered from A."""
    letters = {image: chr(ord("A") + k) for k, image in enumerate(images)}
    rows = with_texts(_first(pairs[pairs["image"].isin(images)], first), decoded)
    neurons = [str(NeuronId(*pair)) for pair in zip(rows["layer"], rows["unit"], strict=True)]
    columns = {
        "image": rows["image"].map(letters),
        "rank": rows["rank"] + 1,
        "neuron": neurons,
        "patch": rows["patch"],
        "tokens": [", ".join(t.strip() for t in tokens[:5]) for tokens in rows["tokens"]],
        "interpretable": rows["interpretable"],
        "score": rows["score"].round(4),
    }
    return pd.DataFrame(columns).set_index(["image", "rank"]).sort_index()


def covered_patches(scenes: CocoScenes, image: int, n_patches: int) -> np.ndarray:
    """Which patches lie on objects by more than half, bool [patch] in raster order."""
    side = round(n_patches**0.5)
    nothing = np.zeros((scenes.info(image)["height"], scenes.info(image)["width"]), dtype=bool)
    covered = np.logical_or.reduce([nothing, *(o.mask for o in scenes.objects(image))])
    return (functional.adaptive_avg_pool2d(torch.tensor(covered)[None].float(), side).flatten() > 0.5).numpy()


def share_on_objects(
    scenes: CocoScenes, pairs: pd.DataFrame, *, n_patches: int, first: int
) -> tuple[pd.Series, pd.Series]:
    """Of each image: the share of its `first` pairs whose patch lies on an object, and that of all patches."""
    covered = {image: covered_patches(scenes, image, n_patches) for image in pairs["image"].unique()}
    rows = _first(pairs, first).groupby("image")["patch"]
    own = {image: float(covered[image][patches].mean()) for image, patches in rows}
    return pd.Series(own), pd.Series({image: float(cover.mean()) for image, cover in covered.items()})


def texts_of_images(table: pd.DataFrame, decoded: pd.DataFrame, *, first: int = 100) -> pd.Series:
    """The tokens of each image's distinct interpretable units among its `first` rows: a list of units, by image.

    Images that have none are left out.
    """
    rows = with_texts(_first(table, first).drop_duplicates(["image", "layer", "unit"]), decoded)
    return rows[rows["interpretable"]].groupby("image")["tokens"].agg(list)


def best_interpretable(units: pd.DataFrame, decoded: pd.DataFrame, *, first: int = 5) -> pd.DataFrame:
    """The `first` interpretable units of each image, ranked anew from 0, with their tokens."""
    rows = with_texts(units, decoded)
    rows = rows[rows["interpretable"]].sort_values(["image", "rank"]).groupby("image").head(first)
    return rows.assign(rank=rows.groupby("image").cumcount())


def one_per_family(scenes: CocoScenes, images: Sequence[int], *, n: int = 6) -> dict[str, int]:
    """The first image with one object of each of the `n` families that have most such images; family -> image."""
    alone = {i: objects[0] for i in images if len(objects := scenes.objects(i)) == 1}
    families = pd.Series({i: scenes.families[o.name] for i, o in alone.items()})
    return {family: int(families.index[families == family][0]) for family in families.value_counts().index[:n]}


@torch.no_grad()
def unit_activations(captioner: Captioner, image_prompts: Tensor, units: Ranking) -> Tensor:
    """Activation (after the non-linearity) of each image's ranked units at its patches, float [image, rank, patch]."""
    patches = slice(0, image_prompts.shape[1])
    with record(captioner.language_model, positions=patches) as kept:
        last_logits(captioner.language_model, captioner.with_text(image_prompts))
    layers = torch.stack([activations.float().cpu() for activations in kept])
    images = torch.arange(len(image_prompts))[:, None]
    return layers[units.layer, images, :, units.unit]


def inputs(captioner: Captioner, scenes: CocoScenes | Pictures) -> dict[str, Any]:
    """What a sweep over images by a captioner depends on, for its key."""
    models = captioner.encoder.model, captioner.projection, captioner.language_model
    return {"models": models, "data": scenes.identity}


def _first(table: pd.DataFrame, n: int) -> pd.DataFrame:
    return table[table["rank"] < n]


def _joined(parts: Sequence[Ranking], order: Tensor) -> Ranking:
    return Ranking(*(torch.cat([getattr(part, name).cpu() for part in parts])[order] for name in FIELDS))
