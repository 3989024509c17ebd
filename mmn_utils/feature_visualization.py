r"""Pictures that a neuron wants: gradient ascent on an image (Goh et al. 2021, "Feature visualization").

The image is not a grid of pixels but of Fourier coefficients $z$ with decorrelated colours,
$x = \sigma(C \cdot \mathrm{irfft2}(S \odot z))$, and each step moves $z$ uphill on an objective of the neurons that a
shifted, scaled and turned copy of $x$ excites. Every image of a batch has an objective of its own, so that many neurons
share one pass. Constants are those of the authors' library, Lucid (Olah, Mordvintsev, Schubert 2017).
"""

import copy
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from mmn_utils.clip_neurons import Recording, forward, frozen, neuron_activations, normalised, pre_relu, tower

CHANGE = 0.01
"""Standard deviation of the coefficients that an image starts from."""
COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
"""Square root of the covariance of natural images' colours: one axis a column, brightness first."""


@dataclass(frozen=True)
class Objective:
    """What each image of a batch is to maximise."""

    score: Callable[[Recording], Tensor]
    """float [image], from what the tower computed of the batch."""
    n_images: int
    """How many images it speaks of."""
    layers: tuple[str, ...] = ()
    """Blocks whose outputs `score` reads besides the neurons."""


@dataclass(frozen=True)
class Robustness:
    """Random shifts, scales and turns, other ones for each image and step, so that no single pixel matters.

    In the order of Lucid's transforms: pad with grey, cut off a border of random place once for each of `jitter`,
    scale, turn, cut once more by `last_jitter`, and back to the first size with the middle kept and the rest black.
    The whole is one affine map, sampled once.
    """

    pad: int
    """Pixels of grey on each side."""
    jitter: tuple[int, ...]
    """Rows and columns that each cut takes away."""
    scales: tuple[float, ...]
    """Drawn from alike."""
    angles: tuple[float, ...]
    """Degrees, drawn from alike."""
    last_jitter: int = 0
    """Rows and columns that the cut after the turn takes away."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transformed copies, float [image, RGB, y, x] in [0, 1], of square images of the same size."""
        n, size = len(images), images.shape[-1]
        cuts = torch.tensor(self.jitter)[:, None, None]
        shift = _whole(cuts, (len(self.jitter), n, 2), generator).sum(0) - cuts.sum() / 2
        scale = torch.tensor(self.scales)[torch.randint(len(self.scales), (n,), generator=generator)]
        angle = torch.tensor(self.angles)[torch.randint(len(self.angles), (n,), generator=generator)]
        last = _whole(torch.tensor(self.last_jitter), (n, 2), generator) - self.last_jitter / 2
        window = size + 2 * self.pad - sum(self.jitter)
        canvas = (scale * window - self.last_jitter)[:, None].to(images.device)
        place = F.affine_grid(_affine(angle, scale, last * 2 / size).to(images), images.shape, align_corners=False)
        inside = (torch.maximum(*place.abs().unbind(3)) <= window / size) & (
            _offsets(size, images) <= canvas[..., None] / size
        )
        place = place + (shift * 2 / size).to(images)[:, None, None]
        return (0.5 + F.grid_sample(images - 0.5, place, align_corners=False)) * inside[:, None]


MINIATURE = Robustness(
    pad=16,
    jitter=(8, 8, 8),
    scales=tuple(0.92 + 0.02 * k for k in range(13)),
    angles=tuple(range(-15, 16)),
    last_jitter=2,
)
"""For images of 64 to 96 pixels."""
PUBLISHED = Robustness(
    pad=2,
    jitter=(4,) * 10,
    scales=(*(0.995**n for n in range(-5, 80)), *(0.998**n for n in range(20, 40)), *(0.998**n for n in range(20, 40))),
    angles=(*range(-20, 20), *range(-10, 10), *range(-5, 5), *(0,) * 5),
    last_jitter=2,
)
"""The authors' released recipe, for images of 256 or 288 pixels."""


def noise(n_images: int, size: int, *, seed: int) -> Tensor:
    """Fourier coefficients to start from, float [image, axis, y frequency, x frequency, (real, imaginary)]."""
    generator = torch.Generator().manual_seed(seed)
    return CHANGE * torch.randn(n_images, 3, size, size // 2 + 1, 2, generator=generator)


def usual(size: int) -> Robustness:
    """The transforms for images of so many pixels a side: `PUBLISHED` from 224 on, `MINIATURE` below."""
    return PUBLISHED if size >= 224 else MINIATURE


def falling(size: int) -> Tensor:
    """$S$ with Lucid's quarter: the lower a frequency, the larger its coefficient; float [y frequency, x frequency]."""
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size))
    return size / frequency.clamp(min=1 / size) / 4


def pixels(coefficients: Tensor, scale: Tensor | None = None) -> Tensor:
    r"""The images, float [image, RGB, y, x] in [0, 1]: $\sigma(C \cdot \mathrm{irfft2}(S \odot z))$ (2.1).

    scale: $S$, float [y frequency, x frequency]; None is `falling`.
    """
    size = coefficients.shape[2]
    scale = falling(size) if scale is None else scale
    spectrum = torch.view_as_complex(coefficients) * scale.to(coefficients.device)
    planes = torch.fft.irfft2(spectrum, s=(size, size))
    return torch.sigmoid(torch.einsum("rc,ncyx->nryx", _mixing().to(planes), planes))


def channel(units: Sequence[int]) -> Objective:
    """The neuron's mean over all places, one unit an image."""
    return Objective(lambda kept: _own(kept.neurons, units).mean((1, 2)), len(units))


def neuron(units: Sequence[int]) -> Objective:
    """The neuron at the place in the middle, one unit an image."""
    return Objective(lambda kept: _own(kept.neurons, units)[:, _middle(kept, 2), _middle(kept, 3)], len(units))


def direction(vectors: Tensor) -> Objective:
    """The mean over all places of the cosine with a vector of its own: float [image, neuron]."""

    def score(kept: Recording) -> Tensor:
        return F.cosine_similarity(kept.neurons, vectors.to(kept.neurons)[..., None, None], dim=1).mean((1, 2))

    return Objective(score, len(vectors))


def diversity(features: Tensor, groups: Tensor | None = None) -> Tensor:
    r"""How little an image shares with the others of its group, float [image]: 0 at best, minus their number at worst.

    $C_a = -\sum_{b \neq a} \langle G_a, G_b \rangle / (\lVert G_a \rVert \lVert G_b \rVert)$ with the Gram matrix
    $G_{ij} = \sum_{y,x} A_{iyx} A_{jyx}$ of the image's features $A$ (2.4).

    features: float [image, channel, y, x]. groups: int [image]; None makes one group of all.
    """
    flat = features.flatten(2)
    grams = F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
    groups = torch.zeros(len(flat)) if groups is None else groups
    others = ((groups[:, None] == groups) & ~torch.eye(len(flat), dtype=torch.bool)).to(grams)
    return -(grams @ grams.T * others).sum(1)


def diverse(
    objective: Objective, strength: float, *, layer: str, groups: Tensor | None = None, attribution: bool = True
) -> Objective:
    r"""`objective`, and images of the same group unlike each other in a block's output $g$.

    attribution: compare $g \odot \nabla_g f$, the part of $g$ that moves the objective $f$ (the authors' improvement;
    the gradient counts as a constant), instead of $g$ itself.
    """

    def score(kept: Recording) -> Tensor:
        value = objective.score(kept)
        return value + strength * diversity(_compared(kept.layers[layer], value, attribution), groups)

    return Objective(score, objective.n_images, tuple({*objective.layers, layer}))


def likeness(model: nn.Module, images: Tensor, objective: Objective, *, layer: str, attribution: bool = True) -> float:
    """What `diverse` holds against finished images, as their mean cosine: 1 if all are alike.

    images: pixels, float [image, RGB, y, x] in [0, 1], one for each image of `objective`.
    """
    visual = tower(model)
    seen = normalised(images.to(visual.conv1.weight), model).requires_grad_()
    with frozen(visual), pre_relu(visual, layers=[*objective.layers, layer]) as kept:
        forward(visual, seen)
    features = _compared(kept.layers[layer], objective.score(kept), attribution).detach()
    return -diversity(features).mean().item() / (len(images) - 1)


def _compared(features: Tensor, value: Tensor, attribution: bool) -> Tensor:
    return features * gradients(value, [features])[0] if attribution else features


def gradients(value: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """Each image's gradient of its own value [image] by its features [image, ...], as constants."""
    found = torch.autograd.grad(value.sum(), features, retain_graph=True)
    return [gradient.detach() for gradient in found]


def visualize(
    model: nn.Module,
    objective: Objective,
    *,
    steps: Collection[int] = (512,),
    size: int | None = None,
    rate: float = 0.05,
    robustness: Robustness | None = None,
    scale: Tensor | None = None,
    grey: float = 0.0,
    seed: int = 0,
) -> dict[int, Tensor]:
    """Images that grow on the objective, float [image, RGB, y, x] in [0, 1] on the CPU, after each of `steps`.

    Step 0 is the noise that they start from. size: pixels a side; None is the model's own. rate: Adam's. robustness:
    None is the `usual` one. scale: of the coefficients, as in `pixels`. grey: weight of the mean squared distance from
    grey, taken off the objective (the released facet recipe: 10, with rate 0.02 and 4096 steps). The model is left as
    it was; the same seed gives the same images on the same machine with as many threads, as steps make roundings large.

    Raises:
        ValueError: no steps, or a negative one.
    """
    if not steps or min(steps) < 0:
        raise ValueError(f"steps: expected numbers of steps from 0 on, found {sorted(steps)}")
    visual = folded(tower(model))
    size = size or _size(visual)
    coefficients = noise(objective.n_images, size, seed=seed).to(visual.conv1.weight.device).requires_grad_()
    settings = {
        "optimizer": torch.optim.Adam([coefficients], lr=rate),
        "robustness": robustness or usual(size),
        "scale": scale,
        "generator": torch.Generator().manual_seed(seed + 1),  # not the one that made the noise
        "grey": grey,
    }
    found = {}
    for step in tqdm(range(max(steps) + 1), desc="growing images", disable=None, leave=False):
        if step in steps:
            found[step] = pixels(coefficients, scale).detach().cpu()
        if step < max(steps):
            uphill(visual, objective, coefficients, **settings)
    return found


def own_answers(model: nn.Module, images: Tensor, units: Sequence[int]) -> Tensor:
    """How strongly each finished image excites its own unit, at the place where it does most, float [image].

    images: pixels, float [image, RGB, y, x] in [0, 1].
    """
    return neuron_activations(model, normalised(images, model))[torch.arange(len(units)), torch.as_tensor(units)]


def fine(images: Tensor) -> Tensor:
    """The share of each image's variance that waves shorter than four pixels make, float [image].

    images: float [image, RGB, y, x], square.
    """
    power = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square().sum(1)
    axis = torch.fft.fftfreq(images.shape[-1], device=images.device)
    return power[:, torch.hypot(axis[:, None], axis) > 1 / 4].sum(1) / power.sum((1, 2))


def uphill(
    visual: nn.Module,
    objective: Objective,
    coefficients: Tensor,
    *,
    optimizer: torch.optim.Optimizer,
    robustness: Robustness,
    generator: torch.Generator,
    scale: Tensor | None = None,
    grey: float = 0.0,
) -> None:
    """One step: transform each image, one pass there and back, move its `coefficients`, which `optimizer` holds."""
    images = pixels(coefficients, scale)
    seen = normalised(robustness(images, generator), visual)
    with pre_relu(visual, layers=objective.layers) as kept:
        forward(visual, seen.contiguous(memory_format=torch.channels_last))
    gain = objective.score(kept).sum() - grey * (images - 0.5).square().mean((1, 2, 3)).sum()
    optimizer.zero_grad()
    (-gain).backward()
    optimizer.step()


def folded(visual: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode, its batch norms made part of the convolutions before them: the same neurons up
    to rounding, in less time.
    """
    copied = copy.deepcopy(visual).eval().requires_grad_(False)
    for module in list(copied.modules()):
        for (name, conv), (next_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, next_name, nn.Identity())
    return copied.to(memory_format=torch.channels_last)


def _mixing() -> Tensor:
    """$C$: `COLOURS`, the longest of its axes made one long."""
    return COLOURS / COLOURS.norm(dim=0).max()


def _own(maps: Tensor, units: Sequence[int]) -> Tensor:
    """Each image's own unit, float [image, y, x]."""
    return maps[torch.arange(len(units)), torch.as_tensor(units)]


def _middle(kept: Recording, axis: int) -> int:
    return kept.neurons.shape[axis] // 2


def _size(visual: nn.Module) -> int:
    size = visual.image_size
    return size if isinstance(size, int) else size[0]


def _whole(highest: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Whole numbers from 0 to `highest`, all alike."""
    return (torch.rand(shape, generator=generator) * (highest + 1)).floor()


def _offsets(size: int, like: Tensor) -> Tensor:
    """How far each pixel's middle is from the image's, the farther of y and x: float [1, y, x], 1 at the border."""
    axis = ((torch.arange(size, device=like.device) + 0.5) * 2 / size - 1).abs()
    return torch.maximum(axis[:, None], axis)[None]


def _affine(degrees: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """From where in the source each place is taken: shift, turn back, scale back; float [image, 2, 3]."""
    turn = degrees * math.pi / 180
    rows = [turn.cos(), -turn.sin(), turn.sin(), turn.cos()]
    linear = torch.stack(rows, dim=1).view(-1, 2, 2) / scale[:, None, None]
    return torch.cat([linear, linear @ shift[..., None]], dim=2)
