"""Vision encoders behind one call: a list of images in, one vector for every patch out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from mmn_utils.models.hub import from_pretrained, load_pretrained, settled
from mmn_utils.models.weights import WeightsError, why
from mmn_utils.profiles import pinned


class VisionEncoder(Protocol):
    """What the captioner asks of an encoder."""

    model: nn.Module
    name: str

    @property
    def width(self) -> int:
        """Numbers per patch, `d_vision`."""

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """The images as the encoder wants them, float [image, channel, y, x]."""

    def features(self, pixels: Tensor) -> Tensor:
        """float [image, patch, d_vision], patches row by row, class tokens left out."""


@dataclass(frozen=True)
class TimmEncoder:
    """Any timm model, with the size and normalisation from its own configuration."""

    model: nn.Module
    name: str

    @classmethod
    def load(cls, source: str, *, revision: str | None, cache: Path) -> "TimmEncoder":
        """From a folder in timm's layout (`config.json`, `model.safetensors`) or by timm's name (also `hf-hub:…`).

        Raises:
            WeightsError: the folder or the model is not as it should be.
            ValueError: a name that is not pinned.
        """
        import timm

        _register_miniature()
        name = _timm_name(source, revision, cache)
        try:
            return cls(model=timm.create_model(name, pretrained=True, num_classes=0, cache_dir=cache), name=source)
        except Exception as error:  # what timm raises depends on where it stumbles
            raise WeightsError(
                f"{source} cannot be loaded by timm: {why(error)}. Copy it again, or name another"
            ) from error

    @property
    def width(self) -> int:
        """`d_vision`."""
        return self.model.num_features

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """float [image, channel, y, x]."""
        from timm.data import create_transform, resolve_model_data_config

        transform = create_transform(**resolve_model_data_config(self.model), is_training=False)
        return torch.stack([transform(image.convert("RGB")) for image in images])

    def features(self, pixels: Tensor) -> Tensor:
        """float [image, patch, d_vision]."""
        states = self.model.forward_features(pixels)
        if states.ndim == 4:  # convolutional: [image, channel, y, x], or channels last (Swin and its kin)
            states = states if states.shape[-1] == self.width != states.shape[1] else states.permute(0, 2, 3, 1)
            return states.flatten(1, 2)
        return states[:, getattr(self.model, "num_prefix_tokens", 0) :]


@dataclass(frozen=True)
class TransformersEncoder:
    """A transformers vision model whose first token is not a patch; features as LiMBeR takes them.

    They are `last_hidden_state[:, 1:]`. Where BEIT's configuration says `use_mean_pooling`, as that of the published
    checkpoint does, transformers leaves the final layer norm out: these are the last block's outputs as they are.
    """

    model: nn.Module
    name: str
    processor: Any

    @classmethod
    def load(cls, source: str, *, revision: str | None, cache: Path) -> "TransformersEncoder":
        """From a folder or by a hub name; never runs code from there."""
        from transformers import AutoImageProcessor, AutoModel

        processor = from_pretrained(AutoImageProcessor, source, revision=revision, cache=cache, backend="pil")
        model = load_pretrained(AutoModel, source, revision=revision, cache=cache, dtype=torch.float32)
        return cls(model=model, name=source, processor=processor)

    @property
    def width(self) -> int:
        """`d_vision`."""
        return self.model.config.hidden_size

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """float [image, channel, y, x]."""
        return self.processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]

    def features(self, pixels: Tensor) -> Tensor:
        """float [image, patch, d_vision]."""
        return self.model(pixels).last_hidden_state[:, 1:]


LIBRARIES = {"timm": TimmEncoder, "transformers": TransformersEncoder}


def _timm_name(source: str, revision: str | None, cache: Path) -> str:
    """What timm calls a folder with safetensors, a repository of the hub at a revision, or a model of its own."""
    if Path(source).is_absolute():
        if not (Path(source) / "model.safetensors").is_file():
            raise WeightsError(
                f"{source} has no model.safetensors, the one kind of weights read from a timm folder: save it as that"
            )
        return f"local-dir:{source}"
    if source.startswith("hf-hub:"):
        return f"{source}@{settled(source.removeprefix('hf-hub:'), revision, cache)}"
    if len(pinned(source, revision)) == 40:
        raise ValueError(f"timm itself knows only the newest {source!r}: write hf-hub:timm/{source}, which has commits")
    return source


def _register_miniature() -> None:
    """Tell timm of the architecture of the shipped encoder, if this installation has it."""
    import importlib.util

    if importlib.util.find_spec("mmn_utils.miniature.encoder"):
        importlib.import_module("mmn_utils.miniature.encoder")
