"""Readers under whatever hypothesis makes up: plain data or the one error that names the file, and nothing else."""

import io
import json
import struct
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import replicas
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin
from pycocotools import mask as pycoco
from test_bad_input import IMAGES, dataset, everything, noise, saved

from mmn_utils import neuron_plots, pages, paper_numbers, plots, profiles, results
from mmn_utils.data.coco import mask_of, run_lengths
from mmn_utils.models.weights import WeightsError, load_tensors, verify_folder
from mmn_utils.untrusted import as_markdown, as_visible, is_plain, read_image, read_json, read_yaml

matplotlib.use("agg")
few = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
some = settings(few, max_examples=10)

NASTY = ["<script>alert(1)</script>", "</td>", "|", "`", "$x^2$", r"$\frac{$", "\x1b[31m", "\x00", "\u202egpj.exe"]
NASTY += [
    "{glue:text}`x`",
    "[a](javascript:b)",
    "![](//c)",
    "*d*",
    "_e_",
    "# f",
    "&amp;",
    '"onload="',
    "\\",
    "\n",
    "é🦊",
]
texts = st.one_of(
    st.text(), st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map(" ".join), st.sampled_from(NASTY)
)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(is_plain)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)


def trees(leaf, keys=plain):
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    )


anything = trees(st.none() | st.booleans() | numbers | texts)


def places(node, path=()):
    """Every place in a tree."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in inside for place in places(child, (*path, key)))]


def changed(tree, place, value):
    if not place:
        return value
    tree = json.loads(json.dumps(tree))
    node = tree
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value
    return tree


# --- yaml and JSON ----------------------------------------------------------------------------------------------------


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


@few
@given(trees(st.none() | st.booleans() | numbers | plain))
def test_plain_yaml_comes_back(tmp_path, tree):
    (tmp_path / "a.yml").write_text(yaml.dump(tree, Dumper=NoAliases, allow_unicode=True), encoding="utf-8")
    assert read_yaml(tmp_path / "a.yml") == tree


@few
@given(st.one_of(st.binary(max_size=200), texts.map(lambda t: t.encode("utf-8", "replace"))))
def test_any_bytes_are_no_profile(tmp_path, content):
    (tmp_path / "a.yml").write_bytes(content)
    with pytest.raises(profiles.ProfileError, match=r"a\.yml"):
        profiles.read(tmp_path / "a.yml")


@few
@given(st.data())
def test_a_profile_with_anything_anywhere_is_used_or_refused(tmp_path, data):
    good = yaml.safe_load(replicas.save_profile(tmp_path / "a.yml").read_text())
    content = changed(good, data.draw(st.sampled_from(places(good))), data.draw(anything))
    (tmp_path / "a.yml").write_text(
        yaml.dump(content, Dumper=NoAliases, allow_unicode=True), encoding="utf-8", errors="replace"
    )
    try:
        profile = profiles.read(tmp_path / "a.yml", check_folders=False)
    except profiles.ProfileError as error:
        assert "a.yml" in str(error)
    else:
        assert (tmp_path / "results" / profile.name).parent == tmp_path / "results"
        json.dumps(profile.chapters, allow_nan=False)


@few
@given(trees(st.none() | st.booleans() | numbers | st.text()))
def test_json_comes_back_and_half_of_it_does_not(tmp_path, tree):
    text = json.dumps(tree)
    (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") == tree
    (tmp_path / "a.json").write_text("[" + text)
    with pytest.raises(ValueError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


# --- annotations ------------------------------------------------------------------------------------------------------


@few
@given(st.data())
def test_a_data_set_with_anything_anywhere_is_read_or_refused(tmp_path, data):
    good = dataset()
    part = data.draw(st.sampled_from(["instances", "captions"]))
    content = changed(good[part], data.draw(st.sampled_from(places(good[part]))), data.draw(anything))
    folder = saved(tmp_path, good | {part: content})
    try:
        read = everything(folder)
    except (ValueError, OSError) as error:
        assert str(folder) in str(error)
    else:
        for _, captions, objects in read:
            assert all(is_plain(caption.replace("\n", "")) for caption in captions)
            assert all(thing.mask.dtype == bool for thing in objects)


@few
@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_run_lengths_are_pycocotools(height, width, chance):
    mask = np.array([[chance.random() < 0.4 for _ in range(width)] for _ in range(height)])
    packed = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = run_lengths(packed["counts"].decode("ascii"))
    assert runs.sum() == mask.size
    assert np.array_equal(
        mask_of({"size": [height, width], "counts": packed["counts"].decode()}, (height, width)), mask
    )
    assert np.array_equal(mask_of({"size": [height, width], "counts": runs.tolist()}, (height, width)), mask)


@few
@given(st.one_of(texts, st.text(st.characters(min_codepoint=48, max_codepoint=111)), st.lists(st.integers())))
def test_any_run_lengths_cover_the_image_or_are_refused(counts):
    with suppress(ValueError, OverflowError):
        assert mask_of({"size": [4, 6], "counts": counts}, (4, 6)).shape == (4, 6)


@few
@given(st.lists(st.lists(st.floats() | st.integers(-60, 60), max_size=9), max_size=3))
def test_any_polygons_are_filled_or_refused(corners):
    with suppress(ValueError):
        assert mask_of(corners, (20, 30)).shape == (20, 30)


# --- files of weights, images and results -----------------------------------------------------------------------------


def spoilt(good, data):
    """`good` with some bytes changed, and perhaps cut."""
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    return bytes(content[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else content)


@few
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
@pytest.mark.filterwarnings("ignore")
def test_spoilt_images_are_read_or_refused(tmp_path, kind, data):
    (tmp_path / "a").write_bytes(spoilt(noise(kind), data))
    try:
        assert read_image(tmp_path / "a").mode == "RGB"
    except OSError as error:
        assert str(tmp_path / "a") in str(error)


@few
@given(st.data(), st.sampled_from(["p.safetensors", "p.ckpt"]))
@pytest.mark.filterwarnings("ignore")
def test_spoilt_weights_are_read_or_refused(tmp_path, data, name):
    file = replicas.save_projection(tmp_path / name, d_vision=2, d_model=2)
    file.write_bytes(spoilt(file.read_bytes(), data))
    try:
        assert all(tensor.nbytes <= file.stat().st_size for tensor in load_tensors(file).values())
    except WeightsError as error:
        assert name in str(error)


@few
@given(st.one_of(st.binary(max_size=100), anything.map(lambda tree: json.dumps(tree).encode())))
def test_any_list_of_checksums_lets_nothing_pass(tmp_path, content):
    replicas.save_projection(tmp_path / "projection/proj.safetensors", d_vision=2, d_model=2)
    (tmp_path / "checksums.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"checksums\.json|weights missing|wrong checksum"):
        verify_folder(tmp_path / "projection")


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    monkeypatch.setenv(results.ROOT_VARIABLE, str(tmp_path))
    for variable in (results.STAGING_VARIABLE, results.CHAPTER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return results.Chapter("tiny", "01_first")


values = st.none() | st.floats() | st.integers() | texts | st.lists(st.integers(), max_size=2)


@few
@given(st.just("a.b") | texts, values, values, values, values)
def test_any_number_is_recorded_or_refused_and_the_file_stays_whole(chapter, key, value, low, high, n):
    with suppress(ValueError, TypeError):
        chapter.number(key, value, low=low, high=high, n=n)
    for record in (results.load("tiny", "01_first", "numbers") if chapter.folder.exists() else {}).values():
        assert isinstance(record["value"], (int, float))


@few
@given(st.sampled_from(["numbers.json", "scores.parquet"]), st.data())
def test_spoilt_results_are_read_or_refused(chapter, name, data):
    chapter.number("a.b", 1)
    chapter.table(pd.DataFrame({"a": [1.0, 2.0]}), "scores")
    path = chapter.folder / name
    path.write_bytes(spoilt(path.read_bytes(), data))
    try:
        results.load("tiny", "01_first", path.stem)
    except ValueError as error:
        assert name in str(error) and "notebooks/01_first.ipynb" in str(error)


# --- what tokens and captions say, to the letter ----------------------------------------------------------------------


class Read(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.names = set(), "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.names += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


@few
@given(texts)
def test_tables_in_notebooks_show_texts_to_the_letter(text):
    with pd.option_context("display.html.use_mathjax", True), matplotlib.rc_context():
        plots.use_style()
        page = pd.DataFrame({"token": [text]}).to_html()
    read = Read(page)
    assert read.tags == TABLE and not {n for n in read.names if n[:2] == "on"}
    assert "mathjax_ignore" in page


TABLE = {"table", "thead", "tr", "th", "tbody", "td"}
markdown = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin).use(myst_role_plugin)


@few
@given(texts)
def test_markdown_shows_texts_to_the_letter(text):
    page = markdown.render(f"| a | b |\n| --- | --- |\n| {as_markdown(text)} | end |\n")
    read = Read(page)
    assert read.tags == TABLE and not read.names
    shown = as_visible(" ".join(text.splitlines()))
    assert "".join(read.text.split()) == "".join(f"ab{shown}end".split())


@few
@given(texts)
def test_the_status_page_shows_units_to_the_letter(tmp_path, unit):
    record = {"value": 1.0, "low": None, "high": None, "n": 3, "unit": unit, "paper": None, "chapter": "01_first"}
    (tmp_path / "numbers.json").write_bytes(results.as_json({"a.b": record}).encode("utf-8", "replace"))
    profile = SimpleNamespace(name="tiny", seed=0, chapters={}, sources=dict)
    numbers = read_json(tmp_path / "numbers.json")
    page = Read(markdown.render(pages.status(profile, {}, numbers) + paper_numbers.page([], numbers, "tiny", {})))
    assert page.tags <= {"h1", "h2", "p", "code", "ul", "li", "em", "strong", *TABLE}
    shown = as_visible(" ".join(unit.encode("utf-8", "replace").decode().splitlines()))
    assert "".join(f"a.b1{shown}3".split()) in "".join(page.text.split())


@some
@pytest.mark.filterwarnings("ignore:Glyph")
@given(st.lists(texts, min_size=1, max_size=3))
def test_figures_show_texts_to_the_letter(chapter, words):
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(4, 2))
        ax = figure.subplots()
        words = [word.encode("utf-8", "replace").decode() for word in words]
        for place, word in enumerate(words):
            ax.text(0, place / 3, word)
        ax.set_yticks(range(len(words)), words)
        chapter.figure(figure, "words", kind="svg")
    root = ElementTree.parse(chapter.folder / "words.svg")
    seen = "".join("".join(root.getroot().itertext()).split())
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    for word in words:
        for line in as_visible(word).split("\n"):
            assert "".join(line.split()) in seen


@some
@given(texts, st.sampled_from(["dog", "x", "", "$", "traffic light", "é", "a_b"]), texts)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_caption_can_have_a_word_in_bold(caption, noun, token):
    panel = {"title": caption, "image": np.zeros((4, 4, 3)), "activity": np.eye(4), "lines": [token]}
    with matplotlib.rc_context(plots.STYLE):
        figure = neuron_plots.image_panels([panel | {"caption": neuron_plots.in_bold(f"a {noun}, {caption}", noun)}])
        figure.savefig(io.BytesIO(), format="png", dpi=30)
        plots.plt.close(figure)


def test_dollars_in_captions_and_tokens_are_dollars_where_a_word_is_bold():
    panel = {"title": "", "image": np.zeros((4, 4, 3)), "activity": np.eye(4), "lines": ["L1.1  $, $$"]}
    panel["caption"] = neuron_plots.in_bold("a dog for $5 or $6", "dog")
    with matplotlib.rc_context(plots.STYLE):
        figure = neuron_plots.image_panels([panel])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
    text = "".join("".join(ElementTree.fromstring(buffer.getvalue()).itertext()).split())
    assert text.count("$") == 5 and "for$5or$6" in text and "dog" in text and "bf" not in text


def test_the_bombs_are_small_files():
    assert len(IMAGES["a bomb of pixels"]) < 200 and len(IMAGES["a bomb of words"]) < 200_000
    assert struct.unpack(">II", IMAGES["a bomb of pixels"][16:24]) == (60_000, 60_000)
