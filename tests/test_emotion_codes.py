from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_clip_neurons import tiny_clip
from torchvision.transforms import v2

from mmn_utils import emotion_codes as codes
from mmn_utils.clip_neurons import tower
from mmn_utils.models.clip import Clip
from mmn_utils.multimodal import Seen

RECIPES = {"proud": ["trophy", "happy"], "bored": ["relaxed", "grumpy"], "jealous": ["trophy", "grumpy"]}


def test_a_code_is_shown_as_the_paper_shows_it():
    probe = SimpleNamespace(classes_=np.array(["proud"]), coef_=np.array([[0.0, 4, -2, 0.1, 1, 0.5, 0.4]]))
    shown = codes.code(probe, "proud")
    assert shown.to_dict() == {1: 1.0, 2: -0.5, 4: 0.25, 5: 0.125}  # four at most, the largest is 1
    few = SimpleNamespace(classes_=np.array(["proud"]), coef_=np.array([[0.0, 4, 0.1]]))
    assert codes.code(few, "proud").to_dict() == {1: 1.0}  # .025 is below .05
    none = SimpleNamespace(classes_=np.array(["proud"]), coef_=np.zeros((1, 3)))
    assert codes.code(none, "proud").empty


def test_a_code_says_the_cues_it_adds():
    cues = pd.Series(["trophy", "happy", "evil"])
    assert codes.named({"proud": pd.Series({0: 1.0, 1: 0.3, 2: -0.5})}, cues) == {"proud": {"trophy", "happy"}}


def test_a_neuron_is_called_after_the_cue_it_answers_best():
    kinds, facets = ["a", "b", "c"] * 6, ["photo"] * 9 + ["text"] * 9
    pictures = pd.DataFrame({"concept": kinds, "facet": facets})
    answers = torch.stack([torch.tensor([float(kind == name) for kind in kinds]) for name in "ab"], dim=1)
    answers[0, 1] = 2.0  # one photo of a that neuron 1 answers, before all of b: 3 of 18 pairs are lost among photos
    seen = Seen(pictures, ("a", "b", "c"), answers[:, :, None, None], torch.zeros(18, 4))
    found = codes.labels(seen, ["b", "a"], facets=["photo", "text"])
    assert found.concept.tolist() == ["a", "b"]
    assert found.auroc.tolist() == [1, pytest.approx((15 / 18 + 1) / 2)]


def test_recipes_scored_by_hand():
    said = {"proud": {"trophy", "happy"}, "bored": {"relaxed", "evil", "sick"}, "jealous": set()}
    scores = codes.recipe_scores(said, RECIPES)
    assert scores.precision.tolist() == [1, pytest.approx(1 / 3), 0]
    assert scores.recall.tolist() == [1, 0.5, 0]
    assert scores.f1.tolist() == [1, pytest.approx(0.4), 0]


def test_shuffled_recipes_score_less_than_their_own():
    said = {word: set(recipe) for word, recipe in RECIPES.items()}
    draws = codes.shuffled_f1(said, RECIPES, n=60, seed=0)
    assert draws.max() == codes.recipe_scores(said, RECIPES).f1.mean() == 1  # the identity is among the deals
    assert draws.mean() < 0.8
    nothing = {word: set() for word in RECIPES}
    assert not codes.shuffled_f1(nothing, RECIPES, n=5, seed=0).any()


def test_words_that_share_a_cue_are_one_group():
    words = ["happy", "relaxed", "grumpy", "sick", "proud", "bored", "kind", "intimate"]
    recipes = {"proud": ["trophy", "happy"], "bored": ["relaxed", "grumpy"], "intimate": ["kind", "heart"]}
    found = codes.groups(words, recipes)
    assert found[0] == found[4] and found[1] == found[2] == found[5] and found[6] == found[7]
    assert len(set(found)) == 4


def test_factors_find_planted_blocks():
    rng = np.random.default_rng(0)
    found = np.kron(np.eye(3), np.ones((4, 5))) + rng.uniform(0, 0.05, (12, 15))
    shares = codes.factors(found, 3, seed=0)
    leading = shares.argmax(1).reshape(3, 4)
    assert (leading == leading[:, :1]).all() and len(set(leading[:, 0])) == 3
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.max(0), 1)


def test_every_word_has_its_cell_on_the_disc_and_likes_lie_together():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3), 7, axis=0)
    cells = codes.disc(centres + rng.normal(0, 0.05, centres.shape))
    assert len({tuple(cell) for cell in cells}) == 21
    assert (cells**2).sum(1).max() <= 6  # the 21 cells nearest to the middle
    apart = np.linalg.norm(cells[:, None] - cells[None], axis=-1)
    alike = np.kron(np.eye(3), np.ones((7, 7))).astype(bool)
    assert apart[alike].mean() < 0.75 * apart[~alike].mean()


@pytest.fixture(scope="module")
def clip():
    prepare = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    return Clip(tiny_clip().eval().requires_grad_(False), None, prepare, "tiny")


@torch.no_grad()
def test_raising_a_neuron_is_what_a_hook_would_do(clip):
    texts = torch.nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    found = codes.raised(clip, torch.full((256,), 5.0), texts)
    assert found.shape == (256, 3)

    def set_neuron(_module, args):
        changed = args[0].clone()
        changed[:, 9] = 5.0
        return (changed,)

    pixels = clip.pixels([Image.new("RGB", (64, 64), (128, 128, 128))])
    before = clip.model.encode_image(pixels, normalize=True) @ texts.T
    handle = tower(clip.model).layer4[-1].act3.register_forward_pre_hook(set_neuron)
    after = clip.model.encode_image(pixels, normalize=True) @ texts.T
    handle.remove()
    expected = clip.model.logit_scale.exp() * (after - before)[0]
    np.testing.assert_allclose(found[9], expected, atol=1e-4)
    assert np.abs(found).max() > 1e-3
