"""Part II on a random tower of the miniature's size: one step of feature visualisation.

`bare` is the tower's forward and backward pass alone on a batch of the same size. Lucent, the published PyTorch port of
Lucid, takes its own step: as many images of the same size, its standard transforms, the mean of
a channel of the same block. Weights are frozen for all three, which spares Lucent their gradients.
"""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.timing import compared, interleaved
from mmn_utils import feature_visualization as fv
from mmn_utils.clip_neurons import frozen

UNITS = (3, 70, 140, 210, 280, 350, 420, 490)
SIZE, N_STEPS = 96, 16
INSTALL = "pip install --no-deps torch-lucent==0.1.8 kornia==0.4.1 decorator  # as `make benchmark` does"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where Lucent puts its images


def tower(width: int = 16) -> nn.Module:
    """open_clip's ModifiedResNet in the miniature's size, untrained."""
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(0)
    visual = ModifiedResNet([1, 1, 2, 2], output_dim=128, heads=width // 2, image_size=SIZE, width=width)
    return visual.eval().requires_grad_(False).to(DEVICE, memory_format=torch.channels_last)


def bare_pass(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The forward and backward pass alone, down to the images."""
    images = images.detach().requires_grad_()
    return torch.autograd.grad(visual(images).sum(), images)[0]


def lucents(visual: nn.Module) -> Callable[[int], object] | None:
    """So many of Lucent's steps; None where it is not installed."""
    try:
        from lucent.optvis import objectives, param, render
    except ImportError as problem:
        print(f"features.step.vs_lucent is left out ({problem}): {INSTALL}")
        return None

    def run(n_steps: int) -> object:
        try:
            return render.render_vis(
                visual,
                objectives.channel("layer4_1", UNITS[0]),
                lambda: param.image(SIZE, batch=len(UNITS)),
                thresholds=(n_steps,),
                fixed_image_size=SIZE,
                progress=False,
                show_image=False,
            )
        finally:  # it leaves its hooks behind, and each call would be slower than the one before
            for module in visual.modules():
                module._forward_hooks.clear()

    return run


def step(repeats: int = 7) -> dict[str, dict]:
    """Ours beside the bare pass and beside Lucent, `N_STEPS` steps at a time."""
    visual, other = tower(), tower()
    images = torch.rand(len(UNITS), 3, SIZE, SIZE).to(DEVICE, memory_format=torch.channels_last)
    functions = {
        "ours": lambda: fv.visualize(visual, fv.channel(UNITS), steps=(N_STEPS,)),
        "bare": lambda: [bare_pass(visual, images) for _ in range(N_STEPS)],
    }
    lucent = lucents(other)
    if lucent is not None:
        functions["lucent"] = lambda: lucent(N_STEPS)
    with frozen(visual):
        times = interleaved(functions, repeats=repeats, device=DEVICE)
    per_step = {name: [seconds / N_STEPS for seconds in taken] for name, taken in times.items()}
    return {f"features.step.vs_{name}": compared(per_step["ours"], per_step[name]) for name in list(functions)[1:]}


def all_benchmarks() -> dict[str, dict]:
    return step()
