"""The miniature's CLIP: its batches, its losses, and the way from training to `Clip`."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmn_utils import profiles
from mmn_utils.miniature import album, clip, training
from mmn_utils.models.clip import Clip, load
from mmn_utils.models.weights import WeightsError
from mmn_utils.profiles import ClipSource, ProfileError

N = len(album.entries())


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return clip.Pool(tmp_path_factory.mktemp("pool"), n=3 * N).draw()


@pytest.fixture(scope="module")
def tokenizer(pool):
    return clip.tokenizer_of(pool.captions)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    model, folder = clip.build(len(tokenizer)).half().float().eval(), tmp_path_factory.mktemp("clip")
    clip.save(model, tokenizer, folder)
    return model, folder


def opened(folder):
    return load(ClipSource(str(folder)), f"local-dir:{folder}", device=torch.device("cpu"), cache=folder)


def test_the_end_of_a_sentence_has_the_highest_number(tokenizer):
    ids = tokenizer(["a photo of a dog"], padding="max_length", max_length=clip.CONTEXT)["input_ids"][0]
    assert max(ids) == ids[5] == len(tokenizer) - 1 and set(ids[6:]) == {0}
    known = tokenizer(list(clip.FUNCTION_WORDS.split()))["input_ids"]
    assert all(tokenizer.unk_token_id not in row for row in known)


def test_a_batch_holds_each_concept_once(pool, tokenizer):
    images, tokens, concepts = clip.Batches(pool, tokenizer, seed=0, words=True, n=50)(3)
    assert images.shape == (50, 3, album.SIDE, album.SIDE) and tokens.shape == (50, clip.CONTEXT)
    assert len(set(concepts.tolist())) == 50
    again = clip.Batches(pool, tokenizer, seed=0, words=True, n=50)(3)
    assert torch.equal(images, again[0]) and torch.equal(concepts, again[2])


def test_the_control_is_never_shown_a_word(pool):
    shown = np.concatenate(pool.of_concepts(words=False))
    assert 0 < len(shown) < pool.n and not any(pool.truth[i][2] for i in shown)
    assert sum(map(len, pool.of_concepts(words=True))) == pool.n


def test_the_loss_falls_when_pictures_meet_their_captions(pool, tokenizer):
    torch.manual_seed(0)
    contrast = clip.Contrast(clip.build(len(tokenizer)))
    images, tokens, concepts = clip.Batches(pool, tokenizer, seed=0, words=True, n=24)(0)
    solver = torch.optim.AdamW(contrast.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        losses.append(contrast.loss(images, tokens, concepts))
        solver.zero_grad()
        losses[-1].backward()
        solver.step()
    assert abs(losses[0].item() - np.log(24)) < 1.5 and losses[-1] < 0.5 * losses[0]


def test_saved_and_opened_it_says_the_same(saved):
    model, folder = saved
    opened_clip, pictures = opened(folder), [album.picture((0, k), "dog").image for k in range(3)]
    found = opened_clip.encode_images([Image.fromarray(p) for p in pictures])
    with torch.no_grad():
        wanted = model.encode_image(clip.as_input(np.stack(pictures)), normalize=True)
    assert torch.allclose(found, wanted, atol=1e-5) and torch.allclose(found.norm(dim=1), torch.ones(3))
    assert not any(p.requires_grad for p in opened_clip.model.parameters()) and not opened_clip.model.training


def test_an_image_tower_by_itself_sees_the_same_and_reads_nothing(saved, tokenizer, tmp_path):
    model, folder = saved
    clip.save(model, tokenizer, tmp_path, text=False)
    alone, pictures = opened(tmp_path), [Image.fromarray(album.picture((0, 5), "cat").image)]
    assert torch.equal(alone.encode_images(pictures), opened(folder).encode_images(pictures))
    sizes = [(f / "open_clip_model.safetensors").stat().st_size for f in (tmp_path, folder)]
    assert sizes[0] < 0.7 * sizes[1]
    with pytest.raises(ValueError, match="an image tower by itself: it reads no texts"):
        alone.encode_texts(["a cat"])


def test_zero_shot_gives_probabilities(saved):
    made = opened(saved[1])
    probabilities = made.zero_shot([Image.new("RGB", (40, 70), "red")] * 2, ["a dog", "a cat", "the word red"])
    assert probabilities.shape == (2, 3) and torch.allclose(probabilities.sum(1), torch.ones(2))


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(WeightsError, match="cannot be loaded by open_clip"):
        opened(tmp_path)


def test_another_tower_is_refused(saved, tmp_path):
    layout = json.loads((saved[1] / "open_clip_config.json").read_text())
    layout["model_cfg"]["vision_cfg"] = {"image_size": 96, "layers": 1, "width": 64, "patch_size": 48}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(layout))
    source = ClipSource(str(tmp_path))
    import open_clip
    from safetensors.torch import save_file

    model = open_clip.model.CLIP(**{k: v for k, v in layout["model_cfg"].items()})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    for file in saved[1].glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="ModifiedResNet image tower, found VisionTransformer"):
        load(source, f"local-dir:{tmp_path}", device=torch.device("cpu"), cache=tmp_path)


def test_a_profile_without_that_model():
    settings = profiles.read("miniature")
    with pytest.raises(ProfileError, match=r"models\.clip\.clipp is not there; did you mean 'clip'"):
        Clip.from_profile(settings, "clipp")
    none = dataclasses.replace(settings, models=dataclasses.replace(settings.models, clip={}))
    with pytest.raises(ProfileError, match="valid: none"):
        Clip.from_profile(none)


def test_the_control_learns_classes(pool, tokenizer):
    torch.manual_seed(0)
    labeller = clip.Labeller(clip.build(len(tokenizer)))
    assert len(training.optimizers(labeller, muon=1e-3, adam=1e-3)) == 1  # no matrix inside a block: no Muon
    images, tokens, concepts = clip.Batches(pool, tokenizer, seed=0, words=False, n=24)(0)
    assert abs(labeller.loss(images, tokens, concepts).item() - np.log(N)) < 1.0
    assert 0 <= labeller.eval().accuracy(facet="photo", n=1) < 0.1
