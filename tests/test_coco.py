import json
import pickle

import numpy as np
import pytest
import replicas
from PIL import Image

from mmn_utils import data, profiles
from mmn_utils.data.coco import CocoScenes


@pytest.fixture
def folder(tmp_path):
    """Two images with a square and a triangle, a crowd, and two captions, written as COCO does."""
    annotations, images = tmp_path / "annotations", tmp_path / "val"
    annotations.mkdir()
    images.mkdir()
    for name, mode in (("a.png", "RGB"), ("b.png", "L")):
        Image.new(mode, (20, 10), 100).save(images / name)
    records = [{"id": 7, "file_name": "b.png", "width": 20, "height": 10, "style": "noto"}]
    records.append({"id": 3, "file_name": "a.png", "width": 20, "height": 10})
    square = {"segmentation": [[2, 1, 6, 1, 6, 5, 2, 5]], "bbox": [2, 1, 4, 4], "area": 16, "iscrowd": 0}
    crowd = {"segmentation": {"size": [10, 20], "counts": [0, 200]}, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 1}
    found = [{"id": i, "image_id": 7, "category_id": c} | a for i, c, a in ((1, 2, square), (2, 1, crowd))]
    categories = [{"id": 2, "name": "traffic light"}, {"id": 1, "name": "dog", "supercategory": "animal"}]
    instances = {"images": records, "annotations": found, "categories": categories}
    said = [{"id": i, "image_id": 7, "caption": text} for i, text in enumerate(("A light.\n", "One light."))]
    (annotations / "instances_val.json").write_text(json.dumps(instances))
    (annotations / "captions_val.json").write_text(json.dumps({"images": records, "annotations": said}))
    return tmp_path


def test_another_process_reads_the_annotations_itself(folder):
    sent = pickle.dumps(CocoScenes(folder))
    assert len(sent) < 300 and pickle.loads(sent).captions(7) == ["A light.", "One light."]


def test_reads_what_was_written(folder, capsys):
    scenes = CocoScenes(folder)
    assert scenes.ids == [3, 7] and len(scenes) == 2 and scenes.categories == ["dog", "traffic light"]
    assert scenes.families == {"dog": "animal", "traffic light": "traffic light"}
    assert scenes.captions(7) == ["A light.", "One light."] and scenes.captions(3) == []
    assert scenes.info(7)["style"] == "noto"
    assert scenes.image(7).mode == "RGB" and scenes.image(7).size == (20, 10)
    (light,) = scenes.objects(7)
    expected = np.zeros((10, 20), dtype=bool)
    expected[1:5, 2:6] = True
    assert light.name == "traffic light" and light.box == (2, 1, 4, 4) and light.area == 16
    assert light.mask.dtype == bool and np.array_equal(light.mask, expected)
    assert scenes.objects(3) == []
    assert capsys.readouterr().out == "", "pycocotools is kept quiet"


@pytest.mark.parametrize("keep", [0, 30, 60])
def test_unreadable_image(folder, keep):
    file = folder / "val" / "b.png"
    Image.effect_noise((20, 10), 50).save(file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(OSError, match=r"image 7: .*b.png cannot be read \(.+\); delete it and fetch it again"):
        CocoScenes(folder).image(7)


def test_image_that_is_not_there(folder):
    (folder / "val" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 7: .*b.png is missing though the annotations list it"):
        CocoScenes(folder).image(7)


def test_unknown_id(folder):
    for ask in (CocoScenes(folder).image, CocoScenes(folder).captions, CocoScenes(folder).objects):
        with pytest.raises(KeyError, match=r"image 4 is not among the 2 images of split 'val'"):
            ask(4)


def test_missing_annotations(folder):
    (folder / "annotations" / "captions_val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"captions_val.json does not exist; expected COCO's layout in"):
        CocoScenes(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"annotations": [{"id": 1}]}'])
def test_file_that_is_not_coco(folder, content):
    (folder / "annotations" / "captions_val.json").write_text(content)
    with pytest.raises(ValueError, match=r"captions_val.json is not a COCO annotation file"):
        CocoScenes(folder)


def profile(tmp_path, **scenes):
    file = replicas.save_profile(tmp_path / "p.yml", data={"scenes": scenes}, seed=5)
    return profiles.read(file, check_folders=False)


def test_scenes_of_a_folder(folder, tmp_path):
    assert data.scenes(profile(tmp_path, source="./")).ids == [3, 7]


def test_scenes_by_an_unknown_name(tmp_path):
    with pytest.raises(profiles.ProfileError, match=r"data.scene is not there; did you mean 'scenes'\?"):
        data.scenes(profile(tmp_path, source="./"), "scene")


def test_miniature_scenes_are_drawn_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.delenv("MMN_CACHE", raising=False)
    wanted = profile(tmp_path, source="miniature:scenes", split="val", n=3, n_objects=[1])
    first = data.scenes(wanted)
    drawn = {file: file.stat().st_mtime_ns for file in first.folder.rglob("*")}
    assert len(first) == 3 and all(len(first.objects(i)) == 1 and len(first.captions(i)) == 5 for i in first.ids)
    assert data.scenes(wanted).folder == first.folder
    assert {file: file.stat().st_mtime_ns for file in first.folder.rglob("*")} == drawn
    assert sorted(p.name for p in first.folder.parent.iterdir()) == [first.folder.name], "nothing temporary is left"
    more = data.scenes(profile(tmp_path, source="miniature:scenes", split="val", n=4, n_objects=[1]))
    assert more.folder != first.folder


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    from mmn_utils.miniature import world

    def interrupted(folder, **_):
        (folder / "half.png").write_text("")
        raise KeyboardInterrupt

    monkeypatch.delenv("MMN_CACHE", raising=False)
    monkeypatch.setattr(world, "write_scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.scenes(profile(tmp_path, source="miniature:scenes", n=3))
    assert list((tmp_path / "cache" / "miniature").iterdir()) == []


def test_miniature_scenes_need_a_number(tmp_path):
    with pytest.raises(profiles.ProfileError, match=r"'miniature:scenes' needs n"):
        data.scenes(profile(tmp_path, source="miniature:scenes"))
