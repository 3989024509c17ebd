r"""Where the MLP neurons of a causal language model are.

A neuron is one unit of a transformer layer's MLP, $m = W_{out}\,\sigma(W_{in} h)$ (Schwettmann et al. 2023, eq. 1).
Two modules are enough to reach it in any model:

- the output of `w_in` is its *pre-activation* $Z$, which attribution (eq. 2) multiplies with the gradient;
- the input of `w_out` is its *activation*, which receptive fields show and ablation sets to zero.

In gated MLPs (Llama and its kin) $m = W_{out}(\sigma(W_{gate} h) \odot W_{up} h)$: `w_in` is then the gate, whose
output goes into the non-linearity, and the activation is the gated product. Layers and units are counted from 0.
"""

import difflib
import re
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


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
    found = [mlp for name, module in decoder.named_modules() if (mlp := _mlp(_join(prefix, name), module))]
    layers = sorted(found, key=lambda mlp: mlp.layer)
    if not layers:
        raise MlpNotFoundError(_not_found(model, decoder))
    if [mlp.layer for mlp in layers] != list(range(len(layers))):
        seen = ", ".join(mlp.name for mlp in layers[:4])
        raise MlpNotFoundError(f"{type(model).__name__}: expected one MLP in each layer, found {seen}, …")
    return layers


def _mlp(name: str, module: nn.Module) -> MlpLayer | None:
    """The MLP that `module` is, if it has the children of a known family and stands in a numbered layer."""
    children = dict(module.named_children())
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", f".{name}")
    for known in KNOWN:
        if numbers and known.w_in in children and known.w_out in children:
            w_in, w_out = children[known.w_in], children[known.w_out]
            mlp = MlpLayer(layer=int(numbers[0]), name=name, w_in=w_in, w_out=w_out, gated=known.gated)
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
