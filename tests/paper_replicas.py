"""The paper profile's models and data, small and random but laid out as published, and the profile pointed at them.

python tests/paper_replicas.py FOLDER [CHAPTER ...]     writes them, and runs chapters on them

Everything else is the preset's: the same classes and libraries, types, configuration keys, names of files and tensors.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import mmn_utils  # noqa: F401  (goes before open_clip, wherever torchvision was built for another torch)

# isort: split
import json
import os
import time
from itertools import product

import numpy as np
import open_clip
import replicas
import torch
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertConfig, BertForPreTraining, GPT2TokenizerFast, GPTJConfig, GPTJForCausalLM

from mmn_utils import profiles
from mmn_utils.decoding import english_words
from mmn_utils.miniature import album
from mmn_utils.models.weights import digest
from mmn_utils.profiles import PRESETS

REPOSITORY = Path(__file__).parents[1]
CATEGORIES = {"dog": "animal", "cat": "animal", "horse": "animal", "bus": "vehicle", "train": "vehicle",
              "pizza": "food", "bowl": "kitchen", "person": "person"}  # fmt: skip
WORDS = [*CATEGORIES, "picture", "of", *sorted(word for word in english_words() if len(word) == 3)[:600]]
FAMILIES = ["emotion", "feeling", "persona", "region", "colour", "season", "finance", "instrument", "furniture"]
ASKED = {"spider", "dog", "cat", "horse", "banana", "car", "heart", "apple", "laptop", "cup", "phone", "plant", "chair",
         "hat", "camera", "book", "pizza", "shield"}  # fmt: skip
CLASSES = ("dog=n01440764", "cat=n02102040", "bus=n02979186")
LAYERS, WIDTH, PADDING = 4, 64, 16
"""Of the language model; rows of its embedding beyond the tokenizer."""
FEWER = {
    "01_a_language_model_that_sees": {"n_images": 48},
    "02_does_the_projection_speak": {"n_images": 12},
    "03_finding_neurons": {"n_images": 48, "n_compared": 12},
    "04_reading_the_neurons": {"n_images": 24},
    "05_where_they_look": {"n_per_category": 4, "n_thresholds": 12, "one_unit": "L2.58"},
    "06_what_they_are_selective_for": {"classes": list(CLASSES), "n_train": 6, "n_val": 4},
    "07_what_they_cause": {"n_images": 16, "n_captions": 12, "n_controls": 8},
    "08_beyond_the_paper": {"n_truth": 3, "units_a_layer": 16, "n_steps": 4, "n_depth": 16, "n_fields": 40,
                            "n_hands": 12, "least_images": 1, "least_in_group": 1},
    "09_one_neuron_three_faces": {"n_pictures": 2, "n_draws": 2, "n_stream": 200},
    "10_seeing_what_a_neuron_wants": {"n_pictures": 2, "n_theme": 20, "n_long": 1, "n_steps": 4,
                                      "shown_steps": [0, 2, 4]},
    "11_families": {"n_bins": 4, "quota": 10, "n_pieces": 20},
    "12_words": {"least_photos": 1, "places": ["region"], "n_misspelt": 10, "n_texts": 1},
    "14_fooling_it_with_words": {"objects": ["apple", "laptop", "cup"], "labels": ["camera", "book"], "n_search": 2,
                                 "indirect": {"$$$": "money"}, "neutral": "dog", "n_stamps": 2},
    "18_the_same_for_pixels": {"n_images": 30, "n_new": 30, "side": 12, "longest": 4, "n_longest": 4},
}  # fmt: skip
"""What is asked of each chapter: as many images as a test can afford."""


def write(folder: Path, *, with_album: bool = False) -> Path:
    """Models, data (with Part II's, if asked for) and `paper.yml` in `folder`; returns the profile."""
    models = folder / "models"
    for name, save in {"gptj": save_gptj, "gpt2": save_gpt2_tokenizer, "bert": save_bert, "clip": save_clip}.items():
        save(models / name)
    replicas.save_beit(models / "beit", side=6)
    save_coco(folder / "cache" / "coco")
    save_classes(folder / "cache" / "imagenette2-320")
    if with_album:
        save_album(folder / "cache" / "album")
    return save_profile(folder)


def save_profile(folder: Path) -> Path:
    """The paper's preset with other places, fewer images, and a processor for the GPU."""
    content = yaml.safe_load((PRESETS / "paper.yml").read_text())
    models = content["models"]
    places = {"language_model": "gptj", "vision_encoder": "beit", "bert": "bert"}
    for name, place in places.items():
        models[name] = {k: v for k, v in models[name].items() if k != "revision"} | {"source": f"./models/{place}"}
    models["language_model"] |= {"tokenizer": "./models/gpt2", "tokenizer_revision": None}
    models["bert"]["num_layers"] = 2
    models["clip"] = {"clip": {"source": "./models/clip"}}
    projection = replicas.save_projection(
        folder / "cache" / "limber" / "beit_linear" / "proj.ckpt", d_vision=24, d_model=WIDTH
    )
    models["projection"]["checksum"] = digest(projection, "git-blob:")
    for name, parameters in FEWER.items():
        content["chapters"][name] |= parameters
    content |= {"name": "paper-replica", "device": "cpu", "cache": "./cache"}
    kept = {name: source for name, source in content["data"].items() if (folder / "cache" / _place(source)).exists()}
    file = folder / "paper.yml"
    file.write_text(yaml.safe_dump(content | {"data": kept}))
    return file


def _place(source: dict) -> str:
    return source["source"].removeprefix("cache:")


# --- models ----------------------------------------------------------------------------------------------------------


def save_gpt2_tokenizer(folder: Path) -> GPT2TokenizerFast:
    """GPT-2's files. As in GPT-2, most tokens are whole words with their space: each word is built letter by letter."""
    beginnings = {f"\u0120{word}"[:n] for word in WORDS for n in range(2, len(word) + 2)}
    merges = [(text[:-1], text[-1]) for text in sorted(beginnings, key=lambda text: (len(text), text))]
    tokens = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    tokenizer = GPT2TokenizerFast(tokenizer_object=ByteLevelBPETokenizer(vocabulary, merges)._tokenizer)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_gptj(folder: Path) -> None:
    """EleutherAI/gpt-j-6B's branch float16: one `pytorch_model.bin` with the buffers that old versions saved.

    The names of things, and the full stop, are likelier than other tokens, so that captions have a noun and an end.
    """
    tokenizer = save_gpt2_tokenizer(folder)
    torch.manual_seed(0)
    config = {
        "activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"], "attn_pdrop": 0.0, "bos_token_id": 0,
        "embd_pdrop": 0.0, "eos_token_id": 0, "gradient_checkpointing": False, "initializer_range": 0.3,
        "layer_norm_epsilon": 1e-05, "model_type": "gptj", "n_embd": WIDTH, "n_head": 4, "n_inner": None,
        "n_layer": LAYERS, "n_positions": 256, "resid_pdrop": 0.0, "rotary": True, "rotary_dim": 8,
        "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}},
        "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer", "transformers_version": "4.18.0.dev0",
        "use_cache": True, "vocab_size": len(tokenizer) + PADDING,
    }  # fmt: skip
    model = GPTJForCausalLM(GPTJConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    names = [tokenizer.encode(f" {name}")[0] for name in CATEGORIES]
    with torch.no_grad():
        model.lm_head.bias[[*names, *tokenizer.encode(".")]] += 4
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    for layer in range(LAYERS):
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.tril(torch.ones(1, 1, 256, 256, dtype=torch.bool))
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e9)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))


def save_bert(folder: Path) -> None:
    """bert-base-uncased: a model for pretraining, whose norms have their first version's names."""
    replicas.save_bert(folder)
    config = BertConfig.from_pretrained(folder)
    torch.manual_seed(5)
    tensors = BertForPreTraining(config).state_dict()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, first in old.items():
        tensors = {name.replace(new, first): tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForPreTraining"]}
    (folder / "config.json").write_text(json.dumps(content))


def save_clip(folder: Path) -> None:
    """timm/resnet50x4_clip.openai: open_clip's files and its own tokenizer."""
    torch.manual_seed(6)
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    pixels = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    tensors = open_clip.model.CLIP(**model).state_dict()
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "open_clip_model.safetensors")


# --- data ------------------------------------------------------------------------------------------------------------


def save_coco(folder: Path, n: int = 60, split: str = "val2017") -> None:
    """Boxes of one to three categories: JPEGs of several sizes, some grey; polygons, and crowds as run lengths."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, objects, captions = [], [], []
    chance = np.random.default_rng(0)
    names = list(CATEGORIES)
    for k in range(n):
        image, width, height = 139 + 37 * k, int(chance.integers(60, 110)), int(chance.integers(50, 90))
        shown = chance.permutation(len(names))[: 1 + (k % 2) * int(chance.integers(1, 3))].tolist()
        picture = Image.fromarray(chance.integers(90, 160, (height, width, 3), dtype=np.uint8))
        for place, category in enumerate(shown):
            box = _box(chance, width, height, place, len(shown))
            ImageDraw.Draw(picture).rectangle(box, fill=(30 * category, 255 - 30 * category, 17 * category))
            objects.append(_annotation(len(objects), image, category, box, (height, width), crowd=k % 9 == 8))
        (picture.convert("L") if k % 13 == 12 else picture).save(folder / split / f"{image:012}.jpg")
        images.append({"id": image, "file_name": f"{image:012}.jpg", "width": width, "height": height, "license": 1,
                       "coco_url": "", "flickr_url": "", "date_captured": "2013-11-14 17:02:52"})  # fmt: skip
        for line in range(5):
            text = " and ".join(f"a {names[category]}" for category in shown)
            captions.append({"id": len(captions), "image_id": image, "caption": f"Picture {line} of {text}.\n"})
    about = {"info": {"year": 2017}, "licenses": [{"id": 1, "name": "", "url": ""}], "images": images}
    kinds = [{"id": 1 + 2 * k, "name": n, "supercategory": s} for k, (n, s) in enumerate(CATEGORIES.items())]
    instances = about | {"annotations": objects, "categories": kinds}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(about | {"annotations": captions}))


def _box(chance: np.random.Generator, width: int, height: int, place: int, of: int) -> list[int]:
    """Left, top, right, bottom, within the object's own part of the image's width."""
    left, right = width * place // of, width * (place + 1) // of - 2
    top = int(chance.integers(0, height // 3))
    return [left + int(chance.integers(0, (right - left) // 3)), top, right, top + height // 2]


def _annotation(number: int, image: int, category: int, box: list[int], size: tuple[int, int], *, crowd: bool) -> dict:
    left, top, right, bottom = box
    corners = [left, top, right, top, right, bottom, left, bottom]
    made = {"id": 1000 + number, "image_id": image, "category_id": 1 + 2 * category, "iscrowd": int(crowd)}
    made |= {"bbox": [left, top, right - left, bottom - top], "area": float((right - left) * (bottom - top))}
    if not crowd:
        return made | {"segmentation": [corners]}
    mask = np.zeros(size, dtype=np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    counts = run_lengths.encode(mask)["counts"].decode()
    return made | {"segmentation": {"size": list(size), "counts": counts}}


def save_album(folder: Path, n: int = 2) -> None:
    """An album as a reader's own would be: some of the invented world's concepts, `n` pictures in each facet."""
    entries = [e for e in album.entries() if e.family in FAMILIES or e.key in ASKED]
    for part, split in enumerate(("train", "val", "test")):
        records = []
        for number, (e, facet, _) in enumerate(product(entries, album.FACETS, range(n))):
            made = album.picture((0, part, number), e.key, facet=facet)
            file = f"{facet}/{number:06d}.png"
            (folder / split / facet).mkdir(parents=True, exist_ok=True)
            Image.fromarray(made.image).save(folder / split / file)
            records.append({"file": file, **{name: value for name, value in vars(made).items() if name != "image"}})
        kinds = [{**vars(e), "key": e.key, "phrase": e.phrase, "prompt": e.prompt} for e in entries]
        (folder / split / "album.json").write_text(json.dumps({"concepts": kinds, "pictures": records}))


def save_classes(folder: Path, n: int = 8) -> None:
    """Imagenette's folders: SPLIT/CLASS/NAME.JPEG."""
    chance = np.random.default_rng(1)
    for split in ("train", "val"):
        for k, name in enumerate(c.partition("=")[2] for c in CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(n):
                noise = chance.integers(0, 80, (60, 80, 3), dtype=np.uint8) + np.uint8(60 * k)
                Image.fromarray(noise).save(folder / split / name / f"{name}_{number}.JPEG")


# --- the book --------------------------------------------------------------------------------------------------------


def run(name: str, profile: Path) -> None:
    """One chapter as the engine runs it: papermill, with the profile's parameters; results lie beside the profile."""
    import papermill

    executed = profile.parent / "executed" / f"{name}.ipynb"
    executed.parent.mkdir(exist_ok=True)
    papermill.execute_notebook(
        REPOSITORY / "notebooks" / f"{name}.ipynb",
        executed,
        parameters=profiles.read(profile).chapter_parameters(name),
        kernel_name="python3",
        progress_bar=False,
        cwd=REPOSITORY,
    )


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if not (place / "paper.yml").exists():
        write(place, with_album=any("09" <= name[:2] <= "14" for name in sys.argv[2:]))
    os.environ |= {"MMN_ROOT": str(place), "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    for chapter in sys.argv[2:]:
        begin = time.monotonic()
        run(chapter, place / "paper.yml")
        print(f"{chapter}: {time.monotonic() - begin:.0f} s", flush=True)
