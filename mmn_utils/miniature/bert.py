"""A small BERT for BERTScore, trained to fill in masked words of the miniature's text."""

from pathlib import Path

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from mmn_utils.miniature import training
from mmn_utils.miniature.text import ROW, Corpus

N_ROWS, MASKED_SHARE = 48, 0.15
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def tokenizer_of(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The language model's tokenizer with BERT's special tokens around each text."""
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer.__class__.from_str(tokenizer.backend_tokenizer.to_str()), **SPECIAL
    )
    own.model_max_length = ROW
    cls, sep = own.cls_token_id, own.sep_token_id
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return own


def build(tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    """An untrained model: 3 layers, width 128."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=512, max_position_embeddings=ROW, pad_token_id=tokenizer.pad_token_id,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def batch(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, step: int) -> tuple[Tensor, Tensor]:
    """Masked tokens int [row, 96] and where they were masked bool [row, 96]; rows without lists."""
    rng = np.random.default_rng([corpus.seed, 31, step])
    rows = [
        [tokenizer.cls_token_id, *corpus.row(rng, list_share=0.0)[0][: ROW - 2], tokenizer.sep_token_id]
        for _ in range(N_ROWS)
    ]
    tokens = torch.tensor(rows)
    tokens[tokens == corpus.tokenizer.eos_token_id] = tokenizer.sep_token_id
    n_masked = round(MASKED_SHARE * (ROW - 2))
    order = torch.from_numpy(rng.random((N_ROWS, ROW)))
    order[:, [0, -1]] = 2.0
    return tokens, order <= order.sort(1).values[:, n_masked - 1 : n_masked]


def step_loss(model: BertForMaskedLM, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, step: int) -> Tensor:
    """Cross-entropy of the masked tokens."""
    tokens, masked = (t.to(model.device) for t in batch(corpus, tokenizer, step))
    with torch.autocast(model.device.type, torch.bfloat16):
        hidden = model.bert(tokens.masked_fill(masked, tokenizer.mask_token_id)).last_hidden_state[masked]
        logits = model.cls(hidden)
    return F.cross_entropy(logits.float(), tokens[masked])


def train(
    model: BertForMaskedLM, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, n_steps: int, checkpoint: Path
) -> list[dict[str, float]]:
    """Train from scratch, or from the checkpoint."""
    solvers = training.optimizers(model, muon=3e-3, adam=2e-3)
    model.train()
    log = training.fit(
        [model],
        lambda step: step_loss(model, corpus, tokenizer, step),
        solvers,
        n_steps=n_steps,
        checkpoint=checkpoint,
        seed=corpus.seed,
    )
    model.eval()
    return log
