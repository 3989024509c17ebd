"""The language model: GPT-J's architecture in small, trained on the miniature's text and nothing else."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from mmn_utils.miniature import training
from mmn_utils.miniature.concepts import concepts
from mmn_utils.miniature.text import Corpus, description

N_ROWS = 64
N_LEARNT = 3_800  # tokens a batch that count: all outside lists (about 3,550), and so about a tenth of the list items


def build(tokenizer: PreTrainedTokenizerFast, *, n_layer: int = 6, n_embd: int = 192) -> GPTJForCausalLM:
    """An untrained model: by default 6 layers x 768 MLP units, residual stream of 192."""
    end = tokenizer.eos_token_id
    config = GPTJConfig(
        vocab_size=len(tokenizer), n_embd=n_embd, n_layer=n_layer, n_head=n_embd // 32, rotary_dim=16, n_positions=256,
        bos_token_id=end, eos_token_id=end, pad_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPTJForCausalLM(config)


def step_loss(model: GPTJForCausalLM, corpus: Corpus, step: int) -> Tensor:
    """Mean next-token loss of one batch, list items mostly left out; bfloat16 inside, on CPU and GPU alike."""
    tokens, listed = map(torch.from_numpy, corpus.batch(step, N_ROWS))
    order = torch.rand(listed[:, 1:].shape) + listed[:, 1:]  # list items are mostly unpredictable, and so come last
    learnt = order.flatten().argsort()[:N_LEARNT].to(model.device)  # a fixed number: shapes that change cost memory
    tokens = tokens.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16):
        hidden = model.transformer(tokens).last_hidden_state[:, :-1].flatten(0, 1)[learnt]
        logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float(), tokens[:, 1:].flatten()[learnt])


def train(model: GPTJForCausalLM, corpus: Corpus, *, n_steps: int, checkpoint: Path) -> list[dict[str, float]]:
    """Train from scratch, or from the checkpoint."""
    solvers = training.optimizers(model, muon=4e-3, adam=3e-3)
    model.train()
    log = training.fit(
        [model],
        lambda step: step_loss(model, corpus, step),
        solvers,
        n_steps=n_steps,
        checkpoint=checkpoint,
        seed=corpus.seed,
    )
    model.eval()
    return log


@torch.no_grad()
def oracle_accuracy(
    model: GPTJForCausalLM, corpus: Corpus, *, n_places: str, filler: str, n: int = 480, seed: int = 99
) -> float:
    """How often the model names the theme of a grid of 64 embeddings, told "A picture of a" after it.

    n_places: "one" or "object" (a block of 6 to 25 places); filler: "word" (one noun everywhere else), "words"
    (random nouns), "colour" (a ground's colour), "zeros" (zero vectors, as no text ever shows them).
    """
    rng, table = np.random.default_rng(seed), model.transformer.wte.weight
    names = [c.word for c in concepts()]
    targets = [names[i % len(names)] for i in range(n)]
    rows = [_oracle_row(rng, corpus, w, n_places, filler) for w in targets]
    embeddings = table[torch.tensor([ids for ids, _ in rows])]
    if filler == "zeros":
        embeddings = embeddings * torch.tensor(np.array([mask for _, mask in rows]))[..., None]
    articles = {c.word: c.article for c in concepts()}
    prompts = [table[torch.tensor(corpus.encode(f"A picture of {articles[w]}"))] for w in targets]
    logits = torch.cat(
        [
            model(inputs_embeds=torch.cat([e, p])[None], logits_to_keep=1).logits[:, -1]
            for e, p in zip(embeddings, prompts, strict=True)
        ]
    )
    truth = torch.tensor([corpus.ids[w][0] for w in targets])
    return float((logits.argmax(-1) == truth).double().mean())


def _oracle_row(
    rng: np.random.Generator, corpus: Corpus, word: str, n_places: str, filler: str
) -> tuple[list[int], np.ndarray]:
    """Token ids [64] and where the theme stands bool [64]."""
    grid = np.zeros((8, 8), dtype=bool)
    if n_places == "one":
        grid[rng.integers(8), rng.integers(8)] = True
    else:
        height, width = rng.integers(3, 6), rng.integers(2, 6)
        top, left = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
        grid[top : top + height, left : left + width] = True
    mask, one = grid.ravel(), str(rng.choice(("green", "blue", "gray") if filler == "colour" else corpus.filler))
    others = [str(rng.choice(corpus.filler)) if filler == "words" else one for _ in mask]
    return [corpus.ids[word if on else other][0] for on, other in zip(mask, others, strict=True)], mask


@torch.no_grad()
def describe_then_name_accuracy(model: GPTJForCausalLM, corpus: Corpus, *, n: int = 360, seed: int = 98) -> float:
    """How often the model names a concept from three fragments of its WordNet entry that do not contain its name."""
    rng, right = np.random.default_rng(seed), 0
    for k in range(n):
        concept = concepts()[k % len(concepts())]
        word = concept.word
        fragments = [f for f in description(rng, word, 99) if not re.search(rf"\b{word}\b", f)][:3]
        ids = corpus.encode("; ".join(fragments) + ". ") + corpus.encode(f"A picture of {concept.article}")
        right += int(model(torch.tensor([ids])).logits[0, -1].argmax()) == corpus.ids[word][0]
    return right / n
