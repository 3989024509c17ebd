import numpy as np
import pytest
import replicas
import torch

from mmn_utils.data import SceneObject
from mmn_utils.neurons import last_logits, record
from mmn_utils.receptive_fields import (
    RunningQuantile,
    categories_won,
    coverage,
    field_ious,
    in_company,
    iou,
    matched_units,
    means_where,
    own_threshold,
    patch_activations,
    receptive_fields,
    union,
    unit_maps,
    unit_thresholds,
    upsample,
    versus,
)
from mmn_utils.selectivity import (
    RunningMean,
    class_means,
    diagonal_wins,
    frequent_units,
    image_means,
    random_wins,
    selectivity,
    set_means,
    shared,
    wins,
)


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


@pytest.fixture(scope="module")
def seen():
    """A tiny model, image prompts for five images of four patches, and all activations [image, patch, unit]."""
    model = replicas.language_model("gptj")
    prompts = torch.randn(5, 4, replicas.D_MODEL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), record(model) as layers:
        last_logits(model, prompts)
    return model, prompts, torch.cat(list(layers), dim=-1)


def test_activations_do_not_depend_on_batches_or_on_the_text_after_the_image(seen):
    model, prompts, whole = seen
    parts = torch.cat(list(patch_activations(model, prompts, batch_size=2)))
    assert torch.allclose(parts, whole, atol=1e-5)
    with torch.no_grad(), record(model, positions=slice(0, 4)) as layers:
        last_logits(model, torch.cat([prompts, torch.randn(5, 3, replicas.D_MODEL)], dim=1))
    assert torch.allclose(torch.cat(list(layers), dim=-1), whole, atol=1e-5)


def test_maps_and_thresholds_are_those_of_the_activations(seen):
    model, prompts, whole = seen
    units = torch.tensor([[0, 200], [7, 3], [255, 254], [1, 1], [9, 130]])
    maps = unit_maps(model, prompts, units)
    expected = torch.stack([whole[i, :, row].T for i, row in enumerate(units)])
    assert torch.allclose(maps, expected, atol=1e-5)
    cut = unit_thresholds(model, prompts, q=0.8, batch_size=2)
    assert torch.allclose(cut, whole.flatten(0, 1).quantile(0.8, dim=0), atol=1e-5)
    layer = unit_thresholds(model, prompts, q=0.8, layers=[1])
    assert torch.allclose(layer, cut[128:], atol=1e-5)
    alone = unit_thresholds(model, prompts, q=0.8, groups=torch.tensor([[7], [200]]))
    assert torch.allclose(alone, cut[[7, 200]], atol=1e-5)
    pair = unit_thresholds(model, prompts, q=0.8, groups=torch.tensor([[7, 200]]))
    assert torch.allclose(pair, whole[..., [7, 200]].mean(-1).flatten().quantile(0.8), atol=1e-5)


def test_matched_units_keep_layers_and_share_no_unit():
    units = torch.stack([torch.randperm(60, generator=torch.Generator().manual_seed(i))[:20] for i in range(8)])
    drawn = matched_units(units, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn // 20, units // 20)
    for row, given in zip(drawn.tolist(), units.tolist(), strict=True):
        assert not set(row) & set(given) and len(set(row)) == 20
    with pytest.raises(ValueError, match="layer 1: 3 of 4 units cannot be matched"):
        matched_units(torch.tensor([[4, 5, 6]]), 4, generator=torch.Generator())


def test_an_ideal_unit_finds_its_mask_at_any_size():
    left, small = np.zeros((8, 8), dtype=bool), np.zeros((4, 12), dtype=bool)
    left[:, :4], small[:2] = True, True
    maps = torch.stack([coverage(left, 16), coverage(small, 16)])[:, None]
    assert maps[0, 0].tolist() == [1, 1, 0, 0] * 4
    assert field_ious(maps, torch.full((2, 1), 0.5), [left, small]).tolist() == [[1.0], [1.0]]


def test_means_of_the_allowed_units():
    values, allowed = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, False], [False, False]])
    means = means_where(values, allowed)
    assert means[0] == 1 and np.isnan(means[1])


class _Scenes:
    """Three objects of two categories in each image."""

    def objects(self, image):
        masks = np.eye(3, dtype=bool)[:, None]
        return [
            SceneObject(name, mask, (0, 0, 1, 1), 1.0)
            for name, mask in zip(["cat", "hot dog", "cat"], masks, strict=True)
        ]


def test_company_is_one_named_category_among_several():
    cat, dog = in_company(_Scenes(), [4, 5, 6], ["cat", "dog", "bird"])
    assert (
        cat.image == 4 and cat.named.tolist() == [[True, False, True]] and cat.other.tolist() == [[False, True, False]]
    )
    assert dog.image == 5 and np.array_equal(dog.named, cat.other)
    with pytest.raises(ValueError, match="in none of 1 images does the noun name"):
        in_company(_Scenes(), [6], ["bird"])


def test_versus_is_paired_and_leaves_gaps_out():
    result = versus(np.array([1.0, 2.0, np.nan]), np.array([0.5, 1.5, 3.0]), seed=0)
    assert result.ours.n == 2 and result.gain.value == result.gain.low == result.gain.high == 0.5


def test_categories_won_counts_categories():
    names = ["a", "a", "b", "b", "c"]
    won = categories_won(names, np.array([1, 1, 0.9, 0, 1]), np.array([0, 0, 0.5, 0.2, 2]), seed=0)
    assert won.value == 2 and won.n == 3 and 1 <= won.low <= won.value <= won.high <= 3


def test_means_by_image_set_and_class(seen):
    model, prompts, whole = seen
    means = image_means(model, prompts, batch_size=2)
    assert torch.allclose(means, whole.mean(1), atol=1e-5)
    sets, classes = [torch.tensor([0, 1]), torch.tensor([2])], [0, 0, 0, 1, 1]
    by_class = class_means(means, classes)
    assert torch.allclose(by_class[1], means[3:].mean(0))
    assert torch.allclose(set_means(means, sets)[:, 0], means[:, :2].mean(1))
    assert torch.allclose(class_means(set_means(means, sets), classes), set_means(by_class, sets), atol=1e-6)


def test_wins_and_their_interval():
    by_image = torch.tensor([[2.0, 0.0], [2.0, 3.0], [0.0, 1.0], [1.0, 1.0]])
    estimate = wins(by_image, [0, 0, 1, 1], seed=0)
    assert (estimate.value, estimate.high, estimate.n) == (1, 2, 2) and estimate.low <= 1
    certain = wins(torch.eye(2).repeat_interleave(3, 0), [0, 0, 0, 1, 1, 1], seed=0)
    assert certain.value == certain.low == certain.high == 2


def test_random_sets_win_by_chance_only():
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(40, 200, generator=generator)
    sets = [torch.arange(k * 5, k * 5 + 5) for k in range(4)]
    found = random_wins(means, sets, [k // 10 for k in range(40)], 100, n_draws=50, seed=0)
    assert found.shape == (50,) and 0.4 < found.mean() < 1.8


def test_shared_counts_sets():
    assert shared([torch.tensor([1, 2]), torch.tensor([2, 3])]).tolist() == [1, 2, 2, 1]
