import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from mmn_utils import composition_plots, plots
from mmn_utils.metrics import Estimate


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_a_curve_goes_from_few_weights_to_many(ax):
    values = [Estimate(v, v - 0.1, v + 0.1, 9) for v in (0.5, 0.2, 0.8)]
    composition_plots.curve(ax, [3, 1, 8], values, label="top 5", colour=plots.BLUE)
    assert ax.lines[0].get_xydata().tolist() == [[1, 0.2], [3, 0.5], [8, 0.8]]
    assert [text.get_text() for text in ax.texts] == ["top 5"]


def test_weights_share_one_scale_about_zero(ax):
    composition_plots.weights(ax, np.array([[0.0, 2.0], [-0.5, 0.0]]), ["dog", "cat"], ["x (1)", "y (2)"])
    assert ax.images[0].get_clim() == (-2, 2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dog", "cat"]


def test_only_what_the_recipe_has_and_the_code_adds_is_blue():
    cues = pd.Series(["trophy", "happy", "evil"])
    code = {"proud": pd.Series({0: 1.0, 1: -0.4, 2: 0.2})}
    figure = composition_plots.codes(code, cues, {"proud": ["trophy", "happy"]})
    bars = figure.axes[0].patches
    assert [to_hex(bar.get_facecolor()).upper() == plots.BLUE for bar in bars] == [True, False, False]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["trophy (0)", "happy (1)", "evil (2)"]
    assert figure.get_supxlabel().startswith("weight")
    plt.close(figure)


def test_the_lowest_panel_of_each_column_has_a_scale():
    words = [f"feeling {k}" for k in range(6)]
    code = dict.fromkeys(words, pd.Series({0: 1.0}))
    figure = composition_plots.codes(code, pd.Series(["happy"]), dict.fromkeys(words, ["happy"]))
    figure.draw_without_rendering()
    scaled = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes[:6]]
    assert scaled == [False, False, True, True, True, True]
    plt.close(figure)


def test_every_word_stands_in_its_cell_with_its_leading_factor(ax):
    cells, shares = np.array([(0, 0), (1, 0)]), np.array([[0.9, 0.1], [0.0, 1.0]])
    composition_plots.atlas(ax, cells, ["sad", "glad"], shares)
    assert [(text.get_position(), text.get_text()) for text in ax.texts] == [((0, 0), "sad\n1"), ((1, 0), "glad\n2")]
    first, second = (patch.get_facecolor() for patch in ax.patches)
    assert first[:3] != second[:3] and first[3] < second[3]
