import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from PIL import Image

from mmn_utils import feature_plots


def test_a_grid_names_rows_columns_and_images():
    rows = [[torch.rand(3, 8, 8), Image.new("RGB", (8, 8), "red")]] * 2
    figure = feature_plots.grid(rows, ["first", "second"], ["left", "right"], [["a", "b"], ["c", "d"]])
    axes = np.array(figure.axes).reshape(2, 2)
    assert [ax.get_title() for ax in axes[0]] == ["left", "right"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["first", "second"]
    assert [ax.get_xlabel() for ax in axes.flat] == ["a", "b", "c", "d"]
    assert all(ax.images[0].get_array().shape == (8, 8, 3) for ax in axes.flat)
    plt.close(figure)


def test_the_trade_shows_the_median_of_each_strength():
    table = pd.DataFrame(
        {"form": ["gated"] * 6 + ["plain"] * 6, "strength": [0, 0, 0, 1, 1, 1] * 2,
         "kept": [1.0, 1, 1, 0.8, 0.6, 10] * 2, "gain": [0.0, 0, 0, 2, 4, 9] * 2}
    )  # fmt: skip
    figure, ax = plt.subplots()
    feature_plots.trade(ax, table)
    lines = [line.get_xydata().tolist() for line in ax.lines[:2]]
    np.testing.assert_allclose(lines, [[[1, 0], [0.8, 4]]] * 2)
    assert {text.get_text() for text in ax.texts} == {"gated", "plain"}
    plt.close(figure)
    assert ax.get_xlim()[0] < 0.6 and ax.get_xlim()[1] > 10, "every image has its dot"
