r"""Where in the language model a picture becomes a word: the logit lens at the image positions.

The residual stream $h_p^l$ after layer $l$ is read as if it were the last: $W_U\,\mathrm{norm}(h_p^l)$ (nostalgebraist
2020). "After layer 0" is before any: the image prompt itself. Layers are otherwise counted as in the rest of the book,
so that depth $l + 1$ is what layer $l$ leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from mmn_utils.data import CocoScenes
from mmn_utils.decoding import last_norm, unembedding
from mmn_utils.metrics import Estimate, bootstrap_mean
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import last_logits, mlp_layers
from mmn_utils.receptive_fields import coverage
from mmn_utils.survey import inputs
from mmn_utils.sweeps import Sweeps

PLACES = ("name, on the object", "name, on the ground", "another name, on the object")


@torch.no_grad()
def residual_streams(model: nn.Module, embeddings: Tensor) -> Tensor:
    """What enters the first layer and what leaves each, float [depth, row, position, d_model]."""
    blocks = [mlp.block for mlp in mlp_layers(model)]
    streams: list[Tensor] = []

    def before(_block: nn.Module, args: tuple, kwargs: dict) -> None:
        streams.append(args[0] if args else kwargs["hidden_states"])

    def after(_block: nn.Module, _args: tuple, out: Tensor | tuple) -> None:
        streams.append(out[0] if isinstance(out, tuple) else out)

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in blocks]
    try:
        last_logits(model, embeddings)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([stream.to(embeddings.device) for stream in streams])


@torch.no_grad()
def lens_logits(model: nn.Module, stream: Tensor) -> Tensor:
    """The prediction that a residual stream [..., d_model] would be, if no layer followed: logits [..., token]."""
    weight, bias = unembedding(model)
    normed = last_norm(model)(stream).to(weight)
    return (normed @ weight.T if bias is None else normed @ weight.T + bias).float()


@dataclass(frozen=True)
class Readings:
    """How some tokens stand in the logit lens, each [depth, row, position, token]."""

    rank: Tensor
    """int: how many tokens of the vocabulary stand higher."""
    probability: Tensor


def read(model: nn.Module, embeddings: Tensor, tokens: Tensor, *, positions: slice) -> Readings:
    """The ranks and probabilities of each row's `tokens` (int [row, token]) at `positions`, at every depth."""
    ranks, probabilities = [], []
    for stream in residual_streams(model, embeddings):
        logits = lens_logits(model, stream[:, positions])
        wanted = tokens.to(logits.device)[:, None].expand(-1, logits.shape[1], -1)
        own = logits.gather(-1, wanted)
        ranks.append(torch.stack([(logits > one[..., None]).sum(-1) for one in own.unbind(-1)], dim=-1))
        probabilities.append(logits.softmax(-1).gather(-1, wanted))
    return Readings(rank=torch.stack(ranks).cpu(), probability=torch.stack(probabilities).cpu())


@dataclass(frozen=True)
class Shown:
    """One object of one image."""

    image: int
    name: str
    on: Tensor
    """bool [patch]: more than half covered by the object."""
    ground: Tensor
    """bool [patch]: no object at all."""


def shown_objects(scenes: CocoScenes, images: Sequence[int], n_patches: int) -> list[Shown]:
    """The categories of the images that cover at least one patch by half, in the images' order; images without any
    bare patch are left out."""
    found = []
    for image in images:
        cover: dict[str, Tensor] = {}
        for o in scenes.objects(image):
            cover[o.name] = cover.get(o.name, torch.zeros(n_patches)) + coverage(o.mask, n_patches)
        ground = sum(cover.values(), torch.zeros(n_patches)) == 0
        found += [Shown(image, n, c > 0.5, ground) for n, c in cover.items() if (c > 0.5).any() and ground.any()]
    return found


def survey(
    captioner: Captioner, scenes: CocoScenes, images: Sequence[int], *, sweep: Sweeps, n_first: int = 10
) -> pd.DataFrame:
    """One row for each object, depth and place (PLACES): `first` (share of the patches where the name's first token is
    among the lens's `n_first`), `rank` (median over patches, from 0) and `probability` (mean).

    The name on another image's object is the control: the next object in order that is called otherwise.
    """
    model = captioner.language_model
    n_patches = captioner.image_prompts([scenes.image(images[0])]).shape[1]
    objects = shown_objects(scenes, images, n_patches)
    others = [next(o.name for o in [*objects[k:], *objects] if o.name != own.name) for k, own in enumerate(objects)]
    names = [[name_token(captioner, own.name), name_token(captioner, w)] for own, w in zip(objects, others)]  # noqa: B905

    def readings(places: list[int]) -> pd.DataFrame:
        some = [objects[place] for place in places]
        prompts = captioner.image_prompts([scenes.image(o.image) for o in some]).to(model.dtype)
        tokens = torch.tensor([names[place] for place in places])
        found = read(model, prompts, tokens, positions=slice(0, n_patches))
        rows = [row for k, o in enumerate(some) for row in _rows(found, k, o, n_first)]
        return pd.DataFrame(rows, columns=["image", "name", "depth", "place", "first", "rank", "probability"])

    parameters = {"n_first": n_first, "objects": [(o.image, o.name) for o in objects], "tokens": names}
    key = inputs(captioner, scenes) | {"parameters": parameters, "size": 16}
    return sweep("lens", readings, range(len(objects)), **key).table()


def name_token(captioner: Captioner, name: str) -> int:
    """The first token of a name that follows other words."""
    return captioner.tokenizer(f" {name}", add_special_tokens=False)["input_ids"][0]


def by_depth(rows: pd.DataFrame, column: str, place: str, seed: int) -> list[Estimate]:
    """The mean of a column at one place, depth by depth; the bootstrap draws images, not objects."""
    means = rows[rows["place"] == place].groupby(["depth", "image"])[column].mean()
    return [bootstrap_mean(means[depth], seed) for depth in means.index.unique("depth")]


def _rows(readings: Readings, k: int, shown: Shown, n_first: int) -> list[tuple]:
    """The rows of one object, which is the `k`th of its batch."""
    rows = []
    for place, patches, token in zip(PLACES, (shown.on, shown.ground, shown.on), (0, 0, 1), strict=True):
        ranks = readings.rank[:, k, patches, token].float()
        numbers = (ranks < n_first).float().mean(1), ranks.median(1).values, readings.probability[:, k, patches, token]
        columns = (numbers[0].tolist(), numbers[1].tolist(), numbers[2].mean(1).tolist())
        rows += [(shown.image, shown.name, depth, place, *row) for depth, row in enumerate(zip(*columns, strict=True))]
    return rows
