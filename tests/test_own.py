"""The last chapter, where readers bring pictures, words and models: its cells on other models; bad input."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import replicas
import torch
from PIL import Image
from test_bad_input import IMAGES

from mmn_utils import chapters, own, profiles, results, survey
from mmn_utils.decoding import unembedding
from mmn_utils.models import Captioner, WeightsError
from mmn_utils.neurons import NeuronId, ablate, last_logits, mlp_layers

NAME = "19_your_own_image_word_and_model"
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / f"{NAME}.ipynb"


@pytest.fixture(scope="module")
def miniature():
    return profiles.read("miniature")


def run_section(heading, **parameters):
    """The chapter's code before its first section and in the section `heading`, with other parameters."""
    section, names = "", {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        titles = [line for line in cell.source.splitlines() if line.startswith("## ") and cell.cell_type == "markdown"]
        section = titles[-1] if titles else section
        if cell.cell_type == "code" and section in ("", heading) and "install" not in chapters.tags(cell):
            exec(cell.source, names)
            names |= parameters if "parameters" in chapters.tags(cell) else {}
    return names


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: replicas.save_language_model(root / kind, kind) for kind in ("gpt2", "llama", "gptj")}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gptj"])
def test_the_chapter_opens_a_model_in_a_folder(saved, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_section("## Your model", model=str(saved[kind]), text="A picture of a", word="horse", n_random=5)
    opened, sizes, without = names["opened"], names["sizes"], names["without"]
    assert type(opened).__name__.lower().startswith(kind) and not any(m._forward_hooks for m in opened.modules())
    assert len(names["said_by_units"]) == sum(mlp.n_units for mlp in mlp_layers(opened))
    first = [NeuronId(*divmod(int(unit), mlp_layers(opened)[0].n_units)) for unit in names["ranking"][: sizes[-1]]]
    with torch.no_grad(), ablate(opened, first):
        p = last_logits(opened, names["embeddings"])[0].softmax(-1)[names["likeliest"]].item()
    assert without[(without.n_units == sizes[-1]) & (without.draw == 0)].probability.item() == pytest.approx(
        p, abs=1e-6
    )
    assert (without[without.n_units == 0].probability - names["chance"].max().item()).abs().max() < 1e-6
    kept = results.load("miniature", NAME, "numbers")
    assert {"own.model.interpretable", "own.model.lost.first", "own.model.random_as_harmful"} <= set(kept)


def test_a_folder_may_be_named_from_where_one_stands(saved, miniature, monkeypatch):
    monkeypatch.chdir(saved["gpt2"].parent)
    for name in ("gpt2", "./gpt2", str(saved["gpt2"])):
        model, tokenizer = own.language_model(name, miniature)
        assert len(tokenizer) == 284 and not any(p.requires_grad for p in model.parameters())


def without_safetensors(folder):
    replicas.save_language_model(folder, "gpt2")
    torch.save(replicas.language_model("gpt2").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder):
    """A model that asks for Python of its own, which would leave a mark."""
    configured(model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"})(folder)
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


def configured(**entries):
    def write(folder):
        replicas.save_language_model(folder, "gpt2")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))

    return write


def cut_off(folder):
    replicas.save_language_model(folder, "gpt2")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])


def without_tokenizer(folder):
    replicas.save_language_model(folder, "gpt2")
    for file in folder.glob("*token*"):
        file.unlink()


MODELS = {
    "no safetensors": (without_safetensors, "holds no .safetensors, the only weights that are read"),
    "an unknown architecture": (configured(model_type="mystery"), "model type `mystery`"),
    "an encoder": (replicas.save_bert, "lacks"),
    "code of its own": (with_code, "code that came with it, which is never run"),
    "half a file": (cut_off, "cannot load"),
    "other sizes than it says": (configured(n_embd=64), "cannot load"),
    "no tokenizer": (without_tokenizer, "has no tokenizer; save it beside the model"),
    "an empty folder": (lambda folder: folder.mkdir(), "holds no .safetensors"),
    "no folder": (lambda folder: None, "there is no folder"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_cannot_be_opened(tmp_path, kind, miniature):
    spoil, message = MODELS[kind]
    spoil(tmp_path / "mine")
    with pytest.raises(WeightsError) as caught:
        own.language_model(str(tmp_path / "mine"), miniature)
    assert message in str(caught.value) and str(tmp_path / "mine") in str(caught.value)
    assert not (tmp_path / "mine/ran").exists()


def test_a_name_may_carry_a_commit(monkeypatch, miniature):
    asked = []
    monkeypatch.setattr(own.hub, "load_pretrained", lambda _, name, **how: asked.append((name, how)) or torch.nn.ReLU())
    words = lambda text: {"input_ids": [1]}  # noqa: E731
    monkeypatch.setattr(own.hub, "load_tokenizer", lambda name, **how: asked.append((name, how)) or words)
    own.language_model("gpt2@607a30d", miniature)
    own.language_model("gpt2", miniature)
    assert [(name, how["revision"]) for name, how in asked[::2]] == [("gpt2", "607a30d"), ("gpt2", "branch:main")]
    assert asked[0][1]["use_safetensors"] and asked[0][1]["revision"] == asked[1][1]["revision"]


def test_a_text_is_read_whole_or_refused(saved, miniature):
    model, tokenizer = own.language_model(str(saved["gpt2"]), miniature)
    assert own.token_ids(model, tokenizer, "A picture").tolist() == [tokenizer("A picture")["input_ids"]]
    for text in ("", "A picture of " * 500):
        with pytest.raises(ValueError, match=r"text: expected 1 to 256 tokens, found \d+"):
            own.token_ids(model, tokenizer, text)
    model.resize_token_embeddings(40)
    with pytest.raises(ValueError, match="not among the model's 40; is the tokenizer its own"):
        own.token_ids(model, tokenizer, "A picture")


def test_the_units_that_write_a_word(saved, miniature):
    model, tokenizer = own.language_model(str(saved["llama"]), miniature)
    decoded = survey.decoded_table(model, tokenizer)
    token = own.first_token(tokenizer, "horse")
    assert tokenizer.decode([token]).strip() == "horse"
    rows = own.writers(model, token, decoded.assign(interpretable=decoded.unit == 3), first=len(decoded))
    assert rows.interpretable.tolist() == [True] * 2 + [False] * (len(decoded) - 2)
    for part in (rows[:2], rows[2:]):
        assert part.logit.is_monotonic_decreasing
    unit = rows.iloc[5]
    by_hand = mlp_layers(model)[unit.layer].directions[unit.unit] @ unembedding(model)[0][token]
    assert unit.logit == pytest.approx(by_hand.item(), abs=1e-5)
    assert own.listed(rows.head(1), "logit").index.tolist() == [str(NeuronId(rows.layer.iloc[0], 3))]
    with pytest.raises(ValueError, match="no token for"):
        own.first_token(tokenizer, " ")


def test_random_sets_keep_to_the_layers_and_out_of_the_first_units(saved, miniature, monkeypatch):
    model, _ = own.language_model(str(saved["gpt2"]), miniature)
    seen = []
    keep = lambda model, embeddings, masks: seen.append(masks) or torch.zeros(len(masks), 5)  # noqa: E731
    monkeypatch.setattr(own, "ablated_logits", keep)
    ranking = torch.tensor([0, 1, 128, 2])
    table = own.ablations(model, torch.zeros(1, 2, 32), 1, ranking, sizes=[0, 3], n_draws=4, seed=0)
    nothing, masks = seen
    assert not nothing.any() and len(table) == 10 and table.probability.tolist() == pytest.approx([0.2] * 10)
    assert masks[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert (masks.sum(2) == torch.tensor([2, 1])).all() and not (masks[1:] & masks[0]).any()
    spread = own.spread(table)
    assert [e.n for e in spread["random units"]] == [4, 4] and [e.n for e in spread["first units"]] == [1, 1]


# --- a picture --------------------------------------------------------------------------------------------------------


def test_a_small_square_picture_stays_as_it_is_and_of_others_the_middle_is_kept():
    small = replicas.images()[1].crop((0, 0, 40, 40))
    assert np.array_equal(own.square(small), small)
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    assert own.square(wide).size == (30, 30) and own.square(wide).getcolors() == [(900, (0, 0, 255))]
    assert own.square(Image.new("L", (4000, 3000))).size == (own.MOST_SIDE, own.MOST_SIDE)


def test_a_picture_is_turned_as_the_camera_was_held(tmp_path, miniature):
    lying = Image.new("RGB", (20, 20), "red")
    lying.paste((0, 0, 255), (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 3
    lying.save(tmp_path / "phone.png", exif=exif)
    assert own.picture(str(tmp_path / "phone.png"), miniature).getpixel((10, 19)) == (0, 0, 255)


@pytest.mark.parametrize("kind", IMAGES)
def test_pictures_that_cannot_be_read(tmp_path, kind, miniature):
    (tmp_path / "mine.png").write_bytes(IMAGES[kind])
    with pytest.raises(OSError, match=r"image: .*mine\.png cannot be read \(.*\); save it as one of JPEG, PNG"):
        own.picture(str(tmp_path / "mine.png"), miniature)


@pytest.mark.parametrize("name", ["none.png", "."])
def test_a_picture_that_is_not_there(tmp_path, name, miniature):
    with pytest.raises(FileNotFoundError, match="image: there is no file .*; give the path of a picture"):
        own.picture(str(tmp_path / name), miniature)


@pytest.fixture
def replica(tmp_path):
    """A profile of the paper's models made small, with a few scenes of the miniature."""
    file = replicas.save_paper_models(tmp_path)
    scenes = {"scenes": {"source": "miniature:scenes", "n": 6}}
    return replicas.save_profile(file, data=scenes)


def test_the_chapter_looks_at_a_picture_of_ones_own(replica, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replicas.images()[2].save("mine.webp")
    names = run_section("## Your image", profile=str(replica), image="mine.webp", n_scenes=4)
    assert names["picture"].size == (50, 50) and len(names["best"]) == 5
    captioner = Captioner.from_profile(names["settings"])
    assert names["said"].captions == captioner.caption([names["picture"]])
    assert {"own.image.probability", "own.photo.china.surer_than"} <= set(results.load("replica", NAME, "numbers"))
    kept = {path.name for path in (tmp_path / "results/replica" / NAME).iterdir()}
    assert {"image_neurons.parquet", "image_neurons.png", "photographs.png"} <= kept


def test_what_is_said_and_how_surely(replica):
    captioner = Captioner.from_profile(profiles.read(replica))
    prompts = captioner.image_prompts(replicas.images())
    said = own.say(captioner, prompts)
    assert said.captions == captioner.caption(replicas.images())
    for row, target, p in zip(captioner.with_text(prompts), said.targets, said.probability, strict=True):
        before = captioner.language_model.get_input_embeddings()(torch.tensor(target.before, dtype=torch.long))
        alone = last_logits(captioner.language_model, torch.cat([row, before])[None])[0].softmax(-1)
        assert p == pytest.approx(alone[target.token].item(), abs=1e-5)


@pytest.mark.parametrize("scene", [-1, 6])
def test_a_scene_that_is_not_there(replica, scene):
    with pytest.raises(ValueError, match=f"scene: expected a number from 0 to 5, found {scene}"):
        own.picture("", profiles.read(replica), scene=scene)


# --- a word -----------------------------------------------------------------------------------------------------------


def test_words_that_can_be_drawn():
    assert [own.drawable(word) for word in (" ice  cream ", "Ζεύς", "$$$")] == ["ice cream", "Ζεύς", "$$$"]


WORDS = {
    "empty": ("  ", "expected 1 to 24 letters, found 0"),
    "very long": ("a" * 10**6, "expected 1 to 24 letters, found 1000000"),
    "a control character": ("a\x1bb", "expected 1 to 24 letters"),
    "half a character": ("\ud800", "expected 1 to 24 letters"),
    "another script": ("犬 dog", "DejaVuSans has no sign for 犬"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_words_that_cannot_be_drawn(kind):
    word, message = WORDS[kind]
    with pytest.raises(ValueError, match=message) as caught:
        own.drawable(word)
    assert len(str(caught.value)) < 200


def test_a_word_is_one_of_the_classes_or_one_more():
    concepts = pd.DataFrame({"word": ["dog", "ice cream"], "prompt": ["a photo of a dog", "a photo of ice cream"]})
    assert own.classes(concepts, "Ice Cream")[2] == 1 and len(own.classes(concepts, "Dog")[0]) == 2
    assert own.classes(concepts, "iPod") == (["dog", "ice cream", "iPod"], [*concepts.prompt, "a photo of iPod"], 2)


def test_the_neurons_that_are_followed():
    found = np.array([[[0.9, 0.2, 0.6], [0.1, 0.8, 0.7]], [[0.8, 0.9, 0.5], [0.9, 0.7, 0.6]]])  # [facet, concept, unit]
    loud = pd.DataFrame({"bare": [0.0, 1.0, 2.0], "on paper": [3.0, 0.0, 0.0]})
    table = own.followed(found, found / 2, ["dog", "cat"], [1], loud, n=1)
    assert table.index.tolist() == [1, 2, 0] and table.concept.tolist() == ["cat", "cat", "dog"]
    assert table.why.tolist() == ["best for it", "loudest bare", "loudest on paper"]
    assert table.weakest.tolist() == pytest.approx([0.35, 0.3, 0.4])


def test_the_table_of_answers_is_shaded_about_zero():
    from matplotlib import pyplot as plt

    ax = own.answers(plt.subplots()[1], np.array([[-2.0, 1.0]]), ["a"], ["x", "y"])
    assert ax.images[0].get_clim() == (-2, 2) and [t.get_text() for t in ax.texts] == ["-2.0", "+1.0"]
    assert [t.get_color() for t in ax.texts] == ["white", "black"]
    plt.close("all")
