"""Medians of interleaved repeats: ours, theirs, ours, theirs, … so that a busy machine slows both alike."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds(function: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """How long one call takes."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def interleaved(functions: dict[str, Callable[[], object]], *, repeats: int, device: str = "cpu") -> dict[str, list]:
    """Seconds of each repeat by name, after one call each that does not count."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    return times


def compared(ours: list[float], theirs: list[float]) -> dict[str, float | str | int]:
    """Medians in seconds, and the median of each repeat's own ratio ours / theirs (below 1: ours is faster)."""
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "ratio": ratio,
        "unit": "s",
        "n": len(ours),
    }
