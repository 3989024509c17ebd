"""CLIP with a ModifiedResNet image tower, through open_clip: the miniature's own, or RN50x4 with OpenAI's weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from huggingface_hub import snapshot_download
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from mmn_utils.models.hub import settled
from mmn_utils.models.weights import WeightsError, verify_folder, why
from mmn_utils.profiles import ClipSource, Profile, ProfileError, nearest


@dataclass(frozen=True)
class Clip:
    """Image tower, text tower and what prepares their input; frozen and in evaluation mode."""

    model: CLIP
    tokenizer: open_clip.tokenizer.HFTokenizer | open_clip.SimpleTokenizer
    preprocess: Compose
    name: str

    @classmethod
    def from_profile(cls, profile: Profile, name: str = "clip") -> "Clip":
        """The model called `name` in the profile's `models.clip`; shipped weights are verified first.

        Raises:
            ProfileError: the profile names no such model.
            WeightsError: its weights are missing or not what they should be.
        """
        if name not in profile.models.clip:
            raise ProfileError(f"{profile.file}: models.clip.{name} is not there; {nearest(name, profile.models.clip)}")
        source = profile.models.clip[name]
        if source.source.startswith("package:"):
            verify_folder(profile.path(source.source))
        return load(source, _spelled(profile, source), device=profile.torch_device, cache=profile.cache_folder / "hub")

    @property
    def visual(self) -> ModifiedResNet:
        """The image tower."""
        return self.model.visual

    @property
    def size(self) -> int:
        """Pixels along each side of its input."""
        size = self.visual.image_size
        return size if isinstance(size, int) else size[0]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.visual.conv1.weight.device

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before the softmax, at most 100 (Radford et al. 2021)."""
        return self.model.logit_scale.clamp(max=4.6052).exp()

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Images as the tower wants them, float [image, RGB, y, x], normalised."""
        return torch.stack([self.preprocess(image) for image in images]).to(self.device)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image], *, batch_size: int = 128) -> Tensor:
        """Unit vectors, float [image, d_joint]."""
        batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        return torch.cat([self.model.encode_image(self.pixels(batch), normalize=True) for batch in batches])

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 512) -> Tensor:
        """Unit vectors, float [text, d_joint].

        Raises:
            ValueError: the model was saved without its text tower.
        """
        if self.model.vocab_size == 1:
            raise ValueError(f"{self.name} is an image tower by itself: it reads no texts; choose another model")
        batches = [list(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        tokens = [self.tokenizer(batch).to(self.device) for batch in batches]
        return torch.cat([self.model.encode_text(part, normalize=True) for part in tokens])

    def zero_shot(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Probability of each prompt for each image, float [image, prompt]: softmax of the scaled cosines."""
        cosines = self.encode_images(images) @ self.encode_texts(prompts).T
        return (self.scale * cosines).softmax(1)


def load(source: ClipSource, spelled: str, *, device: torch.device, cache: Path) -> Clip:
    """A CLIP from a folder in open_clip's layout (`local-dir:FOLDER`).

    Raises:
        WeightsError: open_clip cannot load it; the message holds its reason.
        ValueError: its image tower is no ModifiedResNet.
    """
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            spelled, device=device, cache_dir=str(cache), weights_only=True
        )
        tokenizer = open_clip.get_tokenizer(spelled)
    except Exception as error:  # what open_clip raises depends on where it stumbles
        raise WeightsError(f"{source.source} cannot be loaded by open_clip: {why(error)}") from error
    if not isinstance(model.visual, ModifiedResNet):
        raise ValueError(f"{source.source}: expected a ModifiedResNet image tower, found {type(model.visual).__name__}")
    return Clip(model.float().eval().requires_grad_(False), tokenizer, preprocess, source.source)


def _spelled(profile: Profile, source: ClipSource) -> str:
    """As open_clip names a folder; of the hub's, only safetensors and what describes them are fetched."""
    if profile.is_file_source(source.source):
        return f"local-dir:{profile.path(source.source)}"
    wanted, cache = ["*.json", "*.txt", "open_clip_model.safetensors"], profile.cache_folder / "hub"
    commit = settled(source.source, source.revision, cache)
    try:
        folder = snapshot_download(source.source, revision=commit, cache_dir=cache, allow_patterns=wanted)
    except Exception as error:  # the network's, the hub's, the disk's
        raise WeightsError(f"{source.source} at {commit} cannot be fetched into {cache}: {error}") from error
    return f"local-dir:{folder}"
