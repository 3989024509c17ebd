import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mmn_utils import nli_cards
from mmn_utils.compositional import search
from mmn_utils.metrics import Estimate

CLASSES = ["entailment", "neutral", "contradiction"]


def test_a_card_by_hand():
    """The neuron fires where concept 0 is true and 1 is not."""
    concepts = np.array([[1, 0], [1, 1], [0, 1], [1, 0], [0, 0]], bool)
    activations = np.array([2.0, 0, 0, 3.0, 0])
    best = search(activations[:, None] > 0, concepts, max_length=2, operands="all")[0].best(2)
    words = ["neutral", "neutral", "entailment", "contradiction", "neutral"]
    pairs = pd.DataFrame(
        {"premise": list("abcde"), "hypothesis": list("vwxyz"), "label": words, "guess": ["neutral"] * 5}
    )
    weights = pd.DataFrame({"7": [0.5, -1.0, 0.25]}, index=CLASSES)
    made = nli_cards.card(
        7, best, names=["x", "y"], concepts=concepts, activations=activations, pairs=pairs, weights=weights, n=2
    )
    assert made.title == (
        "NLI N7: (x AND (NOT y))   IoU 1.000   weights: entailment +0.50, neutral -1.00, contradiction +0.25"
    )
    assert made.pairs.premise.tolist() == ["d", "a", "a", "d"] and made.pairs.formula.all()
    assert made.confusion.loc["neutral", "neutral"] == 1 and made.confusion.loc["contradiction", "neutral"] == 1
    assert made.confusion.to_numpy().sum() == 2 and made.entropy == 1.0


def test_entropy_of_nothing_is_none():
    assert nli_cards.entropy(np.array([0, 0, 0])) == 0


def test_figures_hold_the_data():
    values = [Estimate(0.2, 0.1, 0.3, 9), Estimate(0.3, 0.2, 0.4, 9)]
    _, (first, second) = plt.subplots(1, 2)
    nli_cards.iou_against_length(first, {"clip": values})
    assert first.lines[0].get_ydata().tolist() == [0.2, 0.3] and first.get_xlabel()
    x, y = np.array([0.1, 0.2, np.nan, 0.3]), np.array([0.5, 0.6, 0.9, 0.7])
    nli_cards.iou_against_accuracy(second, x, y, "here")
    assert len(second.lines[0].get_xdata()) == 3
    assert second.lines[1].get_ydata() == pytest.approx([0.5, 0.7])
    plt.close("all")
