import numpy as np
import pytest
import replicas
from PIL import Image

from mmn_utils import data, profiles
from mmn_utils.data.classes import alone, class_images
from mmn_utils.miniature.concepts import concepts


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for name, shade in (("n01440764", 10), ("n02102040", 200)):
        inside = folder / "imagenet" / "train" / name
        inside.mkdir(parents=True)
        for k in range(4):
            Image.fromarray(np.full((5, 6), shade + k, dtype=np.uint8)).save(inside / f"{k}.JPEG")
        (inside / "notes.txt").write_text("not an image")
    sources = {
        "folders": {"source": "./imagenet", "split": "train"},
        "drawn": {"source": "miniature:scenes", "split": "test", "n": 40, "n_objects": [1, 2]},
    }
    return profiles.read(replicas.save_profile(folder / "p.yml", data=sources), check_folders=False)


def test_alone_means_that_nothing_else_is_annotated(profile):
    scenes = data.scenes(profile, "drawn")
    found = alone(scenes)
    assert [len(ids) for ids in found.values()] == sorted((len(ids) for ids in found.values()), reverse=True)
    assert sum(len(ids) for ids in found.values()) == sum(len(scenes.objects(i)) == 1 for i in scenes.ids)
    assert all({o.name for o in scenes.objects(i)} == {name} for name, ids in found.items() for i in ids)


def test_classes_from_annotations_and_from_folders(profile):
    name = next(iter(alone(data.scenes(profile, "drawn"))))
    ((first, *_),) = class_images(profile, "drawn", [name], 1)
    assert first.size == (64, 64) and first.mode == "RGB"
    tench, spaniel = class_images(profile, "folders", ["tench=n01440764", "spaniel=n02102040"], 3, seed=1)
    assert len(tench) == len(spaniel) == 3 and tench[0].mode == "RGB"
    assert all(np.asarray(a).mean() < 50 < np.asarray(b).mean() for a, b in zip(tench, spaniel, strict=True))


def test_a_class_that_is_not_there_is_named(profile):
    with pytest.raises(ValueError, match="no images of class 'n0144076'; did you mean 'n01440764'"):
        class_images(profile, "folders", ["n0144076"], 1)


def test_the_miniatures_ten_classes_follow_the_chapters_rule():
    families: dict[str, list[str]] = {}
    for concept in concepts():
        families.setdefault(concept.family, []).append(concept.word)
    largest = sorted(families.values(), key=len, reverse=True)[:10]
    chapter = profiles.read("miniature").chapter_parameters("06_what_they_are_selective_for")
    assert chapter["classes"] == [words[0] for words in largest]
