"""One loop for all stages: steps with a learning-rate schedule, a log line now and then, and a checkpoint to go on
from.
"""

import json
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

LOG_EVERY, SAVE_EVERY = 50, 250
BLOCKS = (".h.", "blocks.", ".layer.")
"""How GPT-J, BEIT and BERT call their blocks."""


def optimizers(
    model: nn.Module, *, muon: float, adam: float, weight_decay: float = 0.01
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else (embeddings, unembedding, gains, biases,
    convolutions).
    """
    inside = [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and p.requires_grad and any(part in name for part in BLOCKS)
    ]
    taken = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in taken and p.requires_grad]
    chosen = [torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=weight_decay)]
    if inside:
        chosen.insert(0, torch.optim.Muon(inside, lr=muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return chosen


def learning_rate_factor(step: int, n_steps: int, *, warmup: int = 100, cooldown: float = 0.5) -> float:
    """Linear warm-up, a plateau, then a linear fall to zero over the last `cooldown` share of the steps."""
    return min(1.0, (step + 1) / warmup, max(0.0, (n_steps - step) / (cooldown * n_steps)))


def fit(
    modules: Iterable[nn.Module],
    step_loss: Callable[[int], Tensor],
    solvers: list[torch.optim.Optimizer],
    *,
    n_steps: int,
    checkpoint: Path,
    seed: int,
) -> list[dict[str, float]]:
    """Minimise `step_loss(step)`; returns the log, one entry every 50 steps: step, loss (mean since the last),
    seconds.

    Stopped at any moment, the same call goes on from the last checkpoint and gives the same weights as if it had not
    been stopped: each step's data depend on (seed, step) alone.

    Raises:
        RuntimeError: the checkpoint is damaged, or of a run with another number of steps or another seed.
        FloatingPointError: the loss is not finite.
    """
    modules, run = nn.ModuleList(modules), {"n_steps": n_steps, "seed": seed}
    state = _load(checkpoint, modules, solvers, run)
    base = [group["initial_lr"] if "initial_lr" in group else group["lr"] for s in solvers for group in s.param_groups]
    log, start, recent, begun = state["log"], state["step"], [], time.perf_counter() - state["seconds"]
    for step in range(start, n_steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for rate, group in zip(base, (g for s in solvers for g in s.param_groups), strict=True):
            group["initial_lr"], group["lr"] = rate, rate * learning_rate_factor(step, n_steps)
        loss = step_loss(step)
        recent.append(loss.item())
        if not math.isfinite(recent[-1]):
            raise FloatingPointError(
                f"loss is {recent[-1]} at step {step} of {checkpoint.stem}; lower the learning rate"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        for solver in solvers:
            solver.step()
            solver.zero_grad(set_to_none=True)
        done = step + 1
        if done % LOG_EVERY == 0 or done == n_steps:
            log.append({"step": done, "loss": sum(recent) / len(recent), "seconds": time.perf_counter() - begun})
            recent = []
            left = (log[-1]["seconds"] - state["seconds"]) / (done - start) * (n_steps - done)
            print(
                f"{checkpoint.stem}: step {done}/{n_steps}, loss {log[-1]['loss']:.3f}, {left / 60:.0f} min left",
                flush=True,
            )
        if done % SAVE_EVERY == 0 or done == n_steps:
            progress = {"step": done, "log": log, "seconds": time.perf_counter() - begun, "run": run}
            _save(checkpoint, modules, solvers, progress)
    return log


def _save(path: Path, modules: nn.Module, solvers: list[torch.optim.Optimizer], progress: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {
        "modules": modules.state_dict(),
        "solvers": [s.state_dict() for s in solvers],
        "progress": json.dumps(progress),
    }
    torch.save(state, partial)
    os.replace(partial, path)


def _load(path: Path, modules: nn.Module, solvers: list[torch.optim.Optimizer], run: dict[str, int]) -> dict:
    if not path.is_file():
        return {"step": 0, "log": [], "seconds": 0.0}
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        remedy = "delete it to train this stage from the start"
        raise RuntimeError(f"checkpoint {path} cannot be read ({error}); {remedy}") from error
    progress = json.loads(state["progress"])
    if progress.get("run", run) != run:
        raise RuntimeError(f"checkpoint {path} is of a run with {progress['run']}, this one has {run}; delete it")
    modules.load_state_dict(state["modules"])
    for solver, saved in zip(solvers, state["solvers"], strict=True):
        solver.load_state_dict(saved)
    return progress
