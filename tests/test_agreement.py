"""How well units' words fit a scene: the truth, and BERTScore in groups."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import replicas
import torch
from PIL import Image

from mmn_utils import agreement, metrics, profiles


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models")))


def test_cues_are_an_objects_name_and_what_wordnet_says_of_it():
    assert {"horse", "hoofed", "mare", "equine", "withers"} <= agreement.cues("horse")
    assert agreement.cues("traffic light") == {"traffic", "light"}


def test_a_scenes_cues_are_those_of_all_its_objects():
    scenes = SimpleNamespace(objects=lambda _: [SimpleNamespace(name="horse"), SimpleNamespace(name="traffic light")])
    assert agreement.scene_cues(scenes, 0) == agreement.cues("horse") | agreement.cues("traffic light")


def test_grouped_scores_are_the_single_ones(profile):
    texts = [["a horse", "two dogs"], ["a horse"]]
    references = [["a cat", "a dog on the grass"], ["the man"]]
    grouped = agreement.bert_of_texts(texts, references, profile)
    for own, others, found in zip(texts, references, grouped, strict=True):
        single = [metrics.bert_scores([text] * len(others), others, profile).mean() for text in own]
        assert np.allclose(found, single, atol=1e-5)


class TwoWays:
    """A CLIP of two dimensions: "up" and a white image point one way, "right" and a black one another."""

    model = torch.nn.Linear(1, 1)
    ways = {"up": (0.0, 1.0), "right": (1.0, 0.0), "down": (0.0, -1.0), "up, right": (0.6, 0.8)}

    def encode_texts(self, texts):
        return torch.tensor([self.ways[text] for text in texts])

    def encode_images(self, images):
        return torch.tensor([(0.0, 1.0) if image.getpixel((0, 0))[0] else (1.0, 0.0) for image in images])


class Anyway(TwoWays):
    """All texts are alike to it."""

    def encode_texts(self, texts):
        return torch.ones(len(texts), 2)


def test_clip_scores_by_hand():
    images = [Image.new("RGB", (4, 4), "white"), Image.new("RGB", (4, 4), "black")]
    first, second = agreement.clip_of_texts([["up", "down", "up, right"], ["up"]], images, TwoWays())
    assert np.allclose(first, [100, 0, 80]) and np.allclose(second, [0])  # a negative cosine counts as none


class Scenes:
    """A horse in image 1, an apple in image 2."""

    identity = "two"

    def objects(self, image):
        return [SimpleNamespace(name={1: "horse", 2: "apple"}[image])]

    def captions(self, image):
        return {1: ["a horse", "two dogs"], 2: ["a cat"]}[image]

    def image(self, image):
        return Image.new("RGB", (4, 4), "white" if image == 1 else "black")


def test_all_scores_of_texts_and_tokens(profile, sweep):
    texts = [["up", [" up", "right "]], [["right"]]]
    frame = agreement.scores(Scenes(), [1, 2], texts, profile, TwoWays(), sweep=sweep)
    assert frame[["image", "text", "said"]].to_numpy().tolist() == [[1, 0, "up"], [1, 1, "up, right"], [2, 0, "right"]]
    assert np.allclose(frame["clipscore"], [100, 80, 100])
    alone = metrics.bert_scores(["up, right"] * 2, ["a horse", "two dogs"], profile).mean()
    assert frame["bertscore"][1] == pytest.approx(alone, abs=1e-5)
    words = [["a horse is a mare."], [["horse", "x"], "apple pie"]]
    truth = agreement.scores(Scenes(), [1, 2], words, profile, Anyway(), sweep=sweep)["truth"]
    assert truth.tolist() == [0.4, 0, 0.5]


def test_own_scene_against_another():
    texts = pd.Series({1: [["horse", "x"], ["apple", "horse"]], 2: [["horse", "horse"]]})
    assert agreement.own_minus_other(texts, Scenes()).to_dict() == {1: 0.0, 2: -1.0}


def test_agreement_by_layer():
    rows = [(1, 0, ["horse", "x"]), (1, 0, ["x", "x"]), (2, 0, ["apple", "horse"]), (2, 3, ["apple", "apple"])]
    table = agreement.by_layer(pd.DataFrame(rows, columns=["image", "layer", "tokens"]), Scenes(), seed=0)
    assert table["own"].map(lambda e: e.value).to_dict() == {0: 37.5, 3: 100}
    assert table.loc[0, "other"].value == 25 and table.loc[0, "gain"].n == 2


def test_shifted_pairs_everyone_with_another():
    assert agreement.shifted(["a", "b", "c"]) == ["b", "c", "a"]
