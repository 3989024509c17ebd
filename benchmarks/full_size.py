"""The paper's stack in full size with random weights, on one GPU: `python -m benchmarks.full_size`.

GPT-J 6B in half precision (about 12 GB), BEIT-L and LiMBeR's projection; 196 image prompts and three words. Time does
not depend on the weights, so that none have to be fetched. Writes `benchmarks/full_size.json` with the device's name:
time, peak memory and the ratio to the bare pass of attribution, decoding of all 458,752 units, and an ablation curve.
`--tiny` tries the same steps on a CPU in seconds.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import BeitConfig, BeitModel, GPTJConfig, GPTJForCausalLM

from benchmarks.neurons import bare_pass, curve_masks, one_pass_each
from benchmarks.timing import compared, interleaved
from mmn_utils.ablation import probability_curve
from mmn_utils.attribution import attribute_top
from mmn_utils.decoding import decode_units, unembedding
from mmn_utils.neurons import mlp_layers
from mmn_utils.results import as_json, write_whole

RESULTS = Path(__file__).parent / "full_size.json"


@dataclass(frozen=True)
class Sizes:
    """Of the models; the defaults are the paper's."""

    layers: int = 28
    width: int = 4096
    heads: int = 16
    rotary: int = 64
    tokens: int = 50_400
    vision_layers: int = 24
    vision_width: int = 1024
    pixels: int = 224


TINY = Sizes(layers=3, width=64, heads=2, rotary=8, tokens=500, vision_layers=1, vision_width=32, pixels=64)


def language_model(sizes: Sizes, device: str) -> GPTJForCausalLM:
    """GPT-J with random weights, made where it stays (no copy in main memory)."""
    config = GPTJConfig(
        vocab_size=sizes.tokens, n_embd=sizes.width, n_layer=sizes.layers, n_head=sizes.heads, rotary_dim=sizes.rotary,
        bos_token_id=0, eos_token_id=0, dtype="float16",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        return GPTJForCausalLM(config).half().eval().requires_grad_(False)


@torch.no_grad()
def image_prompts(sizes: Sizes, device: str, rows: int) -> torch.Tensor:
    """Noise through BEIT and the projection, then three words' worth of noise."""
    config = BeitConfig(
        hidden_size=sizes.vision_width, num_hidden_layers=sizes.vision_layers,
        num_attention_heads=max(1, sizes.vision_width // 64), intermediate_size=4 * sizes.vision_width,
        image_size=sizes.pixels, patch_size=16, use_mean_pooling=True,
    )  # fmt: skip
    with torch.device(device):
        encoder, projection = BeitModel(config).eval(), nn.Linear(sizes.vision_width, sizes.width)
        features = encoder(torch.randn(rows, 3, sizes.pixels, sizes.pixels)).last_hidden_state[:, 1:]
        return torch.cat([projection(features), torch.randn(rows, 3, sizes.width)], dim=1).half()


def measured(
    ours: Callable[[], object], theirs: Callable[[], object], *, device: str, repeats: int
) -> dict[str, float | str | int]:
    """Medians, their ratio, and the most memory that one call of ours held (GB, the models included)."""
    times = interleaved({"ours": ours, "theirs": theirs}, repeats=repeats, device=device)
    row = compared(times["ours"], times["theirs"])
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        ours()
        row["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return row


@torch.no_grad()
def bare_decoding(lm: nn.Module) -> None:
    """The product alone, a thousand units at a time (all of a layer's logits are 1.7 GB in half precision)."""
    weight = unembedding(lm)[0]
    for mlp in mlp_layers(lm):
        for part in mlp.directions.split(1024):
            (part @ weight.T).topk(10)


def run(sizes: Sizes, device: str, *, rows: int, repeats: int) -> dict[str, object]:
    """All three measurements."""
    lm = language_model(sizes, device)
    x = image_prompts(sizes, device, rows)
    tokens = torch.arange(rows, device=device)
    patches = slice(0, x.shape[1] - 3)
    masks = curve_masks(lm)
    pairs = {
        "attribution": (lambda: attribute_top(lm, x, tokens, positions=patches), lambda: bare_pass(lm, x, tokens)),
        "decoding": (lambda: decode_units(lm), lambda: bare_decoding(lm)),
        "ablation_curve": (
            lambda: probability_curve(lm, x[:1], 7, masks, batch_size=27),
            lambda: one_pass_each(lm, x[:1], masks, last_only=True),
        ),
    }
    found = {
        f"full_size.{name}": measured(ours, theirs, device=device, repeats=repeats)
        for name, (ours, theirs) in pairs.items()
    }
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    n_units = sum(mlp.n_units for mlp in mlp_layers(lm))
    return {"device": name, "n_units": n_units, "n_images": rows, "torch": torch.__version__, "results": found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, default=4, help="images an attribution batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small models, to try the script without a GPU")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.tiny:
        raise SystemExit("benchmarks.full_size: GPT-J 6B needs a GPU with 24 GB, and torch sees none; try --tiny")
    found = run(TINY if options.tiny else Sizes(), options.device, rows=options.rows, repeats=options.repeats)
    print(as_json(found), end="")
    if not options.tiny:
        write_whole(RESULTS, as_json(found))


if __name__ == "__main__":
    main()
