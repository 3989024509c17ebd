"""Would a CLIP name the ink if captions named it more often? Further training on written words, at several rates of
captions that speak of the ink (Goh et al. 2021, figure 17, asks what the model answers; the rate cannot be set there).
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm

from mmn_utils.models.clip import Clip


@dataclass(frozen=True)
class Written:
    """Pictures of written words, and what is true of them."""

    images: Sequence[Image.Image]
    words: Sequence[str]
    inks: Sequence[str]

    def captions(self, rate: float, prompt: str, rng: np.random.Generator) -> list[str]:
        """The ink's name in the prompt in a share `rate` of the pictures, in others what is written."""
        named = rng.random(len(self.words)) < rate
        pairs = zip(self.words, self.inks, named, strict=True)
        return [prompt.format(ink) if is_named else f"the word {word}" for word, ink, is_named in pairs]


def tuned(
    clip: Clip,
    written: Written,
    rates: Iterable[float],
    prompt: str,
    *,
    n_steps: int,
    seed: int,
    batch_size: int = 96,
    learning_rate: float = 3e-4,
) -> Iterator[tuple[float, Clip]]:
    """The model trained on a little, once for each rate: the last stage, the attention pool and the text tower learn.

    Every rate sees the same pictures in the same order; normalisation keeps its statistics. `clip` is not changed.
    """
    before = _before_last_stage(clip, written.images)
    for rate in rates:
        yield rate, _trained(clip, before, written, rate, prompt, n_steps, seed, batch_size, learning_rate)


@torch.no_grad()
def _before_last_stage(clip: Clip, images: Sequence[Image.Image], size: int = 128) -> Tensor:
    """What the stages that stay as they are make of the pictures, float [image, channel, y, x]."""
    visual, parts = clip.visual, [clip.pixels(images[i : i + size]) for i in range(0, len(images), size)]
    return torch.cat([visual.layer3(visual.layer2(visual.layer1(visual.stem(part)))) for part in parts])


def _trained(
    clip: Clip,
    before: Tensor,
    written: Written,
    rate: float,
    prompt: str,
    n_steps: int,
    seed: int,
    batch_size: int,
    learning_rate: float,
) -> Clip:
    model, rng = deepcopy(clip.model), np.random.default_rng(seed)
    last = nn.Sequential(model.visual.layer4, model.visual.attnpool)
    frozen = {id(p) for p in model.visual.parameters()} - {id(p) for p in last.parameters()}
    learning = [p.requires_grad_() for p in model.parameters() if id(p) not in frozen]
    solver = torch.optim.AdamW(learning, lr=learning_rate)
    tokens = clip.tokenizer(written.captions(rate, prompt, np.random.default_rng([seed, 1]))).to(clip.device)
    for _ in tqdm(range(n_steps), desc=f"rate {rate:g}", disable=None, leave=False):
        chosen = torch.from_numpy(rng.choice(len(before), batch_size, replace=False)).to(clip.device)
        seen, said = last(before[chosen]), model.encode_text(tokens[chosen])
        logits = clip.scale * normalize(seen, dim=1) @ normalize(said, dim=1).T
        same = (tokens[chosen][:, None] == tokens[chosen][None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        solver.zero_grad(set_to_none=True)
        loss.backward()
        solver.step()
    return replace(clip, model=model.requires_grad_(False))


def answers(stroop: pd.DataFrame) -> dict[str, np.ndarray]:
    """Of the pairs whose word and ink disagree: which were given the word and which the ink, bool [pair]."""
    clash = stroop[stroop.kind == "incongruent"]
    return {"word": (clash.answer == clash.word).to_numpy(), "ink": (clash.answer == clash.ink).to_numpy()}
