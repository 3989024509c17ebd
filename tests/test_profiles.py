import os
from pathlib import Path

import pytest
import replicas
import yaml

from mmn_utils import profiles
from mmn_utils.profiles import ProfileError


def written(tmp_path, /, **changes):
    return replicas.save_profile(tmp_path / "mine.yml", **changes)


def read(tmp_path, /, **changes):
    return profiles.read(written(tmp_path, **changes), check_folders=False)


def test_presets_are_read():
    assert profiles.presets() == ["miniature", "paper"]
    miniature = profiles.read("miniature")
    assert miniature.name == "miniature" and miniature.models.prompt == "A picture of"
    paper = profiles.read("paper", check_folders=False)
    assert paper.models.language_model.dtype == "float16" and paper.models.vision_encoder.library == "transformers"


def test_presets_run_the_same_chapters_with_the_same_parameters():
    miniature, paper = (profiles.read(name, check_folders=False).chapters for name in profiles.presets())
    assert {chapter: set(entries) for chapter, entries in miniature.items()} == {c: set(e) for c, e in paper.items()}


def test_notebooks_see_the_presets():
    link = Path(__file__).parents[1] / "notebooks" / "profiles"
    assert os.readlink(link) == "../mmn_utils/presets" and (link / "miniature.yml").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sead": 1}, r"mine.yml: unknown key 'sead'; did you mean 'seed'\?"),
        (
            {"models__language_model__revison": "x"},
            r"unknown key 'models.language_model.revison'; did you mean 'revision'\?",
        ),
        ({"data__scenes": {"source": "./x", "seeds": 1}}, r"unknown key 'data.scenes.seeds'; did you mean 'seed'\?"),
        ({"models__bert__zzz": 1}, r"unknown key 'models.bert.zzz'; valid: num_layers, revision, source"),
        ({"file": "/x"}, r"unknown key 'file'"),
        ({"models__bert": {"source": "./bert"}}, r"missing key 'models.bert.num_layers'"),
        (
            {"models__language_model__dtype": "float8"},
            r"models.language_model.dtype should be one of float32, float16, bfloat16, found 'float8'",
        ),
        ({"models__bert__num_layers": "3"}, r"models.bert.num_layers should be a whole number, found '3'"),
        ({"seed": True}, r"seed should be a whole number, found True"),
        ({"data": 3}, r"data should be a mapping, found 3"),
        ({"models": None}, r"models should be a mapping, found None"),
        (
            {"data__scenes": {"source": "x", "styles": "noto"}},
            r"data.scenes.styles should be a list, each a string, or null",
        ),
    ],
)
def test_what_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(ProfileError, match=message):
        read(tmp_path, **change)


def test_missing_folder(tmp_path):
    with pytest.raises(ProfileError, match=r"mine.yml: models.language_model.source is './gpt-j-6B', but .* not exist"):
        profiles.read(written(tmp_path))


def test_missing_data_folder(tmp_path):
    file = replicas.save_paper_models(tmp_path)
    profiles.read(file)
    replicas.save_profile(file, data__scenes={"source": "cache:coco", "split": "val2017"})
    with pytest.raises(ProfileError, match=r"data.scenes.source is 'cache:coco', but .*cache/coco does not exist"):
        profiles.read(file)


@pytest.mark.parametrize("content", ["a: [1", "- a list", "", "\x00"])
def test_not_a_yaml_mapping(tmp_path, content):
    (tmp_path / "bad.yml").write_text(content)
    with pytest.raises(ProfileError, match=r"bad.yml: (not a yaml file|expected a mapping)"):
        profiles.read(tmp_path / "bad.yml")


def test_yaml_cannot_run_code(tmp_path):
    (tmp_path / "bad.yml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(ProfileError, match="not a yaml file"):
        profiles.read(tmp_path / "bad.yml")


def test_unknown_profile_name():
    with pytest.raises(ProfileError, match=r"no profile is called 'minature'; did you mean 'miniature'\?"):
        profiles.read("minature")
    with pytest.raises(ProfileError, match=r"profile file nowhere/mine.yml does not exist"):
        profiles.read("nowhere/mine.yml")


def test_where_sources_are(tmp_path, monkeypatch):
    monkeypatch.delenv("MMN_CACHE", raising=False)
    profile = read(tmp_path)
    assert profile.path("package:bert") == profiles.WEIGHTS / "bert"
    assert profile.path("./bert") == tmp_path / "bert"
    assert profile.path("cache:coco") == tmp_path / "cache" / "coco"
    assert profile.locate("EleutherAI/gpt-j-6B") == "EleutherAI/gpt-j-6B"
    with pytest.raises(ProfileError, match=r"'EleutherAI/gpt-j-6B' is no file or folder"):
        profile.path("EleutherAI/gpt-j-6B")


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MMN_CACHE", raising=False)
    assert "mmn_utils" in str(read(tmp_path, cache=None).cache_folder)
    monkeypatch.setenv("MMN_CACHE", str(tmp_path / "elsewhere"))
    assert read(tmp_path).cache_folder == tmp_path / "elsewhere"


def test_files_are_those_the_models_are_made_of(tmp_path):
    profile = profiles.read(replicas.save_paper_models(tmp_path))
    names = {str(file.relative_to(tmp_path)) for file in profile.files()}
    assert {"gpt-j-6B/model.safetensors", "beit/pytorch_model.bin", "limber/proj.ckpt", "bert/config.json"} <= names
    assert profile.files() == sorted(profile.files())


def test_chapter_parameters(tmp_path):
    assert profiles.read("miniature").chapter_parameters("none") == {"profile": "miniature"}
    mine = read(tmp_path, chapters={"01_x": {"n": 3}})
    assert mine.chapter_parameters("01_x") == {"profile": str(tmp_path / "mine.yml"), "n": 3}


def test_profile_is_yaml_that_round_trips(tmp_path):
    content = yaml.safe_load(written(tmp_path).read_text())
    assert read(tmp_path).models.bert.num_layers == content["models"]["bert"]["num_layers"]


def test_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert read(tmp_path, device="auto").torch_device.type == "cpu"
    with pytest.raises(ProfileError, match=r"device is cuda, but torch .* sees no GPU"):
        _ = read(tmp_path, device="cuda").torch_device
