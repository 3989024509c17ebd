"""Pictures of neurons: what they say, not their pixels."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from mmn_utils import neuron_plots

matplotlib.use("agg")
PIXELS = np.zeros((8, 8, 3), dtype=np.uint8)
UNITS = pd.DataFrame({"layer": [1, 2], "unit": [5, 7], "tokens": [[" horse", " rider", " x"], ["a", "b", "c"]]})


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_units_are_named_with_their_first_tokens():
    assert neuron_plots.unit_lines(UNITS) == ["L1.5  horse, rider", "L2.7  a, b"]


def test_only_the_noun_is_bold():
    assert neuron_plots.in_bold("a hotdog and a dog.", "dog") == "a hotdog and a $\\bf{dog}$."


def test_panels_show_image_heatmap_and_words():
    panel = {"title": "animal", "image": PIXELS, "activity": np.eye(8), "lines": ["L1.5  horse"], "caption": "a horse"}
    figure = neuron_plots.image_panels([panel] * 4, columns=3)
    assert len(figure.axes) == 18 and figure.axes[0].get_title() == "animal"
    assert "L1.5  horse" in texts(figure.axes[2])[0]
    assert not figure.axes[12].get_visible()


def test_a_constant_map_has_no_line():
    _, axes = plt.subplots(1, 2)
    flat = neuron_plots.heatmap(axes[0], PIXELS, np.zeros((8, 8)))
    peaked = neuron_plots.heatmap(axes[1], PIXELS, np.eye(8))
    assert len(flat.collections) == 0 and len(peaked.collections) == 1


def test_the_schematic_names_the_neuron_its_tokens_and_the_word():
    _, ax = plt.subplots()
    neuron_plots.schematic(ax, patches="64", noun="horse", unit="L1.5", tokens=[" horse", " rider"])
    assert any("L1.5" in text and "horse, rider" in text for text in texts(ax)) and "“horse”" in texts(ax)


def test_layer_counts_have_a_bar_a_layer_and_column():
    _, ax = plt.subplots()
    neuron_plots.layer_counts(ax, pd.DataFrame({"all": [3, 4], "interpretable": [1, 2]}), unit="units")
    assert [bar.get_height() for bar in ax.patches] == [3, 4, 1, 2] and ax.get_ylabel() == "units"


def test_distributions_share_their_edges_and_sum_to_one():
    _, ax = plt.subplots()
    samples = {"one": np.arange(10.0), "two": np.arange(5.0, 25.0)}
    neuron_plots.distributions(ax, samples, unit="score", n_bins=5)
    first, second = (patch.get_data() for patch in ax.patches)
    assert np.array_equal(first.edges, second.edges) and np.isclose(first.values.sum(), 1)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["one", "two"]


def test_cumulative_lines_end_at_one():
    _, ax = plt.subplots()
    neuron_plots.cumulative(ax, {"one": np.arange(4.0), "two": np.arange(9.0)}, unit="score")
    assert [line.get_ydata()[-1] for line in ax.lines] == [1, 1] and ax.get_xlabel() == "score"


def test_one_picture_a_title():
    figure = neuron_plots.picture_row([PIXELS, PIXELS], ["A: a dog", "B: a cat"])
    assert [ax.get_title() for ax in figure.axes] == ["A: a dog", "B: a cat"]
