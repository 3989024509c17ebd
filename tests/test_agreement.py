"""How well units' words fit a scene: the truth, and BERTScore in groups."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import replicas

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


def test_the_best_unit_counts():
    units = [[[" mare", "x"], [" horses", "horse"]], [[" mare", "x"]]]
    assert agreement.truth_of_units(units, [agreement.cues("horse")] * 2).tolist() == [1.0, 0.5]


def test_grouped_scores_are_the_single_ones(profile):
    texts = [["a horse", "two dogs"], ["a horse"]]
    references = [["a cat", "a dog on the grass"], ["the man"]]
    grouped = agreement.bert_of_texts(texts, references, profile)
    for own, others, found in zip(texts, references, grouped, strict=True):
        single = [metrics.bert_scores([text] * len(others), others, profile).mean() for text in own]
        assert np.allclose(found, single, atol=1e-5)
    units = [[[" a", " horse"], [" two", " dogs"]], [[" a"]]]
    best = agreement.bert_of_units(units, references, profile)
    joined = agreement.bert_of_texts([["a, horse", "two, dogs"], ["a"]], references, profile)
    assert np.allclose(best, [scores.max() for scores in joined])


class Scenes:
    """A horse in image 1, an apple in image 2."""

    def objects(self, image):
        return [SimpleNamespace(name={1: "horse", 2: "apple"}[image])]


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
