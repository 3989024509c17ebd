"""Part II of the explorer: what each neuron of the CLIP's image tower answers to."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from mmn_utils import multimodal, results
from mmn_utils.data.album import Album, album
from mmn_utils.explorer import COLUMNS, Part, Pictures, Record, address_of, left, picked, picture_examples
from mmn_utils.models.clip import Clip
from mmn_utils.profiles import Profile

DEFINITIONS = {
    "auroc": "How well the neuron tells its best concept from all others among photos, drawings and written words, on "
    "pictures that had no part in choosing the concept (chapter 09); above .9 in all three: multimodal.",
    "concepts": "Shares of its 20 strongest pictures by their main concept.",
    "families": "Shares of its 20 strongest pictures by the family of their main concept.",
    "words": "Written words that it answers most, in standard deviations over words from their mean (chapter 12).",
    "visualisation": "An image grown from noise to excite the neuron (chapter 10), and the answer to it in standard "
    "deviations over pictures, from zero.",
    "threshold": "The neuron's quantile over all places of all pictures shown here.",
}


def part(settings: Profile, *, n_pictures: int, q: float, seed: int) -> Part:
    """The neurons of the CLIP, shown `n_pictures` of the stream in which all kinds of picture are mixed."""
    judged = results.load(settings, "09_one_neuron_three_faces", "neurons")
    words = left(settings, "12_words", "answers")
    stream = album(settings, "stream")
    numbers = np.sort(np.random.default_rng(seed).permutation(len(stream.pictures))[:n_pictures])
    seen = multimodal.look(Clip.from_profile(settings, "clip"), stream, numbers)
    maps, records = seen.maps.numpy(), []
    for unit, row in judged.iterrows():
        record = {"address": address_of("clip", unit), "name": f"CLIP N{unit}"}
        record |= {"auroc": row[["concept", *multimodal.FACETS, "multimodal"]].to_dict()}
        record |= strongest(stream, numbers[np.argsort(-maps[:, unit].max((1, 2)), kind="stable")[:20]])
        record |= {} if words is None else {"words": top_words(words[str(unit)])}
        record |= picture_examples(maps[:, unit], q=q, seed=[seed, int(unit)])
        records.append(record | {"label": label(record)})
    return Part(
        key="clip",
        title="Part II: a CLIP",
        about="Channels of the last residual block of the image tower, before its final ReLU.",
        activation="residual sum before the last ReLU, largest over the map",
        definitions=DEFINITIONS,
        neurons=[records],
        picked=pick(records),
        pictures=Pictures.of(stream.images(numbers), titles(stream.pictures.loc[numbers])),
        grid=maps.shape[2:],
        sheets=with_grown(records, left(settings, "10_seeing_what_a_neuron_wants", "grown")),
    )


def strongest(stream: Album, numbers: Sequence[int]) -> Record:
    """What some pictures show: the shares of the five commonest `concepts`, and of the three commonest `families`."""
    concepts = stream.pictures["concept"].loc[numbers]
    families = stream.concepts["family"][concepts]
    ranked = (column.reset_index(drop=True).value_counts(normalize=True) for column in (concepts, families))
    return {name: list(s.items())[:n] for (name, n), s in zip((("concepts", 5), ("families", 3)), ranked, strict=True)}


def label(record: Record) -> str:
    """What the search looks in: the best concept, the commonest ones, their family, the words answered most."""
    names = [name for name, _ in [*record["concepts"][:2], *record["families"][:1], *record.get("words", [])[:2]]]
    return ", ".join(dict.fromkeys([record["auroc"]["concept"], *names]))


def titles(shown: pd.DataFrame) -> list[str]:
    """What an album's pictures show, in words: concept, facet, and the caption where there is one."""
    captions = shown["caption"].fillna("") if "caption" in shown else [""] * len(shown)
    rows = zip(shown["concept"], shown["facet"], captions, strict=True)
    return [f"{concept}, {facet}" + (f": {caption}" if caption else "") for concept, facet, caption in rows]


def top_words(answers: pd.Series, *, n: int = 8) -> list[tuple[str, float]]:
    """The written words that a neuron answers most, in SD from its mean. answers: float by word."""
    z = (answers - answers.mean()) / max(float(answers.std()), 1e-12)
    return list(z.sort_values(ascending=False, kind="stable").head(n).items())


def with_grown(records: Sequence[Record], grown: pd.DataFrame | None) -> dict[str, Pictures]:
    """Add to the records of chapter 10's neurons where their grown image is; gives the sheet that holds them all."""
    if grown is None:
        return {}
    images = [_square(pixels) for pixels in grown["pixels"]]
    for number, (unit, sd) in enumerate(zip(grown["unit"], grown["sd"], strict=True)):
        at = {"sheet": "clip/grown.webp", "tile": images[0].width, "columns": COLUMNS, "number": number}
        records[unit]["visualisation"] = at | {"activation_sd": sd}
    return {"grown": Pictures(images, [], images[0].width)}


def _square(pixels: bytes) -> Image.Image:
    """An image from its bytes, [y, x, RGB]."""
    side = round((len(pixels) / 3) ** 0.5)
    return Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(side, side, 3))


def pick(records: Sequence[Record]) -> list[Record]:
    """Neurons to look at first."""
    table = pd.DataFrame(list(records))
    auroc = pd.DataFrame(table["auroc"].tolist())
    weakest = auroc[list(multimodal.FACETS)].min(axis=1)
    middle = -(weakest - weakest.median()).abs()
    one, two = (table["families"].str[k].str[1].astype(float) for k in (0, 1))
    blind = auroc["photo"] - auroc["text"]
    rules = {
        "well explained": ("of all neurons, its weakest facet tells its concept best", weakest),
        "of one kind": ("its strongest pictures are of one family more than any other neuron's", one),
        "polysemantic": ("two families share its strongest pictures evenly", two.where(two >= 0.8 * one)),
        "cannot read": ("knows its concept in photos far better than its written name", blind),
        "badly explained": ("even the best concept that could be found for it holds worst of all", -weakest),
        "typical": ("in the middle of the ranking by the weakest facet", middle),
    }
    return picked(table["address"], rules)
