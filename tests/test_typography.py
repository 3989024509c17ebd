import numpy as np
import pytest
import torch
from PIL import Image
from test_clip_neurons import tiny_clip
from torchvision import transforms

from mmn_utils import typography as ty
from mmn_utils.clip_neurons import neuron_maps
from mmn_utils.models.clip import Clip


def gray(side, value=128):
    return Image.new("RGB", (side, side), (value,) * 3)


def touched(before, after):
    return (np.asarray(before) != np.asarray(after)).any(-1)


def test_cover_counts_pixels_changed_in_any_channel():
    before, after = gray(10), gray(10)
    after.putpixel((0, 0), (128, 128, 129))
    after.putpixel((9, 4), (0, 255, 0))
    after.putpixel((9, 5), (128, 128, 128))  # written on, not changed
    assert ty.cover(before, after) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="one size"):
        ty.cover(before, gray(9))


def test_eight_stamps_of_pizza_cover_what_they_cover_in_the_article():
    before = gray(ty.STAMP_SIDE)
    assert ty.cover(before, ty.stamped(before, "pizza")) == pytest.approx(0.0802, abs=0.002)


def test_a_stamp_stands_where_the_article_has_it():
    changed = touched(gray(288), ty.stamped(gray(288), "pizza", n=1))
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (columns[0], rows[0]) == pytest.approx(ty.STAMPS[0], abs=1)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == pytest.approx((55, 23), abs=2)


@pytest.mark.parametrize("side", [96, 288, 300])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_more_and_larger_stamps_cover_more_and_stay_inside(side, scale):
    before = gray(side)
    covers = [ty.cover(before, ty.stamped(before, "owl", n=n, scale=scale)) for n in (1, 2, 4)]
    assert covers == sorted(covers) and covers[0] > 0
    assert covers[0] > (ty.cover(before, ty.stamped(before, "owl", n=1, scale=scale / 2)))
    whole = ty.cover(gray(4 * side), ty.stamped(gray(4 * side), "owl", n=1, scale=scale / 4)) * 16
    assert covers[0] == pytest.approx(whole, rel=0.25)  # nothing was cut off: as many pixels as with room to spare


def test_stamps_are_one_to_eight():
    with pytest.raises(ValueError, match="found n = 9"):
        ty.stamped(gray(96), "owl", n=9)


@pytest.mark.parametrize("side", [32, 96, 224, 288])
@pytest.mark.parametrize("place", [(0, 0), (0.5, 0.5), (1, 1)])
@pytest.mark.parametrize("word", ["a", "gypsy", "watermelon"])
def test_a_word_is_whole_and_inside_at_every_size(side, place, word):
    image = ty.word_image(word, side, size=0.3, place=place)
    changed = touched(Image.new("RGB", (side, side), (255, 255, 255)), image)
    assert image.size == (side, side) and changed.any()
    assert not (changed[[0, -1]].any() or changed[:, [0, -1]].any())


def test_a_word_stands_where_it_is_told_and_in_its_ink():
    low = touched(gray(96, 255), ty.word_image("owl", 96, place=(0.5, 1), ink=(200, 0, 0)))
    assert not low[:48].any()
    assert np.asarray(ty.word_image("owl", 96, ink=(200, 0, 0)))[..., 0].min() >= 200


def test_the_sweep_is_the_mean_over_sizes_of_the_largest_over_places():
    prepare = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    clip = Clip(tiny_clip().eval(), None, prepare, "tiny")
    found = ty.word_activations(clip, ["owl", "bee", "cat"], batch_size=2)
    by_hand = torch.zeros(3, 256)
    for i, word in enumerate(["owl", "bee", "cat"]):
        for size in ty.SIZES:
            drawn = [ty.word_image(word, 64, size=size, place=place) for place in ty.PLACES]
            maps = torch.stack([neuron_maps(clip.model, prepare(image)[None])[0] for image in drawn])
            by_hand[i] += maps.amax((0, 2, 3)) / len(ty.SIZES)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [96, 288])
@pytest.mark.parametrize("place", [(0, 0), (0.5, 0.9), (1, 1)])
def test_a_label_is_paper_of_its_size_within_the_picture(side, place):
    before = gray(side)
    paper = touched(before, ty.labelled(before, place=place, size=(0.5, 0.25)))
    rows, columns = np.flatnonzero(paper.any(1)), np.flatnonzero(paper.any(0))
    assert len(rows) == pytest.approx(0.25 * side, abs=2) and len(columns) <= 0.5 * side + 1
    assert 0.8 * 0.125 < paper.mean() < 0.125  # a little less than the rectangle: it is seen from the side
    assert paper[:, columns[0]].sum() > paper[:, columns[-1]].sum()


def test_what_is_written_on_a_label_stays_on_it():
    before = gray(96)
    blank, written = ty.labelled(before), ty.labelled(before, "watermelon")
    ink = touched(blank, written)
    assert ink.any() and not (ink & ~touched(before, blank)).any()


def test_success_leaves_out_pictures_already_in_the_target_class():
    before, after = np.array([3, 0, 1, 2, 3]), np.array([3, 3, 1, 3, 0])
    assert ty.success(before, after, 3).tolist() == [True, False, True]  # pictures 1, 2, 3
    with pytest.raises(ValueError, match="as many"):
        ty.success(before, after[:2], 3)


def test_stroop_has_the_articles_8_neutral_7_congruent_49_incongruent_pairs():
    inks = ["black", "red", "green", "blue", "purple", "orange", "pink", "yellow"]
    pairs = ty.stroop_pairs(["dog", *inks[1:]], inks)
    assert pairs.kind.value_counts().to_dict() == {"incongruent": 49, "neutral": 8, "congruent": 7}
    assert (pairs.word == pairs.ink).equals(pairs.kind == "congruent")
