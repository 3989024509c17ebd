import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mmn_utils import families, family_plots


def test_the_families_of_the_strongest_pictures_by_hand():
    kinds = ["cat", "dog", "dog", "owl", "owl", "owl"]
    answers = np.array([[9.0, 0.0], [8.0, 1.0], [1.0, 9.0], [7.0, 8.0], [0.0, 7.0], [2.0, 6.0]])
    table = families.of_strongest(answers, kinds, n=4)
    # unit 0: cat, dog, owl, owl; unit 1: dog, owl, owl, owl
    assert table.loc[0, ["family", "share", "second", "second_share"]].tolist() == ["owl", 0.5, "cat", 0.25]
    assert table.loc[1, ["family", "share", "second", "second_share"]].tolist() == ["owl", 0.75, "dog", 0.25]
    assert table.split.all()
    assert not families.of_strongest(answers, kinds, n=1).split.any()  # one picture has one family


def test_a_stack_has_one_bar_a_category_and_bin():
    index = pd.MultiIndex.from_tuples([(-1.0, 0.0), (2.0, 3.0)], names=["low", "high"])
    table = pd.DataFrame({"n": [7, 50], "a": [0.25, 1.0], "rest": [0.75, 0.0]}, index=index)
    figure = family_plots.stacks({"unit": table}, ["black", "grey"])
    bars = figure.axes[0].patches
    assert [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in bars] == [
        (-1, 0, 0.25), (2, 0, 1), (-1, 0.25, 0.75), (2, 1, 0),
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].texts] == ["7", "50"]
    plt.close(figure)


def test_medians_are_drawn_from_zero():
    table = pd.DataFrame({"n": [3, 4], "median": [-1.0, 2.0], "sd": [0.5, 0.1]}, index=["a", "b"])
    ax = family_plots.medians(plt.figure().add_subplot(), table, marked={"b": "red"})
    assert [bar.get_width() for bar in ax.patches] == [-1, 2]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a (n = 3)", "b (n = 4)"]
    plt.close("all")


def test_hues_where_one_unit_speaks_and_grey_where_two_opposed_ones_do():
    maps = np.zeros((2, 1, 7))
    maps[0, 0, 0] = maps[1, 0, 1] = 1  # opposite hues: red and cyan
    maps[:, 0, 2] = 1
    red, cyan, both, nothing = family_plots.blended(maps)[0, :4]
    assert red[0] > red[1] == pytest.approx(red[2])
    assert cyan[0] < cyan[1] == pytest.approx(cyan[2])
    np.testing.assert_allclose(both, 0.75, atol=1e-9)
    np.testing.assert_allclose(nothing, 1)


def test_each_name_column_uses_the_whole_scale():
    table = pd.DataFrame({"u": [1.0, 3.0, 2.0], "v": [-5.0, -6.0, -4.0]}, index=["x", "y", "z"])
    ax = family_plots.names(plt.figure().add_subplot(), table)
    np.testing.assert_allclose(ax.images[0].get_array(), [[0, 0.5], [1, 0], [0.5, 1]])
    plt.close("all")
