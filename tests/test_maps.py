import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mmn_utils import maps
from mmn_utils.metrics import Estimate


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_a_field_is_lit_and_the_rest_is_dark():
    figure, ax = plt.subplots()
    image = np.full((4, 4, 3), 200, dtype=np.uint8)
    maps.field(ax, image, torch.tensor([1.0, 0.0, 1.0, 0.0]), 0.5, "left", target=np.eye(4, dtype=bool))
    shown = ax.images[0].get_array()
    assert np.allclose(shown[:, :2], 200 / 255) and np.allclose(shown[:, 2:], maps.SHADE * 200 / 255)
    assert ax.get_title(loc="left") == "left" or ax.get_title() == "left"


def test_one_row_an_image_and_one_column_a_map():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    figure = maps.fields(
        [image] * 2, torch.rand(2, 3, 4), torch.full((2, 3), 0.5), [["a", "b", "c"]] * 2, targets=[None] * 2,
        names=["x", "y"],
    )  # fmt: skip
    assert len(figure.axes) == 8
    figure = maps.most_active([("unit", [image] * 2, torch.rand(2, 4), 0.5)])
    assert figure.axes[0].get_ylabel() == "unit"
    figure = maps.class_page([[image]], ["dog"], [["L0.1 dogs"]])
    assert figure.axes[-1].texts[0].get_text() == "L0.1 dogs"


def test_both_series_are_drawn_and_named():
    _, ax = plt.subplots()
    estimate = Estimate(0.5, 0.4, 0.6, 7)
    maps.compared(ax, ["dog", "cat"], [estimate] * 2, [estimate] * 2, ("units", "random"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["dog (n = 7)", "cat (n = 7)"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["units", "random"]


def test_each_rows_best_is_framed():
    _, ax = plt.subplots()
    maps.matrix(ax, np.array([[1.0, 0.2], [1.0, 0.9]]), ["dog", "cat"])
    assert [patch.get_xy() for patch in ax.patches] == [(-0.5, -0.5), (-0.5, 0.5)]
    assert [t.get_text() for t in ax.texts] == ["1.00", "0.20", "1.00", "0.90"]
