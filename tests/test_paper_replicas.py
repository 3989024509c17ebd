"""Part I on the paper profile's layout: its loaders, and every chapter end to end, on small random replicas."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paper_replicas
import pytest
import torch
import yaml

from mmn_utils import data, metrics, profiles
from mmn_utils.data.classes import class_images
from mmn_utils.models import Captioner
from mmn_utils.models.clip import Clip
from mmn_utils.models.weights import WeightsError

FIRST, *OTHERS = ["03_finding_neurons", "07_what_they_cause", "08_beyond_the_paper", "01_a_language_model_that_sees",
                  "05_where_they_look", "02_does_the_projection_speak", "04_reading_the_neurons",
                  "06_what_they_are_selective_for"]  # fmt: skip
"""The first leaves what others read; of those the longest first."""
KEYS = """table1.random.bertscore table1.neurons.clipscore table1.captions.bertscore table2.prompts.clipscore
table2.nouns.bertscore ks.prompts_vs_random.d ks.prompts_vs_random.p interpretable_fraction
receptive_field_iou.neurons receptive_field_iou.random receptive_field.categories_won selectivity.diagonal_wins
ablation.probability_drop.top ablation.probability_drop.interpretable ablation.probability_drop.random
truth.spearman truth.precision_at_100"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return paper_replicas.write(tmp_path_factory.mktemp("paper"))


def test_the_profile_is_the_preset_with_other_places(profile):
    """Nothing that decides how things are loaded is changed, beside what a small machine cannot have."""
    ours, preset = (yaml.safe_load(path.read_text()) for path in (profile, profiles.PRESETS / "paper.yml"))
    assert set(ours["models"]) == set(preset["models"]) and ours["models"]["prompt"] == preset["models"]["prompt"]
    assert ours["models"]["language_model"]["dtype"] == "float16"
    assert ours["models"]["vision_encoder"]["library"] == preset["models"]["vision_encoder"]["library"]
    assert {name: preset["data"][name] for name in ours["data"]} == ours["data"]
    assert all(set(preset["chapters"][name]) <= set(ours["chapters"][name]) for name in preset["chapters"])


def test_what_is_published_goes_through_the_loaders(profile):
    settings = profiles.read(profile)
    captioner, clip = Captioner.from_profile(settings), Clip.from_profile(settings)
    model = captioner.language_model
    assert model.dtype == torch.float16 and type(model).__name__ == "GPTJForCausalLM"
    n_rows = model.get_input_embeddings().weight.shape[0]
    assert n_rows - len(captioner.tokenizer) == paper_replicas.PADDING and len(captioner.text_embeddings()) == 3
    scenes = data.scenes(settings)
    images = [scenes.image(i) for i in scenes.ids[:13]]
    assert captioner.image_prompts(images[:2]).shape == (2, 36, paper_replicas.WIDTH)
    assert len(set(captioner.caption(images))) > 3, "captions depend on the image"
    assert clip.encode_images(images[:2]).shape == (2, 16) and clip.encode_texts(["a dog"]).shape == (1, 16)
    assert metrics.bert_scores(["a dog"], ["a dog"], settings)[0] == pytest.approx(1, abs=1e-5)
    bare = [i for i in scenes.ids if not scenes.objects(i)]
    assert bare and all(len(scenes.captions(i)) == 5 for i in scenes.ids), "crowds are left out"
    assert [len(found) for found in class_images(settings, "classes_train", paper_replicas.CLASSES, 5)] == [5, 5, 5]


def test_another_projection_is_refused(profile, tmp_path):
    content = yaml.safe_load(profile.read_text())
    content["models"]["projection"]["checksum"] = "git-blob:4d3c937de5249a297f27ccf75809242d21bb9123"
    other = profile.with_name("other.yml")
    other.write_text(yaml.safe_dump(content))
    with pytest.raises(
        WeightsError, match=r"wrong checksum: .*proj\.ckpt has git-blob:\w+, expected git-blob:4d3c937d"
    ):
        Captioner.from_profile(profiles.read(other))


@pytest.mark.slow
def test_every_chapter_of_part_one_runs(profile):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def run(name: str) -> None:
        command = [sys.executable, paper_replicas.__file__, str(profile.parent), name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"

    run(FIRST)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, OTHERS))
    numbers = {}
    for name in (FIRST, *OTHERS):
        file = Path(profile.parent) / "results" / "paper-replica" / name / "numbers.json"
        numbers |= json.loads(file.read_text())
    assert not {f"schwettmann.{key}" for key in KEYS.split()} - set(numbers)
