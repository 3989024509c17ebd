import pytest
import replicas
import torch

from mmn_utils import depth, profiles
from mmn_utils.data import CocoScenes
from mmn_utils.miniature.world import write_scenes
from mmn_utils.models import Captioner
from mmn_utils.neurons import last_logits


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models"))))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return CocoScenes(write_scenes(tmp_path_factory.mktemp("scenes"), split="val", n=8), "val")


@pytest.mark.parametrize("kind", ["gptj", "gpt2", "neox", "opt", "llama", "gemma"])
@torch.no_grad()
def test_after_the_last_layer_the_lens_is_the_model(kind):
    model = replicas.language_model(kind).double()
    torch.manual_seed(1)
    x = torch.randn(2, 5, model.get_input_embeddings().weight.shape[1], dtype=torch.float64)
    streams = depth.residual_streams(model, x)
    assert streams.shape == (3, 2, 5, 32)
    logits = depth.lens_logits(model, streams[-1])
    assert torch.allclose(logits[:, -1], last_logits(model, x).float(), atol=1e-4)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_ranks_and_probabilities_of_tokens():
    model = replicas.language_model("gptj")
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    logits = model(inputs_embeds=x).logits[:, :3]
    best = logits.argmax(-1)
    found = depth.read(model, x, torch.stack([best[:, 1], best[:, 2]], dim=1), positions=slice(0, 3))
    assert found.rank.shape == found.probability.shape == (3, 2, 3, 2)
    assert (found.rank[-1, :, 1, 0] == 0).all() and (found.rank[-1, :, 2, 1] == 0).all()
    expected = logits.softmax(-1).amax(-1)
    assert torch.allclose(found.probability[-1, :, 1, 0], expected[:, 1], atol=1e-5)


def test_objects_on_and_off(drawn):
    shown = depth.shown_objects(drawn, drawn.ids, 64)
    assert all(o.on.any() and o.ground.any() and not (o.on & o.ground).any() for o in shown)
    assert {o.image for o in shown} == set(drawn.ids)


def test_one_row_for_each_object_depth_and_place(drawn, captioner, sweep):
    rows = depth.survey(captioner, drawn, drawn.ids[:4], sweep=sweep)
    n_objects = len(depth.shown_objects(drawn, drawn.ids[:4], 16))
    assert len(rows) == n_objects * 3 * len(depth.PLACES)
    assert rows["first"].between(0, 1).all() and rows["probability"].between(0, 1).all() and (rows["rank"] >= 0).all()
    curve = depth.by_depth(rows, "first", depth.PLACES[0], 0)
    assert len(curve) == 3 and all(e.low <= e.value <= e.high for e in curve)
