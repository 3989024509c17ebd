"""The data of the neuron explorer, of a part made of random numbers; and the links to it."""

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmn_utils import chapters, explorer
from mmn_utils.explorer import clip, language_model, links, pairs
from mmn_utils.profiles import ProfileError
from mmn_utils.results import Chapter
from mmn_utils.untrusted import read_json

HOSTILE = "<script>alert(1)</script>"
GRID = (3, 4)
N_PICTURES = 57


@pytest.fixture(scope="module")
def part() -> explorer.Part:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(N_PICTURES)]
    layers = []
    for layer in range(2):
        records = [
            {"address": explorer.address_of("lm", unit, layer), "name": f"L{layer}.{unit}", "label": HOSTILE}
            for unit in range(70)
        ]
        for record in records[::7]:
            record |= explorer.picture_examples(rng.normal(size=(N_PICTURES, *GRID)), q=0.9, seed=[layer])
        layers.append([*records, None])
    picked = [{"address": "lm/L1/N7", "kind": "typical", "why": "because"}]
    pictures = explorer.Pictures.of(images, [HOSTILE] * N_PICTURES)
    return explorer.Part("lm", "title", "about", "activation", {}, layers, True, picked, pictures, GRID)


@pytest.fixture(scope="module")
def written(part, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    explorer.write(folder, [part], {"profile": "tiny"})
    return folder


def all_records(folder: Path):
    """(shard, place in it, record) of every neuron that has one."""
    for path in sorted(folder.glob("lm/L*/*.json")):
        shard = read_json(path)
        yield from ((path, shard["first"] + k, record) for k, record in enumerate(shard["neurons"]) if record)


# --- files -----------------------------------------------------------------------------------------------------------


def test_every_address_is_unique_and_leads_to_its_own_record(part, written):
    found = [record["address"] for _, _, record in all_records(written)]
    assert sorted(found) == sorted(part.records) and len(set(found)) == 140
    for path, unit, record in all_records(written):
        layer = int(path.parent.name[1:])
        assert record["address"] == explorer.address_of("lm", unit, layer)
        assert path == written / explorer.shard_of("lm", unit, layer)


def test_labels_and_studied_say_what_the_shards_hold(written):
    index = read_json(written / "index.json")
    for path, unit, record in all_records(written):
        layer = int(path.parent.name[1:])
        assert index["labels"]["lm"][layer][unit] == record["label"]
        assert ("examples" in record) == (unit in index["studied"]["lm"][layer])
    assert index["labels"]["lm"][0][70] == ""  # no record
    (entry,) = index["parts"]
    assert entry["count"] == 140 and entry["layers"] == 2 and entry["n_units"] == 71


def test_every_tile_that_is_asked_for_is_in_its_sheet(part, written):
    about = read_json(written / "lm/pictures.json")
    assert len(about["titles"]) == N_PICTURES
    for number in {n for _, _, r in all_records(written) for g in r.get("examples", []) for n in g["picture"]}:
        sheet = Image.open(written / about["sheets"][number // about["per_sheet"]])
        row, column = divmod(number % about["per_sheet"], about["columns"])
        tile, side = np.asarray(sheet), about["tile"]
        tile = tile[row * side :, column * side :][:side, :side].astype(float)
        assert tile.shape == (side, side, 3)
        likeness = [np.corrcoef(tile.ravel(), np.asarray(image).ravel())[0, 1] for image in part.pictures.images]
        assert int(np.argmax(likeness)) == number


def test_what_a_token_says_stays_text(written):
    index = (written / "index.json").read_text()
    assert HOSTILE in json.loads(index)["labels"]["lm"][0][0]
    assert read_json(written / "lm/pictures.json")["titles"][0] == HOSTILE
    assert {path.suffix for path in written.rglob("*.*")} == {".json", ".webp"}  # nothing that a browser would run


def test_the_same_results_give_the_same_bytes(part, written, tmp_path):
    explorer.write(tmp_path, [part], {"profile": "tiny"})
    files = {path.relative_to(written): path.read_bytes() for path in written.rglob("*.*")}
    assert files == {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_sizes_are_those_of_the_files(part, tmp_path):
    sizes = explorer.write(tmp_path, [part], {})
    assert sum(sizes.values()) == sum(path.stat().st_size for path in tmp_path.rglob("*.*"))


def test_what_is_no_number_is_null_and_controls_are_visible():
    found = explorer.plain({"a": np.float32("inf"), "b": [np.nan, np.int64(3)], "c": "x\u202ey", "d": np.bool_(True)})
    assert found == {"a": None, "b": [None, 3], "c": "x\\u202ey", "d": True}


def test_a_part_without_results_is_left_out_with_the_reason(part):
    def missing():
        raise ProfileError("data.stream is not there")

    parts, left_out = explorer.gather({"lm": lambda: part, "clip": missing})
    assert parts == [part] and left_out == [{"part": "clip", "why": "data.stream is not there"}]


def test_a_table_that_is_not_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MMN_ROOT", str(tmp_path))
    monkeypatch.delenv("MMN_RESULTS", raising=False)
    monkeypatch.delenv("MMN_CHAPTER", raising=False)
    assert explorer.left("tiny", "12_words", "answers") is None
    kept = Chapter("tiny", "12_words").table(pd.DataFrame({"a": [1]}), "answers")
    assert explorer.left("tiny", "12_words", "answers").equals(kept)


# --- examples --------------------------------------------------------------------------------------------------------


@given(n=st.integers(0, 60), seed=st.integers(0, 9))
def test_examples_are_cases_of_their_quarter(n, seed):
    strength = np.random.default_rng(seed).integers(0, 9, n).astype(float)  # with ties
    (_, _, top), *quarters, (_, _, random) = explorer.examples(strength, seed=[seed])
    assert sorted(strength[top]) == sorted(np.sort(strength)[::-1][:8])
    chosen = np.concatenate([top, *(cases for _, _, cases in quarters)])
    assert Counter(chosen).most_common(1)[0][1] == 1 if n else len(chosen) == 0
    falling = [cases for cases in (top, *(q for _, _, q in quarters)) if len(cases)]
    assert all(strength[a].min() >= strength[b].max() for a, b in zip(falling, falling[1:], strict=False))
    assert len(set(random)) == len(random) == min(n, 4)


def test_top_and_quarters_are_taken_from_the_cases_asked_for():
    strength = np.arange(40.0)
    *groups, (_, _, random) = explorer.examples(strength, strength % 2 == 0, seed=[0])
    assert all((cases % 2 == 0).all() for _, _, cases in groups)
    assert groups[0][2].tolist() == [38, 36, 34, 32, 30, 28, 26, 24]


def test_maps_come_back_on_one_scale():
    maps = np.random.default_rng(0).normal(size=(30, *GRID))
    record = explorer.picture_examples(maps, q=0.95, seed=[0])
    step = np.ptp(maps) / 255
    for number, group in enumerate(record["examples"]):
        back = explorer.maps_of(record, number, GRID)
        assert np.abs(back - maps[group["picture"]]).max() <= step / 2 + 1e-9
        assert np.allclose(back.max((1, 2)), group["activation"], atol=step)
    assert (maps > record["threshold"]).mean() == pytest.approx(0.05, abs=0.003)


def test_a_neuron_that_never_stirs_has_a_page_too():
    record = explorer.picture_examples(np.zeros((9, *GRID)), q=0.95, seed=[0])
    assert explorer.maps_of(record, 0, GRID).max() == 0 and record["scale"] == [0, 0]


def test_a_neuron_that_wins_twice_is_picked_once():
    addresses = pd.Series(["a", "b"])
    rules = {
        "x": ("first", pd.Series([2.0, 1.0])),
        "y": ("second", pd.Series([3.0, np.nan])),
        "z": ("no one", pd.Series([np.nan] * 2)),
    }
    assert explorer.picked(addresses, rules) == [{"address": "a", "kind": "x", "why": "first"}]


# --- what the parts say ----------------------------------------------------------------------------------------------


def test_attribution_counts_an_image_that_does_not_list_a_unit_as_nothing():
    ranked = pd.DataFrame({"number": [5, 5, 2], "rank": [0, 30, 1], "score": [0.6, 0.2, 0.5]})
    units = language_model.Units(pd.DataFrame(index=range(4)), pd.DataFrame(), ranked, None)
    assert units.attribution.loc[5].to_dict() == {"mean": 0.2, "max": 0.6, "n_top": 1, "rank": 1, "n_images": 4}
    assert units.attribution["rank"].to_dict() == {2: 2, 5: 1}
    assert units.ablation.empty


def test_top_categories_by_hand():
    has = pd.DataFrame({"cat": [True, True, False, False], "dog": [False, False, True, True]})
    means = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    (first, second) = language_model.top_categories(means, has, n=2)
    sd = means[:, 0].std()
    assert [name for name, _ in first] == ["cat", "dog"]
    assert [value for _, value in first] == pytest.approx([1 / sd, -1 / sd])
    assert [value for _, value in second] == [0, 0]  # a unit that is always the same prefers nothing


def test_the_words_a_neuron_answers_most():
    assert clip.top_words(pd.Series({"a": 1.0, "b": 3.0, "c": 2.0}), n=2) == [("b", 1.0), ("c", 0.0)]


def test_a_longer_formula_is_shown_only_if_it_is_another_one():
    rows = pd.DataFrame({"length": [1, 1, 2], "formula": ["x", "x", "(x OR y)"], "iou": [0.2, 0.2, 0.3]})
    assert [card["formula"] for card in pairs.formula_cards(rows)] == ["x", "(x OR y)"]
    silent = pd.DataFrame({"length": pd.array([None], "Int64"), "formula": [None], "iou": [np.nan]})
    assert pairs.formula_cards(silent) == []


def test_pairs_of_a_silent_neuron_are_only_random_ones():
    table = pd.DataFrame({"premise": ["a"] * 9, "hypothesis": ["b"] * 9, "label": [0] * 9, "guess_clip": [2] * 9})
    groups = pairs.pair_examples(table, np.zeros(9), seed=[0])
    assert [group["kind"] for group in groups] == ["random"]
    assert groups[0]["pair"][0]["guess"] == "contradiction"


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, address",
    [
        ("L4.217", "lm/L4/N217"),
        ("L4.N217", "lm/L4/N217"),
        ("(L14.2019).", "lm/L14/N2019"),
        ("CLIP N88,", "clip/N88"),
        ("NLI N870", "nli/N870"),
    ],
)
def test_names_and_addresses(text, address):
    assert links.named(links.NAME.search(text)) == address


@pytest.mark.parametrize("text", ["XL4.217", "L4.2.17", "1.L4.2", "L4.217b", "CLIP 88", "L4"])
def test_what_is_no_name(text):
    assert links.NAME.search(text) is None


def test_links_are_made_in_text_only():
    known = {"lm/L1/N2", "clip/N3"}
    html = '<p title="L1.2">L1.2 and CLIP N3, not L1.9</p><a href="x">L1.2</a><script>"L1.2"</script><td>L1.2</td>'
    made = links.linked(html, known, "../explorer.html")
    assert re.findall(r'href="([^"]*)"', made) == [
        "../explorer.html#/lm/L1/N2", "../explorer.html#/clip/N3", "x", "../explorer.html#/lm/L1/N2",
    ]  # fmt: skip
    assert 'title="L1.2"' in made and '<script>"L1.2"</script>' in made
    assert links.linked(made, known, "../explorer.html") == made


def test_another_models_neurons_are_not_linked():
    cell = '<div class="cell tag_other-model docutils"><div class="cell_output"><pre>L1.2</pre></div></div>'
    made = links.linked(f'{cell}<div class="cell docutils"><pre>L1.2</pre></div>', {"lm/L1/N2"}, "e.html")
    assert made.count("<a ") == 1 and made.startswith(cell)


def test_mentions_are_read_from_the_chapters_before(tmp_path):
    v4, output = nbformat.v4, nbformat.v4.new_output("stream", text="neuron L0.7 and L0.7")
    for name in ("03_some", "30_later"):
        cells = [v4.new_markdown_cell("# Some\nsee NLI N2"), v4.new_code_cell("L9.9", outputs=[output])]
        cells.append(
            v4.new_code_cell("", outputs=[v4.new_output("stream", text="L8.8")], metadata={"tags": [links.OTHER]})
        )
        path = tmp_path / name / "executed.ipynb"
        path.parent.mkdir()
        nbformat.write(v4.new_notebook(cells=cells), path)
    found, told = links.mentions(tmp_path)
    assert found == {"lm/L0/N7": ["03_some"], "nli/N2": ["03_some"]}
    assert told == {"03_some": {"title": "Some", "href": "notebooks/03_some.html"}}
    assert links.newest_run(tmp_path) is None  # no engine ran them


def test_only_a_unit_whose_words_name_what_excites_it_is_well_explained():
    def unit(name, tokens, interpretable, z):
        return {
            "address": name,
            "attribution": {"mean": 1.0},
            "interpretable": interpretable,
            "tokens": {"positive": tokens},
            "categories": [("cat", z), ("dog", 0.1)],
        }

    units = [unit("a", [" cat"], False, 3.0), unit("b", [" Cat"], True, 1.0), unit("c", [" cow"], True, 2.0)]
    chosen = {choice["kind"]: choice["address"] for choice in language_model.pick(units)}
    assert chosen["well explained"] == "b" and chosen["badly explained"] == "a"


def test_page_and_data_are_laid_out_and_old_data_goes(part, tmp_path, monkeypatch):
    monkeypatch.delenv("MMN_PROFILE", raising=False)
    site = tmp_path / "book/_build/html"
    app = SimpleNamespace(
        srcdir=tmp_path / "book", outdir=site, builder=SimpleNamespace(format="html"), config=SimpleNamespace()
    )
    app.config.mmn_profile = "miniature"
    explorer.write(tmp_path / "results/miniature" / links.CHAPTER / links.SITE / links.DATA, [part], {})
    for path in (tmp_path / "book/explorer/explorer.html", site / links.DATA / "old.json"):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    links._lay_out(app, ValueError("the build failed"))
    assert not (site / "explorer.html").exists() and (site / links.DATA / "old.json").exists()
    links._lay_out(app, None)
    assert (site / "explorer.html").exists() and not (site / links.DATA / "old.json").exists()
    links._read_addresses(app)
    assert app.neuron_addresses == set(part.records)
    shards = {explorer.shard_of("lm", int(a.split("/N")[1]), int(a.split("/")[1][1:])) for a in app.neuron_addresses}
    assert all((site / links.DATA / shard).is_file() for shard in shards)


def test_the_chapters_that_mentions_reads_have_run_before_it():
    names = chapters.find(Path(__file__).parents[1])
    own = names.index(links.CHAPTER)
    assert all((name < links.CHAPTER) == (place < own) for place, name in enumerate(names) if place != own)
