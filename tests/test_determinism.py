"""The same twice: bit for bit in two processes on one machine, within stated tolerances on a GPU."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmn_utils import profiles
from mmn_utils.attribution import attribute
from mmn_utils.miniature.world import scene
from mmn_utils.models import Captioner
from mmn_utils.neurons import last_logits

REPOSITORY = Path(__file__).parents[1]
IMAGES = 3
TOLERANCE = 1e-3
"""Of float32 logits and attributions between a CPU and a GPU, relative to the largest of them: sums of some hundred
products, in another order, through five layers."""


def compute(device: str = "cpu") -> dict:
    """Captions, image prompts, logits and attributions of a few drawn scenes."""
    captioner = Captioner.from_profile(profiles.read("miniature"))
    images = [Image.fromarray(scene((0, 9, k)).image) for k in range(IMAGES)]
    for part in (captioner.language_model, captioner.encoder.model, captioner.projection):
        part.to(device)
    embeddings = captioner.prompt_embeddings(images)
    tokens = last_logits(captioner.language_model, embeddings).detach().argmax(-1)
    found = attribute(captioner.language_model, embeddings, tokens)
    logits = last_logits(captioner.language_model, embeddings).detach()
    return {
        "captions": captioner.caption(images), "prompts": embeddings.cpu(), "logits": logits.cpu(),
        "attributions": found.cpu(), "tokens": tokens.cpu(),
    }  # fmt: skip


def digests(computed: dict) -> dict[str, str]:
    """One digest a result, of all its bits."""
    captions = {"captions": "\n".join(computed["captions"]).encode()}
    tensors = {name: value.numpy().tobytes() for name, value in computed.items() if name != "captions"}
    return {name: hashlib.sha256(content).hexdigest() for name, content in (captions | tensors).items()}


def test_two_processes_agree_to_the_last_bit():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    code = "import json, test_determinism as t; print(json.dumps(t.digests(t.compute())))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        for seed in ("1", "2")
    ]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    first, second = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
    assert first == second and set(first) == {"captions", "prompts", "logits", "attributions", "tokens"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing to compare the CPU with")
def test_a_gpu_agrees_within_the_tolerance():
    cpu, gpu = compute("cpu"), compute("cuda")
    for name in ("prompts", "logits", "attributions"):
        assert (cpu[name] - gpu[name]).abs().max() <= TOLERANCE * cpu[name].abs().max(), name
