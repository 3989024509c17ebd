import numpy as np
import pandas as pd
import pytest
import replicas
import torch

from mmn_utils import profiles, silhouettes
from mmn_utils.data import CocoScenes
from mmn_utils.data.coco import SceneObject
from mmn_utils.miniature.world import write_scenes
from mmn_utils.models import Captioner


def square(left, top, side):
    mask = np.zeros((16, 16), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return SceneObject("box", mask, (left, top, side, side), side**2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return CocoScenes(write_scenes(tmp_path_factory.mktemp("scenes"), split="val", n=20), "val")


def test_who_stands_before_whom():
    back, front, away = square(0, 0, 6), square(6, 0, 5), square(12, 12, 3)
    assert [silhouettes.company([back, front, away], k) for k in range(3)] == [
        "behind another", "in front of another", "alone",
    ]  # fmt: skip


def test_only_objects_that_a_noun_names_without_doubt(scenes):
    wanted = [scenes.objects(i)[0].name.split()[-1] for i in scenes.ids]
    table, masks = silhouettes.named_objects(scenes, scenes.ids, wanted)
    assert len(table) == len(masks) == 20 and (table["size"] > 0).all()
    assert table["name"].tolist() == [scenes.objects(i)[0].name for i in table["image"]]
    assert len(silhouettes.named_objects(scenes, scenes.ids, ["nothing"] * 20)[0]) == 0


def test_sizes_in_groups_of_equally_many():
    groups = silhouettes.size_groups(pd.Series([0.01, 0.02, 0.03, 0.11, 0.2, 0.3]))
    assert groups.value_counts().tolist() == [2, 2, 2] and groups.nunique() == 3
    assert all(g.endswith("% of the picture") for g in groups)


def test_groups_that_are_too_small_are_left_out():
    rows = pd.DataFrame({"style": ["a"] * 6 + ["b"] * 2, "iou": np.arange(8) / 8, "random": 0.1})
    found = silhouettes.compare_by(rows, "style", 0)
    assert list(found) == ["a"] and found["a"][0].value == pytest.approx(2.5 / 8) and found["a"][1].n == 6


def test_units_and_the_nouns_they_are_for():
    targets = pd.DataFrame({"image": [1, 2, 3, 4], "noun": ["cat", "cat", "dog", "dog"]})
    attributions = pd.DataFrame(
        {
            "image": [1, 2, 3, 4, 1, 3],
            "rank": [0, 1, 0, 30, 2, 1],
            "layer": [0, 0, 0, 0, 1, 1],
            "unit": [5, 5, 5, 5, 2, 2],
        }
    )
    found = silhouettes.units_with_words(attributions, targets)
    assert found.to_dict("records") == [{"layer": 0, "unit": 5, "n_images": 2, "nouns": ["cat"]}]


def test_hits_are_counted_on_the_object(scenes, tmp_path, sweep):
    captioner = Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path)))
    name = scenes.objects(scenes.ids[0])[0].name
    units = pd.DataFrame({"layer": [0, 1], "unit": [3, 4], "n_images": [2, 2], "nouns": [name.split(), ["nothing"]]})
    low, high = torch.full((256,), -9.0), torch.full((256,), 99.0)
    all_hit = silhouettes.hits(captioner, scenes, scenes.ids[:3], units, low, n_units=128, sweep=sweep)
    assert all_hit["hit"].all() and set(all_hit["place"]) == {0, 1}
    assert not silhouettes.hits(captioner, scenes, scenes.ids[:3], units, high, n_units=128, sweep=sweep)["hit"].any()
    assert not all_hit[all_hit["place"] == 1]["meant"].any()


def test_the_hand_that_is_missed():
    rows = [(0, k, style, True, hit) for style, hit in (("ink", False), ("paint", True)) for k in range(10)]
    rows += [(1, k, style, True, True) for style in ("ink", "paint") for k in range(10)]
    found = pd.DataFrame(rows, columns=["place", "image", "style", "meant", "hit"])
    assert silhouettes.misses(found).to_dict() == {0: "ink", 1: "none"}
    assert silhouettes.hit_rates(found).loc[0].to_dict() == {"ink": 0, "paint": 1}
    shares = silhouettes.hit_shares(found, 0, meant=True)
    assert shares["ink"].value == 0.5 and shares["paint"].value == 1
