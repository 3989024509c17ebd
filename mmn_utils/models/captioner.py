r"""The captioner: a frozen language model that reads image prompts (Schwettmann et al. 2023, section 2; LiMBeR).

An image becomes patches, each patch a vector of the vision encoder, each vector one *image prompt* in the space of the
language model's word embeddings, by one linear layer $P$:

$$x_p = W z_p + b, \qquad \text{input} = [x_1, \dots, x_k, \text{embeddings of the text prompt}]$$

Encoder and language model never saw each other; only $P$ was trained on captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mmn_utils.models import hub
from mmn_utils.models.encoders import LIBRARIES, VisionEncoder
from mmn_utils.models.weights import REMEDY, WeightsError, load_tensors, verify_folder
from mmn_utils.profiles import LanguageModelSource, Profile, ProjectionSource, VisionEncoderSource


@dataclass(frozen=True)
class Captioner:
    """Vision encoder, projection and language model, frozen and in evaluation mode.

    Raises:
        ValueError: the projection does not fit the encoder or the language model; the message gives both sizes.
    """

    language_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoder: VisionEncoder
    projection: nn.Linear
    prompt: str = "A picture of"

    def __post_init__(self) -> None:
        self._check_size("in", self.projection.in_features, "vision encoder", self.encoder.name, self.encoder.width)
        name = self.language_model.config.name_or_path or type(self.language_model).__name__
        self._check_size("out", self.projection.out_features, "language model", name, self.d_model)
        for part in (self.language_model, self.encoder.model, self.projection):
            part.eval().requires_grad_(False)

    @classmethod
    def from_profile(cls, profile: Profile) -> "Captioner":
        """The captioner that the profile names; shipped weights are verified first."""
        models = profile.models
        return cls(
            encoder=load_encoder(profile, models.vision_encoder),
            projection=load_projection(profile, models.projection).to(profile.torch_device),
            language_model=load_language_model(profile, models.language_model),
            tokenizer=load_tokenizer(profile, models.language_model),
            prompt=models.prompt,
        )

    @property
    def d_model(self) -> int:
        """Numbers per word embedding."""
        return self.language_model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the language model reads its input."""
        return self.language_model.get_input_embeddings().weight.device

    @torch.no_grad()
    def patch_features(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> Tensor:
        """What the vision encoder says of each patch, float [image, patch, d_vision]."""
        place = next(self.encoder.model.parameters())
        batches = [self.encoder.pixels(list(batch)).to(place) for batch in _batches(images, batch_size)]
        return torch.cat([self.encoder.features(pixels) for pixels in batches])

    @torch.no_grad()
    def image_prompts(self, images: Sequence[Image.Image]) -> Tensor:
        """The images as the language model reads them, float [image, patch, d_model]."""
        return self.projection(self.patch_features(images).to(self.projection.weight))

    @torch.no_grad()
    def text_embeddings(self, text: str | None = None) -> Tensor:
        """Word embeddings of `text` (None: the prompt), float [token, d_model]."""
        ids = self.tokenizer(self.prompt if text is None else text, add_special_tokens=False)["input_ids"]
        embed = self.language_model.get_input_embeddings()
        return embed(torch.tensor(ids, dtype=torch.long, device=self.device))

    def prompt_embeddings(self, images: Sequence[Image.Image], text: str | None = None) -> Tensor:
        """Image prompts, then the text (None: the prompt), float [image, patch + token, d_model]."""
        return self.with_text(self.image_prompts(images), text)

    def with_text(self, image_prompts: Tensor, text: str | None = None) -> Tensor:
        """Append the text (None: the prompt) to image prompts [image, patch, d_model] from anywhere."""
        text_embeddings = self.text_embeddings(text)
        repeated = text_embeddings.expand(len(image_prompts), *text_embeddings.shape)
        return torch.cat([image_prompts.to(text_embeddings), repeated], dim=1)

    def caption(self, images: Sequence[Image.Image], *, max_new_tokens: int = 16, batch_size: int = 32) -> list[str]:
        """One caption an image, without the prompt: the likeliest token each time (T = 0), up to the sentence's end."""
        embeddings = (self.prompt_embeddings(batch) for batch in _batches(images, batch_size))
        return [text for batch in embeddings for text in self.complete(batch, max_new_tokens=max_new_tokens)]

    @torch.no_grad()
    def complete(self, embeddings: Tensor, *, max_new_tokens: int = 16) -> list[str]:
        """Greedy continuation of input embeddings [image, position, d_model]; stops at the end of text or sentence."""
        tokens = self.language_model.generate(
            inputs_embeds=embeddings.to(self.device, self.language_model.dtype),
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=self.device),
            generation_config=self._greedy(max_new_tokens),
        )
        return [self._text(row) for row in tokens.tolist()]

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens that end a caption: the end of text, and every token that ends a sentence or a line."""
        ids = list(range(len(self.tokenizer)))
        texts = self.tokenizer.batch_decode([[i] for i in ids])
        special = {self.tokenizer.eos_token_id} - {None}
        return sorted(special | {i for i, text in zip(ids, texts, strict=True) if _ends_sentence(text)})

    def _greedy(self, max_new_tokens: int) -> GenerationConfig:
        """Argmax decoding, whatever sampling the publisher suggests; padding rows of the embedding are barred."""
        n_rows = self.language_model.get_output_embeddings().weight.shape[0]
        beyond = list(range(len(self.tokenizer), n_rows))
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.end_ids,
            pad_token_id=self._pad_id,
            suppress_tokens=beyond or None,
        )

    @property
    def _pad_id(self) -> int:
        """What fills a row after its end; `_text` cuts it off, so that it only has to be some valid token."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in known if token is not None)

    def _text(self, tokens: list[int]) -> str:
        """The caption in a row of tokens: up to and with the first that ends it."""
        ends = set(self.end_ids)
        length = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
        return self.tokenizer.decode(tokens[:length], skip_special_tokens=True).strip()

    def _check_size(self, side: str, found: int, part: str, name: str, expected: int) -> None:
        if found != expected:
            raise ValueError(
                f"the projection's {side}put has {found} numbers, but the {part} ({name}) has {expected}; "
                "projection, encoder and language model in the profile must belong together"
            )


def load_language_model(profile: Profile, source: LanguageModelSource) -> PreTrainedModel:
    """A causal language model in the profile's dtype; never runs code from the hub."""
    verify_source(profile, source.source)
    model = hub.load_pretrained(
        AutoModelForCausalLM,
        profile.locate(source.source),
        revision=source.revision,
        cache=profile.cache_folder / "hub",
        dtype=getattr(torch, source.dtype),
        device_map=source.device_map,
    )
    model.generation_config = GenerationConfig()  # the publisher's sampling settings would only warn
    return model if source.device_map else model.to(profile.torch_device)


def load_tokenizer(profile: Profile, source: LanguageModelSource) -> PreTrainedTokenizerBase:
    """The language model's tokenizer, or the one that the profile names instead."""
    own = source.tokenizer is None
    name, revision = (source.source, source.revision) if own else (source.tokenizer, source.tokenizer_revision)
    return hub.load_tokenizer(profile.locate(name), revision=revision, cache=profile.cache_folder / "hub")


def load_encoder(profile: Profile, source: VisionEncoderSource) -> VisionEncoder:
    """A vision encoder of either library, in float32."""
    verify_source(profile, source.source)
    encoder = LIBRARIES[source.library].load(
        profile.locate(source.source), revision=source.revision, cache=profile.cache_folder / "hub"
    )
    encoder.model.float().to(profile.torch_device)
    return encoder


def load_projection(profile: Profile, source: ProjectionSource) -> nn.Linear:
    """The linear layer from patches to word embeddings, in float32.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but one weight and one bias of finite numbers.
    """
    verify_source(profile, source.source)
    path = profile.path(source.source)
    path = path / "proj.safetensors" if path.is_dir() else path
    tensors = {name.rpartition(".")[2]: t.float() for name, t in load_tensors(path, source.checksum).items()}
    shapes = {name: list(t.shape) for name, t in tensors.items()}
    if set(shapes) != {"weight", "bias"} or len(shapes["weight"]) != 2 or shapes["bias"] != shapes["weight"][:1]:
        raise WeightsError(f"{path} should hold weight [d_model, d_vision] and bias [d_model], found {shapes}")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: {name} has numbers that are not finite. {REMEDY}")
    linear = nn.Linear(*reversed(shapes["weight"]))
    linear.load_state_dict(tensors)
    return linear


def verify_source(profile: Profile, source: str) -> None:
    """Shipped weights against their checksums; a user's own folder only has to exist."""
    if source.startswith("package:"):
        verify_folder(profile.path(source))
    elif profile.is_file_source(source) and not Path(profile.path(source)).exists():
        raise WeightsError(f"weights missing: {profile.path(source)} (in {profile.file}) does not exist")


def _ends_sentence(text: str) -> bool:
    return "\n" in text or text.strip().endswith((".", "!", "?"))


def _batches(images: Sequence[Image.Image], size: int) -> Iterator[Sequence[Image.Image]]:
    return (images[start : start + size] for start in range(0, len(images), size))
