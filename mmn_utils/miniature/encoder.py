"""The vision encoder: BEIT's blocks on a small convolutional stem, trained without any label or word.

BEIT learns by naming the visual token of patches it cannot see. Here a patch's visual token is *which unlabelled
picture it was cut from*: scenes are pasted together from a pool of 600 pictures, a part of the patches is hidden, and
every patch, seen or hidden, has to tell its picture among the 600, or that it is bare ground. This is instance
discrimination (Wu et al. 2018) at the level of patches. The encoder is never told a name, nor that two pictures by
different hands show the same thing; to this objective they are as different as any two.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F

from mmn_utils.miniature import training, world
from mmn_utils.miniature.art import STYLES
from mmn_utils.miniature.concepts import concepts

PATCH, N_IMAGES = 8, 96
HIDDEN_SHARE = 0.3
default_cfgs = generate_default_cfgs(
    {
        "miniature_beit": {
            "input_size": (3, 64, 64), "fixed_input_size": True, "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "first_conv": "patch_embed.layers.0",
            "classifier": "head", "num_classes": 0,
        }
    }
)  # fmt: skip
"""How timm is to prepare an image for this architecture (timm looks for this name)."""
ARCHITECTURE = {"img_size": 64, "patch_size": PATCH, "embed_dim": 192, "depth": 4, "num_heads": 6}


class ConvolutionalStem(nn.Module):
    """Three strided convolutions in place of BEIT's one: float [image, 3, 64, 64] to float [image, patch, width]."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid_size, self.num_patches = (grid, grid), grid * grid
        channels = (3, 32, 64, width)
        layers = []
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, images: Tensor) -> Tensor:
        """float [image, patch, width], patches row by row."""
        return self.layers(images).flatten(2).transpose(1, 2)


@register_model
def miniature_beit(
    pretrained: bool = False, pretrained_cfg: object = None, pretrained_cfg_overlay: object = None, **kwargs: object
) -> Beit:
    """BEIT with relative positions and a convolutional stem; known to `timm.create_model` once this module is
    imported.
    """
    return build_model_with_cfg(
        MiniatureBeit, "miniature_beit", pretrained, pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay, **{**ARCHITECTURE, "num_classes": 0, **kwargs},
    )  # fmt: skip


class MiniatureBeit(Beit):
    """timm's BEIT with relative positions, and `ConvolutionalStem` for its patch embedding."""

    def __init__(self, **kwargs: object) -> None:
        kwargs = {
            "use_abs_pos_emb": False,
            "use_rel_pos_bias": True,
            "init_values": 0.5,
            "global_pool": "avg",
            **kwargs,
        }
        super().__init__(**kwargs)
        self.patch_embed = ConvolutionalStem(self.embed_dim, self.patch_embed.grid_size[0])


class PatchPretext(nn.Module):
    """The encoder with what only its training needs: the token of hidden patches and a classifier of pictures."""

    def __init__(self, encoder: Beit) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_token = nn.Parameter(0.02 * torch.randn(encoder.embed_dim))
        self.pictures = nn.Linear(encoder.embed_dim, len(STYLES) * len(concepts()) + 1)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Logits float [image, patch, picture + 1] of images with some patches hidden, bool [image, patch]."""

        def hide(module: nn.Module, inputs: tuple[Tensor], patches: Tensor) -> Tensor:
            return torch.where(hidden[..., None], self.hidden_token.to(patches.dtype), patches)

        hook = self.encoder.patch_embed.register_forward_hook(hide)
        try:
            return self.pictures(patch_features(self.encoder, images))
        finally:
            hook.remove()


def patch_features(encoder: nn.Module, images: Tensor) -> Tensor:
    """What the language model will be shown: float [image, patch, width], the class token dropped."""
    return encoder.forward_features(images)[:, encoder.num_prefix_tokens :]


def as_input(images: np.ndarray) -> Tensor:
    """uint8 [image, y, x, RGB] to the encoder's float [image, RGB, y, x] in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def patch_owner(masks: np.ndarray, least: float = 0.25) -> np.ndarray:
    """Which object covers most of each patch, int [patch]; -1 where none covers `least` of it. masks: bool [object,
    y, x].
    """
    n, side = len(masks), masks.shape[-1] // PATCH
    cover = masks.reshape(n, side, PATCH, side, PATCH).mean(axis=(2, 4)).reshape(n, -1)
    return np.where(cover.max(axis=0) >= least, cover.argmax(axis=0), -1)


def build() -> Beit:
    """An untrained encoder: 4 blocks, 64 patches, width 192."""
    return miniature_beit()


def batch(seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Images float [image, RGB, y, x] and the number of the picture each patch was cut from, int [image, patch]."""
    scenes = [world.scene((seed, world.SPLIT_SEEDS["encoder"], step, k)) for k in range(N_IMAGES)]
    number = {c.word: i for i, c in enumerate(concepts())}
    targets = []
    for made in scenes:
        pictures = [len(concepts()) * list(STYLES).index(made.style) + number[w] for w in made.words]
        targets.append(np.array([*pictures, len(STYLES) * len(concepts())])[patch_owner(made.masks)])
    return as_input(np.stack([s.image for s in scenes])), torch.from_numpy(np.stack(targets))


def step_loss(pretext: PatchPretext, seed: int, step: int) -> Tensor:
    """Cross-entropy over pictures; patches of bare ground count a tenth."""
    device = pretext.hidden_token.device
    images, targets = (t.to(device) for t in batch(seed, step))
    share = HIDDEN_SHARE * torch.rand(len(images), 1)
    hidden = (torch.rand(targets.shape) < share).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        logits = pretext(images, hidden)
    weight = torch.ones(logits.shape[-1], device=device)
    weight[-1] = 0.1
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), weight=weight, label_smoothing=0.05)


def train(pretext: PatchPretext, *, n_steps: int, checkpoint: Path, seed: int = 0) -> list[dict[str, float]]:
    """Train from scratch, or from the checkpoint."""
    for block in pretext.encoder.blocks:
        block.attn.fused_attn = False  # with BEIT's position biases in bfloat16, plain attention is faster on a CPU
    solvers = training.optimizers(pretext, muon=2e-3, adam=2e-3, weight_decay=0.02)
    pretext.train()
    log = training.fit(
        [pretext],
        lambda step: step_loss(pretext, seed, step),
        solvers,
        n_steps=n_steps,
        checkpoint=checkpoint,
        seed=seed,
    )
    pretext.eval()
    return log


@torch.no_grad()
def features_of(encoder: nn.Module, scenes: Sequence[world.Scene]) -> Tensor:
    """float [scene, patch, width]"""
    parts = [scenes[i : i + 64] for i in range(0, len(scenes), 64)]
    return torch.cat([patch_features(encoder, as_input(np.stack([s.image for s in part]))) for part in parts])


def probe_accuracy(encoder: nn.Module, *, n_train: int = 6_000, n_test: int = 1_500, seed: int = 0) -> dict[str, float]:
    """A linear probe of the concept on single-object scenes: held-out accuracy pooled over the object's patches, for
    single patches, by hand.

    The probe (ridge regression to one-hot concepts) is fitted to pooled features for the first and to single patches
    for the second.
    """
    sets = [
        [world.scene((seed, 7 + part, k), n_objects=(1,)) for k in range(n)] for part, n in enumerate((n_train, n_test))
    ]
    number = {c.word: i for i, c in enumerate(concepts())}
    data = []
    for scenes in sets:
        features, labels = features_of(encoder, scenes), torch.tensor([number[s.words[0]] for s in scenes])
        inside = torch.from_numpy(np.stack([patch_owner(s.masks, 0.5) == 0 for s in scenes]))
        inside[~inside.any(1)] = torch.from_numpy(np.stack([patch_owner(s.masks, 0.0) == 0 for s in scenes]))[
            ~inside.any(1)
        ]
        pooled = (features * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
        data.append((pooled, labels, features[inside], labels[:, None].expand_as(inside)[inside]))
    (pool, label, patch, patch_label), (pool_, label_, patch_, patch_label_) = data
    right = _ridge(pool, label)(pool_) == label_
    right_patch = _ridge(patch, patch_label)(patch_) == patch_label_
    by_style = {s: right[[x.style == s for x in sets[1]]].double().mean().item() for s in STYLES}
    return {"pooled": right.double().mean().item(), "single patch": right_patch.double().mean().item(), **by_style}


def _ridge(features: Tensor, labels: Tensor, penalty: float = 1e-3) -> Callable[[Tensor], Tensor]:
    """Fit a linear classifier; gives the function from features [case, width] to concept numbers int [case]."""
    x = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    y = F.one_hot(labels, len(concepts())).double()
    weights = torch.linalg.solve(x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return lambda z: (torch.cat([z, torch.ones(len(z), 1)], 1).double() @ weights).argmax(1)
