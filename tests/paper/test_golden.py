"""The published weights say what the paper prints: `make test PROFILE=paper`, where they are."""

import os
from itertools import pairwise

import golden
import numpy as np
import pytest
from huggingface_hub import try_to_load_from_cache

from mmn_utils import metrics, profiles
from mmn_utils.models.captioner import load_language_model, load_tokenizer

NAME = os.environ.get("MMN_TEST_PROFILE", "miniature")
if NAME == "miniature":
    pytest.skip("the published weights' tests: make test PROFILE=paper", allow_module_level=True)
PROFILE = profiles.read(NAME, check_folders=False)


def needed(key, source, revision, file="config.json"):
    """Skip where a model is absent. One that is there and cannot be loaded is a failure."""
    if PROFILE.is_file_source(source):
        there = PROFILE.path(source).exists()
    else:
        asked = profiles.pinned(source, revision)
        there = try_to_load_from_cache(source, file, cache_dir=PROFILE.cache_folder / "hub", revision=asked)
    if not there:
        pytest.skip(f"models.{key} is not here: {source} (`make book PROFILE={NAME}` fetches it)")


@pytest.fixture(scope="module")
def language_model():
    source = PROFILE.models.language_model
    needed("language_model", source.source, source.revision)
    return load_language_model(PROFILE, source), load_tokenizer(PROFILE, source)


def test_the_books_reading_is_the_papers(language_model):
    shares = golden.by_reading(*language_model, golden.decoded())
    assert max(shares, key=shares.get) == golden.OURS, f"another reading fits better: {shares}"
    assert shares[golden.OURS] >= 0.9, "half precision may swap neighbours, and no more"


@pytest.mark.parametrize("neuron", golden.decoded(), ids=lambda neuron: "L{}.u{}".format(*neuron))
def test_a_unit_says_what_is_printed(neuron, language_model):
    printed = golden.decoded()[neuron]
    said = golden.first_tokens(*language_model, *neuron, n=len(printed) + 1)
    assert all(any(golden.agrees(p, token) for token in said) for p in printed), f"printed {printed}, found {said}"


@pytest.fixture(scope="module")
def scores():
    source = PROFILE.models.bert
    needed("bert", source.source, source.revision)
    pairs = [(c, r, f1) for r, candidates in golden.PAIRS.items() for c, f1 in candidates.items()]
    candidates, references, printed = zip(*pairs, strict=True)
    return metrics.bert_scores(candidates, references, PROFILE), np.array(printed)


def test_bertscore_orders_captions_as_printed(scores):
    """Whatever the BERT: candidates that the paper has a tenth apart."""
    ours, printed = scores
    start = 0
    for candidates in golden.PAIRS.values():
        own, theirs = (part[start : start + len(candidates)] for part in (ours, printed))
        order = np.argsort(theirs)
        apart = [(a, b) for a, b in pairwise(order) if theirs[b] - theirs[a] >= 0.1]
        assert all(own[a] < own[b] for a, b in apart)
        start += len(candidates)


@pytest.mark.xfail(strict=False, reason="the paper does not name its BERT; this one is inferred from its floor")
def test_bertscore_is_as_printed(scores):
    assert np.allclose(*scores, atol=0.0051)
