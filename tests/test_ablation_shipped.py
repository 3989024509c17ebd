"""The ablation shortcuts on the shipped captioner, against plain forward passes with hooks written here."""

import pytest
import torch
from PIL import Image

from mmn_utils import ablation, profiles
from mmn_utils.miniature import world
from mmn_utils.models.captioner import Captioner
from mmn_utils.profiles import WEIGHTS

PATCHES = slice(0, 64)
TRAINED = (WEIGHTS / "projection" / "proj.safetensors").is_file()
SCENE = Image.fromarray(world.scene((0, 77, 1)).image)
pytestmark = pytest.mark.skipif(not TRAINED, reason="needs the trained miniature: python -m mmn_utils.miniature train")


@pytest.fixture(scope="module")
def captioner():
    return Captioner.from_profile(profiles.read("miniature"))


@pytest.fixture(scope="module")
def case(captioner):
    """The language model in float64, the context of one scene [1, position, d_model], and masks [row, layer, unit]."""
    prompt = captioner.prompt_embeddings([SCENE], f"{captioner.prompt} a")
    layers = len(captioner.language_model.transformer.h)
    sizes = torch.tensor([0, 1, 64, 300, 1200, 4608])
    order = torch.rand(len(sizes), layers * 768, generator=torch.Generator().manual_seed(1)).argsort(1).argsort(1)
    masks = (order < sizes[:, None]).unflatten(1, (layers, 768))
    masks[3, :4] = False  # the last layers only
    masks[4, 2:] = False  # the first layers only
    return captioner.language_model, prompt, masks


def plainly(model, embeddings, mask, positions, **generation):
    """The whole model once, with a zero wherever `mask` [layer, unit] says so; nothing of the package is used."""
    handles = []
    for block, units in zip(model.transformer.h, mask, strict=True):

        def silence(_module, args, units=units):
            activation = args[0].clone()
            if activation.shape[1] > 1 or positions is None:  # one position only: a token that was generated
                activation[:, positions or slice(None)] *= ~units
            return (activation,)

        handles.append(block.mlp.fc_out.register_forward_pre_hook(silence))
    try:
        with torch.no_grad():
            if generation:
                return model.generate(inputs_embeds=embeddings, **generation)
            return model(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("positions", [None, PATCHES])
def test_logits(case, positions):
    model, embeddings, masks = case
    model, embeddings = model.double(), embeddings.double()
    try:
        ours = ablation.ablated_logits(model, embeddings, masks, positions=positions, batch_size=4)
        for row, mask in zip(ours, masks, strict=True):
            assert torch.allclose(row, plainly(model, embeddings, mask, positions), rtol=0, atol=1e-10)
        assert (ours[1:] - ours[0]).abs().amax(1)[[0, 1, 3, 4]].min() > 1e-4, "the masks do something"
    finally:
        model.float()


def test_single_units(case):
    model, embeddings, _ = case
    model, embeddings = model.double(), embeddings.double()
    try:
        before = plainly(model, embeddings, torch.zeros(6, 768, dtype=torch.bool), PATCHES)
        token = int(before.argmax())
        units = torch.arange(0, 768, 16)
        effects = ablation.unit_effects(model, embeddings, token, positions=PATCHES, layers=[1, 4], units=units)
        for k, layer in enumerate((1, 4)):
            for place in (int(effects.logit[k].argmax()), int(effects.logit[k].argmin()), 5):
                mask = torch.zeros(6, 768, dtype=torch.bool)
                mask[layer, units[place]] = True
                drop = (before - plainly(model, embeddings, mask, PATCHES))[token].item()
                assert effects.logit[k, place].item() == pytest.approx(drop, abs=1e-10)
    finally:
        model.float()


@pytest.mark.parametrize("positions", [None, PATCHES])
def test_captions(captioner, case, positions):
    model, _, masks = case
    prompt = captioner.prompt_embeddings([SCENE])
    ours = ablation.ablated_captions(captioner, prompt, masks, positions=positions)
    for caption, mask in zip(ours, masks, strict=True):
        settings = captioner._greedy(16)
        (tokens,) = plainly(model, prompt, mask, positions, generation_config=settings).tolist()
        assert caption == captioner._text(tokens)
    assert len(set(ours)) > 1, "the masks do something"
