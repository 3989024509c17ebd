"""What is refused, by whom, and in which words: broken files, hostile files, and places that cannot be written to.

Every kind of bad input has its line in one of the tables below; each ends in a message that names the thing, and
nothing that came with it is executed or left half written.
"""

import io
import json
import os
import pickle
import resource
import struct
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import replicas
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tiny_book import TinyBook, notebook

from mmn_utils import execute, freshness, profiles, results
from mmn_utils.data.album import Album
from mmn_utils.data.coco import CocoScenes
from mmn_utils.models import hub
from mmn_utils.models.captioner import load_encoder, load_language_model, load_projection, load_tokenizer
from mmn_utils.models.clip import Clip
from mmn_utils.models.weights import WeightsError, verify_folder
from mmn_utils.untrusted import MOST_PIXELS, read_image

# --- profiles ---------------------------------------------------------------------------------------------------------

LAUGHS = "laughs: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(f"b{i}: &b{i} [*a, *a, *a, *a]" for i in range(9))
PROFILES = {
    "not UTF-8": (b"name: \xff\xfe", "not a yaml file"),
    "UTF-16": ("name: x".encode("utf-16"), "not a yaml file"),
    "empty": (b"", "expected a mapping"),
    "nothing but a list": (b"- name", "expected a mapping"),
    "cut off": (b'name: "tin', "not a yaml file"),
    "binary": (bytes(range(256)), "not a yaml file"),
    "two documents": (b"name: a\n---\nname: b", "expected a single document"),
    "too large": (b"# " + b"x" * 2**20, "at most 1,048,576 are read"),
    "nested too deeply": (b"a: " + b"[" * 5000, "recursion"),
    "a billion laughs": (LAUGHS.encode(), "aliases are not read here"),
    "an alias of itself": (b"a: &a [*a]", "aliases are not read here"),
    "a key twice": (b"name: a\nname: b", "'name' is given twice"),
    "a merged mapping": (b"<<: {name: a}", "is not plain data"),
    "a call": (b"name: !!python/object/apply:os._exit [3]", "python/object/apply"),
    "bytes": (b"name: !!binary aGFsbG8=", "is not plain data"),
    "a set": (b"name: !!set {a, b}", "is not plain data"),
    "a number for a key": (b"1: a", "'1' is not text"),
    "a list for a key": (b"? [a]\n: b", "is not text"),
    "not a number": (b"seed: .nan", "not a finite number"),
    "infinity": (b"seed: -.inf", "not a finite number"),
    "five thousand digits": (b"seed: " + b"9" * 5000, "not a yaml file"),
    "a bell": (b'name: "a\\a"', "control character"),
    "half a character": (b'name: "\\ud800"', "control character"),
}
CHANGES = {
    "an unknown key": ({"sede": 1}, "unknown key 'sede'; did you mean 'seed'?"),
    "a missing key": ({"models__bert": {"source": "./b"}}, "missing key 'models.bert.num_layers'"),
    "text for a number": ({"seed": "one"}, "seed should be a whole number"),
    "a fraction for a whole number": ({"seed": 0.5}, "seed should be a whole number"),
    "a negative seed": ({"seed": -1}, "seed is -1, expected 0 to"),
    "a huge seed": ({"seed": 10**30}, "expected 0 to 4,294,967,296"),
    "no scenes": ({"data__s": {"source": "./s", "n": 0}}, "data.s.n is 0, expected 1 to"),
    "no layers": ({"models__bert__num_layers": 0}, "models.bert.num_layers is 0"),
    "a very long wrong value": ({"seed": "x" * 10**6}, "seed should be a whole number, found 'xxxxxxxxx"),
    "a name that climbs": ({"name": "../../etc"}, "name is '../../etc'; it names the folder"),
    "a name from the root": ({"name": "/etc"}, "it names the folder"),
    "a hidden name": ({"name": ".git"}, "it names the folder"),
    "an empty name": ({"name": ""}, "it names the folder"),
    "a name with a pipe": ({"name": "a|b"}, "it names the folder"),
    "an empty source": ({"models__projection__source": ""}, "models.projection.source is '', which is empty"),
    "a cache that climbs": ({"models__projection__source": "cache:../../x"}, "give a relative path without '..'"),
    "a package that climbs": ({"models__projection__source": "package:/etc/passwd"}, "give a relative path"),
    "a missing folder": ({"data__s": {"source": "./nowhere"}}, "data.s.source is './nowhere', but"),
    "a hub model at no revision": ({"models__language_model__source": "gpt2"}, "of 'gpt2' is None, expected a commit"),
    "a hub model at a branch": (
        {"models__language_model": {"source": "gpt2", "revision": "main"}},
        "models.language_model: the revision of 'gpt2' is 'main'",
    ),
    "a short commit": ({"models__bert": {"source": "b", "num_layers": 1, "revision": "86b5e09"}}, "40 hexadecimal"),
    "a branch without a name": (
        {"models__vision_encoder": {"source": "x", "revision": "branch:"}}, "models.vision_encoder: the revision"
    ),
    "a CLIP at no revision": ({"models__clip": {"one": {"source": "timm/x"}}}, "models.clip.one: the revision of"),
    "a tokenizer at no revision": ({"models__language_model__tokenizer": "gpt2"}, "models.language_model.tokenizer: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROFILES)
def test_profiles_that_are_no_profiles(tmp_path, kind):
    content, message = PROFILES[kind]
    (tmp_path / "mine.yml").write_bytes(content)
    refuse_profile(tmp_path / "mine.yml", message)


@pytest.mark.parametrize("kind", CHANGES)
def test_profiles_with_something_wrong(tmp_path, kind):
    change, message = CHANGES[kind]
    for folder in ("gpt-j-6B", "beit", "limber/proj.ckpt", "bert"):
        (tmp_path / folder).mkdir(parents=True)
    refuse_profile(replicas.save_profile(tmp_path / "mine.yml", **change), message)


def refuse_profile(file, message):
    before = sorted(file.parent.rglob("*"))
    with pytest.raises(profiles.ProfileError) as caught:
        profiles.read(file)
    assert message in str(caught.value) and "mine.yml" in str(caught.value) and len(str(caught.value)) < 1000
    assert sorted(file.parent.rglob("*")) == before


def test_a_hub_model_is_asked_for_at_its_commit_or_at_the_branch_that_the_profile_admits():
    commit = "86b5e0934494bd15c9632b12f734a8a67f723594"
    assert profiles.pinned("bert-base-uncased", commit) == commit
    assert profiles.pinned("bert-base-uncased", "branch:main") == "main"


def test_a_branch_means_what_it_meant_when_it_was_first_fetched(tmp_path):
    first, other = "86b5e0934494bd15c9632b12f734a8a67f723594", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    assert hub.settled("microsoft/beit", "branch:main", tmp_path) == "main"
    refs = tmp_path / "models--microsoft--beit/refs"  # as the hub's library lays out its cache
    refs.mkdir(parents=True)
    (refs / "main").write_text(first)
    assert hub.settled("microsoft/beit", "branch:main", tmp_path) == first
    assert hub.settled("microsoft/beit", other, tmp_path) == other
    assert hub.settled("microsoft/other", "branch:main", tmp_path) == "main"
    with pytest.raises(ValueError, match="expected a commit"):
        hub.settled("microsoft/beit", "main", tmp_path)


# --- the book's command -----------------------------------------------------------------------------------------------


def spoil(path, content):
    def on(book):
        (book.root / path).write_bytes(content)

    return on


def with_cell(**entries):
    def on(book):
        content = json.loads((book.root / "notebooks/01_first.ipynb").read_text())
        content["cells"][1].update(entries)
        (book.root / "notebooks/01_first.ipynb").write_text(json.dumps(content))

    return on


BOOKS = {
    "a profile with a call": (spoil("tiny.yml", b"name: !!python/name:os.system"), "tiny.yml: not a yaml file"),
    "a profile that is a folder": (
        lambda b: ((b.root / "tiny.yml").unlink(), (b.root / "tiny.yml").mkdir()),
        "tiny.yml",
    ),
    "a contents page that is not yaml": (spoil("_toc.yml", b"root: ["), "_toc.yml: not a yaml file"),
    "a contents page that is not UTF-8": (spoil("_toc.yml", b"\xff"), "_toc.yml: not a yaml file"),
    "a contents page with aliases": (spoil("_toc.yml", b"a: &a 1\nb: *a"), "aliases"),
    "an empty contents page": (spoil("_toc.yml", b""), "is missing from _toc.yml"),
    "a contents page with an empty entry": (spoil("_toc.yml", b"chapters: [{file: ''}]"), "is missing from _toc.yml"),
    "a notebook that is not JSON": (spoil("notebooks/01_first.ipynb", b"{"), "01_first.ipynb cannot be read"),
    "a notebook that is not UTF-8": (spoil("notebooks/01_first.ipynb", b"\xff\xfe{}"), "01_first.ipynb cannot be read"),
    "an empty notebook": (spoil("notebooks/01_first.ipynb", b""), "01_first.ipynb cannot be read"),
    "a notebook that is a list": (spoil("notebooks/01_first.ipynb", b"[]"), "01_first.ipynb cannot be read"),
    "a cell of no kind": (with_cell(cell_type="spell"), "01_first.ipynb cannot be read"),
    "a cell without source": (with_cell(source=None), "01_first.ipynb cannot be read"),
    "parameters that are not Python": (with_cell(source="n = ="), "the parameters cell is not Python"),
    "results that are a file": (spoil("results", b""), "results"),
}


@pytest.mark.parametrize("kind", BOOKS)
def test_the_command_says_why_and_leaves_with_an_error(tmp_path, kind, capsys, monkeypatch):
    do_spoil, message = BOOKS[kind]
    book = TinyBook(tmp_path)
    do_spoil(book)
    before = sorted(tmp_path.rglob("*"))
    code, said = command(book, monkeypatch, capsys)
    assert code == 1 and message in said and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def command(book, monkeypatch, capsys):
    """What `jupyter-book build` does before it reads a page: exit code and stderr."""
    monkeypatch.setenv("MMN_PROFILE", str(book.root / "tiny.yml"))
    app = SimpleNamespace(srcdir=book.root / "book", outdir=book.root / "out/html", doctreedir=book.root / "out/trees")
    with pytest.raises(SystemExit) as left:
        execute._before_reading(app, SimpleNamespace(mmn_profile="tiny"))
    return left.value.code, capsys.readouterr().err


# --- parameters -------------------------------------------------------------------------------------------------------

HOSTILE = [
    '"',
    "'",
    "\\",
    '\\"',
    '"""',
    "a\nimport os",
    "%pip install x",
    "{n}",
    "$HOME",
    "\N{LINE SEPARATOR}",
    "#",
    "é🦊",
]


def test_parameters_arrive_as_they_are_and_are_not_executed(tmp_path):
    book = TinyBook(tmp_path / "{pm} and {n}")  # papermill fills in braces in paths
    values = {"words": HOSTILE, "mapping": {text: text for text in HOSTILE}, "word": HOSTILE[-1] + HOSTILE[4]}
    parameters = 'profile: str = "x"\nwords: list = []\nmapping: dict = {}\nword: str = ""'
    code = "import json, pathlib\npathlib.Path('seen.json').write_text(json.dumps([words, mapping, word]))"
    book.write("01_first", notebook(code, parameters=parameters))
    (book.root / "notebooks/02_second.ipynb").unlink()
    book.toc("01_first")
    content = yaml.safe_load((book.root / "tiny.yml").read_text()) | {"chapters": {"01_first": values}}
    (book.root / "tiny.yml").write_text(yaml.safe_dump(content))
    book.run()
    assert json.loads((book.root / "seen.json").read_text()) == [values["words"], values["mapping"], values["word"]]


# --- annotations ------------------------------------------------------------------------------------------------------


def dataset():
    """One image of 20 x 10 pixels with a square."""
    square = {"id": 5, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [2, 1, 4, 4], "area": 16}
    square["segmentation"] = [[2, 1, 6, 1, 6, 5, 2, 5]]
    images = [{"id": 7, "file_name": "a.png", "width": 20, "height": 10}]
    captions = [{"id": 1, "image_id": 7, "caption": "A light."}]
    instances = {"images": images, "annotations": [square], "categories": [{"id": 1, "name": "light"}]}
    return {"instances": instances, "captions": {"images": images, "annotations": captions}}


def saved(folder, content):
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "val").mkdir(exist_ok=True)
    Image.new("RGB", (20, 10)).save(folder / "val/a.png")
    for name, part in content.items():
        data = part if isinstance(part, bytes) else json.dumps(part).encode()
        (folder / f"annotations/{name}_val.json").write_bytes(data)
    return folder


def everything(folder):
    scenes = CocoScenes(folder)
    return [(scenes.image(i).size, scenes.captions(i), scenes.objects(i)) for i in scenes.ids]


def test_the_good_data_set_is_read(tmp_path):
    ((size, captions, (light,)),) = everything(saved(tmp_path, dataset()))
    assert size == (20, 10) and captions == ["A light."] and light.mask.sum() == 16


NOT_JSON = {
    "cut off": (b'{"images": [', "instances_val.json is not a COCO annotation file"),
    "not UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff"),
    "NaN": (b'{"images": NaN}', "NaN is not a number"),
    "Infinity": (b'{"images": -Infinity}', "-Infinity is not a number"),
    "a key twice": (b'{"images": [], "images": []}', "'images' is given twice"),
    "nested too deeply": (b"[" * 200_000, "recursion"),
    "a list": (b"[]", "expected a mapping, found list"),
    "null": (b"null", "expected a mapping, found NoneType"),
    "empty": (b"", "instances_val.json is not a COCO annotation file"),
    "five thousand digits": (b'{"images": ' + b"9" * 5000 + b"}", "instances_val.json is not a COCO annotation file"),
}
IMAGE, OBJECT = ("images", 0), ("annotations", 0)
RECORDS = {
    "images that are no list": (("images",), {}, "images should be a list, found dict"),
    "no categories": (("categories",), None, "categories should be a list"),
    "a record that is no mapping": (IMAGE, 3, "images[0] should have a proper 'id'"),
    "an id of text": ((*IMAGE, "id"), "7", "images[0] should have a proper 'id', found '7'"),
    "no file name": ((*IMAGE, "file_name"), None, "images[0] should have a proper 'file_name'"),
    "a file name that climbs": ((*IMAGE, "file_name"), "../../../etc/passwd", "without '..'"),
    "a file name from the root": ((*IMAGE, "file_name"), "/etc/passwd", "give a relative path"),
    "a file name with a NUL": ((*IMAGE, "file_name"), "a\0.png", "does not name a place"),
    "an image too large": ((*IMAGE, "width"), 10**9, "1,000,000,000 x 10 pixels"),
    "an image of no size": ((*IMAGE, "height"), 0, "20 x 0 pixels"),
    "an image of negative size": ((*IMAGE, "width"), -20, "-20 x 10 pixels"),
    "an object in no image": ((*OBJECT, "image_id"), 8, "annotation 5: its image_id 8 is not among the images"),
    "an object of no category": ((*OBJECT, "category_id"), 9, "its category_id 9 is not among the categories"),
    "a box of three": ((*OBJECT, "bbox"), [1, 2, 3], "annotation 5: bbox and area should be five finite numbers"),
    "a box of words": ((*OBJECT, "bbox"), ["a"] * 4, "annotation 5: bbox and area"),
    "no outline": ((*OBJECT, "segmentation"), None, "annotations[0] should have a proper 'segmentation'"),
    "an outline of two numbers": ((*OBJECT, "segmentation"), [[1, 2]], "annotation 5 of image 7"),
    "an outline far outside": ((*OBJECT, "segmentation"), [[1, 1, 1e12, 1, 1, 5]], "corners far outside the image"),
    "an outline of words": ((*OBJECT, "segmentation"), [["a"] * 6], "annotation 5 of image 7"),
    "a mask of another size": (
        (*OBJECT, "segmentation"), {"size": [10**6, 10**6], "counts": [10**12]}, "the mask is [1000000, 1000000]"
    ),
    "a mask too short": ((*OBJECT, "segmentation"), {"size": [10, 20], "counts": [3]}, "add up to 3 pixels"),
    "a mask too long": ((*OBJECT, "segmentation"), {"size": [10, 20], "counts": "o1000000"}, "the mask's runs"),
    "a mask with negative runs": ((*OBJECT, "segmentation"), {"size": [10, 20], "counts": [-5, 205]}, "mask's runs"),
    "a mask of garbage": ((*OBJECT, "segmentation"), {"size": [10, 20], "counts": "\x00é~~~"}, "not as COCO writes"),
    "a mask without runs": ((*OBJECT, "segmentation"), {"size": [10, 20]}, "KeyError('counts')"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_JSON)
def test_annotations_that_are_not_json(tmp_path, kind):
    content, message = NOT_JSON[kind]
    refuse_scenes(saved(tmp_path, dataset() | {"instances": content}), message, "instances_val.json")


@pytest.mark.parametrize("kind", RECORDS)
def test_annotations_with_something_wrong(tmp_path, kind):
    (*path, last), value, message = RECORDS[kind]
    content = dataset()
    node = content["instances"]
    for step in path:
        node = node[step]
    node[last] = value
    refuse_scenes(saved(tmp_path, content), message, str(tmp_path))


@pytest.mark.parametrize(("field", "value"), [("caption", 3), ("caption", None), ("image_id", 8)])
def test_captions_with_something_wrong(tmp_path, field, value):
    content = dataset()
    content["captions"]["annotations"][0][field] = value
    refuse_scenes(saved(tmp_path, content), "captions_val.json is not a COCO annotation file", str(tmp_path))


def test_two_annotations_with_one_id(tmp_path):
    content = dataset()
    content["instances"]["annotations"] *= 2
    refuse_scenes(saved(tmp_path, content), "1 of annotations have an id that another one has", "instances_val.json")


def test_a_split_that_climbs(tmp_path):
    with pytest.raises(ValueError, match=r"'\.\./x' does not name a place below"):
        CocoScenes(tmp_path, "../x")


def refuse_scenes(folder, *messages):
    with pytest.raises(ValueError) as caught:
        everything(folder)
    for message in messages:
        assert message in str(caught.value)
    assert len(str(caught.value)) < 600


# --- images -----------------------------------------------------------------------------------------------------------


def png(width, height, *chunks):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + pixels + chunk(b"IEND", b"")


def noise(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(ran) print\n%%EOF\n"
IMAGES = {
    "empty": b"",
    "text": b"<html>404</html>",
    "half a JPEG": noise("JPEG")[:900],
    "half a PNG": noise("PNG")[:900],
    "a PNG with a flipped bit": noise("PNG")[:500] + b"\x00" + noise("PNG")[501:],
    "a bomb of pixels": png(60_000, 60_000),
    "a large bomb of pixels": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(0, 10),
    "a bomb of words": png(8, 8, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**27)))),
    "PostScript under another name": EPS,
    "a font": b"\x00\x01\x00\x00" + bytes(200),
    "SVG with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_cannot_be_read(tmp_path, kind):
    folder = saved(tmp_path, dataset())
    (folder / "val/a.png").write_bytes(IMAGES[kind])
    with pytest.raises(OSError, match=r"image 7: .*a\.png cannot be read \(.*\); delete it and fetch it again"):
        CocoScenes(folder).image(7)


def test_an_image_that_is_a_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png cannot be read"):
        read_image(tmp_path / "a.png")


ALBUM = {"concepts": [{"key": "a", "word": "a", "family": "f", "prompt": "a", "written": ["a"]}]}
ALBUM["pictures"] = [{"file": "a.png", "concept": "a", "facet": "photo"}]
ALBUMS = {
    "an album that is not JSON": (b"{", "album.json cannot be read as JSON"),
    "an album that is a list": (b"[]", "album.json: expected a list 'concepts' of records"),
    "an album without pictures": (ALBUM | {"pictures": []}, "album.json: expected a list 'pictures' of records"),
    "a picture without a file": (ALBUM | {"pictures": [{"concept": "a"}]}, "album.json: expected a list 'pictures'"),
    "a picture of no concept": (
        ALBUM | {"pictures": [{**ALBUM["pictures"][0], "concept": "b"}]}, "picture of 'b', which is no listed concept"
    ),
    "a picture elsewhere": (
        ALBUM | {"pictures": [{**ALBUM["pictures"][0], "file": "../../b.png"}]}, "'../../b.png' does not name a place"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ALBUMS)
def test_albums(tmp_path, kind):
    content, message = ALBUMS[kind]
    (tmp_path / "album.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError) as caught:
        Album(tmp_path).image(0)
    assert message in str(caught.value)


def test_photographs_of_any_camera_are_small_enough():
    assert MOST_PIXELS > 100_000_000


# --- weights ----------------------------------------------------------------------------------------------------------


class Trap:
    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def packed(file):
    """A checkpoint whose parts are compressed."""
    plain = replicas.save_projection(file.with_suffix(".plain"), d_vision=4)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))


def tarred(file):
    """An archive with a path that climbs, as old checkpoints were archives."""
    with tarfile.open(file, "w") as archive:
        for name in ("../../escaped", "sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name))


def header(text):
    return lambda file: file.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(64))


def state(**tensors):
    return lambda file: save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)


W, B = torch.zeros(8, 4), torch.zeros(8)
NOT_FINITE = "has numbers that are not finite"
CHECKPOINTS = {
    "empty": ("p.ckpt", lambda f: f.write_bytes(b""), "weights truncated"),
    "text": ("p.ckpt", lambda f: f.write_text("404: not found"), "cannot be read as named tensors"),
    "a pickle that calls": ("p.ckpt", lambda f: f.write_bytes(pickle.dumps(Trap())), "cannot be read as named tensors"),
    "a checkpoint that calls": (
        "p.ckpt",
        lambda f: torch.save({"weight": Trap()}, f),
        "cannot be read as named tensors",
    ),
    "a whole module": ("p.ckpt", lambda f: torch.save(torch.nn.Linear(2, 2), f), "cannot be read as named tensors"),
    "a compressed checkpoint": ("p.ckpt", packed, "is compressed, which torch.save never does"),
    "an archive that climbs": ("p.ckpt", tarred, "cannot be read as named tensors"),
    "one number posing as many": (
        "p.ckpt",
        state(weight=torch.zeros(1).expand(10**5, 10**5), bias=B),
        "claims 40,000,",
    ),
    "a list": ("p.ckpt", lambda f: torch.save([W], f), "should hold a state dict"),
    "numbers by name": ("p.ckpt", lambda f: torch.save({"weight": 3}, f), "should hold a state dict"),
    "a header of 2**62 bytes": ("p.safetensors", lambda f: f.write_bytes(struct.pack("<Q", 2**62)), "cannot be read"),
    "a header that is not JSON": ("p.safetensors", header("{not json}"), "cannot be read as named tensors"),
    "a tensor beyond the file": (
        "p.safetensors",
        header('{"weight": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}'),
        "weights truncated",
    ),
    "a tensor of another length": (
        "p.safetensors",
        header('{"weight": {"dtype": "F32", "shape": [99], "data_offsets": [0, 64]}}'),
        "cannot be read as named tensors",
    ),
    "no bias": ("p.safetensors", state(weight=W), "should hold weight [d_model, d_vision] and bias"),
    "another shape": ("p.safetensors", state(weight=W, bias=torch.zeros(7)), "should hold weight [d_model, d_vision]"),
    "NaN": ("p.safetensors", state(weight=W, bias=B.clone().fill_(float("nan"))), NOT_FINITE),
    "infinity": ("p.ckpt", state(weight=W.clone().fill_(float("inf")), bias=B), NOT_FINITE),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_that_are_no_projection(tmp_path, kind):
    name, write, message = CHECKPOINTS[kind]
    write(tmp_path / name)
    profile = profiles.read(replicas.save_profile(tmp_path / "mine.yml"), check_folders=False)
    with pytest.raises(WeightsError) as caught:
        load_projection(profile, profiles.ProjectionSource(source=f"./{name}"))
    assert message in str(caught.value) and name in str(caught.value)
    assert not Trap.sprung and not list(tmp_path.parent.glob("escaped"))


LISTS = {
    "not JSON": (b"{", "is no list of checksums"),
    "not UTF-8": (b"\xff", "is no list of checksums"),
    "a list": (b"[]", "expected names of files and their sha256"),
    "numbers": (b'{"projection/proj.safetensors": 3}', "expected names of files and their sha256"),
    "a file twice": (b'{"projection/a": "0", "projection/a": "1"}', "'projection/a' is given twice"),
    "a file outside": (b'{"projection/../../../etc/passwd": "0"}', "does not name a place below"),
    "a file that is not there": (b'{"projection/other": "0"}', "weights missing"),
    "another checksum": (b'{"projection/proj.safetensors": "00"}', "wrong checksum"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_checksums(tmp_path, kind):
    content, message = LISTS[kind]
    replicas.save_projection(tmp_path / "projection/proj.safetensors", d_vision=4)
    (tmp_path / "checksums.json").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        verify_folder(tmp_path / "projection")


OWN_CODE = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nclass Own:\n    pass\n"


def folder_with(config, **files):
    """Writes a model's folder: its configuration, code of its own, and other files."""

    def on(folder):
        for name, content in ({"config.json": config, "own.py": OWN_CODE} | files).items():
            (folder / name.replace("__", ".")).write_text(content if isinstance(content, str) else json.dumps(content))

    return on


def trapped(kind, file):
    def on(folder):
        if kind == "gptj":
            replicas.save_language_model(folder, kind)
        else:
            replicas.save_timm_beit(folder / "made")
            (folder / "made/config.json").rename(folder / "config.json")
        for weights in folder.rglob("*.safetensors"):
            weights.unlink()
        torch.save({"weight": Trap()}, folder / file)

    return on


AUTO = {"auto_map": {name: "own.Own" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoModel")}}
OWN_TOKENIZER = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
LANGUAGE, TOKENIZER, ENCODER = range(3)
NO_CODE = "in need of code that came with it, which is never run"
FOLDERS = {
    "code of its own": (LANGUAGE, folder_with({"model_type": "own", **AUTO}), NO_CODE),
    "a tokenizer with code of its own": (
        TOKENIZER, folder_with({"model_type": "own"}, tokenizer_config__json=OWN_TOKENIZER), NO_CODE
    ),
    "an unknown model": (LANGUAGE, folder_with({"model_type": "nothing"}), "AutoModelForCausalLM cannot load"),
    "a configuration that is not JSON": (LANGUAGE, folder_with("{"), "AutoModelForCausalLM cannot load"),
    "no configuration": (LANGUAGE, lambda folder: None, "AutoModelForCausalLM cannot load"),
    "no weights": (LANGUAGE, folder_with({"model_type": "gpt2", "n_embd": 8, "n_head": 1}), "cannot load"),
    "weights that call": (LANGUAGE, trapped("gptj", "pytorch_model.bin"), NO_CODE),
    "a tokenizer that is not JSON": (
        TOKENIZER, folder_with({"model_type": "gpt2"}, tokenizer__json="{", vocab__json="{"), "AutoTokenizer cannot"
    ),
    "an encoder's weights that call": (ENCODER, trapped("timm", "pytorch_model.bin"), "has no model.safetensors"),
    "an encoder of no known kind": (
        ENCODER, folder_with({"architecture": "nothing"}, model__safetensors=""), "cannot be loaded by timm"
    ),
    "an encoder without configuration": (
        ENCODER, lambda folder: (folder / "model.safetensors").touch(), "cannot be loaded by timm"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_models(tmp_path, kind):
    part, write, message = FOLDERS[kind]
    (tmp_path / "model").mkdir()
    write(tmp_path / "model")
    profile = profiles.read(replicas.save_profile(tmp_path / "mine.yml"), check_folders=False)
    with pytest.raises(WeightsError) as caught:
        if part == ENCODER:
            load_encoder(profile, profiles.VisionEncoderSource("./model"))
        else:
            (load_language_model, load_tokenizer)[part](profile, profiles.LanguageModelSource("./model"))
    assert message in str(caught.value) and str(tmp_path / "model") in str(caught.value)
    assert not Trap.sprung and not list(tmp_path.rglob("executed"))


def test_the_hub_is_never_asked_for_a_moving_model(tmp_path):
    profile = profiles.read(replicas.save_profile(tmp_path / "mine.yml"), check_folders=False)
    for load, source in (
        (load_language_model, profiles.LanguageModelSource("gpt2")),
        (load_tokenizer, profiles.LanguageModelSource("./model", tokenizer="gpt2")),
        (load_encoder, profiles.VisionEncoderSource("beit_base_patch16_224")),
        (load_encoder, profiles.VisionEncoderSource("beit_base_patch16_224", revision="0" * 40)),
        (load_encoder, profiles.VisionEncoderSource("microsoft/beit", library="transformers", revision="main")),
    ):
        with pytest.raises(ValueError, match=r"expected a commit of 40|hf-hub:timm/beit"):
            load(profile, source)


def test_a_clip_of_the_hub_is_fetched_at_its_commit_and_as_safetensors(tmp_path, monkeypatch):
    def fetch(repository, *, revision, cache_dir, allow_patterns):
        asked.append((repository, revision, cache_dir, "open_clip_model.safetensors" in allow_patterns))
        assert not [pattern for pattern in allow_patterns if pattern.endswith((".bin", ".pt", ".py", "*"))]
        raise OSError("no network")

    asked = []
    monkeypatch.delenv("MMN_CACHE", raising=False)
    monkeypatch.setattr("mmn_utils.models.clip.snapshot_download", fetch)
    clip = {"clip": {"source": "timm/x", "revision": "a" * 40}}
    profile = profiles.read(replicas.save_profile(tmp_path / "mine.yml", models__clip=clip), check_folders=False)
    with pytest.raises(WeightsError, match="timm/x at a+ cannot be fetched into .*: no network"):
        Clip.from_profile(profile)
    assert asked == [("timm/x", "a" * 40, tmp_path / "cache/hub", True)]


def test_timm_asks_the_hub_for_what_a_branch_meant_when_it_was_first_fetched(tmp_path, monkeypatch):
    def fetch(name, *, cache_dir, **options):
        asked.append((name, cache_dir))
        raise OSError("no network")

    first, other = "86b5e0934494bd15c9632b12f734a8a67f723594", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    asked, cache = [], tmp_path / "cache/hub"
    monkeypatch.delenv("MMN_CACHE", raising=False)
    monkeypatch.setattr("timm.create_model", fetch)
    profile = profiles.read(replicas.save_profile(tmp_path / "mine.yml"), check_folders=False)

    def load(revision):
        with pytest.raises(WeightsError, match="hf-hub:timm/beit cannot be loaded by timm: .*no network"):
            load_encoder(profile, profiles.VisionEncoderSource("hf-hub:timm/beit", revision=revision))

    load("branch:main")
    refs = cache / "models--timm--beit/refs"  # where the hub's library, which timm asks, writes it down
    refs.mkdir(parents=True)
    (refs / "main").write_text(first)
    load("branch:main")
    load(other)
    assert asked == [(f"hf-hub:timm/beit@{revision}", cache) for revision in ("main", first, other)]
    with pytest.raises(ValueError, match="expected a commit of 40"):
        load("main")


# --- results ----------------------------------------------------------------------------------------------------------

NUMBERS = {
    "a key with a pipe": ("a.b|c", {"value": 1}, "expected dotted lower-case words"),
    "a key with a tag": ("a.<b>", {"value": 1}, "expected dotted lower-case words"),
    "text": ("a.b", {"value": "one"}, "value is 'one', a finite number was expected"),
    "a list": ("a.b", {"value": [1]}, r"value is \[1\], a finite number"),
    "several": ("a.b", {"value": np.ones(3)}, "value is array"),
    "a tensor of several": ("a.b", {"value": torch.ones(3)}, "value is tensor"),
    "a complex number": ("a.b", {"value": 1j}, "value is 1j, a finite number"),
    "NaN within": ("a.b", {"value": 1, "low": 0, "high": float("nan")}, "high is nan"),
    "an n of text": ("a.b", {"value": 1, "n": "many"}, "n is 'many'"),
}
KEPT = {
    "numbers cut off": ("numbers.json", b'{"a.b": '),
    "numbers with NaN": ("numbers.json", b'{"a.b": NaN}'),
    "numbers with a key twice": ("numbers.json", b'{"a.b": 1, "a.b": 2}'),
    "numbers not UTF-8": ("numbers.json", b'{"\xff": 1}'),
    "an empty table": ("scores.parquet", b""),
    "a table of text": ("scores.parquet", b"a,b\n1,2\n"),
    "half a table": ("scores.parquet", None),
}
MANIFESTS = {
    "cut off": b'{"inputs"',
    "a list": b"[]",
    "of other fields": b'{"inputs": {}}',
    "not UTF-8": b"\xff",
    "with a number for a date": json.dumps(
        {"inputs": {"notebook": "", "profile": "", "code": {}}, "reads": {}, "outputs": {}, "seconds": 1, "date": 3}
        | {"versions": {}}
    ).encode(),
    "with a list for the code": json.dumps(
        {"inputs": {"notebook": "", "profile": "", "code": []}, "reads": {}, "outputs": {}, "seconds": 1, "date": "x"}
        | {"versions": {}}
    ).encode(),
}


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in (results.ROOT_VARIABLE, results.STAGING_VARIABLE, results.CHAPTER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return results.Chapter("tiny", "01_first")


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_are_none(chapter, kind):
    key, given, message = NUMBERS[kind]
    with pytest.raises(ValueError, match=message):
        chapter.number(key, **given)
    assert not chapter.folder.exists()


@pytest.mark.parametrize("kind", KEPT)
def test_results_that_cannot_be_read(chapter, kind):
    import pandas as pd

    name, content = KEPT[kind]
    chapter.table(pd.DataFrame({"a": range(100)}), "scores")
    path = chapter.folder / name
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(
        ValueError, match=rf"{name} cannot be read.*delete .*01_first and run notebooks/01_first\.ipynb"
    ):
        results.load("tiny", "01_first", path.stem)


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_cannot_be_read_means_that_the_chapter_runs(tmp_path, kind):
    (tmp_path / freshness.MANIFEST).write_bytes(MANIFESTS[kind])
    assert freshness.reason_to_run(tmp_path, freshness.Inputs("", "", {}), {}) == "no complete run yet"


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../b", "a\0b"])
def test_results_stay_in_their_folder(chapter, name):
    import pandas as pd
    from matplotlib.figure import Figure

    for keep, thing in ((chapter.table, pd.DataFrame({"a": [1]})), (chapter.figure, Figure())):
        with pytest.raises(ValueError, match="does not name a place below"):
            keep(thing, name)
    assert not list(chapter.folder.parent.parent.rglob("*"))


# --- places that cannot be written to ---------------------------------------------------------------------------------


@contextmanager
def full_disk():
    """No file may grow beyond 100 bytes; pytest's own neither, so that only the call under test stands within."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def keep_everything(chapter):
    import pandas as pd
    from matplotlib.figure import Figure

    yield lambda: chapter.number("a.b", 1)
    yield lambda: chapter.table(pd.DataFrame({"a": range(1000)}), "scores")
    yield lambda: chapter.figure(Figure(), "line", kind="svg")
    yield lambda: chapter.figure(Figure(), "line", kind="png")


def test_a_full_disk(chapter):
    chapter.folder.mkdir(parents=True)
    (chapter.folder / "numbers.json").write_text("{}")
    for keep in keep_everything(chapter):
        with (
            pytest.raises(OSError, match=r"free some space or allow writing, then run again: '.*01_first/"),
            full_disk(),
        ):
            keep()
    assert [path.name for path in chapter.folder.iterdir()] == ["numbers.json"], "nothing is left half written"
    assert (chapter.folder / "numbers.json").read_text() == "{}"


@pytest.fixture
def open_folder():
    """A folder that anybody may look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_read_only_folder(open_folder, monkeypatch):
    monkeypatch.chdir(open_folder)
    open_folder.chmod(0o555)
    chapter = results.Chapter("tiny", "01_first")
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for keep in keep_everything(chapter):
            with pytest.raises(PermissionError, match=r"allow writing, then run again: '.*01_first/"):
                keep()
    finally:
        os.seteuid(user)
    assert not list(open_folder.iterdir())


# --- how many there are -----------------------------------------------------------------------------------------------


def test_sixty_kinds_and_more():
    files = (NOT_JSON, RECORDS, ALBUMS, IMAGES, CHECKPOINTS, LISTS, FOLDERS, KEPT, MANIFESTS)
    assert sum(map(len, (PROFILES, CHANGES, BOOKS, NUMBERS, *files))) >= 60
