"""Would a CLIP name the ink if captions named it more often? Small CLIPs trained from nothing on written words, once
for each rate of captions that speak of the ink (Goh et al. 2021, figure 17, asks what the model answers; the rate of
its training cannot be set).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from open_clip import image_transform
from open_clip.model import CLIP
from PIL import Image
from torch.nn.functional import cross_entropy, normalize, one_hot
from tqdm import tqdm

from mmn_utils.miniature.album import FONTS, INKS
from mmn_utils.miniature.training import learning_rate_factor
from mmn_utils.models.clip import Clip
from mmn_utils.typography import word_image

SIDE, BATCH, RATE = 32, 64, 3e-3
"""Pixels along a picture's side; pictures in a step; highest learning rate."""


@dataclass(frozen=True)
class Written:
    """Pictures of written words, and what is true of them."""

    images: Sequence[Image.Image]
    words: Sequence[str]
    inks: Sequence[str]

    def captions(self, rate: float, naming: str, reading: str, rng: np.random.Generator) -> list[str]:
        """Of a share `rate` the captions are `naming` with the ink's name, of the others `reading` with the word."""
        named = rng.random(len(self.words)) < rate
        pairs = zip(self.words, self.inks, named, strict=True)
        return [naming.format(ink) if is_named else reading.format(word) for word, ink, is_named in pairs]


def written(words: Sequence[str], inks: Sequence[str], *, n: int, seed: int) -> Written:
    """`n` pictures: any word in any ink, in any font of the album, size and place."""
    rng, images = np.random.default_rng(seed), []
    shown, ink = rng.choice(words, n), rng.choice(inks, n)
    for word, colour in zip(shown, ink, strict=True):
        look = {"size": rng.uniform(0.2, 0.4), "place": tuple(rng.random(2)), "font_name": str(rng.choice(FONTS))}
        images.append(word_image(word, SIDE, ink=INKS[colour], **look))
    return Written(images, shown.tolist(), ink.tolist())


def untrained(clip: Clip, seed: int) -> Clip:
    """A CLIP of a ModifiedResNet and a transformer, much smaller than `clip` and with its tokenizer."""
    torch.manual_seed(seed)
    vision = {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    text = {"context_length": clip.model.context_length, "vocab_size": clip.model.vocab_size}
    model = CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text | {"width": 64, "heads": 2, "layers": 2})
    return Clip(model.to(clip.device), clip.tokenizer, image_transform(SIDE, is_train=False), "small")


def trained(clip: Clip, seen: Written, captions: Sequence[str], *, n_steps: int, seed: int) -> Clip:
    """`clip` after contrastive training on pictures and their captions; what it was is overwritten.

    Each caption stands once in a batch, and belongs to every picture that has it.
    """
    model, rng = clip.model.train().requires_grad_(True), np.random.default_rng(seed)
    pixels, tokens = clip.pixels(seen.images), clip.tokenizer(list(captions)).to(clip.device)
    solver = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in tqdm(range(n_steps), desc="small CLIP", disable=None, leave=False):
        solver.param_groups[0]["lr"] = RATE * learning_rate_factor(step, n_steps, warmup=20)
        chosen = torch.from_numpy(rng.choice(len(tokens), BATCH, replace=False)).to(clip.device)
        texts, right = tokens[chosen].unique(dim=0, return_inverse=True)
        images, said = normalize(model.encode_image(pixels[chosen]), dim=1), normalize(model.encode_text(texts), dim=1)
        logits = clip.scale * images @ said.T
        shown = one_hot(right).T.float()
        loss = (cross_entropy(logits, right) + cross_entropy(logits.T, shown / shown.sum(1, keepdim=True))) / 2
        solver.zero_grad(set_to_none=True)
        loss.backward()
        solver.step()
    return replace(clip, model=model.eval().requires_grad_(False))
