import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from test_compositional import one_by_one, plain

from mmn_utils import explanations, pixel_concepts
from mmn_utils.compositional import search
from mmn_utils.data import CocoScenes
from mmn_utils.data.coco import SceneObject
from mmn_utils.miniature.world import write_scenes


def grid(*lines):
    return np.array([list(line) for line in lines]) == "1"


BOAT = grid("0000", "0110", "0110", "0000")
BUOY = grid("0000", "0000", "0000", "0001")


class Harbour:
    """One picture of four by four pixels: a red boat and a buoy on blue."""

    families = {"boat": "vehicle", "buoy": "mark"}

    def __init__(self, **info):
        self._info = info

    def info(self, _image):
        return self._info

    def image(self, _image):
        return Image.fromarray(np.where(BOAT[..., None], (200, 45, 40), (80, 120, 200)).astype(np.uint8))

    def objects(self, _image):
        return [SceneObject(n, m, (0, 0, 1, 1), m.sum()) for n, m in (("boat", BOAT), ("buoy", BUOY))]


def test_concepts_of_sixteen_pixels_by_hand():
    found = pixel_concepts.pixel_concepts(Harbour(ground="plain blue", style="line"), [7], side=4)
    masks = found.of_picture(0)
    assert set(masks) == {
        "object:boat", "object:buoy", "family:vehicle", "family:mark", "size:large", "size:middle", "hand:line",
        "ground:blue", "pattern:plain", "colour:red", "colour:blue", "place:top", "place:centre row", "place:bottom",
        "place:left", "place:centre column", "place:right",
    }  # fmt: skip
    for name in ("object:boat", "family:vehicle", "size:large", "colour:red"):
        assert (masks[name] == BOAT).all(), name
    assert (masks["hand:line"] == BOAT | BUOY).all() and (masks["ground:blue"] == ~(BOAT | BUOY)).all()
    assert (masks["colour:blue"] == ~BOAT).all(), "a pixel's colour is its own, whatever thing it belongs to"
    assert (masks["place:right"] == grid(*["0001"] * 4)).all()
    assert (masks["place:top"] == grid("1111", "1111", "0000", "0000")).all()
    assert found.images == (7,) and found.truth.shape == (16, 17)
    bare = pixel_concepts.pixel_concepts(Harbour(), [7], side=4).names
    assert not {"ground", "pattern", "hand"} & {name.split(":")[0] for name in bare}, "COCO does not know these"


def test_the_search_explains_sixteen_pixels_as_by_hand():
    found = pixel_concepts.pixel_concepts(Harbour(), [0], side=4)
    fires = grid("0000", "0010", "0010", "0001")  # the boat in the third column, and the buoy
    (own,) = search(fires.reshape(16, 1), found.truth, max_length=3, operands="all")
    assert own.best(1).formula.text(found.names) == "colour:red", "the first of those that are true of the boat"
    assert (own.best(1).intersection, own.best(1).union) == (2, 5)
    assert own.best(2).formula.text(found.names) == "(colour:red AND place:centre column)"
    assert (own.best(2).intersection, own.best(2).union) == (2, 3)
    assert own.best(3).formula.text(found.names) == "((colour:red AND place:centre column) OR family:mark)"
    assert own.best(3).iou == 1 and (found.mask(own)[0] == fires).all()


@pytest.mark.parametrize("side", [2, 3])
def test_the_search_agrees_with_brute_force_on_pixels(side):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth, maps = rng.random((2 * side**2, 5)) < 0.4, torch.from_numpy(rng.normal(size=(2, 3, 2, 2))).float()
        fires = pixel_concepts.pixel_firing(maps, pixel_concepts.thresholds(maps, top=0.4), side=side)
        for own in search(fires, truth, max_length=3, beam=5, operands="all"):
            expected = one_by_one(fires[:, own.neuron].tolist(), truth, max_length=3, beam=5, operands="all")
            assert plain(own) == (expected if own.searched else [])


def test_laws_of_length_and_of_unions():
    rng = np.random.default_rng(1)
    truth, fires = rng.random((200, 12)) < 0.3, rng.random((200, 9)) < 0.2
    for own in search(fires, truth, max_length=5, beam=5, operands="all"):
        scores = [own.best(n).iou for n in range(1, 6)]
        assert scores == sorted(scores), "a longer formula is never worse: the search keeps the shorter ones"
        for scored in itertools.chain(*own.beams):
            size, n_firing = scored.formula.mask(truth).sum(), own.n_firing
            assert max(size, n_firing) <= scored.union <= size + n_firing
            assert scored.union == size + n_firing - scored.intersection
            assert scored.iou <= min(size, n_firing) / max(size, n_firing, 1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return CocoScenes(write_scenes(tmp_path_factory.mktemp("scenes"), split="val", n=12), "val")


def test_concepts_of_drawn_scenes(scenes):
    found = pixel_concepts.pixel_concepts(scenes, scenes.ids, side=64)
    column = {name: found.truth[:, k].reshape(12, 64, 64) for k, name in enumerate(found.names)}
    for k, i in enumerate(scenes.ids):
        objects = scenes.objects(i)
        for o in objects:
            assert (column[f"object:{o.name}"][k] & o.mask).sum() == o.mask.sum()
            assert column[f"family:{scenes.families[o.name]}"][k][o.mask].all()
        taken = np.any([o.mask for o in objects], axis=0)
        pattern, colour = scenes.info(i)["ground"].split()
        assert (column[f"ground:{colour}"][k] == ~taken).all() and (column[f"pattern:{pattern}"][k] == ~taken).all()
        assert (column[f"hand:{scenes.info(i)['style']}"][k] == taken).all()
    for kind in ("colour:", "place:"):
        per_pixel = sum(mask.astype(int) for name, mask in column.items() if name.startswith(kind))
        assert (per_pixel == (1 if kind == "colour:" else 2)).all(), "one colour, one row and one column each"


def test_other_pictures_get_the_same_columns(scenes):
    first = pixel_concepts.pixel_concepts(scenes, scenes.ids[:8], side=16)
    other = pixel_concepts.pixel_concepts(scenes, scenes.ids[8:], side=16, names=first.names)
    alone = pixel_concepts.pixel_concepts(scenes, scenes.ids[8:], side=16)
    assert other.names == first.names and set(alone.names) - set(first.names), "concepts that were not known are gone"
    for k, name in enumerate(first.names):
        expected = alone.truth[:, alone.names.index(name)] if name in alone.names else np.zeros(4 * 256, dtype=bool)
        assert (other.truth[:, k] == expected).all()


def test_masks_are_cut_square_and_half_a_pixel_counts():
    wide = np.zeros((4, 8), dtype=bool)
    wide[:, 2:5] = True
    assert (pixel_concepts.shrunk(wide, 4) == grid(*["1110"] * 4)).all()
    assert (pixel_concepts.shrunk(wide, 2) == grid("11", "11")).all(), "half of the right ones is true"
    assert pixel_concepts.square(Image.new("RGB", (8, 4))).size == (4, 4)


def test_neurons_fire_above_their_own_quantile():
    maps = torch.randn(50, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    cut = pixel_concepts.thresholds(maps, top=0.1)
    for k in range(4):
        assert (maps[:, k] > cut[k]).float().mean().item() == pytest.approx(0.1, abs=1 / 450)
    fires = pixel_concepts.pixel_firing(maps, cut, side=12).reshape(50, 12, 12, 4)
    enlarged = torch.nn.functional.interpolate(maps, size=(12, 12), mode="bilinear", align_corners=False)
    assert (fires == (enlarged > cut[:, None, None]).permute(0, 2, 3, 1).numpy()).all()
    same = pixel_concepts.pixel_firing(maps, cut, side=3).reshape(50, 3, 3, 4)
    assert (same == (maps > cut[:, None, None]).permute(0, 2, 3, 1).numpy()).all(), "not enlarged: the map itself"
    maps[3, 2, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"found others in neurons \[2\] \(1 in all\)"):
        pixel_concepts.pixel_firing(maps, cut, side=12)


def test_shuffled_pictures_keep_everything_but_the_picture():
    fires = np.random.default_rng(0).random((20 * 9, 5)) < 0.3
    null = pixel_concepts.shuffled_pictures(fires, 20, seed=2)
    before, after = fires.reshape(20, -1), null.reshape(20, -1)
    whose = [int(np.flatnonzero((before == own).all(1))[0]) for own in after]
    assert sorted(whose) == list(range(20)) and all(k != own for k, own in enumerate(whose))


def test_formulas_elsewhere_and_in_whole_pictures():
    rng = np.random.default_rng(5)
    truth, fires = rng.random((60, 6)) < 0.3, rng.random((60, 4)) < 0.3
    found = search(fires, truth, max_length=2)
    assert pixel_concepts.ious_elsewhere(found, fires, truth, 2) == pytest.approx(explanations.ious(found, 2))
    silent = fires & (np.arange(4) != 1)
    assert np.isnan(pixel_concepts.ious_elsewhere(found, silent, truth, 1)).tolist() == [False, True, False, False]
    assert (pixel_concepts.ious_elsewhere(found, fires, np.zeros_like(truth), 1) <= 0).all()
    pictures = pixel_concepts.by_picture(truth, 15)
    assert (pictures == [[truth[4 * k : 4 * k + 4, c].any() for c in range(6)] for k in range(15)]).all()
