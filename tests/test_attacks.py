import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_clip_neurons import tiny_clip
from torchvision import transforms

from mmn_utils import attacks, probes, typography
from mmn_utils.clip_neurons import neuron_maps
from mmn_utils.miniature.album import FONTS, INKS
from mmn_utils.models.clip import Clip

GRAY = Image.new("RGB", (288, 288), (128, 128, 128))
DARK = Image.new("RGB", (288, 288), (90, 90, 90))


def by_brightest(images):
    """A classifier that any white pixel turns from class 0 to class 1; a dark picture it takes for class 1 at once."""
    white = np.array([np.asarray(image).max() > 250 or np.asarray(image)[-1, -1, 0] < 100 for image in images])
    return {"zero_shot": np.stack([1 - white, white], 1).astype(float)}


def test_features_are_those_of_the_model_and_its_neurons():
    prepare = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    clip = Clip(tiny_clip().eval(), None, prepare, "tiny")
    images = [Image.effect_noise((64, 64), 60).convert("RGB") for _ in range(3)]
    found, maps = attacks.features(clip, images, batch_size=2), neuron_maps(clip.model, clip.pixels(images))
    torch.testing.assert_close(found["joint"], clip.encode_images(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["mean"], maps.clamp(min=0).mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["largest"], maps.flatten(2).max(2).values, rtol=1e-4, atol=1e-5)


def test_a_probe_of_other_classes_than_the_prompts_is_refused():
    probe = probes.dense(np.random.default_rng(0).normal(size=(6, 4)), [0, 1] * 3)
    with pytest.raises(ValueError, match="expected a probe for 3 classes, found 2"):
        attacks.Classifiers(None, ["a", "b", "c"], probe)([GRAY])


def test_an_attack_counts_only_pictures_that_were_not_the_target_before():
    images = [GRAY, DARK, GRAY]
    found = attacks.attack(by_brightest, images, by_brightest(images), "owl", 1, n=2, scale=1.0)
    assert found.image.tolist() == [0, 2] and found.hit.all()
    changed = typography.cover(GRAY, typography.stamped(GRAY, "owl", n=2, scale=1.0))
    assert found.cover.tolist() == [changed] * 2  # counted at 288 pixels
    assert not attacks.attack(by_brightest, images, by_brightest(images), "owl", 0, n=2, scale=1.0).hit.any()


def test_what_is_legible_is_read_off_gray():
    found = attacks.legible(by_brightest, {"owl": 1, "bee": 0, "cat": 1}, typography.stamped)
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)
    assert attacks.legible(by_brightest, {"owl": 0}, lambda image, _text: image).value == 1


def frame():
    rows = [("a", 0, "owl", 1, True, 0.1), ("a", 1, "owl", 1, False, 0.3), ("a", 0, "bee", 2, True, 0.2)]
    rows += [("b", 0, "owl", 1, False, 0.1), ("b", 1, "owl", 1, False, 0.3), ("b", 0, "bee", 2, True, 0.2)]
    return pd.DataFrame(rows, columns=["classifier", "image", "text", "target", "hit", "cover"])


def test_rates_are_shares_by_attack():
    table = attacks.rates(frame())
    assert table.index.tolist() == [(1, "owl"), (2, "bee")]
    assert table.cover.tolist() == pytest.approx([0.2, 0.2])
    assert table.a.tolist() == [0.5, 1.0] and table.b.tolist() == [0.0, 1.0] and table.a_n.tolist() == [2, 1]
    assert (table.a_low <= table.a).all() and (table.a <= table.a_high).all()


def test_the_mean_rate_gives_every_picture_the_same_weight():
    estimate = attacks.mean_rate(frame(), "a", 0)
    assert (estimate.value, estimate.n) == (0.5, 2)  # picture 0: 2 of 2, picture 1: 0 of 1
    assert attacks.mean_rate(frame(), "b", 0).value == 0.25
    none = attacks.mean_rate(frame().assign(hit=False), "a", 0)
    assert none.value == none.low == 0 < none.high < 1  # two pictures do not show that it never succeeds


def test_doses_and_searches_have_a_row_for_each_try():
    table = attacks.dose(by_brightest, [GRAY, GRAY, GRAY], {"owl": 1, "bee": 0}, numbers=[1, 4], scales=[1.0, 2.0])
    assert table.index.tolist() == [(1, 1.0), (4, 1.0), (1, 2.0), (4, 2.0)]
    assert table.cover.loc[4, 2.0] == table.cover.max() > table.cover.loc[1, 1.0] == table.cover.min()
    assert table.zero_shot_n.eq(2).all()  # nobody could take the third picture for class 0: it is already
    ranked = attacks.search(by_brightest, [GRAY, DARK], {"owl": 0, "bee": 1}, n=1, scale=1.0)
    assert ranked.index.tolist() == [(1, "bee"), (0, "owl")]


def test_labels_are_tried_on_every_photo_with_what_was_said_of_it():
    found = attacks.label_test(by_brightest, {0: [GRAY, GRAY]}, {"owl": 1})
    assert found.label.tolist() == ["bare", "bare", "blank", "blank", "owl", "owl"]
    assert found.answer.tolist() == [0] * 6 and found.p_object.eq(1).all()  # the paper is not white enough for it
    assert found.p_target.isna().tolist() == [True] * 4 + [False] * 2 and found.p_target.iloc[-1] == 0


class ByInk:
    """A CLIP that sees ink and reads nothing: it names the colour of the darkest channel's mean."""

    size = 96

    def zero_shot(self, images, prompts):
        colours = np.array([INKS[prompt.split()[-1]] for prompt in prompts])
        pixels = [np.asarray(image).reshape(-1, 3) for image in images]
        inks = np.array([p[np.abs(p.astype(int) - 255).sum(1).argmax()] for p in pixels])
        return torch.tensor(np.abs(colours - inks[:, None]).sum(2) == 0).double()


def test_a_model_that_cannot_read_names_the_ink():
    table = attacks.stroop(ByInk(), ["dog", "red", "blue"], ["red", "blue"], "written in {}")
    assert len(table) == 6 and (table.answer == table.ink).all() and table.p_ink.eq(1).all()
    assert table.p_word[table.kind == "incongruent"].tolist() == [0, 0]
    assert table.p_word[table.kind == "neutral"].isna().all()
    assert table.to_ink.all() and table.to_word.tolist() == (table.kind == "congruent").tolist()
    assert len(FONTS) > 1  # each pair is an average


def test_an_attackable_neuron_has_thing_and_word_in_its_top_set():
    shown, meant = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1])
    photos = torch.tensor([[5.0, 5, 1], [4, 4, 2], [3, 3, 3], [2, 2, 4], [1, 1, 5]])
    words = torch.tensor([[9.0, 1, 9], [1, 9, 1], [2, 8, 2]])
    found = attacks.two_faced(photos, shown, words, meant, n_photos=2, n_words=1).sort_index()
    assert found.concept.tolist() == [0, 0, 1] and found.photos.tolist() == [2, 2, 2]
    assert found.words.tolist() == [1, 0, 0] and found.attackable.tolist() == [True, False, False]
