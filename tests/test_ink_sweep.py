import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmn_utils import ink_sweep, profiles
from mmn_utils.ink_sweep import Written, tuned
from mmn_utils.models.clip import Clip

PROMPT = "written in the color {}"


@pytest.fixture(scope="module")
def clip():
    return Clip.from_profile(profiles.read("miniature"))


@pytest.fixture(scope="module")
def patches():
    """Sheets in one of two colours, and a word that has nothing to do with them."""
    rgb = {"red": (220, 40, 40), "blue": (40, 60, 220)}
    inks = ["red", "blue"] * 8
    return Written([Image.new("RGB", (96, 96), rgb[ink]) for ink in inks], ["dog", "dog", "cat", "cat"] * 4, inks)


def test_the_rate_is_the_share_of_captions_that_name_the_ink(patches):
    rng = np.random.default_rng(0)
    assert patches.captions(0, PROMPT, rng) == [f"the word {word}" for word in patches.words]
    assert patches.captions(1, PROMPT, rng) == [PROMPT.format(ink) for ink in patches.inks]
    many = Written([], ["dog"] * 2000, ["red"] * 2000).captions(0.3, PROMPT, rng)
    assert many.count(PROMPT.format("red")) / 2000 == pytest.approx(0.3, abs=0.05)


def test_what_captions_name_is_learnt_and_the_model_given_is_not_touched(clip, patches):
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    prompts = [PROMPT.format(ink) for ink in ("red", "blue")]

    def sees_colours(model):
        chances = model.zero_shot(patches.images[:2], prompts)
        return (chances[0, 0] + chances[1, 1] - chances[0, 1] - chances[1, 0]).item()

    found = {rate: sees_colours(further) for rate, further in tuned(
        clip, patches, [0.0, 1.0], PROMPT, n_steps=8, seed=0, batch_size=8, learning_rate=1e-3
    )}  # fmt: skip
    assert found[1.0] > max(found[0.0], 1.0)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    assert not any(p.requires_grad for p in clip.model.parameters())


def test_only_pairs_that_disagree_are_answers():
    rows = [("dog", "red", "red", "neutral"), ("red", "red", "red", "congruent"), ("red", "blue", "red", "incongruent")]
    table = pd.DataFrame([*rows, ("blue", "red", "red", "incongruent")], columns=["word", "ink", "answer", "kind"])
    assert {k: v.tolist() for k, v in ink_sweep.answers(table).items()} == {
        "word": [True, False], "ink": [False, True],
    }  # fmt: skip
