"""What helps and hinders a unit's receptive field: the object's size, its company, and the hand that drew it.

The masks are known exactly in a drawn world, and as well as people outline things in COCO.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from mmn_utils import activity
from mmn_utils.data import CocoScenes
from mmn_utils.data.coco import SceneObject
from mmn_utils.metrics import Estimate, bootstrap_mean, wilson
from mmn_utils.models.captioner import Captioner
from mmn_utils.receptive_fields import coverage, field_ious
from mmn_utils.sweeps import Sweeps

COMPANY = ("alone", "in front of another", "behind another")


def named_objects(scenes: CocoScenes, images: Sequence[int], nouns: Sequence[str]) -> tuple[pd.DataFrame, list[Tensor]]:
    """Of each image whose noun is a word of exactly one annotated name, the object so named, and its mask [y, x].

    Columns: image, name, style (the hand; "photo" where the data do not say), size (share of the picture), company
    (COMPANY). An image with several objects of that name is left out, for its mask would be no single silhouette.
    """
    rows, masks = [], []
    for image, noun in zip(images, nouns, strict=True):
        objects = scenes.objects(image)
        called = [k for k, o in enumerate(objects) if noun in o.name.split()]
        if len(called) == 1:
            mask = objects[called[0]].mask
            style = scenes.info(image).get("style", "photo")
            rows.append((image, objects[called[0]].name, style, float(mask.mean()), company(objects, called[0])))
            masks.append(torch.as_tensor(mask))
    return pd.DataFrame(rows, columns=["image", "name", "style", "size", "company"]), masks


def company(objects: Sequence[SceneObject], which: int) -> str:
    """Whether another object's mask touches this one's, and which lies in front: the one that is listed later.

    In the drawn worlds objects are listed from the back to the front. COCO's order says nothing: there, "in front" and
    "behind" only mean that something touches.
    """
    grown = functional.max_pool2d(torch.as_tensor(objects[which].mask)[None].float(), 3, stride=1, padding=1)[0] > 0
    touching = [k for k, o in enumerate(objects) if k != which and (grown.numpy() & o.mask).any()]
    if not touching:
        return COMPANY[0]
    return COMPANY[2] if max(touching) > which else COMPANY[1]


def mean_ious(maps: Tensor, units: Tensor, thresholds: Tensor, masks: Sequence[Tensor]) -> np.ndarray:
    """Each image's mean IoU over its units (int [image, unit], numbered through all layers), float [image].

    maps: float [image, unit, patch], as `activity.maps` gives them; thresholds: float [unit], of all units.
    """
    return field_ious(maps, thresholds[units], masks).double().mean(1).numpy()


def size_groups(sizes: pd.Series, n: int = 3) -> pd.Series:
    """Each size as the range of its quantile group, in per cent of the picture: `n` groups of equally many."""
    groups = pd.qcut(sizes, n, duplicates="drop")
    return groups.map(lambda r: f"{100 * max(r.left, 0):.1f} to {100 * r.right:.1f} % of the picture").astype(str)


def compare_by(rows: pd.DataFrame, column: str, seed: int, *, least: int = 5) -> dict[str, tuple[Estimate, Estimate]]:
    """Mean IoU of the image's units and of the random ones (columns `iou`, `random`) in each group of a column; groups
    of fewer than `least` images are left out."""
    groups = {str(name): group for name, group in rows.groupby(column, sort=False) if len(group) >= least}
    return {name: tuple(bootstrap_mean(g[c], seed) for c in ("iou", "random")) for name, g in groups.items()}


# --- which hand a unit misses ----------------------------------------------------------------------------------------


def units_with_words(
    attributions: pd.DataFrame, targets: pd.DataFrame, *, first: int = 20, n: int = 12, least: int = 2
) -> pd.DataFrame:
    """The `n` units that are among the `first` of most images: layer, unit, n_images, and the nouns they are for.

    A unit is for a noun if it is among the first of at least half of that noun's images, and of `least` or more.
    """
    best = attributions[attributions["rank"] < first].merge(targets[["image", "noun"]], on="image")
    times = best.groupby(["layer", "unit", "noun"])["image"].nunique()
    shares = times / targets.groupby("noun")["image"].nunique().reindex(times.index.get_level_values("noun")).to_numpy()
    kept = times[(shares >= 0.5) & (times >= least)].reset_index(name="n_images")
    found = kept.groupby(["layer", "unit"]).agg(n_images=("n_images", "sum"), nouns=("noun", list)).reset_index()
    return (
        found.sort_values(["n_images", "layer", "unit"], ascending=[False, True, True]).head(n).reset_index(drop=True)
    )


def hits(
    captioner: Captioner,
    scenes: CocoScenes,
    images: Sequence[int],
    units: pd.DataFrame,
    thresholds: Tensor,
    *,
    n_units: int,
    sweep: Sweeps,
) -> pd.DataFrame:
    """One row for each unit of `units` and object it could notice: `place` (of the unit in the table), style, whether
    it is `meant` (called by one of the unit's nouns), and `hit`.

    A unit hits an object if it is above its threshold at any patch that the object covers by half.
    """
    flat = torch.tensor((units["layer"] * n_units + units["unit"]).to_numpy())
    maps = activity.maps(captioner, scenes, images, flat.expand(len(images), -1), sweep=sweep)
    above = maps > thresholds[flat][:, None]
    rows = [row for i, lit in zip(images, above, strict=True) for row in _hits_in(scenes, i, lit, units)]
    return pd.DataFrame(rows, columns=["place", "image", "style", "meant", "hit"])


def _hits_in(scenes: CocoScenes, image: int, lit: Tensor, units: pd.DataFrame) -> list[tuple]:
    """The rows of one image; lit: bool [unit, patch]."""
    style, rows = scenes.info(image).get("style", "photo"), []
    for o in scenes.objects(image):
        on = coverage(o.mask, lit.shape[1]) > 0.5
        if on.any():
            for place, (nouns, where) in enumerate(zip(units["nouns"], lit, strict=True)):
                rows.append((place, image, style, bool(set(nouns) & set(o.name.split())), bool((where & on).any())))
    return rows


def hit_rates(found: pd.DataFrame) -> pd.DataFrame:
    """Share of the meant objects that each unit hits by hand: one row a unit, one column a hand (nan where none is)."""
    return found[found["meant"]].pivot_table(index="place", columns="style", values="hit", aggfunc="mean")


def hit_shares(found: pd.DataFrame, seed: int, *, meant: bool) -> dict[str, Estimate]:
    """Share of the objects hit by hand, all units together: the mean over images, which are what the bootstrap draws
    (an image's hits depend on one another)."""
    rows = found[found["meant"] == meant]
    means = rows.groupby(["style", "image"])["hit"].mean()
    return {style: bootstrap_mean(means[style], seed) for style in means.index.unique("style")}


def misses(found: pd.DataFrame) -> pd.Series:
    """For each unit the hand whose objects it hits least often, if the interval of that share lies below the share over
    all other hands; "none" otherwise."""
    answers = {}
    for place, rows in found[found["meant"]].groupby("place"):
        shares = {style: wilson(int(g["hit"].sum()), len(g)) for style, g in rows.groupby("style")}
        worst = min(shares, key=lambda style: shares[style].value)
        others = rows[rows["style"] != worst]["hit"]
        answers[place] = worst if len(others) and shares[worst].high < others.mean() else "none"
    return pd.Series(answers)
