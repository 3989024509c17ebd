"""What a captioner's units do on many images, in sweeps that outlive their process: means, thresholds, maps.

The arithmetic is that of `selectivity.image_means`, `receptive_fields.unit_thresholds` and `unit_maps`; images are
encoded in the shards that need them.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mmn_utils.data import CocoScenes, Pictures
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import mlp_layers
from mmn_utils.receptive_fields import unit_maps, unit_thresholds
from mmn_utils.selectivity import image_means
from mmn_utils.survey import inputs
from mmn_utils.sweeps import Sweeps

Images = CocoScenes | Pictures


def means(captioner: Captioner, scenes: Images, ids: Sequence[int], *, sweep: Sweeps, batch_size: int = 32) -> Tensor:
    """Every unit's mean activation over the patches of each image, float [image, unit]."""

    def computed(images: list[int]) -> dict[str, Tensor]:
        prompts = captioner.image_prompts([scenes.image(i) for i in images])
        return {"means": image_means(captioner.language_model, prompts, batch_size=batch_size)}

    return sweep("activations", computed, ids, **inputs(captioner, scenes), size=64).tensors()["means"]


def maps(captioner: Captioner, scenes: Images, ids: Sequence[int], units: Tensor, *, sweep: Sweeps) -> Tensor:
    """The activations of each image's own units (int [image, unit], numbered through all layers) at its patches, float
    [image, unit, patch]. An image may stand in `ids` once."""
    own = dict(zip(ids, units.tolist(), strict=True))

    def computed(images: list[int]) -> dict[str, Tensor]:
        prompts = captioner.image_prompts([scenes.image(i) for i in images])
        asked = torch.tensor([own[i] for i in images])
        return {"maps": unit_maps(captioner.language_model, prompts, asked).cpu()}

    parameters = {"units": tensor_digest(units)}
    return sweep("maps", computed, ids, **inputs(captioner, scenes), parameters=parameters).tensors()["maps"]


def thresholds(
    captioner: Captioner,
    scenes: Images,
    ids: Sequence[int],
    *,
    q: float = 0.95,
    sweep: Sweeps,
    batch_size: int = 32,
    layers_at_once: int = 7,
) -> Tensor:
    """The `q` quantile of each unit's activation over all patches of the images, float [unit], units numbered through
    all layers.

    The sweep is over layers, some of them at once: what lies above the quantiles of all units of GPT-J would fill a
    GPU. Each shard runs the images through the model anew.
    """
    model = captioner.language_model

    def computed(layers: list[int]) -> dict[str, Tensor]:
        prompts = captioner.image_prompts([scenes.image(i) for i in ids])
        cuts = unit_thresholds(model, prompts, q=q, layers=layers, batch_size=batch_size)
        return {"cuts": cuts.unflatten(0, (len(layers), -1)).cpu()}

    parameters, layers = {"q": q, "images": list(ids)}, range(len(mlp_layers(model)))
    key = inputs(captioner, scenes) | {"parameters": parameters, "size": layers_at_once}
    return sweep("thresholds", computed, layers, **key).tensors()["cuts"].flatten()


def group_thresholds(
    captioner: Captioner,
    scenes: Images,
    ids: Sequence[int],
    groups: Tensor,
    *,
    q: float = 0.95,
    sweep: Sweeps,
    batch_size: int = 32,
) -> Tensor:
    """The same of the mean activation of each group of units (int [group, member]), float [group]."""

    def computed(places: list[int]) -> dict[str, Tensor]:
        prompts = captioner.image_prompts([scenes.image(i) for i in ids])
        asked = groups[places].to(prompts.device)
        cuts = unit_thresholds(captioner.language_model, prompts, q=q, groups=asked, batch_size=batch_size)
        return {"cuts": cuts.cpu()}

    parameters = {"q": q, "images": list(ids), "groups": tensor_digest(groups)}
    key = inputs(captioner, scenes) | {"parameters": parameters, "size": 512}
    return sweep("group_thresholds", computed, range(len(groups)), **key).tensors()["cuts"]


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's numbers, for a sweep's key."""
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()
