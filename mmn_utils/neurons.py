r"""Where the MLP neurons of a causal language model are.

A neuron is one unit of a transformer layer's MLP, $m = W_{out}\,\sigma(W_{in} h)$ (Schwettmann et al. 2023, eq. 1).
Two modules are enough to reach it in any model:

- the output of `w_in` is its *pre-activation* $Z$, which attribution (eq. 2) multiplies with the gradient;
- the input of `w_out` is its *activation*, which receptive fields show and ablation sets to zero.

In gated MLPs (Llama and its kin) $m = W_{out}(\sigma(W_{gate} h) \odot W_{up} h)$: `w_in` is then the gate, whose
output goes into the non-linearity, and the activation is the gated product. Layers and units are counted from 0.

`record` reads either quantity and `ablate` sets activations to zero, both by hooks that live as long as a `with` block.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.pytorch_utils import Conv1D

Where = Literal["activation", "pre_activation"]
Positions = slice | Tensor | None
"""Positions of the input, counted from 0: a slice, indices [position], or None for all of them."""
Edit = Callable[[int, Tensor, int], Tensor | None]


@dataclass(frozen=True, order=True)
class NeuronId:
    """One MLP unit, printed `L14.2019`."""

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}.{self.index}"

    @classmethod
    def parse(cls, text: str) -> "NeuronId":
        """The neuron that is printed so.

        >>> NeuronId.parse("L14.2019")
        NeuronId(layer=14, index=2019)
        """
        found = re.fullmatch(r"L(\d+)\.(\d+)", text.strip())
        if not found:
            raise ValueError(f"{text!r} is not a neuron; expected a layer and a unit, like L14.2019")
        return cls(layer=int(found[1]), index=int(found[2]))


@dataclass(frozen=True)
class MlpLayer:
    """The MLP of one transformer layer."""

    layer: int
    """Counted from 0."""
    name: str
    """Of the module that holds `w_in` and `w_out`, as in `model.named_modules()`."""
    w_in: nn.Module
    """Its output is the pre-activation [..., unit]; the gate projection where the MLP is gated."""
    w_out: nn.Module
    """Its input is the activation [..., unit]."""
    gated: bool
    """Whether the activation is a product of a gate and a second projection."""
    block: nn.Module
    """The whole transformer layer: residual stream in, residual stream out."""

    @property
    def n_units(self) -> int:
        """Neurons in this layer, `d_mlp`."""
        return len(self.directions)

    @property
    def directions(self) -> Tensor:
        """What each unit adds to the residual stream per unit of activation, float [unit, d_model] (a view)."""
        weight = self.w_out.weight
        return weight if isinstance(self.w_out, Conv1D) else weight.T


class MlpNames(NamedTuple):
    """How a family of models names the two modules."""

    w_in: str
    w_out: str
    gated: bool = False
    families: str = ""


KNOWN = (
    MlpNames("fc_in", "fc_out", families="GPT-J, CodeGen"),
    MlpNames("c_fc", "c_proj", families="GPT-2, GPT-Neo, StarCoder"),
    MlpNames("dense_h_to_4h", "dense_4h_to_h", families="GPT-NeoX, Pythia, Falcon, BLOOM"),
    MlpNames("fc1", "fc2", families="OPT, Phi"),
    MlpNames("gate_proj", "down_proj", gated=True, families="Llama, Qwen, Mistral, Gemma"),
    MlpNames("up_proj", "down_proj", families="MPT, Nemotron"),
)


class MlpNotFoundError(ValueError):
    """The model's MLPs are not where any known family has them; the message says what was seen."""


def mlp_layers(model: nn.Module) -> list[MlpLayer]:
    """The MLP of every layer of a causal language model, in order; the language half only of models that also see.

    Raises:
        MlpNotFoundError: none of the known names is there, a layer has several MLPs (mixtures of experts), or the two
            modules disagree about the number of units.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    named = [(_join(prefix, name), module) for name, module in decoder.named_modules()]
    found = [mlp for name, module in named if (mlp := _mlp(name, module, model))]
    layers = sorted(found, key=lambda mlp: mlp.layer)
    if not layers:
        raise MlpNotFoundError(_not_found(model, decoder))
    if [mlp.layer for mlp in layers] != list(range(len(layers))):
        seen = ", ".join(mlp.name for mlp in layers[:4])
        raise MlpNotFoundError(f"{type(model).__name__}: expected one MLP in each layer, found {seen}, …")
    return layers


@contextmanager
def hooked(
    model: nn.Module, edit: Edit, *, where: Where = "activation", layers: Iterable[MlpLayer] | None = None
) -> Iterator[None]:
    """Call `edit(layer, values, start)` wherever an MLP layer computes its `values` [row, position, unit].

    `start` is the position in the input of `values[:, 0]` (not 0 where a cache holds what came before). What `edit`
    gives back takes the values' place, unless it is None. The hooks go away with the block, also after an exception.
    """
    handles: list[Any] = []
    try:
        for mlp in mlp_layers(model) if layers is None else layers:
            handles += _hook(mlp, edit, where)
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(
    model: nn.Module, *, where: Where = "activation", positions: Positions = None
) -> Iterator[list[Tensor | None]]:
    """Keep what the neurons compute: one tensor a layer, float [row, position, unit], of the latest forward pass.

    `where` is "activation" (the input of `w_out`; in gated MLPs the gated product) or "pre_activation" (the output of
    `w_in`; in gated MLPs that of the gate). Kept values are copies and carry no gradient.
    """
    layers = mlp_layers(model)
    kept: list[Tensor | None] = [None] * len(layers)

    def keep(layer: int, values: Tensor, _start: int) -> None:
        kept[layer] = values.detach()[:, slice(None) if positions is None else positions].clone()

    with hooked(model, keep, where=where, layers=layers):
        yield kept


@contextmanager
def ablate(model: nn.Module, neurons: "Neurons", *, positions: Positions = None) -> Iterator[None]:
    """Hold the activation (the input of `w_out`) of some neurons at zero.

    `neurons`: NeuronIds, or for some layers {layer: unit indices, or a bool mask [unit] or [row, unit]} (a mask with
    rows ablates other units in each row of the batch), or one bool tensor [layer, unit] or [row, layer, unit].
    `positions` counts from the start of the input, also while text is generated with a cache; None is everywhere.

    Raises:
        ValueError: a layer or unit that the model does not have.
    """
    layers = mlp_layers(model)
    masks = ablation_masks(neurons, layers)

    def silence(layer: int, values: Tensor, start: int) -> Tensor:
        return silenced(values, masks[layer], start=start, positions=positions)

    with hooked(model, silence, layers=[mlp for mlp in layers if mlp.layer in masks]):
        yield


def silenced(values: Tensor, mask: Tensor, *, start: int = 0, positions: Positions = None) -> Tensor:
    """`values` [row, position, unit] with zeros where `mask` ([unit] or [row, unit]) and `positions` say so."""
    mask = mask.to(values.device)
    mask = mask[:, None] if mask.ndim == 2 else mask
    if positions is not None:
        chosen = _chosen(positions, start, values.shape[1]).to(values.device)
        mask = mask & chosen[:, None]
    return values.masked_fill(mask, 0)


Neurons = Iterable[NeuronId] | Mapping[int, Tensor | Sequence[int]] | Tensor


def ablation_masks(neurons: Neurons, layers: Sequence[MlpLayer]) -> dict[int, Tensor]:
    """The forms that `ablate` takes as bool masks [unit] or [row, unit], only of layers where something is ablated."""
    if isinstance(neurons, Tensor):
        _check_shape(neurons, layers)
        neurons = dict(enumerate(neurons.unbind(-2)))
    if not isinstance(neurons, Mapping):
        listed: dict[int, list[int]] = {}
        for layer, index in ((n.layer, n.index) for n in neurons):
            listed.setdefault(layer, []).append(index)
        neurons = listed
    masks = {layer: _mask(layer, units, layers) for layer, units in neurons.items()}
    return {layer: mask for layer, mask in masks.items() if mask.any()}


def last_logits(model: nn.Module, embeddings: Tensor) -> Tensor:
    """What the model predicts after each row of input embeddings [row, position, d_model]: logits [row, token]."""
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(inputs_embeds=embeddings, use_cache=False, **last_only).logits[:, -1]


def _mask(layer: int, units: Tensor | Sequence[int], layers: Sequence[MlpLayer]) -> Tensor:
    if not 0 <= layer < len(layers):
        raise ValueError(f"layer {layer}: expected a layer from 0 to {len(layers) - 1}")
    n_units = layers[layer].n_units
    units = torch.as_tensor(units, device=getattr(units, "device", None))
    if units.dtype == torch.bool:
        if units.shape[-1] != n_units or units.ndim > 2:
            raise ValueError(f"layer {layer}: expected a mask [{n_units}] or [row, {n_units}], found {[*units.shape]}")
        return units
    if units.numel() and not 0 <= int(units.min()) <= int(units.max()) < n_units:
        raise ValueError(f"layer {layer}: expected units from 0 to {n_units - 1}, found up to {int(units.max())}")
    return torch.zeros(n_units, dtype=torch.bool, device=units.device).index_fill_(0, units.long(), True)


def _check_shape(mask: Tensor, layers: Sequence[MlpLayer]) -> None:
    if mask.dtype != torch.bool or mask.ndim not in {2, 3} or mask.shape[-2] != len(layers):
        raise ValueError(
            f"expected a bool tensor [layer, unit] or [row, layer, unit] with {len(layers)} layers, "
            f"found {mask.dtype} {[*mask.shape]}"
        )


def _chosen(positions: slice | Tensor, start: int, length: int) -> Tensor:
    """Which of `length` positions from `start` on are among `positions`, bool [position]."""
    here = torch.arange(start, start + length)
    if isinstance(positions, slice):
        first, stop, step = positions.indices(start + length)
        return (here >= first) & (here < stop) & ((here - first) % step == 0)
    return torch.isin(here, positions.cpu())


def _hook(mlp: MlpLayer, edit: Edit, where: Where) -> list[Any]:
    """Hooks for one layer; the block's says how many rows there are, because some models flatten rows away (OPT)."""
    seen = {"rows": 1, "end": 0}

    def look(_block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        cache = next((value for value in [*args, *kwargs.values()] if isinstance(value, Cache)), None)
        before = 0 if cache is None else int(cache.get_seq_length(mlp.layer))
        seen.update(rows=hidden.shape[0], end=before + hidden.shape[1])

    def call(values: Tensor) -> Tensor | None:
        rows = values.reshape(seen["rows"], -1, values.shape[-1])
        edited = edit(mlp.layer, rows, seen["end"] - rows.shape[1])
        return None if edited is None else edited.reshape(values.shape)

    def before_w_out(_module: nn.Module, args: tuple) -> tuple | None:
        edited = call(args[0])
        return None if edited is None else (edited, *args[1:])

    looking = mlp.block.register_forward_pre_hook(look, with_kwargs=True)
    if where == "activation":
        return [looking, mlp.w_out.register_forward_pre_hook(before_w_out)]
    if where == "pre_activation":
        return [looking, mlp.w_in.register_forward_hook(lambda _module, _args, out: call(out))]
    looking.remove()
    raise ValueError(f"where: expected 'activation' or 'pre_activation', found {where!r}")


def _mlp(name: str, module: nn.Module, model: nn.Module) -> MlpLayer | None:
    """The MLP that `module` is, if it has the children of a known family and stands in a numbered layer."""
    children = dict(module.named_children())
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", f".{name}")
    for known in KNOWN:
        if numbers and known.w_in in children and known.w_out in children:
            w_in, w_out = children[known.w_in], children[known.w_out]
            block = model.get_submodule(re.match(r"(.*?\.)??\d+(?=\.|$)", name)[0])
            mlp = MlpLayer(int(numbers[0]), name=name, w_in=w_in, w_out=w_out, gated=known.gated, block=block)
            _check_units(mlp)
            return mlp
    return None


def _check_units(mlp: MlpLayer) -> None:
    produced = mlp.w_in.weight.shape[1 if isinstance(mlp.w_in, Conv1D) else 0]
    if produced != mlp.n_units:
        raise MlpNotFoundError(f"{mlp.name}: w_in gives {produced} numbers, but w_out takes {mlp.n_units}")


def _not_found(model: nn.Module, decoder: nn.Module) -> str:
    """What was looked for, what was seen, and what comes nearest."""
    leaves = [name for name, module in decoder.named_modules() if name and not any(module.children())]
    seen = sorted({re.sub(r"\b\d+\b", "N", name) for name in leaves})
    looked_for = [name for known in KNOWN for name in (known.w_in, known.w_out)]
    close = [n for n in seen if difflib.get_close_matches(n.rpartition(".")[2], looked_for, n=1, cutoff=0.5)]
    families = "; ".join(f"{known.w_in} and {known.w_out} ({known.families})" for known in KNOWN)
    return (
        f"no MLP found in {type(model).__name__}. Looked in numbered layers for {families}. "
        f"Modules seen: {', '.join(seen) or 'none'}. Nearest: {', '.join(close) or 'none'}. "
        "For a new family, add its two names to mmn_utils.neurons.KNOWN."
    )


def _join(prefix: str, name: str) -> str:
    return ".".join(part for part in (prefix, name) if part)
