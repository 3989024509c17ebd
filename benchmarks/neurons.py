"""Part I on a random language model of the miniature's size: attribution, decoding, ablation curves.

In float32, one input of 64 image positions and 4 words; no weights are needed, for time does not depend on them.
"""

import torch
from torch import nn
from transformers import GPTJConfig, GPTJForCausalLM

from benchmarks.timing import compared, interleaved
from mmn_utils.ablation import conditions, probability_curve, sizes_for
from mmn_utils.attribution import attribute
from mmn_utils.decoding import decode_units, unembedding
from mmn_utils.neurons import ablate, last_logits, mlp_layers

PATCHES = slice(0, 64)
N_SIZES = 9


def model(n_layer: int = 6, n_embd: int = 192, n_tokens: int = 5_000) -> GPTJForCausalLM:
    """GPT-J's architecture in the miniature's size, untrained."""
    torch.manual_seed(0)
    config = GPTJConfig(
        vocab_size=n_tokens, n_embd=n_embd, n_layer=n_layer, n_head=n_embd // 32, rotary_dim=16,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPTJForCausalLM(config).eval().requires_grad_(False)


def embeddings(rows: int, width: int = 192) -> torch.Tensor:
    return torch.randn(rows, 68, width, generator=torch.Generator().manual_seed(1))


def bare_pass(lm: nn.Module, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The forward and backward pass alone, down to the input embeddings."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(last_logits(lm, x).gather(1, tokens[:, None]).sum(), x)[0]


def attribution(repeats: int = 9) -> dict[str, dict]:
    from captum.attr import LayerGradientXActivation

    lm, x, tokens = model(), embeddings(8), torch.arange(8)
    layers = [mlp.w_in for mlp in mlp_layers(lm)]

    def captum(given: list[nn.Module] | nn.Module) -> object:
        return LayerGradientXActivation(lambda e: last_logits(lm, e), given).attribute(
            x.clone().requires_grad_(), target=tokens
        )

    times = interleaved(
        {
            "ours": lambda: attribute(lm, x, tokens, positions=PATCHES),
            "bare": lambda: bare_pass(lm, x, tokens),
            "captum": lambda: captum(layers),
            "captum_by_layer": lambda: [captum(layer) for layer in layers],
        },
        repeats=repeats,
    )
    return {
        f"neurons.attribution.vs_{name}": compared(times["ours"], times[name])
        for name in ("bare", "captum", "captum_by_layer")
    }


def bare_decoding(lm: nn.Module) -> list[torch.Tensor]:
    """Every unit's logits over the whole vocabulary at once, and the ten highest."""
    weight = unembedding(lm)[0]
    return [(mlp.directions @ weight.T).topk(10).indices for mlp in mlp_layers(lm)]


def decoding(repeats: int = 7) -> dict[str, dict]:
    found = {}
    for name, n_tokens in (("miniature", 5_000), ("gptj_vocabulary", 50_400)):
        lm = model(n_tokens=n_tokens)
        functions = {"ours": lambda lm=lm: decode_units(lm), "bare": lambda lm=lm: bare_decoding(lm)}
        times = interleaved(functions, repeats=repeats if n_tokens < 50_000 else 3)
        found[f"neurons.decoding.{name}.vs_bare"] = compared(times["ours"], times["bare"])
    return found


def curve_masks(lm: nn.Module) -> dict[str, torch.Tensor]:
    """9 sizes x 3 conditions as chapter 07 asks for them, of units in a random order."""
    mlps = mlp_layers(lm)
    n_units = len(mlps) * mlps[0].n_units
    generator = torch.Generator().manual_seed(2)
    ranking = torch.randperm(n_units, generator=generator)
    legible = torch.rand(len(mlps), mlps[0].n_units, generator=generator) < 0.5
    sizes = sizes_for(n_units)
    while len(sizes) < N_SIZES:  # some of the paper's shares coincide in small models
        sizes = (*sizes, 2 * sizes[-1])
    readable = ranking[legible.flatten()[ranking]]
    return conditions(ranking, readable, sizes, shape=tuple(legible.shape), generator=generator)


@torch.no_grad()
def one_pass_each(lm: nn.Module, x: torch.Tensor, masks: dict[str, torch.Tensor], *, last_only: bool) -> list[float]:
    """The token's probability for each set by a pass of its own."""
    found = []
    for mask in torch.cat(list(masks.values())):
        with ablate(lm, mask):
            logits = last_logits(lm, x) if last_only else lm(inputs_embeds=x).logits[:, -1]
        found.append(logits.softmax(-1)[0, 7].item())
    return found


def ablation(repeats: int = 9) -> dict[str, dict]:
    lm, x = model(), embeddings(1)
    masks = curve_masks(lm)
    times = interleaved(
        {
            "ours": lambda: probability_curve(lm, x, 7, masks),
            "pass_each": lambda: one_pass_each(lm, x, masks, last_only=False),
            "lean_pass_each": lambda: one_pass_each(lm, x, masks, last_only=True),
        },
        repeats=repeats,
    )
    return {
        "neurons.ablation_curve.vs_one_pass_each": compared(times["ours"], times["pass_each"]),
        "neurons.ablation_curve.vs_one_lean_pass_each": compared(times["ours"], times["lean_pass_each"]),
    }


def all_benchmarks() -> dict[str, dict]:
    return {**attribution(), **decoding(), **ablation()}
