"""All of the miniature's models from nothing: the stages of `python -m mmn_utils.miniature train`, in order.

Each stage leaves finished weights (half precision, safetensors) in its own folder, a line in `report.json` and its
files' checksums in `checksums.json`. A stage whose report says it is finished is not trained again; one that was
interrupted goes on from its checkpoint.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from timm.models._hub import save_for_hf
from timm.models.beit import Beit
from torch import nn
from transformers import GPTJForCausalLM, PreTrainedTokenizerFast

from mmn_utils.miniature import album, bert, clip, encoder, language_model, projection
from mmn_utils.miniature.art import STYLES
from mmn_utils.miniature.text import Corpus, train_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
STEPS = {"language_model": 2_200, "vision_encoder": 3_000, "projection": 4_000, "untrained_control": 400, "bert": 2_000}
STEPS |= {"clip": 6_000, "clip_labels": 2_000, "clip_no_words": 2_400, "clip_seed_1": 6_000, "clip_seed_2": 6_000}
"""Optimiser steps of each stage, in the order in which the stages run."""
Outcome = tuple[list[dict[str, float]], dict[str, float]]
"""A stage's log, and its held-out scores by name."""


@dataclass
class Workshop:
    """Where the stages find one another's results."""

    weights: Path
    """Finished weights, a folder a stage."""
    work: Path
    """Checkpoints of unfinished stages."""
    device: torch.device
    seed: int = 0
    scale: float = 1.0
    """Share of the steps to make; below 1 only to try the command out."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The language model's tokenizer, trained on first use."""
        folder = self.weights / "language_model"
        if not (folder / "tokenizer.json").is_file():
            train_tokenizer(self.seed).save_pretrained(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    @cached_property
    def corpus(self) -> Corpus:
        """The miniature's text."""
        return Corpus(self.tokenizer, self.seed)

    def n_steps(self, stage: str) -> int:
        """How many steps the stage makes."""
        return max(2, round(self.scale * STEPS[stage]))

    def checkpoint(self, stage: str) -> Path:
        """Where an unfinished stage keeps its state."""
        return self.work / f"{stage}.pt"

    def fresh(self, build: Callable[[], nn.Module]) -> nn.Module:
        """An untrained model whose weights depend on the seed alone."""
        torch.manual_seed(self.seed)
        return build().to(self.device)

    def finished_language_model(self) -> GPTJForCausalLM:
        """The shipped language model, in single precision."""
        return GPTJForCausalLM.from_pretrained(self.weights / "language_model", dtype=torch.float32).eval()

    def finished_encoder(self) -> Beit:
        """The shipped encoder, in single precision."""
        model = encoder.build()
        model.load_state_dict(load_state_dict(self.weights / "vision_encoder" / "model.safetensors"))
        return model.eval()


def train_language_model(shop: Workshop) -> Outcome:
    """GPT-J's architecture on text; scored by the oracle: the theme's own word embedding in place of image prompts."""
    model, corpus = shop.fresh(lambda: language_model.build(shop.tokenizer)), shop.corpus
    log = language_model.train(
        model, corpus, n_steps=shop.n_steps("language_model"), checkpoint=shop.checkpoint("language_model")
    )
    model = model.cpu().half()
    model.save_pretrained(shop.weights / "language_model")
    model = model.float()
    oracle = {
        f"oracle, {places}, {filler}": language_model.oracle_accuracy(model, corpus, n_places=places, filler=filler)
        for places in ("object", "one")
        for filler in ("word", "colour", "words", "zeros")
    }
    return log, {**oracle, "describe, then name": language_model.describe_then_name_accuracy(model, corpus)}


def train_vision_encoder(shop: Workshop) -> Outcome:
    """BEIT without labels; scored by a linear probe."""
    pretext = shop.fresh(lambda: encoder.PatchPretext(encoder.build()))
    log = encoder.train(
        pretext, n_steps=shop.n_steps("vision_encoder"), checkpoint=shop.checkpoint("vision_encoder"), seed=shop.seed
    )
    model = pretext.encoder.cpu().half()
    save_for_hf(model, shop.weights / "vision_encoder", safe_serialization=True)
    scores = encoder.probe_accuracy(model.float().eval(), seed=shop.seed)
    return log, {f"linear probe, {name}": score for name, score in scores.items()}


def train_projection(shop: Workshop) -> Outcome:
    """Image prompts for the trained language model; scored by naming the objects of new scenes."""
    return _project(shop, "projection", shop.finished_language_model())


def train_untrained_control(shop: Workshop) -> Outcome:
    """The control: a projection trained in the same way for a language model that never learnt anything (its seed is
    `seed`).
    """
    return _project(shop, "untrained_control", shop.fresh(lambda: language_model.build(shop.tokenizer)).eval())


def _project(shop: Workshop, stage: str, model: GPTJForCausalLM) -> Outcome:
    eyes = shop.finished_encoder()
    data = projection.CaptionedFeatures(eyes, n=max(400, round(shop.scale * projection.N_SCENES)), seed=shop.seed)
    model, start = model.to(shop.device), projection.ridge_start(data, model.cpu(), shop.corpus).to(shop.device)
    model = model.to(shop.device)
    log = projection.train(
        start, model, shop.corpus, data, n_steps=shop.n_steps(stage), checkpoint=shop.checkpoint(stage)
    )
    model, linear = model.cpu(), start.cpu().half()
    (shop.weights / stage).mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in linear.state_dict().items()}, shop.weights / stage / "proj.safetensors")
    known, linear = [s for s in STYLES if s != projection.HELD_OUT], linear.float()
    cases = {
        "one object named": {"n_objects": 1, "styles": known},
        "both objects named": {"n_objects": 2, "styles": known},
        "one object named, held-out hand": {"n_objects": 1, "styles": [projection.HELD_OUT]},
        "one object named, shuffled": {"n_objects": 1, "styles": known, "shuffled": True},
    }
    return log, {name: projection.naming(linear, model, eyes, shop.corpus, **case) for name, case in cases.items()}


def train_bert(shop: Workshop) -> Outcome:
    """The model behind BERTScore."""
    tokenizer = bert.tokenizer_of(shop.tokenizer)
    model = shop.fresh(lambda: bert.build(tokenizer))
    log = bert.train(model, shop.corpus, tokenizer, n_steps=shop.n_steps("bert"), checkpoint=shop.checkpoint("bert"))
    model = model.cpu()
    with torch.no_grad():
        held_out = (
            sum(bert.step_loss(model, shop.corpus, tokenizer, step).item() for step in range(10**6, 10**6 + 20)) / 20
        )
    model.bert.half().save_pretrained(shop.weights / "bert")
    tokenizer.save_pretrained(shop.weights / "bert")
    return log, {"masked-word loss": held_out}


def _train_clip(shop: Workshop, stage: str, *, words: bool = True, labels: bool = False, again: int = 0) -> Outcome:
    """CLIP on the album (or, `labels`, its image tower on classes); scored on new pictures, zero-shot.

    `again`: the same pictures once more, from other random numbers and in another order; only the image tower is kept.
    """
    pool = clip.Pool(shop.work, n=max(400, round(shop.scale * clip.N_PICTURES)), seed=shop.seed).draw()
    tokenizer, seed = clip.tokenizer_of(pool.captions), shop.seed + again
    torch.manual_seed(seed)
    model = clip.build(len(tokenizer)).to(shop.device)
    module = clip.Labeller(model).to(shop.device) if labels else clip.Contrast(model)
    batches = clip.Batches(pool, tokenizer, seed=seed, words=words)
    log = clip.train(module, batches, n_steps=shop.n_steps(stage), checkpoint=shop.checkpoint(stage), seed=seed)
    model = model.cpu().float().eval()
    clip.save(model, tokenizer, shop.weights / stage, text=not (labels or again))
    if labels:
        return log, {"held-out photos, right class": module.cpu().accuracy(facet="photo")}
    scores = {facet: clip.zero_shot(model, tokenizer, facet=facet) for facet in album.FACETS}
    return log, {f"zero-shot, {facet}": score["top 1"] for facet, score in scores.items()}


STAGES = {
    "language_model": train_language_model,
    "vision_encoder": train_vision_encoder,
    "projection": train_projection,
    "untrained_control": train_untrained_control,
    "bert": train_bert,
    "clip": partial(_train_clip, stage="clip"),
    "clip_labels": partial(_train_clip, stage="clip_labels", words=False, labels=True),
    "clip_no_words": partial(_train_clip, stage="clip_no_words", words=False),
    "clip_seed_1": partial(_train_clip, stage="clip_seed_1", again=1),
    "clip_seed_2": partial(_train_clip, stage="clip_seed_2", again=2),
}

NEEDS = {"projection": ("language_model", "vision_encoder"), "untrained_control": ("language_model", "vision_encoder")}
"""Stages that must be finished before another can begin (the control needs the language model's tokenizer)."""


def run(shop: Workshop, stages: list[str], *, again: bool = False) -> list[dict]:
    """Run the stages that are not finished (all of them if `again`) and return the report's lines, one a stage.

    Raises:
        FileNotFoundError: a stage needs another that is not finished yet.
        ValueError: a finished stage was made with another seed or scale.
    """
    if again:
        _forget(shop, stages)
    for stage in stages:
        report = read_report(shop.weights)
        if stage in report:
            _check_same(shop, stage, report[stage])
            print(f"{stage}: finished on {report[stage]['date']}, not trained again (--again does)")
            continue
        missing = [name for name in NEEDS.get(stage, ()) if name not in report]
        if missing:
            raise FileNotFoundError(
                f"{stage} needs {' and '.join(missing)} in {shop.weights}; train these stages first"
            )
        log, scores = STAGES[stage](shop)
        for file in (shop.weights / stage).glob("*"):
            file.chmod(0o644)
        _write(shop.weights / "report.json", read_report(shop.weights) | {stage: _entry(shop, log, scores)})
        _write(shop.weights / "checksums.json", checksums(shop.weights))
        shop.checkpoint(stage).unlink(missing_ok=True)
    return [{"stage": name, **read_report(shop.weights)[name]} for name in stages]


def _forget(shop: Workshop, stages: list[str]) -> None:
    """Take the stages, and those trained on them, out of the report; an interrupted `again` can then go on."""
    stale = {s for s in STAGES if s in stages or set(NEEDS.get(s, ())) & set(stages)}
    _write(shop.weights / "report.json", {k: v for k, v in read_report(shop.weights).items() if k not in stale})
    for stage in stale:
        shop.checkpoint(stage).unlink(missing_ok=True)


def _check_same(shop: Workshop, stage: str, entry: dict) -> None:
    made, wanted = (entry["seed"], entry["scale"]), (shop.seed, shop.scale)
    if made != wanted:
        raise ValueError(
            f"{stage} in {shop.weights} was trained with seed, scale = {made}, now {wanted} are asked for; "
            "say --again, or give another --weights folder"
        )


def _entry(shop: Workshop, log: list[dict[str, float]], scores: dict[str, float]) -> dict:
    """What the model card says of a finished stage; at most 60 points of the loss curve."""
    every = -(-len(log) // 60)
    on_gpu = shop.device.type == "cuda"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seed": shop.seed,
        "scale": shop.scale,
        "steps": log[-1]["step"],
        "minutes": round(log[-1]["seconds"] / 60, 1),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "loss": round(log[-1]["loss"], 4),
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "curve": [[entry["step"], round(entry["loss"], 4)] for entry in log[every - 1 :: every]],
    }


def read_report(weights: Path = WEIGHTS) -> dict[str, dict]:
    """What is known of each finished stage."""
    path = weights / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def checksums(weights: Path) -> dict[str, str]:
    """sha256 of every file of every stage's folder."""
    files = sorted(p for stage in STAGES for p in (weights / stage).glob("*") if p.is_file())
    return {str(p.relative_to(weights).as_posix()): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _write(path: Path, content: dict) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)
