"""Judging captions against scenes whose content is known; the figures' common look."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import replicas
import torch

from mmn_utils import captioning, plots, profiles
from mmn_utils.metrics import Estimate, wilson
from mmn_utils.models import Captioner
from mmn_utils.sweeps import weights_checksum

matplotlib.use("agg")
NOUNS = {"dog", "cat", "ground", "light"}


class Scenes:
    """Three scenes: a dog; a dog and a cat; a traffic light (a photo)."""

    content = {1: ["dog"], 2: ["dog", "cat"], 3: ["traffic light"]}

    def objects(self, image):
        return [SimpleNamespace(name=name) for name in self.content[image]]

    def info(self, image):
        return {} if image == 3 else {"style": "noto"}


@pytest.fixture
def judged():
    captions = ["a dog on a red ground.", "a cat and a doghouse.", "the traffic light, at night"]
    return captioning.judge(Scenes(), [1, 2, 3], captions, NOUNS)


def test_first_noun_and_naming_are_judged_against_the_scene(judged):
    assert judged["first_noun"].tolist() == ["dog", "cat", "light"]
    assert judged["first_is_right"].tolist() == [True, True, True]
    assert judged["all_named"].tolist() == [True, False, True]  # a doghouse is not a dog
    assert judged["style"].tolist() == ["noto", "noto", "photo"]
    assert judged["n_objects"].tolist() == [1, 2, 1]


def test_a_wrong_or_missing_noun_is_wrong():
    judged = captioning.judge(Scenes(), [1, 1, 1], ["a cat.", "", "a red ground with a dog"], NOUNS)
    assert judged["first_is_right"].tolist() == [False, False, False]
    assert judged["first_noun"].tolist() == ["cat", "", "ground"]


def test_one_caption_an_image():
    with pytest.raises(ValueError, match="2 for 1 images"):
        captioning.judge(Scenes(), [1], ["a dog", "a cat"], NOUNS)


def test_shuffled_compares_with_the_next_image(judged):
    assert captioning.shuffled(judged).tolist() == [True, False, False]


def test_share_counts_with_an_interval():
    assert captioning.share(pd.Series([True, False, True, True])) == wilson(3, 4)


def test_gallery_marks_right_and_wrong_without_relying_on_colour():
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    figure = plots.gallery([pixels] * 3, ["a dog", "a cat", "a tree"], [True, False, True], columns=2)
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]
    assert titles == ["✓ a dog", "✗ a cat", "✓ a tree", ""]
    assert not figure.axes[3].get_visible()


def test_estimates_show_value_interval_and_n():
    _, ax = matplotlib.pyplot.subplots()
    plots.estimates(ax, ["ours", "theirs"], [Estimate(0.5, 0.4, 0.7, 20), Estimate(0.1, 0.0, 0.2, 30)], unit="share")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ours (n = 20)", "theirs (n = 30)"]
    assert ax.get_xlabel() == "share"
    ends = sorted(float(x) for segment in ax.collections[0].get_segments() for x in segment[:, 0])
    assert ends == pytest.approx([0.0, 0.2, 0.4, 0.7])


def test_sequence_separates_image_prompts_from_words():
    _, ax = matplotlib.pyplot.subplots()
    plots.sequence(ax, np.zeros((6, 4)), ["A", "picture"], colour_range=1.0)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["patch 0", "patch 3"]
    assert [t.get_text() for t in ax.texts] == ["A picture"]


def weights(captioner, seed):
    """The control's, while it lasts."""
    with captioning.untrained(captioner, None, projection=None, seed=seed) as control:
        assert control.language_model.dtype == torch.float16, "no wider than the trained model"
        assert control.device == captioner.device and control.projection is captioner.projection
        state = {name: tensor.clone() for name, tensor in control.language_model.state_dict().items()}
    assert all(tensor.is_meta for tensor in control.language_model.parameters()), "its memory is free again"
    return state


def test_the_control_is_as_large_as_the_model_and_follows_from_the_seed(tmp_path):
    captioner = Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path)))
    captioner.language_model.half()
    before = weights_checksum([captioner.language_model])
    first, again, other = (weights(captioner, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("fc_in.weight"))
    assert weights_checksum([captioner.language_model]) == before != weights_checksum([torch.nn.Linear(1, 1)])
    assert all(tensor.isfinite().all() for tensor in first.values())
