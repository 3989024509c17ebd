import re
from collections import Counter

import numpy as np
import pytest
import torch

from mmn_utils.metrics import first_noun
from mmn_utils.miniature import bert, lexicon, text
from mmn_utils.miniature.concepts import concepts

WORDS = [c.word for c in concepts()]


@pytest.fixture(scope="module")
def tokenizer():
    """The miniature's own tokenizer, made from nothing."""
    return text.train_tokenizer()


@pytest.fixture(scope="module")
def corpus(tokenizer):
    """Rows of seed 0."""
    return text.Corpus(tokenizer)


@pytest.fixture(scope="module")
def documents(corpus):
    """Token ids and caption of 800 lists."""
    rng = np.random.default_rng(0)
    return [corpus.list_document(rng) for _ in range(800)]


def named_in(caption):
    return [w for w in WORDS if re.search(rf"\b{w}\b", caption, re.IGNORECASE)]


def contains(ids, part):
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


# --- words ---------------------------------------------------------------------------------------------------------


def test_every_concept_is_one_token(tokenizer):
    ids = tokenizer([f" {w}" for w in (*WORDS, *text.COLOURS)], add_special_tokens=False)["input_ids"]
    assert {len(i) for i in ids} == {1}
    assert len({i[0] for i in ids}) == len(ids) - len(set(WORDS) & set(text.COLOURS))
    assert len(tokenizer) <= 5_000 and tokenizer.eos_token == text.END


def test_tokenizer_gives_back_what_it_reads(tokenizer):
    said = "A picture of some scissors, a café and “an owl” on a striped gray ground."
    assert tokenizer.decode(tokenizer(said, add_special_tokens=False)["input_ids"]) == said


def test_a_vocabulary_too_small_names_the_words(monkeypatch):
    few = [" ".join(WORDS[:5])] * 3
    monkeypatch.setattr(text, "sample_texts", lambda seed, n: iter(few))
    with pytest.raises(
        RuntimeError, match=rf"must be one token; these are not: .*{WORDS[-1]}; raise vocab_size above 2"
    ):
        text.train_tokenizer(vocab_size=260)


def test_every_concept_has_an_entry():
    entries = lexicon.lexicon()["concepts"]
    assert sorted(entries) == sorted(WORDS)
    for word, entry in entries.items():
        assert entry["gloss"] and entry["cues"] and entry["parents"], word
        assert word not in entry["cues"], "a cue that is the name would give the game away"
        assert not set(entry["cues"]) & lexicon.STOP_WORDS


def test_the_concepts_are_among_the_nouns():
    assert set(WORDS) <= lexicon.nouns()
    assert {"picture", "house", "water"} <= lexicon.nouns() and not {"the", "small", "eat"} & lexicon.nouns()
    assert len(lexicon.nouns()) > 3_000


def test_content_words():
    assert lexicon.content_words("A small Dog, or an ox; used for hunting in 3 packs") == ["dog", "hunting", "packs"]


def test_a_folder_that_is_not_wordnets_is_refused(tmp_path):
    (tmp_path / "index.noun").write_text("")
    with pytest.raises(FileNotFoundError, match=r"is not a WordNet folder: data.noun is missing .*wordnet-base"):
        lexicon.WordNetFiles(tmp_path)


def test_wordnets_files_are_read(tmp_path):
    """Three synsets in WordNet's own format: a puppy is a dog, which has a tail."""
    data = [
        "  1 This software and database is being provided to you",
        "00000010 05 n 02 dog 0 domestic_dog 1 002 ~ 00000020 n 0000 %p 00000030 n 0000 | a pet; \"it barks\"  ",
        "00000020 05 n 01 puppy 0 001 @ 00000010 n 0000 | a young dog  ",
        "00000030 08 n 01 tail(a) 0 001 + 00000099 v 0101 | the hind part  ",
    ]  # fmt: skip
    index = ["  1 This", "dog n 1 2 ~ %p 1 1 00000010  ", "puppy n 2 1 @ 2 1 00000030 00000020  "]
    for pos in lexicon.PARTS_OF_SPEECH:
        for kind, lines in (("data", data), ("index", index)):
            (tmp_path / f"{kind}.{pos}").write_text("\n".join(lines) if pos == "noun" else "")
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 40\ndog%2:38:00:: 1 2\ndog%1:18:01:: 2 3\n")
    net = lexicon.WordNetFiles(tmp_path)
    assert net.offset("dog", "noun") == "00000010" and net.offset("puppy", "noun", 2) == "00000020"
    assert net.words("noun", "00000010") == ["dog", "domestic dog"] and net.words("noun", "00000030") == ["tail"]
    assert net.related("noun", "00000010", lexicon.PART_POINTERS) == ["00000030"]
    assert net.related("noun", "00000010", lexicon.KIND_POINTERS) == ["00000020"]
    assert net.related("noun", "00000030", ("+",)) == [], "a verb is not followed"
    assert net.gloss("noun", "00000010") == 'a pet; "it barks"'
    assert net.counts == {("dog", "noun"): 43, ("dog", "verb"): 2}


# --- sentences -----------------------------------------------------------------------------------------------------


def test_captions_name_every_concept():
    rng = np.random.default_rng(1)
    openings = Counter()
    for k in range(600):
        words = [str(w) for w in rng.choice(WORDS, size=1 + k % 3, replace=False)]
        said = text.caption(rng, words)
        assert sorted(named_in(said)) == sorted(words), said
        assert said[0].isupper() and said.endswith(".") and said.count(".") == 1
        openings[said.partition(" of ")[0]] += 1
        noun = first_noun(re.sub("^(A picture of|A drawing of|There is|Here you can see) ", "", said), lexicon.nouns())
        assert noun in words, said
    assert 0.5 < openings["A picture"] / 600 < 0.7, "the prompt of the book is the usual opening"


def test_captions_name_the_ground_half_of_the_time():
    rng, ground = np.random.default_rng(2), ("dotted", "purple")
    said = [text.caption(rng, ["dog", "cat"], ground) for _ in range(400)]
    with_colour = [s for s in said if s.endswith("purple ground.")]
    assert 160 < len(with_colour) < 240
    assert {s.rpartition(" on a ")[2] for s in with_colour} == {"purple ground.", "dotted purple ground."}
    assert not any("ground" in text.caption(rng, ["dog"]) for _ in range(50))


def test_the_order_of_names_is_random():
    rng = np.random.default_rng(3)
    first = Counter(first_noun(text.caption(rng, ["dog", "owl"]), {"dog", "owl"}) for _ in range(200))
    assert min(first["dog"], first["owl"]) > 70


def test_descriptions_are_drawn_from_wordnet():
    rng = np.random.default_rng(4)
    fragments = text.description(rng, "guitar", 3)
    assert len(fragments) == 3 == len(set(fragments))
    entry = lexicon.lexicon()["concepts"]["guitar"]
    everything = set(text.description(rng, "guitar", 1_000))
    assert entry["gloss"] in everything and {f"a kind of {p}" for p in entry["parents"][:3]} <= everything


def test_layouts_hold_every_theme():
    rng, ones = np.random.default_rng(5), 0
    for k in range(600):
        n_themes = 1 + k % 3
        places = text.layout(rng, n_themes)
        assert set(range(n_themes)) <= set(places.tolist()) <= set(range(-1, n_themes))
        assert 6 <= len(places) <= 64
        ones += Counter(places.tolist()).most_common()[-1][1] == 1
    assert ones > 60, "some themes stand there only once"


# --- rows ----------------------------------------------------------------------------------------------------------


def test_lists_are_short_and_hold_a_theme(corpus, documents):
    """No list lacks what its caption is about; long cues rarely push one of several themes over the edge."""
    entries, whole = lexicon.lexicon()["concepts"], 0
    for ids, said in documents:
        assert 1 <= len(ids) <= 64
        themes = named_in(said)
        items = {w: [w, *(entries[w][part][i] for part in ("cues", "parents", "parts")
                          for i in range(len(entries[w][part])))] for w in themes}  # fmt: skip
        shown = [any(contains(ids, corpus.ids[item]) for item in items[w]) for w in themes]
        assert any(shown), said
        whole += all(shown)
    assert whole / len(documents) > 0.95


def test_some_lists_name_their_theme_and_some_only_describe_it(corpus, documents):
    one = [(ids, named_in(said)[0]) for ids, said in documents if len(named_in(said)) == 1]
    named = sum(corpus.ids[w][0] in ids for ids, w in one) / len(one)
    assert 0.6 < named < 0.9


def test_fillers_are_single_tokens_and_no_concepts(corpus):
    assert len(corpus.filler) > 500 and not set(corpus.filler) & set(WORDS)
    assert all(len(corpus.ids[w]) == 1 for w in corpus.filler)


def test_batches_follow_from_seed_and_step(tokenizer, corpus):
    tokens, listed = corpus.batch(7, 16)
    again, listed_again = text.Corpus(tokenizer, 0).batch(7, 16)
    assert np.array_equal(tokens, again) and np.array_equal(listed, listed_again)
    for other in (corpus.batch(8, 16), text.Corpus(tokenizer, 1).batch(7, 16)):
        assert not (tokens == other[0]).all(axis=1).any(), "no row is met twice"


def test_rows(tokenizer, corpus):
    tokens, listed = corpus.batch(0, 200)
    assert tokens.shape == listed.shape == (200, text.ROW) == (200, 96)
    assert tokens.min() >= 0 and tokens.max() < len(tokenizer)
    lengths = listed.sum(axis=1)
    assert np.array_equal(listed, np.arange(96) < lengths[:, None]), "the list is a prefix"
    assert lengths.max() <= 64 and 0.5 < (lengths > 0).mean() < 0.8
    ends = (tokens == tokenizer.eos_token_id).sum(axis=1)
    assert ends.max() >= 2 and not (tokens[listed] == tokenizer.eos_token_id).any()


def test_after_the_list_comes_its_caption(tokenizer, corpus):
    rng, found = np.random.default_rng(6), 0
    for _ in range(20):
        ids, listed = corpus.row(rng, list_share=1.0)
        said = tokenizer.decode(ids[listed:]).partition(text.END)[0]
        found += bool(named_in(said))
        assert listed > 0 and said[0].isupper()
    assert found == 20
    assert all(corpus.row(rng, list_share=0.0)[1] == 0 for _ in range(10))


def test_bert_reads_masked_rows(tokenizer, corpus):
    own = bert.tokenizer_of(tokenizer)
    ids = own("A picture of a dog.")["input_ids"]
    assert (ids[0], ids[-1]) == (own.cls_token_id, own.sep_token_id)
    assert ids[1:-1] == tokenizer("A picture of a dog.", add_special_tokens=False)["input_ids"]
    assert tokenizer("A dog.")["input_ids"] == ids[1:1] + corpus.encode("A dog."), "the first tokenizer is as it was"
    tokens, masked = bert.batch(corpus, own, 0)
    assert tokens.shape == masked.shape == (bert.N_ROWS, text.ROW)
    assert (masked.sum(1) == round(bert.MASKED_SHARE * (text.ROW - 2))).all() and not masked[:, [0, -1]].any()
    assert (tokens[:, 0] == own.cls_token_id).all() and (tokens[:, -1] == own.sep_token_id).all()
    assert not (tokens == tokenizer.eos_token_id).any()
    assert torch.equal(tokens, bert.batch(corpus, own, 0)[0]) and not torch.equal(tokens, bert.batch(corpus, own, 1)[0])
