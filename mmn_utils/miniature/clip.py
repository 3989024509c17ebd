"""The miniature's CLIP: open_clip's ModifiedResNet and text transformer, trained from nothing on the album.

Contrastive training as in Radford et al. (2021), with one liberty: a batch holds each concept at most once, so that no
caption of a batch fits two of its pictures. The controls share tower and pictures: one learns class labels instead of
captions, one is never shown a written word.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from mmn_utils.miniature import album, training
from mmn_utils.miniature.lexicon import lexicon

N_PICTURES, N_IMAGES = 60_000, 192
CONTEXT = 20
PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own normalisation."""
FUNCTION_WORDS = (
    "not no nobody nothing every all some any both neither only there is are was be it its they them these those this "
    "that two three four five six near next to left right above below behind front inside outside of in on at by with "
    "without and or but large small big little empty full alone together same different more less than least most at "
    "has have holds wears stands lies sits shows contains someone something thing things"
)


def config(vocabulary: int) -> dict[str, object]:
    """open_clip's model configuration: stages of 1, 1, 2, 2 blocks, 512 neurons on a 3 x 3 grid.

    With no vocabulary, the text tower is as small as open_clip builds one: for image towers kept by themselves.
    """
    vision = {"image_size": album.SIDE, "layers": [1, 1, 2, 2], "width": 16, "head_width": 64}
    text = {"width": 128, "heads": 4, "layers": 3} if vocabulary else {"width": 1, "heads": 1, "layers": 1}
    text |= {"context_length": CONTEXT, "vocab_size": max(1, vocabulary)}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}


def build(vocabulary: int) -> CLIP:
    """An untrained model."""
    return CLIP(**config(vocabulary))


def tokenizer_of(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """Word by word: every word of the captions, function words, and frequent words of English; the end has the highest
    number, where open_clip looks for the sentence's embedding.
    """
    cut = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    heard = {w for caption in set(captions) for w, _ in cut.pre_tokenize_str(caption.lower())}
    heard |= {w for e in album.entries() for w in (e.word, *e.written)} | set(FUNCTION_WORDS.split())
    frequent = [w.lower() for w, *_ in lexicon()["glosses"][:1_500]]
    words = [PAD, UNKNOWN, *sorted(heard | {w for w in frequent if w.isalpha()}), END]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), cut
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, len(words) - 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, model_max_length=CONTEXT
    )


@dataclass(frozen=True)
class Pool:
    """Pictures of the album drawn once, on disk, and the truth about them."""

    folder: Path
    n: int = N_PICTURES
    seed: int = 0

    def draw(self) -> "Pool":
        """Write the pictures unless they are there; an interrupted drawing starts again."""
        if self._truth_file.is_file():
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        shape = (self.n, album.SIDE, album.SIDE, 3)
        images = np.lib.format.open_memmap(self._image_file, mode="w+", dtype=np.uint8, shape=shape)
        keys, truth = [e.key for e in album.entries()], []
        for i in tqdm(range(self.n), desc="drawing the album", disable=None, leave=False):
            made = album.picture((self.seed, 31, i), keys[i % len(keys)])
            images[i] = made.image
            truth.append([made.caption, made.facet, made.written])
        images.flush()
        partial = self._truth_file.with_suffix(".partial")
        partial.write_text(json.dumps(truth), encoding="utf-8")
        partial.replace(self._truth_file)
        return self

    @property
    def _stem(self) -> str:
        return f"album_{self.n}_{self.seed}"

    @property
    def _image_file(self) -> Path:
        return self.folder / f"{self._stem}.npy"

    @property
    def _truth_file(self) -> Path:
        return self.folder / f"{self._stem}.json"

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 [picture, y, x, RGB], read from disk as needed."""
        return np.load(self._image_file, mmap_mode="r")

    @cached_property
    def truth(self) -> list[list[str]]:
        """Caption, facet and written word of each picture; picture i shows concept i modulo their number."""
        return json.loads(self._truth_file.read_text(encoding="utf-8"))

    @property
    def captions(self) -> list[str]:
        """One a picture."""
        return [caption for caption, _, _ in self.truth]

    def of_concepts(self, *, words: bool) -> list[np.ndarray]:
        """Numbers of the pictures of each concept; `words`: those with a written word, too."""
        n = len(album.entries())
        usable = np.array([words or not written for _, _, written in self.truth])
        return [np.flatnonzero(usable & (np.arange(self.n) % n == k)) for k in range(n)]


def as_input(images: np.ndarray) -> Tensor:
    """uint8 [image, y, x, RGB] to what CLIP reads, float [image, RGB, y, x]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Batches:
    """Pictures, tokens and concepts by step; each concept at most once a batch."""

    def __init__(
        self, pool: Pool, tokenizer: PreTrainedTokenizerFast, *, seed: int, words: bool, n: int = N_IMAGES
    ) -> None:
        self.pool, self.seed, self.n = pool, seed, n
        self.members = pool.of_concepts(words=words)
        said = tokenizer(pool.captions, padding="max_length", truncation=True, max_length=CONTEXT)
        self.tokens = torch.tensor(said["input_ids"])

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images float [image, RGB, y, x], tokens int [image, token], concepts int [image]."""
        rng = np.random.default_rng([self.seed, 41, step])
        concepts = rng.permutation([k for k, m in enumerate(self.members) if len(m)])[: self.n]
        chosen = [int(rng.choice(self.members[k])) for k in concepts]
        moved = np.stack([_shift(self.pool.images[i], *rng.integers(-5, 6, 2)) for i in chosen])
        light = torch.from_numpy(rng.uniform(0.85, 1.15, (len(chosen), 1, 1, 1))).float()
        return as_input(moved) * light, self.tokens[chosen], torch.from_numpy(concepts)


def _shift(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Moved by up to 5 pixels, the edge repeated; never mirrored, words could not be read."""
    return np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="edge")[5 + dy : 5 + dy + len(image), 5 + dx :][
        :, : image.shape[1]
    ]


class Contrast(nn.Module):
    """CLIP's training: symmetric cross-entropy over the pictures and captions of a batch."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def loss(self, images: Tensor, tokens: Tensor, concepts: Tensor) -> Tensor:
        """Images float [image, RGB, y, x], tokens int [image, token]; concepts play no part."""
        with torch.autocast(images.device.type, torch.bfloat16):
            seen, said = self.model.encode_image(images), self.model.encode_text(tokens)
        similarity = F.normalize(seen.float(), dim=1) @ F.normalize(said.float(), dim=1).T
        logits = self.model.logit_scale.clamp(max=np.log(100)).exp() * similarity
        right = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class Labeller(nn.Module):
    """Control A: the same image tower under a linear classifier of concepts, which is not kept."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.visual, self.classes = model.visual, nn.Linear(model.visual.output_dim, len(album.entries()))

    def loss(self, images: Tensor, tokens: Tensor, concepts: Tensor) -> Tensor:
        """Images float [image, RGB, y, x], concepts int [image]; tokens play no part."""
        with torch.autocast(images.device.type, torch.bfloat16):
            seen = self.visual(images)
        return F.cross_entropy(self.classes(seen.float()), concepts)

    @torch.no_grad()
    def accuracy(self, *, facet: str, n: int = 5) -> float:
        """Share of new pictures of a facet in the right class."""
        images, right = new_pictures(facet, n)
        parts = [self.classes(self.visual(as_input(images[i : i + 128]))) for i in range(0, len(images), 128)]
        return (torch.cat(parts).argmax(1) == right).double().mean().item()


def new_pictures(facet: str, n: int, seed: int = 0) -> tuple[np.ndarray, Tensor]:
    """`n` held-out pictures of every concept, uint8 [image, y, x, RGB], and their concepts, int [image]."""
    keys = [e.key for e in album.entries()]
    made = [album.picture((seed, 97, k, j), key, facet=facet).image for k, key in enumerate(keys) for j in range(n)]
    return np.stack(made), torch.arange(len(keys)).repeat_interleave(n)


def train(
    module: Contrast | Labeller,
    batches: Batches,
    *,
    n_steps: int,
    checkpoint: Path,
    seed: int,
) -> list[dict[str, float]]:
    """Train from scratch, or from the checkpoint."""
    module.to(memory_format=torch.channels_last).train()
    device = next(module.parameters()).device
    solvers = training.optimizers(module, muon=2e-3, adam=2e-3, weight_decay=0.05)
    log = training.fit(
        [module],
        lambda step: module.loss(*(t.to(device) for t in batches(step))),
        solvers,
        n_steps=n_steps,
        checkpoint=checkpoint,
        seed=seed,
    )
    module.eval()
    return log


def save(model: CLIP, tokenizer: PreTrainedTokenizerFast, folder: Path, *, text: bool = True) -> None:
    """In open_clip's own layout (`local-dir:FOLDER`), half precision; without `text` only the image tower."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = config(len(tokenizer) if text else 0)
    if not text:
        model, alone = CLIP(**cfg), model.visual
        model.visual = alone
    cfg["text_cfg"] |= {"hf_tokenizer_name": ".", "tokenizer_kwargs": {"clean": "lower"}}
    layout = {"model_cfg": cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(layout, indent=1), encoding="utf-8")
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def zero_shot(
    model: CLIP, tokenizer: PreTrainedTokenizerFast, *, facet: str, n: int = 5, seed: int = 0
) -> dict[str, float]:
    """Share of new pictures of one facet whose nearest prompt is their concept's, over all concepts: first place and
    first five.
    """
    images, right = new_pictures(facet, n, seed)
    prompts = [e.prompt for e in album.entries()]
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    said = model.encode_text(tokens["input_ids"], normalize=True)
    seen = torch.cat(
        [model.encode_image(as_input(images[i : i + 128]), normalize=True) for i in range(0, len(images), 128)]
    )
    order = (seen @ said.T).argsort(1, descending=True)
    hit = order == right[:, None]
    return {"top 1": hit[:, 0].double().mean().item(), "top 5": hit[:, :5].any(1).double().mean().item()}
