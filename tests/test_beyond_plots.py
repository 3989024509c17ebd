import numpy as np
from matplotlib import pyplot as plt

from mmn_utils import beyond_plots
from mmn_utils.metrics import Estimate


def test_every_unit_is_a_dot():
    _, ax = plt.subplots()
    beyond_plots.against_truth(ax, np.array([[0.5, 0.0], [-0.2, 0.1]]), np.array([[0.4, 0.1], [0.0, 0.2]]), reach=0.6)
    assert sum(len(line.get_xdata()) for line in ax.lines[:2]) == 4
    assert ax.get_xlim() == ax.get_ylim() == (-0.6, 0.6)
    assert ax.get_xticks().tolist() == [-0.1, 0, 0.1]
    plt.close()


def test_curves_have_bands_and_names():
    _, ax = plt.subplots()
    values = [Estimate(0.5, 0.4, 0.6, 3), Estimate(0.7, 0.6, 0.8, 3)]
    beyond_plots.curves(ax, {"one": values, "two": values}, ["0", "1"], unit="share")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    assert len(ax.collections) == 2 and list(ax.lines[0].get_ydata()) == [0.5, 0.7]
    plt.close()


def test_missing_shares_stay_white():
    _, ax = plt.subplots()
    beyond_plots.shares(ax, np.array([[0.2, np.nan]]), ["unit"], ["ink", "paint"])
    assert [text.get_text() for text in ax.texts] == ["0.20"]
    plt.close()
