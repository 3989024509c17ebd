"""Real language: SNLI's development set through the reader, the head on the shipped CLIP, and the search."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mmn_utils import explanations, metrics, profiles
from mmn_utils.compositional import firing, search
from mmn_utils.data.pairs import LABELS, read_snli
from mmn_utils.models import nli
from mmn_utils.models.clip import Clip
from mmn_utils.nli_concepts import pair_concepts

FOLDER = Path(os.environ.get("MMN_SNLI_DEV") or Path(__file__).parents[2] / "shared" / "data")
pytestmark = pytest.mark.skipif(
    not all((FOLDER / f"snli_1.0_dev.{end}").is_file() for end in ("tok", "gold")),
    reason="SNLI's text is absent; lifted by: MMN_SNLI_DEV=FOLDER, with snli_1.0_dev.tok (premise and hypothesis on "
    "alternating lines) and snli_1.0_dev.gold (a label a pair)",
)
N_TRAIN, N_NEURONS = 4_000, 96


def parse(line):
    """As SNLI writes one, with two made-up tags and no constituents: brackets of the text are spelled out."""
    tokens = [t.replace("(", "-LRB-").replace(")", "-RRB-") for t in line.split()]
    return " ".join(["(ROOT", *(f"({'NN' if token.isalnum() else 'SYM'} {token})" for token in tokens)]) + ")"


@pytest.fixture(scope="module")
def lines():
    text = [(FOLDER / f"snli_1.0_dev.{end}").read_text(encoding="utf-8").splitlines() for end in ("tok", "gold")]
    return list(zip(text[0][::2], text[0][1::2], text[1], strict=True))


@pytest.fixture(scope="module")
def file(lines, tmp_path_factory):
    """The pairs in SNLI's own layout."""
    path = tmp_path_factory.mktemp("snli") / "snli_1.0_dev.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for *sides, gold in lines:
            parses = {f"sentence{k}_parse": parse(side) for k, side in enumerate(sides, start=1)}
            out.write(json.dumps({"gold_label": "-" if gold == "UNK" else gold} | parses) + "\n")
    return path


def test_the_reader_reads_all_of_it(file, lines):
    found, labelled = read_snli(file), [row for row in lines if row[2] in LABELS]
    assert len(found) == len(labelled) == 9_842
    assert [LABELS[k] for k in found.labels] == [gold for *_, gold in labelled]
    for k, side in enumerate(found.texts):
        same = [ours == row[k].lower() for ours, row in zip(side, labelled, strict=True)]
        assert np.mean(same) > 0.99, "all but brackets, and blanks that are no separators"
    assert all(len(t) == len(p) for t, p in zip(found.premise_tags, found.premises, strict=True))


def test_a_head_is_trained_and_its_neurons_are_explained(file):
    pairs = read_snli(file, n=N_TRAIN + 1_500)
    made = nli.numbered(pairs.texts)
    vectors = nli.clip_vectors(Clip.from_profile(profiles.read("miniature")), made.sentences)
    train, test = made.pairs[0][:N_TRAIN], made.pairs[0][N_TRAIN:]
    model = nli.fit(
        nli.on_vectors(vectors, n_neurons=N_NEURONS, seed=0), train, pairs.labels[:N_TRAIN], n_epochs=6, seed=0
    )
    guesses, neurons = nli.run(model, test)
    right, labels = guesses == pairs.labels[N_TRAIN:], pairs.labels[N_TRAIN:]
    accuracy = metrics.wilson(int(right.sum()), len(right))
    assert accuracy.low > np.bincount(labels).max() / len(labels), "better than the most frequent label"

    concepts = pair_concepts(pairs.premises[N_TRAIN:], pairs.hypotheses[N_TRAIN:], n_words=500)
    fires = firing(neurons)
    found, nothing = (
        search(f, concepts.truth, max_length=2, min_firing=75) for f in (fires, explanations.shuffled(fires, 0))
    )
    for own in (own for own in found if own.searched):
        mask, a = own.best().formula.mask(concepts.truth), fires[:, own.neuron]
        assert own.best().iou == (mask & a).sum() / (mask | a).sum() >= own.best(1).iou
    one, two = explanations.iou_by_length(found, 0)
    gain = explanations.ious(found) - explanations.ious(nothing)
    explained = metrics.bootstrap_mean(gain[np.isfinite(gain)], 0)
    assert one.value < two.value and explained.low > 0, "more than a neuron with nothing to explain"
    print(f"{accuracy=!s} {one=!s} {two=!s} {explained=!s}")
