import pytest
import torch

from mmn_utils.receptive_fields import RunningQuantile, iou, own_threshold, receptive_fields, union, upsample
from mmn_utils.selectivity import RunningMean, diagonal_wins, frequent_units, selectivity


def test_bilinear_by_hand():
    maps = upsample(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), (2, 4))
    assert maps.shape == (1, 2, 4)
    assert torch.allclose(maps[0], torch.tensor([0, 0.25, 0.75, 1]).expand(2, 4))
    assert torch.equal(upsample(torch.arange(6.0), (2, 3), grid=(2, 3)), torch.arange(6.0).view(2, 3))
    with pytest.raises(ValueError, match="expected 2 x 2 patches, found 5"):
        upsample(torch.zeros(5), (4, 4))


def test_a_field_is_where_the_unit_is_above_its_threshold():
    activations = torch.tensor([[0.0, 1.0, 0.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    fields = receptive_fields(activations, torch.tensor([0.5, 5.0]), (2, 4))
    assert fields[0].tolist() == [[False, False, True, True]] * 2 and not fields[1].any()
    right = torch.tensor([[False, False, False, True]] * 2)
    assert iou(fields, right).tolist() == [0.5, 0]


def test_the_readings_of_the_threshold_differ():
    activations = torch.linspace(0, 1, 100)[None]
    own = own_threshold(activations)
    assert own == pytest.approx(0.95, abs=1e-6)
    # One's own highest twentieth is a twentieth of the image, whatever the unit sees.
    assert receptive_fields(activations, own, (10, 10)).sum() == 5


@pytest.mark.parametrize(("q", "n"), [(0.95, 64), (0.95, 21), (0.5, 4), (1.0, 9), (0.0, 9), (0.99, 1)])
def test_running_quantile_is_torchs(q, n):
    values = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
    running = RunningQuantile(q, n_values=n)
    for part in values.split(5):
        running = RunningQuantile.from_state(running.add(part).state())
    assert torch.allclose(running.result(), values.quantile(q, dim=0), atol=1e-6)


def test_running_quantile_counts():
    running = RunningQuantile(0.9, n_values=4).add(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="expected 4 values of each unit in all, found 3 so far"):
        running.result()
    with pytest.raises(ValueError, match="expected 4 values of each unit in all, found 5"):
        running.add(torch.zeros(2, 2))


def test_unions_and_iou():
    a, b = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    assert union([a, b.numpy()]).tolist() == [[True, True, False]]
    assert iou(union([a, b]), a).item() == 0.5 and iou(a, a).item() == 1 and iou(a, b).item() == 0
    assert iou(torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)).item() == 0
    with pytest.raises(ValueError, match="expected at least one mask"):
        union([])
    with pytest.raises(ValueError, match=r"expected masks of one size, found \[1, 3\] and \[1, 2\]"):
        iou(a, a[:, :2])


def test_frequent_units_by_hand():
    rankings = torch.tensor([[4, 4, 1], [1, 2, 2], [1, 4, 0]])
    assert frequent_units(rankings, n=2).tolist() == [1, 4]
    allowed = torch.tensor([[True, False, True], [False, True, True]])
    assert frequent_units(rankings, n=9, allowed=allowed).tolist() == [4, 0, 2]


def test_selectivity_by_hand():
    means = torch.tensor([[4.0, 2.0, 0.0], [1.0, 1.0, 5.0]])
    matrix = selectivity(means, [torch.tensor([0, 1]), torch.tensor([2])])
    assert torch.allclose(matrix, torch.tensor([[1, 1 / 3], [0, 1]])) and diagonal_wins(matrix) == 2
    assert diagonal_wins(selectivity(means, [torch.tensor([2]), torch.tensor([2])])) == 1
    with pytest.raises(ValueError, match="class 1 has no units"):
        selectivity(means, [torch.tensor([0]), torch.tensor([], dtype=torch.long)])
    with pytest.raises(ValueError, match=r"units of classes \[0\] have no positive mean"):
        selectivity(-means, [torch.tensor([0])])


def test_running_mean():
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean = RunningMean().add(values[:1]).add(values[1:]).result()
    assert torch.allclose(mean.float(), values.mean((0, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="no values have come"):
        RunningMean().result()
