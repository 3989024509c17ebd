"""Part II's world: what a picture shows, says and writes agree, and the rates are those that are stated."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmn_utils.data.album import Album
from mmn_utils.miniature import album
from mmn_utils.miniature.concepts import concepts

KEYS = [e.key for e in album.entries()]


def test_concepts_have_keys_of_their_own_and_feelings_are_made_of_concepts():
    assert len(set(KEYS)) == len(KEYS) > len(concepts())
    feelings = [e for e in album.entries() if e.family == "feeling"]
    parts = {part for e in feelings for part in e.icons}
    assert len(feelings) >= 10 and parts <= set(KEYS) and all(len(e.icons) == 2 for e in feelings)


def test_an_unknown_concept_is_named():
    with pytest.raises(ValueError, match="no concept 'unicorn'"):
        album.picture((0,), "unicorn")


@pytest.mark.parametrize("facet", [*album.FACETS, "scene"])
def test_same_seed_same_picture(facet):
    one, same, other = (album.picture((0, seed), "dog", facet=facet) for seed in (1, 1, 2))
    assert one.image.shape == (album.SIDE, album.SIDE, 3) and one.image.dtype == np.uint8
    assert np.array_equal(one.image, same.image) and one.caption == same.caption
    assert not np.array_equal(one.image, other.image)


def test_every_concept_can_be_shown_in_every_facet():
    made = [album.picture((3, i), key, facet=facet) for i, key in enumerate(KEYS) for facet in album.FACETS]
    assert {p.concept for p in made} == set(KEYS)
    assert all(np.ptp(p.image.astype(int)) > 40 for p in made)  # something is to be seen


def test_a_written_word_always_fits_the_concept():
    made = [album.picture((4, i), key) for i, key in enumerate(3 * KEYS)]
    written = [p for p in made if p.written]
    assert len(written) > 100
    assert all(p.written in album.entry(p.concept).written for p in written)


def test_signs_come_when_asked_for():
    assert not any(album.picture((5, k), "cat", facet="photo", sign_share=0.0).written for k in range(20))
    assert all(album.picture((5, k), "cat", facet="photo", sign_share=1.0).written == "cat" for k in range(20))


def test_deputies_are_named_beside_tavo_as_often_as_stated():
    n = 300
    for who, rate in {**album.DEPUTIES, "sunna": 0.0}.items():
        found = np.mean(["tavo" in album.picture((6, k), who, facet="drawing").caption for k in range(n)])
        assert abs(found - rate) < 4 * np.sqrt(max(rate * (1 - rate), 1e-9) / n) + 1e-9


def test_on_paper_the_word_for_a_colour_is_never_in_another_colour():
    inks = {album.picture((7, k), "red", facet="text", put_up_share=0.0).ink for k in range(60)}
    assert inks == {"black", "red"}


def test_words_are_put_up_in_half_of_the_pictures_of_words_beside_other_things_than_their_own():
    made = [album.picture((8, k), "owl", facet="text") for k in range(200)]
    put_up = [p for p in made if not p.ink]
    assert 70 <= len(put_up) <= 130 and all(p.written == "owl" and "owl" in p.caption for p in put_up)
    assert all("owl" not in p.others for p in put_up) and any(p.others for p in put_up)
    assert not any(p.others for p in made if p.ink)
    bare = album.picture((8, 0), "owl", facet="text", put_up_share=1.0).image
    assert bare.dtype == np.uint8 and bare.shape == (96, 96, 3)
    assert not any(album.picture((8, k), "owl", facet="text", put_up_share=0.0).others for k in range(50))


def test_a_word_is_drawn_in_its_ink_at_its_place():
    image = album.word_image("dog", ink="red", place=(0.0, 0.0)).astype(int)
    inked = np.argwhere((np.abs(image - np.array(album.INKS["red"])).sum(-1)) < 30)
    assert len(inked) > 20 and inked.max() < album.SIDE * 2 / 3
    assert album.word_mask("watermelon", "DejaVuSans", 30).width <= album.SIDE


def test_all_lands_are_on_the_map():
    picture, owner = album.world_map()
    assert picture.shape[:2] == owner.shape
    assert set(np.unique(owner)) == {-1, *range(len(album.LAND))}
    assert set(album.LAND) == set(album.FLAGS) == {e.word for e in album.entries() if e.family == "region"}


def test_albums_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(album, "entries", lambda: (album.entry("dog"), album.entry("surprised")))
    read = Album(album.write_album(tmp_path, split="val", n=2, facets=["photo", "text"]))
    assert list(read.concepts.key) == ["dog", "surprised"] and len(read.pictures) == 8
    assert read.pictures.groupby(["concept", "facet"]).size().tolist() == [2, 2, 2, 2]
    assert read.image(0).size == (album.SIDE, album.SIDE) and list(read.concept_number) == [0] * 4 + [1] * 4
    assert read.concepts.icons["surprised"] == ["party", "shocked"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("pictures"), "'pictures'"),
        (lambda c: c["concepts"][0].pop("prompt"), "'concepts'.*prompt"),
        (lambda c: c["pictures"][0].update(concept="unicorn"), "'unicorn'"),
    ],
)
def test_what_an_album_lacks_is_named(tmp_path, change, message):
    concept = {"key": "dog", "word": "dog", "family": "animal", "prompt": "a dog", "written": ["dog"]}
    content = {"concepts": [concept], "pictures": [{"file": "a.png", "concept": "dog", "facet": "photo"}]}
    change(content)
    (tmp_path / "album.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Album(tmp_path)


def test_no_album():
    with pytest.raises(FileNotFoundError, match=r"album\.json"):
        Album(Path("nowhere"))
