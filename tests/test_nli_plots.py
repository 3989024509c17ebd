from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from mmn_utils import nli_plots


def test_the_matrix_of_the_scheme_has_its_diagonal_marked():
    _, ax = plt.subplots()
    nli_plots.contrast(ax, ["a", "b", "c"])
    marked = {
        (round(p.get_x(), 3), round(p.get_y(), 3)) for p in ax.patches if to_hex(p.get_facecolor()) not in ("#ffffff",)
    }
    assert len(marked) == 3 and len({x for x, _ in marked}) == len({y for _, y in marked}) == 3
    texts = {t.get_text() for t in ax.texts}
    assert {f"t{k}·i{j}" for k in (1, 2, 3) for j in (1, 2, 3)} <= texts and "“b”" in texts
    plt.close("all")


def test_nothing_of_the_schemes_lies_outside_their_axes():
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(8.3, 8.9))
    nli_plots.contrast(axes[0])
    nli_plots.pair_classifier(axes[1])
    axes[0].figure.canvas.draw()
    for ax in axes:
        whole = ax.get_window_extent().padded(6)
        for text in ax.texts:
            box = text.get_window_extent()
            assert whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1), text
    boxes = [t.get_window_extent() for t in axes[0].texts if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    plt.close("all")
