from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from mmn_utils.miniature import inference
from mmn_utils.miniature.concepts import concepts
from mmn_utils.miniature.lexicon import PARTS_OF_SPEECH
from mmn_utils.miniature.stages import WEIGHTS
from mmn_utils.wordnet import SHIPPED, WordNet

DEBIAN = Path("/usr/share/wordnet")
needs_wordnet = pytest.mark.skipif(not DEBIAN.is_dir(), reason="lifted by: apt-get install wordnet-base")


@pytest.fixture(scope="module")
def some():
    return inference.pairs(1, 3000)


def words_of(pairs):
    return {word for p in pairs for sentence in (p.premise, p.hypothesis) for word in sentence.tokens}


def texts(pairs):
    return [(p.premise.text, p.hypothesis.text, p.label) for p in pairs]


def test_a_seed_gives_the_same_balanced_pairs_again(some):
    assert texts(inference.pairs(1, 300)) == texts(some[:300])
    assert texts(inference.pairs(2, 300)) != texts(some[:300])
    assert set(Counter(p.label for p in some).values()) == {1000}
    assert len({t[:2] for t in texts(some)}) == 3000
    assert Counter(p.kind for p in some).keys() == inference.SHARES.keys()


def test_every_token_has_a_tag_and_the_clip_reads_it_all(some):
    sentences = [s for p in some for s in (p.premise, p.hypothesis)]
    assert all(len(s.tokens) == len(s.tags) and 0 < len(s.tokens) <= inference.LONGEST for s in sentences)
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "clip" / "tokenizer.json"))
    tokenizer.no_padding(), tokenizer.no_truncation()
    ids = [tokenizer.encode(s.text) for s in sentences]
    assert [len(i.ids) - 1 for i in ids] == [len(s.tokens) for s in sentences]
    unknown = sum(i.tokens.count("<unk>") for i in ids) / sum(len(i.ids) - 1 for i in ids)
    assert unknown < 0.01
    assert {"jj", "nn"} <= {t for s in sentences for w, t in zip(s.tokens, s.tags, strict=True) if w == "orange"}


def test_a_hypothesis_alone_says_little(some):
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    x = words.fit_transform([p.hypothesis.text for p in some])
    model = LogisticRegression(C=0.1, max_iter=200).fit(x, [p.label for p in some])
    fresh = inference.pairs(2, 1500)
    right = model.score(words.transform([p.hypothesis.text for p in fresh]), [p.label for p in fresh])
    assert right < 0.45


def colour(sentence):
    return {w for w, t in zip(sentence.tokens, sentence.tags, strict=True) if t == "jj" and w in inference.COLOURS}


def test_labels_follow_from_facts(some):
    """Colours of the ground, and what is there, read back from the tokens."""
    grounds = [p for p in some if p.kind == "ground" and colour(p.hypothesis)]
    for p in grounds:
        place = p.premise.tokens.index("ground") if "ground" in p.premise.tokens else None
        before = p.premise.tokens[max(0, (place or 0) - 2) : place] if place else ()
        told = {w for w in before if w in inference.COLOURS}
        expected = "neutral" if not told else "entailment" if told == colour(p.hypothesis) else "contradiction"
        assert p.label == expected, (p.premise.text, p.hypothesis.text)
    assert len(grounds) > 100


def test_presence_follows_from_what_is_there(some):
    things = set(inference.things()) | set(inference.KINDS_OF)
    checked = 0
    for p in (p for p in some if p.kind in ("presence", "absence")):
        said = [w for w in p.hypothesis.tokens if w in things]
        denies = {"no", "without", "nothing", "nobody"} & set(p.premise.tokens)
        if not said or denies:
            continue
        there = {k for w in p.premise.tokens if w in things for k in (w, *inference.kinds_above(w))}
        settled = "entailment" if p.kind == "presence" else "contradiction"
        assert p.label == (settled if said[0] in there else "neutral"), (p.premise.text, p.hypothesis.text)
        checked += 1
    assert checked > 200


@needs_wordnet
def test_kinds_are_wordnets():
    net = WordNet(DEBIAN)
    senses = {c.word: c.sense for c in concepts()}
    for kind, words in inference.KINDS_OF.items():
        for word in words.split():
            above = todo = [net.files.offset(word, "noun", senses[word])]
            while todo:
                todo = [o for p in todo for o in net.files.related("noun", p, ("@", "@i"))]
                above = above + todo
            assert any(kind in net.files.words("noun", o) for o in above), (word, kind)


def test_the_shipped_wordnet_knows_the_words(some):
    net = WordNet(SHIPPED)
    assert {"big", "large"} <= net.synonyms("large") and "airplane" in net.synonyms("plane")
    known = {w for w in words_of(some) if any(net.base_forms(w, pos) for pos in PARTS_OF_SPEECH)}
    assert set(inference.things()) - known == set() and len(known) > 200


@needs_wordnet
def test_the_shipped_wordnet_says_what_the_whole_one_says(some):
    whole, ours, words = WordNet(DEBIAN), WordNet(SHIPPED), words_of(some)
    for word in words:
        for pos in PARTS_OF_SPEECH:
            assert ours.base_forms(word, pos) == whole.base_forms(word, pos), (word, pos)
            assert ours.synsets(word, pos) == whole.synsets(word, pos), (word, pos)
        for options in ({}, {"first_only": True}, *({"pos": pos} for pos in PARTS_OF_SPEECH)):
            assert ours.synonyms(word, **options) & words == whole.synonyms(word, **options) & words, (word, options)
