r"""Where the neurons of a CLIP ResNet are (Goh et al. 2021).

A neuron is one channel of the last residual block of stage 4, read *before* that block's final ReLU: the residual sum
$h + F(h)$, float [image, neuron, y, x]. Negative values are read on purpose. In open_clip that is the input of
`visual.layer4[-1].act3`, a ReLU that overwrites it: hence a hook before it, and a copy.

Works for any open_clip `ModifiedResNet`, alone or as `model.visual`: RN50x4 has 2560 neurons on a 9 x 9 grid.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""The tower in order, up to its neurons; what follows is the attention pool."""


@dataclass
class Recording:
    """What the latest forward pass computed, with its gradient where gradients are on."""

    neurons: Tensor | None = None
    """Residual sums before the last ReLU, float [image, neuron, y, x]."""
    layers: dict[str, Tensor] = field(default_factory=dict)
    """Outputs of the blocks asked for, after their ReLU, float [image, channel, y, x] by name (`layer3.0`)."""


def tower(model: nn.Module) -> nn.Module:
    """The visual tower of a CLIP model, or `model` itself if it is one.

    Raises:
        ValueError: not a ModifiedResNet, so that there is no residual stage to read.
    """
    visual = getattr(model, "visual", model)
    missing = [name for name in STAGES if not hasattr(visual, name)]
    if missing:
        raise ValueError(
            f"expected an open_clip ModifiedResNet with {', '.join(STAGES)}; {type(visual).__name__} lacks "
            f"{', '.join(missing)}. Choose a CLIP ResNet, such as RN50x4"
        )
    return visual


def n_neurons(model: nn.Module) -> int:
    """How many neurons the tower has: channels of its last residual block."""
    return tower(model).layer4[-1].bn3.num_features


@contextmanager
def pre_relu(visual: nn.Module, *, layers: Sequence[str] = ()) -> Iterator[Recording]:
    """Keep the neurons of each forward pass, and the outputs of the blocks named in `layers`, while the block lasts.

    Names are those of residual blocks in the tower, such as `layer3.0`. The hooks go away also after an exception.

    Raises:
        ValueError: a name that is no residual block of the tower.
    """
    visual, kept = tower(visual), Recording()

    def keep_neurons(_module: nn.Module, args: tuple[Tensor]) -> None:
        kept.neurons = args[0].clone()

    handles: list[Any] = []
    try:
        handles.append(visual.layer4[-1].act3.register_forward_pre_hook(keep_neurons))
        handles += [_keep_layer(visual, name, kept.layers) for name in layers]
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def forward(visual: nn.Module, images: Tensor) -> None:
    """The tower up to its neurons, without the attention pool, for the hooks of `pre_relu` to see."""
    for name in STAGES:
        images = getattr(visual, name)(images)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for the weights, while the block lasts; then everything is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wants = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, wanted in wants:
            weight.requires_grad_(wanted)


def normalised(images: Tensor, model: nn.Module) -> Tensor:
    """Pixels in [0, 1], float [image, RGB, y, x], as the tower wants them: CLIP's mean and deviation, unless its own.

    A model that `open_clip` loaded carries its mean and deviation; CLIP's own stand in for a model that does not.
    """
    visual = getattr(model, "visual", model)
    mean = images.new_tensor(getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN)
    std = images.new_tensor(getattr(visual, "image_std", None) or OPENAI_DATASET_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def neuron_maps(model: nn.Module, images: Tensor, *, batch_size: int = 64) -> Tensor:
    """What every neuron says at every place, float32 [image, neuron, y, x] on the CPU.

    images: float [image, RGB, y, x], normalised as for `model.encode_image` (pixels: see `normalised`).
    """
    return torch.cat(list(_batches(model, images, batch_size)))


def neuron_activations(
    model: nn.Module, images: Tensor, *, pool: Literal["max", "mean"] = "max", batch_size: int = 64
) -> Tensor:
    """One number per image and neuron, float32 [image, neuron]: the largest or the mean of its places.

    images: float [image, RGB, y, x], normalised as for `model.encode_image` (pixels: see `normalised`).

    Raises:
        ValueError: another `pool`.
    """
    pools = {"max": lambda maps: maps.amax((2, 3)), "mean": lambda maps: maps.mean((2, 3))}
    if pool not in pools:
        raise ValueError(f"pool: expected 'max' or 'mean', found {pool!r}")
    return torch.cat([pools[pool](maps) for maps in _batches(model, images, batch_size)])


@torch.no_grad()
def _batches(model: nn.Module, images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Maps of `batch_size` images at a time."""
    visual = tower(model)
    weight = visual.conv1.weight
    with frozen(visual), pre_relu(visual) as kept:
        for batch in images.split(batch_size):
            forward(visual, batch.to(weight))
            yield kept.neurons.float().cpu()


def _keep_layer(visual: nn.Module, name: str, into: dict[str, Tensor]) -> Any:
    blocks = {n: module for n, module in visual.named_modules() if hasattr(module, "act3") and "." in n}
    if name not in blocks:
        raise ValueError(f"no residual block {name!r}; expected one of {', '.join(blocks)}")
    return blocks[name].register_forward_hook(lambda _module, _args, out: into.__setitem__(name, out))
