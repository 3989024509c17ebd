"""What a reader brings: a picture, a word, a model (the last chapter).

All three come from outside and are looked at before they are used. Pictures are read as guardedly as those of any data
set, words must be such as can be drawn, and of a model only tensors in safetensors are read, never code.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from mmn_utils import data
from mmn_utils.ablation import ablated_logits
from mmn_utils.attribution import Target, first_noun_target, target_batches
from mmn_utils.causes import first_units
from mmn_utils.decoding import unembedding
from mmn_utils.metrics import Estimate
from mmn_utils.miniature.album import font
from mmn_utils.miniature.lexicon import nouns
from mmn_utils.models import Captioner, WeightsError, hub
from mmn_utils.neurons import NeuronId, last_logits, mlp_layers
from mmn_utils.profiles import Profile
from mmn_utils.receptive_fields import matched_units
from mmn_utils.typography import FONT
from mmn_utils.untrusted import FORMATS, MOST_PIXELS, as_visible, is_plain, read_image

MOST_SIDE = 512
"""Pixels of a reader's picture after cutting: more than any model here looks at, and little enough to draw on."""
LONGEST = 24
"""Letters of a word that is written on a picture: of more, none could be read."""


# ------------------------------------------------------------------------------------------------------------ a picture


def picture(path: str, profile: Profile, *, scene: int = 0) -> Image.Image:
    """The image file at `path`, or if that is empty the profile's scene number `scene`; see `square`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is damaged, of a format that is not read, or too large.
        ValueError: the profile has no scene of that number.
    """
    if path:
        return square(_upright(Path(path).expanduser()))
    scenes = data.scenes(profile)
    if not 0 <= scene < len(scenes):
        raise ValueError(f"scene: expected a number from 0 to {len(scenes) - 1}, found {scene}")
    return square(scenes.image(scenes.ids[scene]))


def square(image: Image.Image) -> Image.Image:
    """The middle of a picture, as wide as high, and at most `MOST_SIDE` pixels wide; a small square one as it is.

    The models look at squares: what is drawn over the picture later has to lie where they looked.
    """
    side = min(*image.size, MOST_SIDE)
    return ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)


def _upright(path: Path) -> Image.Image:
    """An image file, turned as the camera was held."""
    if not path.is_file():
        raise FileNotFoundError(f"image: there is no file {path}, seen from {Path.cwd()}; give the path of a picture")
    try:
        return ImageOps.exif_transpose(read_image(path))
    except Exception as error:  # what is wrong with a file shows in many ways, in its EXIF tags too
        raise OSError(
            f"image: {path} cannot be read ({error.__cause__ or error}); save it as one of {', '.join(FORMATS)}, "
            f"of at most {MOST_PIXELS:,} pixels"
        ) from error


@dataclass(frozen=True)
class Said:
    """What a captioner says of some pictures, and how sure it is of what will be explained."""

    captions: list[str]
    targets: list[Target]
    """Of each caption the first noun, or where it has none, the token that comes first."""
    probability: np.ndarray
    """Of the target's token where it was said, float [picture]."""


@torch.no_grad()
def say(captioner: Captioner, image_prompts: Tensor) -> Said:
    """Caption pictures, image prompts float [picture, patch, d_model]."""
    prompts, probability = captioner.with_text(image_prompts), np.zeros(len(image_prompts))
    captions = captioner.complete(prompts)
    likeliest = last_logits(captioner.language_model, prompts).argmax(-1).tolist()
    targets = [_target(captioner, *pair) for pair in zip(captions, likeliest, strict=True)]
    for batch in target_batches(captioner, prompts, targets):
        chances = last_logits(captioner.language_model, batch.embeddings).float().softmax(-1)
        probability[batch.images.numpy()] = chances.gather(1, batch.tokens[:, None])[:, 0].cpu().numpy()
    return Said(captions, targets, probability)


def _target(captioner: Captioner, caption: str, likeliest: int) -> Target:
    text = captioner.tokenizer.decode([likeliest]).strip()
    return first_noun_target(captioner, caption, nouns()) or Target(noun=text, token=likeliest, before=())


# --------------------------------------------------------------------------------------------------------------- a word


def drawable(word: str) -> str:
    """A word that can be written on a picture, spaces around it left out.

    Raises:
        ValueError: it is empty or too long, or the font has no sign for one of its characters.
    """
    text = " ".join(word.split())
    if not 1 <= len(text) <= LONGEST or not is_plain(text):
        raise ValueError(f"word: expected 1 to {LONGEST} letters, found {len(text)} in {reprlib.repr(word)}")
    drawn = FT2Font(font(FONT, 12).path)
    if missing := sorted({character for character in text if not drawn.get_char_index(ord(character))}):
        raise ValueError(f"word: {FONT} has no sign for {', '.join(missing)}; choose another word than {text!r}")
    return text


def classes(concepts: pd.DataFrame, word: str) -> tuple[list[str], list[str], int]:
    """Names and prompts of an album's concepts, and the number of the one that is called `word`; a word that none is
    called becomes one more class.
    """
    names, prompts = concepts.word.tolist(), concepts.prompt.tolist()
    meant = {name.casefold(): k for k, name in enumerate(names)}.get(word.casefold())
    return (
        (names, prompts, meant) if meant is not None else ([*names, word], [*prompts, f"a photo of {word}"], len(names))
    )


def followed(
    found: np.ndarray,
    measured: np.ndarray,
    concepts: Sequence[str],
    wanted: Sequence[int],
    loud: pd.DataFrame,
    *,
    n: int = 2,
) -> pd.DataFrame:
    """CLIP's neurons to watch while a word is written: for each `wanted` concept the `n` that tell it best in photo,
    drawing and word alike, then for each column of `loud` (answers, one row a neuron) the `n` with the largest.

    found, measured: as `multimodal.judge` takes them. One row a neuron, indexed by it, the first reason counting:
    `why`, `concept` (for the loud ones, the one they tell best), `weakest` (AUROC of its weakest facet in `measured`).
    """
    best, holds = found.min(0), measured.min(0)
    rows = [(u, "best for it", k) for k in wanted for u in np.argsort(-best[k])[:n]]
    rows += [(u, f"loudest {c}", best[:, u].argmax()) for c in loud for u in loud[c].nlargest(n).index]
    table = pd.DataFrame(rows, columns=["unit", "why", "concept"]).drop_duplicates("unit")
    table["weakest"] = holds[table.concept, table.unit]
    return table.assign(concept=np.array(concepts)[table.concept]).set_index("unit")


def answers(ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Axes:
    """A table of answers in standard deviations, float [row, column], shaded on one scale about zero."""
    reach = float(np.abs(values).max())
    ax.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    for row, column in np.ndindex(values.shape):
        colour = "white" if abs(values[row, column]) > 0.6 * reach else "black"
        ax.text(column, row, f"{values[row, column]:+.1f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


# -------------------------------------------------------------------------------------------------------------- a model


def language_model(name: str, profile: Profile) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal language model of Hugging Face with its tokenizer, frozen, in the profile's dtype on its device.

    name: a folder, or a name on the hub, which is fetched once; `NAME@COMMIT` asks for one state of it, and without
    that, it is whatever is newest. Only safetensors are read.

    Raises:
        WeightsError: there is no such model, its tensors are missing or not safetensors, or it needs code of its own.
    """
    source, revision = _located(name)
    cache, dtype = profile.cache_folder / "hub", getattr(torch, profile.models.language_model.dtype)
    model = hub.load_pretrained(
        AutoModelForCausalLM, source, revision=revision, cache=cache, dtype=dtype, use_safetensors=True
    )
    tokenizer = hub.load_tokenizer(source, revision=revision, cache=cache)
    if not tokenizer("A word")["input_ids"]:  # what transformers makes of a folder without one
        raise WeightsError(f"model: {name} has no tokenizer; save it beside the model with tokenizer.save_pretrained")
    return model.to(profile.torch_device).eval().requires_grad_(False), tokenizer


def _located(name: str) -> tuple[str, str]:
    """An absolute folder, or a hub name; and the revision to ask for."""
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir() and not name.startswith(("/", ".", "~")):
        source, _, commit = name.partition("@")
        return source, commit or "branch:main"
    if not folder.is_dir():
        raise WeightsError(f"model: there is no folder {folder}; give one, or a name on the Hugging Face hub")
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"model: {folder} holds no .safetensors, the only weights that are read; "
            "where you trust what is there, load it and write it again with save_pretrained"
        )
    return str(folder), "branch:main"


def token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    """A text as the model reads it, int [1, position].

    Raises:
        ValueError: it has no token, more than the model can read, or one that the model does not know.
    """
    ids = torch.tensor([tokenizer(text)["input_ids"]], dtype=torch.long, device=model.device)
    most = getattr(model.config, "max_position_embeddings", None) or ids.shape[1]
    if not 1 <= ids.shape[1] <= most:
        raise ValueError(f"text: expected 1 to {most} tokens, found {ids.shape[1]} in {reprlib.repr(text)}")
    n_rows = len(model.get_input_embeddings().weight)
    if int(ids.max()) >= n_rows:
        raise ValueError(f"text: token {int(ids.max())} is not among the model's {n_rows}; is the tokenizer its own?")
    return ids


def first_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """The token that a word begins with inside a sentence.

    Raises:
        ValueError: the tokenizer makes nothing of it.
    """
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    found = next((i for i in ids if tokenizer.decode([i]).strip()), None)
    if found is None:
        raise ValueError(f"word: this model's tokenizer has no token for {reprlib.repr(word)}")
    return found


def listed(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Units as a reader wants to see them: name, a column of theirs, interpretable or not, the first six tokens."""
    names = [str(NeuronId(*pair)) for pair in zip(rows.layer, rows.unit, strict=True)]
    tokens = [as_visible(", ".join(t.strip() for t in row[:6])) for row in rows.tokens]
    return pd.DataFrame(
        {value: rows[value].to_numpy(), "interpretable": rows.interpretable.to_numpy(), "writes towards": tokens},
        index=pd.Index(names, name="neuron"),
    )


def writers(model: nn.Module, token: int, decoded: pd.DataFrame, *, first: int = 10) -> pd.DataFrame:
    """The `first` units whose output vectors write most towards a token, the interpretable ones on top.

    The rows are those of `decoded` (`survey.decoded_table`) with a column `logit` more: $W_U^c W_{out}^k$, what the
    token's logit gains for each unit of activation if nothing else came after.
    """
    row = unembedding(model)[0][token].float()
    logits = torch.cat([mlp.directions.to(row) @ row for mlp in mlp_layers(model)]).cpu()
    best = logits.topk(min(first, len(logits)))
    rows = decoded.iloc[best.indices.numpy()].assign(logit=best.values.numpy())
    return rows.sort_values("interpretable", ascending=False, kind="stable")


def ablations(
    model: nn.Module, embeddings: Tensor, token: int, ranking: Tensor, *, sizes: list[int], n_draws: int, seed: int
) -> pd.DataFrame:
    """The token's probability without the first units of a ranking, and without random others of the same layers.

    embeddings: float [1, position, d_model], up to the position that predicts the token; ranking: int [unit], numbered
    `layer * n_units + unit`. Columns: `n_units`, `draw` (0: the first units; from 1 on: a random set), `probability`.
    """
    layers, generator, tables = mlp_layers(model), torch.Generator().manual_seed(seed), []
    shape = len(layers), layers[0].n_units
    for size in sizes:
        drawn = matched_units(ranking[:size].expand(n_draws, -1), shape[1], generator=generator)
        masks = torch.stack([first_units(units, size, shape) for units in (ranking, *drawn)])
        p = ablated_logits(model, embeddings, masks).float().softmax(-1)[:, token]
        tables.append(pd.DataFrame({"n_units": size, "draw": range(n_draws + 1), "probability": p.tolist()}))
    return pd.concat(tables, ignore_index=True)


def spread(table: pd.DataFrame) -> dict[str, list[Estimate]]:
    """`ablations` by size, for a figure: the first units, and the random sets' mean between their 2.5 % and 97.5 %."""
    random = table[table.draw > 0].groupby("n_units").probability
    low, high = random.quantile(0.025), random.quantile(0.975)
    top = table[table.draw == 0].set_index("n_units").probability
    return {
        "first units": [Estimate(p, p, p, 1) for p in top],
        "random units": [Estimate(m, low[n], high[n], random.size()[n]) for n, m in random.mean().items()],
    }
