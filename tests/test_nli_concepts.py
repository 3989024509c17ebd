import os
from pathlib import Path

import numpy as np
import pytest

from mmn_utils import nli_concepts
from mmn_utils.miniature.lexicon import PARTS_OF_SPEECH
from mmn_utils.nli_concepts import pair_concepts, truth_of, wordnet_signs
from mmn_utils.wordnet import WordNet, extract

DEBIAN = Path("/usr/share/wordnet")
SNLI = Path(os.environ.get("MMN_SNLI_DEV") or Path(__file__).parents[2] / "shared" / "data") / "snli_1.0_dev.tok"

PREMISES, HYPOTHESES = (
    [text.split() for text in texts]
    for texts in (
        ("A Man sat outside .", "Men ran .", "The man ran , the dog ran ."),
        ("A man sat outdoors .", "Men ran .", "A puppy sat ."),
    )
)
TAGS = (
    [["DT", "NN", "VBD", "RB", "."], ["NNS", "VBD", "."], ["DT", "NN", "VBD", ",", "DT", "NN", "VBD", "."]],
    [["DT", "NN", "VBD", "RB", "."], ["NNS", "VBD", "."], ["DT", "NN", "VBD", "."]],
)

DATA = {
    "noun": [
        "  1 a licence",
        "00000010 05 n 02 man 0 adult_male 1 000 | a person",
        "00000020 05 n 02 Man 0 outside 0 000 | an island, and a side",
    ],
    "verb": ["00000030 30 v 02 run 0 sit 1 000 | move"],
    "adj": ["00000040 01 s 02 outdoor(a) 0 outside 0 000 | in the open"],
    "adv": ["00000050 02 r 03 outside 0 outdoors 0 out_of_doors 0 000 | in the open"],
}
INDEX = {
    "noun": ["man n 2 0 2 1 00000010 00000020", "outside n 1 0 1 0 00000020"],
    "verb": ["run v 1 0 1 1 00000030", "sit v 1 0 1 1 00000030"],
    "adj": ["outdoor a 1 0 1 0 00000040", "outside a 1 0 1 0 00000040"],
    "adv": ["outside r 1 0 1 0 00000050", "outdoors r 1 0 1 0 00000050"],
}
EXCEPTIONS = {"noun": "men man\n", "verb": "ran run\nsat sit\n", "adj": "", "adv": ""}


@pytest.fixture
def folder(tmp_path):
    """Five synsets in WordNet's own format."""
    for pos in PARTS_OF_SPEECH:
        (tmp_path / f"data.{pos}").write_text("\n".join(DATA[pos]))
        (tmp_path / f"index.{pos}").write_text("\n".join(INDEX[pos]))
        (tmp_path / f"{pos}.exc").write_text(EXCEPTIONS[pos])
    (tmp_path / "cntlist.rev").write_text("")
    return tmp_path


def tagged():
    """(token, tag) of all sentences."""
    tokens, tags = (
        [x for own in sides for sentence in own for x in sentence] for sides in ((PREMISES, HYPOTHESES), TAGS)
    )
    return zip(tokens, tags, strict=True)


def column(found, name):
    return found.truth[:, found.names.index(name)].tolist()


def test_columns_and_their_order():
    found = pair_concepts(PREMISES, HYPOTHESES, tags=TAGS, n_words=3)
    words, tags = ["ran", "man", "sat"], [",", ".", "dt", "nn", "nns", "rb", "vbd"]
    sides = [
        f"{side}:{kind}:{x}" for side in ("pre", "hyp") for kind, own in (("tok", words), ("tag", tags)) for x in own
    ]
    assert list(found.names) == [*sides, *(f"oth:overlap:overlap{n}" for n in (25, 50, 75))]
    assert found.truth.shape == (3, 23) and found.truth.dtype == bool
    assert column(found, "pre:tok:man") == [True, False, True] and column(found, "hyp:tok:man") == [True, False, False]
    assert column(found, "pre:tag:nns") == [False, True, False] and column(found, "hyp:tag:rb") == [True, False, False]


def test_truth_by_name():
    found = pair_concepts(PREMISES, HYPOTHESES, tags=TAGS)
    some = np.random.default_rng(0).permutation(len(found.names))[:40]
    names = [found.names[k] for k in some]
    assert (truth_of(names, PREMISES, HYPOTHESES, tags=TAGS) == found.truth[:, some]).all()
    assert truth_of(["hyp:tok:puppy", "pre:tag:xx"], PREMISES, HYPOTHESES, tags=TAGS).tolist() == [
        [False, False], [False, False], [True, False]
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected concepts of oth:overlap, pre:tok, hyp:tok, found pre:tag"):
        truth_of(["pre:tag:nn"], PREMISES, HYPOTHESES)


def test_frequent_words_are_counted_on_both_sides_and_ties_are_alphabetical():
    assert nli_concepts.frequent_words([*PREMISES, *HYPOTHESES]) == [
        "ran", "man", "sat", "men", "dog", "outdoors", "outside", "puppy"
    ]  # fmt: skip
    assert "of" not in nli_concepts.frequent_words([["of", "The", ",", "x"]])


def test_overlap_is_over_the_words_not_shared():
    # {a man sat .} of the first pair's words is shared, and two are not; all; and {.}, where eight are not
    assert nli_concepts.overlap(PREMISES, HYPOTHESES).tolist() == [[True] * 3, [True] * 3, [False] * 3]
    assert nli_concepts.overlap([list("abcdef")], [list("abcdgh")]).tolist() == [[True, True, True]]
    assert nli_concepts.overlap([list("ab")], [list("acd")]).tolist() == [[True, False, False]]  # 1 of 3
    assert nli_concepts.overlap([list("ab")], [list("ac")]).tolist() == [[True, False, False]]  # just below 1 of 2


def test_base_forms_and_synonyms(folder):
    net = WordNet(folder)
    assert net.base_forms("men", "noun") == ["man"] and net.base_forms("sits", "verb") == ["sit"]
    assert net.base_forms("mans", "noun") == ["man"] and net.base_forms("s", "noun") == []
    assert net.synonyms("men") == {"men", "man", "outside"}, "Man in lower case; adult_male has two words"
    assert net.synonyms("men", first_only=True) == {"men", "man"}
    assert net.synonyms("outside") == {"outside", "man", "outdoor", "outdoors"}, "the marker of outdoor(a) is no letter"
    assert net.synonyms("outside", pos="adv") == {"outside", "outdoors"}
    assert net.synonyms("puppy") == {"puppy"}


def test_an_extract_tells_the_same_of_its_words(folder, tmp_path):
    extract(folder, {"men", "man", "outside"}, tmp_path / "small")
    whole, small = WordNet(folder), WordNet(tmp_path / "small")
    assert small.base_forms("men", "noun") == ["man"] and small.base_forms("sits", "verb") == []
    assert small.synsets("outside", "adv") == whole.synsets("outside", "adv")
    assert small.synonyms("men") == {"men", "man", "outside"} and small.synonyms("outside") == {"outside", "man"}
    assert (tmp_path / "small" / "data.adj").read_text() == "00000040 00 a 01 outside 0 000 |\n"


def test_variants(folder):
    net, words = WordNet(folder), ["man", "outside"]
    tokens = {token for sentence in [*PREMISES, *HYPOTHESES] for token in sentence}
    pairs = set(tagged())

    def signs(variant, **given):
        found = wordnet_signs(words, net, variant=variant, **given)
        return {token: sorted(own) for token, own in found.items() if own}

    everything = {
        "man": ["man", "outside"], "outside": ["man", "outside"], "outdoor": ["outside"], "outdoors": ["outside"],
    }  # fmt: skip
    assert signs("all") == everything
    assert signs("first") == {"man": ["man", "outside"], "outside": ["outside"]}
    assert signs("lemma", tokens=tokens) == everything | {"men": ["man", "outside"]}
    by_tag = signs("tag", tokens=pairs)
    assert by_tag["outside", "rb"] == ["outside"] and by_tag["outdoors", "rb"] == ["outside"]
    assert by_tag["man", "nn"] == ["man", "outside"] and by_tag["man"] == ["man"] and ("men", "nns") not in by_tag


@pytest.mark.parametrize("variant", nli_concepts.VARIANTS)
def test_wordnet_masks_only_grow(folder, variant):
    net, words = WordNet(folder), nli_concepts.frequent_words([*PREMISES, *HYPOTHESES])
    tokens = [token for sentence in [*PREMISES, *HYPOTHESES] for token in sentence]
    given = {"tag": tagged(), "lemma": tokens}.get(variant, ())
    signs = wordnet_signs(words, net, variant=variant, tokens=given)
    plain, wide = (pair_concepts(PREMISES, HYPOTHESES, tags=TAGS, signs=s) for s in (None, signs))
    assert wide.names == plain.names and (wide.truth >= plain.truth).all()
    changed = [name for name, x in zip(plain.names, (wide.truth != plain.truth).any(axis=0), strict=True) if x]
    assert changed and not any(":tag:" in name or name.startswith("oth:") for name in changed)
    assert column(wide, "hyp:tok:outside") == [True, variant == "lemma", False], "a man is one too; men by their lemma"


def test_refused(folder):
    with pytest.raises(ValueError, match="expected pairs, found 3 premises and 2 hypotheses"):
        pair_concepts(PREMISES, HYPOTHESES[:2])
    with pytest.raises(ValueError, match="expected pairs, found 0 premises"):
        pair_concepts([], [])
    with pytest.raises(ValueError, match="expected one a token, found 4 for 5 in hyp sentence 0"):
        pair_concepts(PREMISES, HYPOTHESES, tags=(TAGS[0], [TAGS[1][0][:4], *TAGS[1][1:]]))
    with pytest.raises(ValueError, match="found None for 3 in pre sentence 2|found None for 8 in pre sentence 2"):
        pair_concepts(PREMISES, HYPOTHESES, tags=(TAGS[0][:2], TAGS[1]))
    net = WordNet(folder)
    with pytest.raises(ValueError, match="expected all, first, tag, lemma, the last two with tokens; found 'lemma'"):
        wordnet_signs(["man"], net, variant="lemma")
    with pytest.raises(ValueError, match="found 'second'"):
        wordnet_signs(["man"], net, variant="second")
    (folder / "index.verb").unlink()
    with pytest.raises(FileNotFoundError, match="is not a whole WordNet folder: index.verb missing .*wordnet-base"):
        WordNet(folder)
    for no_wordnet in (folder / "nowhere", folder.parent, folder / "data.noun"):
        with pytest.raises(FileNotFoundError, match="folder: data.noun, index.noun, noun.exc, data.verb"):
            WordNet(no_wordnet)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="WordNet is absent; lifted by: apt-get install wordnet-base")
def test_wordnet_3_itself():
    net = WordNet(DEBIAN)
    assert net.synonyms("lake", pos="noun") == {"lake"}, (
        "lake and water are no synonyms, although the paper's idea is that"
    )
    assert {"man", "men"} <= net.synonyms("men") and {"outside", "alfresco"} <= net.synonyms("outdoors")
    assert net.base_forms("women", "noun") == ["woman"] and net.base_forms("running", "verb") == ["run"]


@pytest.mark.skipif(
    not SNLI.is_file(), reason="SNLI's text is absent; lifted by: MMN_SNLI_DEV=FOLDER with snli_1.0_dev.tok"
)
def test_counts_in_snlis_own_text():
    lines = [line.split() for line in SNLI.read_text().splitlines()]
    found = pair_concepts(lines[::2], lines[1::2])
    assert found.truth.shape == (10_000, 4_003)
    assert np.allclose(found.truth[:, -3:].mean(axis=0), [0.5415, 0.2214, 0.1211])
    assert len(nli_concepts.frequent_words(lines, 10**6)) == 6_332
