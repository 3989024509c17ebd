"""What a captioner says of scenes whose content is known, and the two controls that tell seeing from guessing."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

from mmn_utils.data import CocoScenes
from mmn_utils.metrics import Estimate, first_noun, wilson
from mmn_utils.models.captioner import Captioner, load_projection
from mmn_utils.profiles import Profile, ProjectionSource


def judge(scenes: CocoScenes, ids: Sequence[int], captions: Sequence[str], nouns: Collection[str]) -> pd.DataFrame:
    """One row an image: `caption`, `first_noun` ("" if there is none), the `objects` that are there, whether the
    first noun is one of them and all are named.

    `style` is the hand that drew the scene ("photo" where the data do not say). An object counts as named if its name
    stands in the caption as a word or phrase.

    Raises:
        ValueError: as many captions as images are needed.

    """
    if len(ids) != len(captions):
        raise ValueError(f"expected a caption for each image, found {len(captions)} for {len(ids)} images")
    return pd.DataFrame(
        [_judge_one(scenes, i, caption, nouns) for i, caption in zip(ids, captions, strict=True)]
    ).set_index("image")


def _judge_one(scenes: CocoScenes, image: int, caption: str, nouns: Collection[str]) -> dict[str, object]:
    objects = sorted({o.name for o in scenes.objects(image)})
    noun = first_noun(caption, nouns) or ""
    said = f" {' '.join(caption.lower().replace(',', ' ').replace('.', ' ').split())} "
    return {
        "image": image,
        "style": scenes.info(image).get("style", "photo"),
        "n_objects": len(objects),
        "objects": objects,
        "caption": caption,
        "first_noun": noun,
        "first_is_right": _is_one_of(noun, objects),
        "all_named": bool(objects) and all(f" {name} " in said for name in objects),
    }


def _is_one_of(noun: str, objects: Sequence[str]) -> bool:
    """Whether the noun is a word of one of the objects' names ("light" of "traffic light")."""
    return any(noun in name.split() for name in objects)


def share(flags: pd.Series) -> Estimate:
    """How often something is true, with Wilson's 95 % interval."""
    return wilson(int(flags.sum()), len(flags))


def shuffled(judged: pd.DataFrame) -> pd.Series:
    """Whether each caption's first noun would be right for the *next* image of the table: what guessing well alone
    achieves.
    """
    others = [*judged["objects"].iloc[1:], judged["objects"].iloc[0]]
    right = [_is_one_of(noun, objects) for noun, objects in zip(judged["first_noun"], others, strict=True)]
    return pd.Series(right, index=judged.index)


@contextmanager
def untrained(captioner: Captioner, profile: Profile, *, projection: str | None, seed: int) -> Iterator[Captioner]:
    """While it lasts, the captioner with a language model of the same architecture that never learnt anything.

    Two models of GPT-J's size do not fit on one GPU: the control is made where it stays and in the type that the
    trained one has, which waits in main memory meanwhile; afterwards the control's weights are gone. They follow from
    the seed and the kind of device. `projection`: a source in the profile's notation of a projection that was trained
    for it, as a fair control asks for; None keeps the captioner's own.
    """
    trained, device = captioner.language_model, captioner.device
    linear = load_projection(profile, ProjectionSource(projection)).to(device) if projection else captioner.projection
    with _aside(trained):
        torch.manual_seed(seed)
        with device:
            model = AutoModelForCausalLM.from_config(trained.config, dtype=trained.dtype)
        try:
            yield replace(captioner, language_model=model, projection=linear)
        finally:
            model.to("meta")


@contextmanager
def _aside(model: torch.nn.Module) -> Iterator[None]:
    """Meanwhile the model lies in main memory (one that accelerate spread over devices stays where it is)."""
    device, spread = next(model.parameters()).device, hasattr(model, "hf_device_map")
    if not spread:
        model.to("cpu")
    try:
        yield
    finally:
        if not spread:
            model.to(device)


def with_random_projection(captioner: Captioner, *, seed: int) -> Captioner:
    """The captioner before anyone trained its projection: random numbers, the trained weight's and bias's lengths."""
    generator = torch.Generator().manual_seed(seed)
    trained = captioner.projection
    linear = torch.nn.Linear(trained.in_features, trained.out_features)
    for new, old in ((linear.weight, trained.weight), (linear.bias, trained.bias)):
        drawn = torch.randn(old.shape, generator=generator)
        new.data = (drawn * (old.float().norm().cpu() / drawn.norm())).to(old)
    return replace(captioner, projection=linear)
