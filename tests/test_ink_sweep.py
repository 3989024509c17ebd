import numpy as np
import pytest
import torch

from mmn_utils import ink_sweep, profiles
from mmn_utils.ink_sweep import Written
from mmn_utils.models.clip import Clip

NAMING, READING = "written in the color {}", "the word {}"


@pytest.fixture(scope="module")
def clip():
    return Clip.from_profile(profiles.read("miniature"))


@pytest.fixture(scope="module")
def seen():
    return ink_sweep.written(["dog", "red", "blue"], ["red", "blue"], n=128, seed=0)


def test_any_word_in_any_ink_and_the_same_for_the_same_seed(seen):
    pairs = set(zip(seen.words, seen.inks, strict=True))
    assert len(pairs) == 6 and len(seen.images) == 128
    again = ink_sweep.written(["dog", "red", "blue"], ["red", "blue"], n=128, seed=0)
    assert [i.tobytes() for i in seen.images] == [i.tobytes() for i in again.images]
    for image, ink in list(zip(seen.images, seen.inks, strict=True))[:20]:
        reds, blues = (255 - np.asarray(image).astype(int)).sum((0, 1))[[2, 0]]  # ink takes the other light away
        assert (reds > blues) == (ink == "red")


def test_the_rate_is_the_share_of_captions_that_name_the_ink(seen):
    rng = np.random.default_rng(0)
    assert seen.captions(0, NAMING, READING, rng) == [f"the word {word}" for word in seen.words]
    assert seen.captions(1, NAMING, READING, rng) == [NAMING.format(ink) for ink in seen.inks]
    many = Written([], ["dog"] * 2000, ["red"] * 2000).captions(0.3, NAMING, READING, rng)
    assert many.count(NAMING.format("red")) / 2000 == pytest.approx(0.3, abs=0.05)


def test_it_learns_what_captions_name(clip, seen):
    prompts, right = [NAMING.format(ink) for ink in ("red", "blue")], [("red", "blue").index(i) for i in seen.inks]

    def names_the_ink(rate):
        captions = seen.captions(rate, NAMING, READING, np.random.default_rng(0))
        small = ink_sweep.trained(ink_sweep.untrained(clip, 0), seen, captions, n_steps=40, seed=0)
        assert not small.model.training and not any(p.requires_grad for p in small.model.parameters())
        return (small.zero_shot(seen.images, prompts).argmax(1) == torch.tensor(right)).double().mean().item()

    assert names_the_ink(1.0) > 0.9 > 0.75 > names_the_ink(0.0)


def test_the_start_is_the_same_for_the_same_seed(clip):
    one, two, other = (ink_sweep.untrained(clip, seed).visual.conv1.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
