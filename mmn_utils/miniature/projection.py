"""The projection: one linear layer from a patch's features to a vector the language model reads as if it were a word
(LiMBeR).

Encoder and language model are frozen; only captions teach. Scenes of one hand (`HELD_OUT`) are kept out of the
training, so that the book can ask whether the projection carries over to a style it never saw.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import GPTJForCausalLM

from mmn_utils.miniature import encoder as vision
from mmn_utils.miniature import training, world
from mmn_utils.miniature.art import STYLES
from mmn_utils.miniature.text import Corpus

HELD_OUT = "openmoji"
N_SCENES, N_IMAGES = 24_000, 64
N_TOKENS = 20
NORM_PENALTY = 0.02


class CaptionedFeatures:
    """Scenes of all hands but one, as the encoder sees them, and their captions."""

    def __init__(self, encoder: Beit, *, n: int = N_SCENES, seed: int = 0) -> None:
        self.seed, styles = seed, [s for s in STYLES if s != HELD_OUT]
        features, self.words, self.captions = [], [], []
        for start in tqdm(range(0, n, 200), desc="features for the projection", disable=None, leave=False):
            keys = [(seed, world.SPLIT_SEEDS["train"], k) for k in range(start, min(start + 200, n))]
            made = [world.scene(key, styles=styles) for key in keys]
            features.append(vision.features_of(encoder, made).half())
            self.words += [m.words for m in made]
            self.captions += [world.captions(key, m.words, m.ground) for key, m in zip(keys, made, strict=True)]
        self.features = torch.cat(features)
        """float16 [scene, patch, d_vision]"""

    def batch(self, corpus: Corpus, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [image, patch, d_vision], caption tokens int [image, token], which of them count bool [image,
        token].
        """
        rng = np.random.default_rng([self.seed, 21, step])
        chosen = rng.integers(len(self.features), size=N_IMAGES)
        rows = [
            corpus.encode(self.captions[i][rng.integers(5)])[: N_TOKENS - 1] + [corpus.tokenizer.eos_token_id]
            for i in chosen
        ]
        tokens = torch.tensor([row + [corpus.tokenizer.eos_token_id] * (N_TOKENS - len(row)) for row in rows])
        counted = torch.arange(N_TOKENS)[None] < torch.tensor([len(row) for row in rows])[:, None]
        return self.features[torch.from_numpy(chosen)].float(), tokens, counted


@torch.no_grad()
def ridge_start(
    data: CaptionedFeatures, model: GPTJForCausalLM, corpus: Corpus, *, n: int = 4_000, penalty: float = 1e-2
) -> nn.Linear:
    """Ridge regression from each patch to the mean word embedding of the concepts its scene's captions name."""
    table, width = model.get_input_embeddings().weight, data.features.shape[-1]
    aims = torch.stack([table[[corpus.ids[w][0] for w in words]].mean(0) for words in data.words[:n]])
    x = data.features[:n].double().flatten(0, 1)
    y = aims.double().repeat_interleave(data.features.shape[1], 0)
    middle, centre = x.mean(0), y.mean(0)
    x, y = x - middle, y - centre
    weight = torch.linalg.solve(x.T @ x + penalty * len(x) * x.var() * torch.eye(width, dtype=x.dtype), x.T @ y).T
    linear = nn.Linear(width, len(centre))
    linear.weight.copy_(weight)
    linear.bias.copy_(centre - weight @ middle)
    return linear


def step_loss(linear: nn.Linear, model: GPTJForCausalLM, corpus: Corpus, data: CaptionedFeatures, step: int) -> Tensor:
    """Caption loss behind the image prompts, and a small price on image prompts longer than word embeddings."""
    features, tokens, counted = (t.to(model.device) for t in data.batch(corpus, step))
    prompts, table = linear(features), model.get_input_embeddings()
    with torch.autocast(model.device.type, torch.bfloat16):
        hidden = model.transformer(inputs_embeds=torch.cat([prompts, table(tokens)], 1)).last_hidden_state
        logits = model.lm_head(hidden[:, -N_TOKENS - 1 : -1])
    loss = F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none")
    excess = prompts.square().mean() / table.weight.square().mean()
    return (loss * counted).sum() / counted.sum() + NORM_PENALTY * excess.clamp(min=1).log()


def train(
    linear: nn.Linear,
    model: GPTJForCausalLM,
    corpus: Corpus,
    data: CaptionedFeatures,
    *,
    n_steps: int,
    checkpoint: Path,
) -> list[dict[str, float]]:
    """Train from the start given, or from the checkpoint; the language model gets no gradient."""
    model.requires_grad_(False)
    solvers = [torch.optim.AdamW(linear.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)]
    return training.fit(
        [linear], lambda step: step_loss(linear, model, corpus, data, step), solvers,
        n_steps=n_steps, checkpoint=checkpoint, seed=corpus.seed,
    )  # fmt: skip


@torch.no_grad()
def naming(
    linear: nn.Linear, model: GPTJForCausalLM, encoder: Beit, corpus: Corpus, *,
    n_objects: int, styles: Sequence[str], n: int = 360, shuffled: bool = False, seed: int = 0,
) -> float:  # fmt: skip
    """Share of new scenes whose objects are all named in the greedy continuation of "A picture of".

    `shuffled`: the caption is held against the next scene.
    """
    made = [world.scene((seed, 97, k), styles=styles, n_objects=(n_objects,)) for k in range(n)]
    prompts, table = linear(vision.features_of(encoder, made)), model.get_input_embeddings()
    sequence = torch.cat([prompts, table(torch.tensor(corpus.encode("A picture of"))).expand(n, -1, -1)], 1)
    said = torch.empty(n, 0, dtype=torch.long)
    for _ in range(3 * n_objects + 1):
        read = torch.cat([sequence, table(said)], 1)
        said = torch.cat([said, model(inputs_embeds=read, logits_to_keep=1).logits.argmax(-1)], 1)
    texts = corpus.tokenizer.batch_decode(said)
    truth = [m.words for m in (made[1:] + made[:1] if shuffled else made)]
    heard = [[w.strip(".,") for w in text.split(".")[0].split()] for text in texts]
    return float(np.mean([all(w in words for w in wanted) for words, wanted in zip(heard, truth, strict=True)]))
