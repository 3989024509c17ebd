import numpy as np
import pytest
import torch
from PIL import Image
from test_clip_neurons import tiny_clip
from torchvision.transforms import Compose, PILToTensor

from mmn_utils import regions
from mmn_utils.clip_neurons import neuron_maps
from mmn_utils.miniature.album import LAND
from mmn_utils.models.clip import Clip


def test_the_invented_world_has_all_lands_where_the_map_shows_them():
    picture, owner = regions.read_map()
    assert owner.shape == regions.GRID and set(np.unique(owner)) == set(range(-1, len(LAND)))
    small = np.asarray(picture.resize(regions.GRID[::-1], Image.Resampling.BOX), float)
    for k, colour in enumerate(LAND.values()):
        assert np.abs(np.median(small[owner == k], axis=0) - colour).max() < 10


def test_a_map_in_a_folder(tmp_path):
    numbers = np.full((80, 160), 255, np.uint8)
    numbers[:40, :80] = 3
    Image.fromarray(numbers).save(tmp_path / "lands.png")
    Image.new("RGB", (160, 80)).save(tmp_path / "map.png")
    picture, owner = regions.read_map(str(tmp_path))
    assert picture.size == (160, 80)
    assert (owner[:20, :40] == 3).all() and (owner[20:] == -1).all() and (owner[:, 40:] == -1).all()
    (tmp_path / "map.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"map\.png"):
        regions.read_map(str(tmp_path))


def test_pieces_are_cut_where_they_say():
    height, width = regions.GRID
    rows, columns = np.mgrid[: 2 * height, : 2 * width]
    picture = Image.fromarray(np.dstack([rows, columns, 0 * rows]).astype(np.uint8))  # two pixels a cell
    inside = np.asarray(regions.cut(picture, (10, 4, 12)))
    assert (
        inside.shape == (24, 24, 3) and inside[0, 0].tolist() == [8, 20, 0] and inside[-1, -1].tolist() == [31, 43, 0]
    )
    corner = np.asarray(regions.cut(picture, (-8, -8, 16)))
    assert corner[0, 0].tolist() == [0, 0, 0] and corner[-1, -1].tolist() == [15, 15, 0]
    for left, top, side in regions.pieces(300, seed=0):
        assert regions.cut(picture, (left, top, side)).size == (2 * side, 2 * side)


def test_spread_of_a_constant_is_constant_and_covers_the_map():
    where = regions.pieces(400, seed=1)
    found = regions.spread(torch.full((400, 2, 3, 3), 4.0), where)
    assert found.shape == (2, *regions.GRID)
    np.testing.assert_allclose(found, 4, rtol=1e-6)


def test_spread_by_hand():
    values = torch.tensor([1.0, 3.0])[:, None, None, None]
    found = regions.spread(values, [(0, 0, 10), (5, 0, 10)])[0]
    expected = np.zeros(regions.GRID)
    expected[:10, :5], expected[:10, 5:10], expected[:10, 10:15] = 1, 2, 3
    np.testing.assert_allclose(found, expected)


def test_a_planted_unit_is_found_on_its_land():
    _, owner = regions.read_map()
    where = regions.pieces(600, seed=0)
    planted = Image.fromarray((255 * (owner == 2)).astype(np.uint8)).convert("RGB")
    says = [
        np.asarray(regions.cut(planted, piece).resize((3, 3), Image.Resampling.BOX))[None, ..., 0] for piece in where
    ]
    found = regions.spread(torch.tensor(np.stack(says)).float(), where)
    scores = regions.overlap(found, owner, 6)[:, 0]
    assert scores.argmax() == 2 and scores[2] > 0.6


def test_overlap_by_hand():
    owner = np.array([[0, 0, -1, 1]])
    maps = np.array([[[9.0, 8, 1, 0]], [[9, 1, 8, 0]], [[0, 1, 2, 3]]])
    np.testing.assert_allclose(regions.overlap(maps, owner, 2), [[1, 1 / 3, 0], [0, 0, 1]])


@torch.no_grad()
def test_looking_equals_looking_piece_by_piece():
    model = tiny_clip(image_size=64).eval()
    model.visual.image_size = 64
    prepare = Compose([lambda image: image.resize((64, 64)), PILToTensor(), lambda x: x.float() / 255])
    clip, (picture, _) = Clip(model, None, prepare, "tiny"), regions.read_map()
    found = regions.look(clip, picture, n_pieces=5, seed=3, batch_size=2)
    where = regions.pieces(5, seed=3)
    one = [regions.spread(neuron_maps(model, clip.pixels([regions.cut(picture, p)])), [p]) for p in where]
    covered = [regions.spread(torch.ones(1, 1, 1, 1), [p]) for p in where]
    expected = sum(one) / np.maximum(sum(covered), 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_by_land_by_hand():
    answers = np.array([[0.0, 5.0], [2.0, 1.0], [4.0, 3.0], [6.0, 3.0]])
    found = regions.by_land(answers, ["a", "b", "b", "a"], ["b", "a"])
    sd = answers.std(axis=0)
    np.testing.assert_allclose(found, np.array([[0.0, -1.0], [0.0, 1.0]]) / sd)


def test_distances_of_the_same_lands_agree_whatever_the_units():
    rng = np.random.default_rng(0)
    said = rng.normal(size=(6, 3))
    turned = said @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    one, two, other = (regions.apart(x) for x in (said, 2 * turned + 1, rng.normal(size=(6, 3))))
    assert len(one) == 15 and np.mean(one * two) == pytest.approx(1)
    flat = [np.linalg.norm(said[i] - said[j]) for i in range(6) for j in range(i + 1, 6)]
    assert np.mean(one * other) < 0.9 and np.argmax(flat) == np.argmax(one)
