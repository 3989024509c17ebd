import numpy as np
import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch.autograd.functional import jacobian

from mmn_utils import linearised_attention as linearised
from mmn_utils.linearised_attention import without_positions


@pytest.fixture(scope="module")
def pool():
    """64 neurons on a 3 x 3 grid, four heads; the positions thrice their first size, as training may make them."""
    torch.manual_seed(0)
    made = AttentionPool2d(3, 64, 4, 16).eval().requires_grad_(False)
    made.positional_embedding.data *= 3
    for layer in (made.q_proj, made.k_proj):
        layer.weight.data *= 3  # so that attention chooses
    return made


@pytest.fixture(scope="module")
def maps():
    return torch.randn(12, 64, 3, 3, generator=torch.Generator().manual_seed(1)).relu()


def test_the_pool_is_affine_on_constant_maps_without_positions(pool, maps):
    flat = linearised.constant(maps)
    with without_positions(pool):
        assert linearised.relative_error(pool, flat).max() < 1e-5
        bias = pool.c_proj(pool.v_proj.bias)
        torch.testing.assert_close(pool(flat), flat[..., 0, 0] @ linearised.bilinear(pool) + bias)


def test_positions_break_it(pool, maps):
    """The measured deviation on this pool: far above rounding, below the size of the output."""
    error = linearised.relative_error(pool, linearised.constant(maps)).mean()
    assert 1e-3 < error < 0.5


def test_real_maps_break_it_more(pool, maps):
    with without_positions(pool):
        of_real, of_constant = (linearised.relative_error(pool, m) for m in (maps, linearised.constant(maps)))
    assert of_real.min() > 1000 * of_constant.max()
    with_positions = linearised.relative_error(pool, linearised.constant(maps))
    assert linearised.relative_error(pool, maps).mean() > with_positions.mean()


def test_the_matrix_by_another_route(pool, maps):
    """Autograd: how the pool's output moves with the common value of all places, positions set to zero."""
    with without_positions(pool):
        moved = jacobian(lambda x: pool(x[None, :, None, None].expand(1, 64, 3, 3))[0], maps[0].mean((1, 2)))
    torch.testing.assert_close(linearised.bilinear(pool), moved.T, atol=1e-5, rtol=1e-4)


def test_attribution_is_the_change_of_a_texts_score(pool, maps):
    text = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    found, flat = linearised.attributions(pool, text), linearised.constant(maps)[:1]
    raised = flat.clone()
    raised[:, 7] += 1
    with without_positions(pool):
        change = ((pool(raised) - pool(flat)) @ text.T)[0]
    np.testing.assert_allclose(found[:, 7], change, atol=1e-5)
    assert found.shape == (2, 64)


def test_agreement_is_the_correlation(pool, maps):
    text = torch.nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    seen, mean = pool(maps).numpy(), maps.mean((2, 3)).numpy()
    form = linearised.bilinear(pool).numpy()
    for k, found in enumerate(linearised.agreement(pool, maps, text)):
        exact = [(row @ text[k].numpy()) / np.linalg.norm(row) for row in seen]
        linear = [(row @ form @ text[k].numpy()) / np.linalg.norm(row) for row in mean]
        np.testing.assert_allclose(found, np.corrcoef(exact, linear)[0, 1], atol=1e-4)


def test_the_positions_come_back_after_an_exception(pool):
    before = pool.positional_embedding.clone()
    with pytest.raises(RuntimeError), without_positions(pool):
        assert not pool.positional_embedding.any()
        raise RuntimeError
    torch.testing.assert_close(pool.positional_embedding.data, before)
