"""What every figure owes its readers: a width that a page can show, and nothing that only colour says."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from mmn_utils import family_plots, feature_plots, neuron_plots, plots, word_plots

PICTURE = Image.new("RGB", (8, 8))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def panels(n):
    one = {"title": "a", "image": PICTURE, "activity": np.eye(8), "lines": ["L0.1  b"], "caption": "c"}
    return neuron_plots.image_panels([one] * n)


@pytest.mark.parametrize(
    "drawn",
    [
        lambda: plots.gallery([PICTURE] * 7, ["a"] * 7, [True] * 7, columns=5),
        lambda: feature_plots.grid([[PICTURE] * 11] * 2, ["a", "b"], [""] * 11),
        lambda: neuron_plots.picture_row([PICTURE] * 7, ["a"] * 7),
        lambda: panels(6),
    ],
)
def test_no_figure_is_wider_than_a_page_can_show_legibly(drawn):
    assert drawn().get_size_inches()[0] <= plots.WIDTH


def hatches(ax):
    return [bool((bar.get_hatch() or "").strip()) for bar in ax.patches]


def test_bars_that_a_colour_singles_out_are_hatched():
    _, (left, right) = plt.subplots(1, 2)
    word_plots.likeliest(left, np.array([0.1, 0.6, 0.3]), ["a", "b", "c"], target=2)
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "c", "b"]
    assert hatches(left) == [False, True, False]
    table = pd.DataFrame({"median": [2.0, 1.0], "sd": [0.1, 0.1], "n": [3, 3]}, index=["tavo", "orlo"])
    family_plots.medians(right, table, marked={"tavo": plots.BLUE})
    assert hatches(right) == [True, False]


def test_lines_of_one_panel_differ_in_their_marks():
    runs = {"zero_shot": 0.5, "zero_shot_low": 0.4, "zero_shot_high": 0.6}
    table = pd.DataFrame([{"scale": s, "cover": c, **runs} for s in (1.0, 2.0, 3.0) for c in (0.1, 0.2)])
    (ax,) = word_plots.doses(table, ["zero_shot"]).axes
    assert len({container.lines[0].get_marker() for container in ax.containers}) == 3


def test_an_answer_says_by_its_letters_whether_it_is_the_word_the_ink_or_neither():
    table = pd.DataFrame({"ink": "red", "word": "blue", "answer": ["red", "blue", "green"], "kind": "incongruent"})
    (ax,) = word_plots.stroop_grid(table).axes
    said = {text.get_text(): (text.get_weight(), text.get_style()) for text in ax.texts if "→" in text.get_text()}
    assert said == {"→ red": ("normal", "normal"), "→ blue": ("bold", "normal"), "→ green": ("normal", "italic")}
