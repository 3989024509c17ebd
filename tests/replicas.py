"""Small random stand-ins for published models: the same classes, configuration keys, file names and tensor names.

Everything is made in code, offline, in well under a second each, from one seed.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    BeitConfig,
    BeitForMaskedImageModeling,
    BeitImageProcessor,
    BertConfig,
    BertModel,
    GemmaConfig,
    GPT2Config,
    GPT2TokenizerFast,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

TEXT = [
    "A picture of a horse.",
    "A picture of two dogs and a cat on the grass.",
    "The man is riding a horse! Is the dog asleep?",
    "A train, a bus and a traffic light.\nA bowl of fruit.",
]
D_MODEL = 32
GPTJ_ROWS = 320
"""Rows of the language model's embedding; more than the tokenizer has, as in GPT-J."""

LIVELY = 0.5
"""Spread of the random weights: wide enough that captions depend on the image."""

SIZES = {
    "initializer_range": LIVELY,
    "hidden_size": D_MODEL,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": GPTJ_ROWS,
}
GPT = {"initializer_range": LIVELY, "n_embd": D_MODEL, "n_layer": 2, "n_head": 4, "vocab_size": GPTJ_ROWS}
GPT |= {"n_positions": 256, "bos_token_id": 0, "eos_token_id": 0}
GATED = SIZES | {"num_key_value_heads": 4, "intermediate_size": 48, "head_dim": 8}
LANGUAGE_MODELS: dict[str, PreTrainedConfig] = {
    "gptj": GPTJConfig(**GPT, rotary_dim=4),
    "gpt2": GPT2Config(**GPT),
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=64),
    "opt": OPTConfig(**SIZES, init_std=LIVELY, ffn_dim=64, word_embed_proj_dim=16),
    "llama": LlamaConfig(**GATED),
    "mistral": MistralConfig(**GATED),
    "qwen": Qwen2Config(**GATED),
    "gemma": GemmaConfig(**GATED),
}


def language_model(kind: str, seed: int = 0):
    """A random causal language model of one of the LANGUAGE_MODELS."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(LANGUAGE_MODELS[kind])).eval()


def save_tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on four lines, saved as GPT-2's tokenizer is."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXT, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    GPT2TokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(folder)


def save_language_model(folder: Path, kind: str = "gptj", *, half: bool = False) -> Path:
    """A causal language model with its tokenizer, in the hub's layout."""
    model = language_model(kind)
    (model.half() if half else model).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_beit(folder: Path, *, patch_size: int = 16, side: int = 4) -> Path:
    """`microsoft/beit-large-patch16-224-pt22k` made small: `pytorch_model.bin` and its published names;
    `side` patches along each side."""
    torch.manual_seed(1)
    config = BeitConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=side * patch_size,
        patch_size=patch_size, vocab_size=64, use_mask_token=True, use_mean_pooling=True,
        use_shared_relative_position_bias=True, layer_scale_init_value=0.1,
    )  # fmt: skip
    BeitForMaskedImageModeling(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    size = {"height": side * patch_size, "width": side * patch_size}
    half = [0.5, 0.5, 0.5]
    BeitImageProcessor(size=size, do_center_crop=False, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


def save_timm_beit(folder: Path) -> Path:
    """A timm BEIT in timm's `local-dir:` layout: 64 x 64 pixels, 8 x 8 patches, width 20."""
    import timm

    torch.manual_seed(2)
    args = {"img_size": 64, "patch_size": 8, "embed_dim": 20, "depth": 2, "num_heads": 2}
    folder.mkdir(parents=True)
    model = timm.create_model("beit_base_patch16_224", num_classes=0, **args)
    save_file(model.state_dict(), folder / "model.safetensors")
    pixels = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    config = {"architecture": "beit_base_patch16_224", "num_classes": 0, "model_args": args, "pretrained_cfg": pixels}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_projection(file: Path, d_vision: int, d_model: int = D_MODEL) -> Path:
    """A linear layer's state dict: by `torch.save` as LiMBeR's `proj.ckpt`, or safetensors by the file's ending."""
    torch.manual_seed(3)
    state = torch.nn.Linear(d_vision, d_model).state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


def save_bert(folder: Path) -> Path:
    """A BERT of two layers, stored in half precision, with a tokenizer that frames sentences as BERT's does."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    torch.manual_seed(4)
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(TEXT, vocab_size=120, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=64)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).half().save_pretrained(folder)
    return folder


def save_profile(file: Path, /, **changes: object) -> Path:
    """A profile yaml for models that lie beside it; `changes` by dotted key (`models__bert__num_layers=1`)."""
    content = {
        "name": "replica",
        "device": "cpu",
        "cache": "./cache",
        "models": {
            "language_model": {"source": "./gpt-j-6B"},
            "vision_encoder": {"source": "./beit", "library": "transformers"},
            "projection": {"source": "./limber/proj.ckpt"},
            "bert": {"source": "./bert", "num_layers": 1},
        },
        "data": {},
        "chapters": {},
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file


def save_paper_models(folder: Path) -> Path:
    """GPT-J, BEIT and LiMBeR's projection in the paper profile's layout, and their profile; returns the yaml file."""
    save_language_model(folder / "gpt-j-6B")
    save_beit(folder / "beit")
    save_projection(folder / "limber" / "proj.ckpt", d_vision=24)
    save_bert(folder / "bert")
    return save_profile(folder / "replica.yml")


def images(n: int = 3) -> list[Image.Image]:
    """Random pictures of an odd size, one of them grey."""
    generator = np.random.default_rng(0)
    made = [Image.fromarray(generator.integers(0, 255, (50, 70, 3), dtype=np.uint8)) for _ in range(n)]
    return [made[0].convert("L"), *made[1:]]
