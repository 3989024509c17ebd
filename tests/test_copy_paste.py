import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_clip_neurons import tiny_clip
from torchvision import transforms

from mmn_utils import copy_paste, pixel_concepts, pixel_plots
from mmn_utils.clip_neurons import neuron_maps
from mmn_utils.data import CocoScenes
from mmn_utils.miniature.world import write_scenes
from mmn_utils.models.clip import Clip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return CocoScenes(write_scenes(tmp_path_factory.mktemp("scenes"), split="val", n=16), "val")


@pytest.fixture(scope="module")
def things(scenes):
    return copy_paste.cut_outs(scenes, scenes.ids, size=64, side=16)


@pytest.fixture(scope="module")
def clip():
    prepare = transforms.Compose([transforms.Resize(64), transforms.ToTensor()])
    return Clip(tiny_clip().eval().requires_grad_(False), None, prepare, "tiny")


def test_pasting_by_hand():
    host, home = Image.new("RGB", (2, 2), (0, 0, 0)), Image.new("RGB", (2, 2), (9, 8, 7))
    made = np.asarray(copy_paste.pasted(host, home, np.array([[True, False], [False, False]])))
    assert made.tolist() == [[[9, 8, 7], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_things_are_the_objects_of_the_scenes(scenes, things):
    large = [(k, o) for k, i in enumerate(scenes.ids) for o in scenes.objects(i) if o.mask.mean() > 0.05]
    assert len(things.names) >= len(large) > 5 and things.pixels.mean(1).min() >= copy_paste.LEAST
    for k, o in large:
        (found,) = np.flatnonzero((things.picture == k) & (things.names == o.name))
        assert (things.masks[found] == o.mask).all(), "at the scenes' own size"
        assert np.array_equal(np.asarray(things.frames[k]), np.asarray(scenes.image(scenes.ids[k])))
    with pytest.raises(ValueError, match="found none in 0"):
        copy_paste.cut_outs(scenes, [], size=64, side=16)


def test_a_thing_fits_its_own_name_and_no_other(scenes, things):
    concepts = pixel_concepts.pixel_concepts(scenes, scenes.ids, side=16)
    named = [k for k, name in enumerate(concepts.names) if name.startswith("object:")]
    found = copy_paste.shares((concepts.truth[:, k].reshape(16, 16, 16) for k in named), things)
    own = np.array([concepts.names[k].split(":")[1] for k in named])[:, None] == things.names
    assert (found[own] == 1).all() and (found[~own] < 0.9).all()
    half = np.zeros((16, 16, 16), dtype=bool)
    half[..., :8] = True
    expected = things.pixels.reshape(-1, 16, 16)[..., :8].sum((1, 2)) / things.pixels.sum(1)
    assert copy_paste.shares([half], things)[0] == pytest.approx(expected)


def test_the_plan_keeps_its_promises(things):
    n, rng = len(things.names), np.random.default_rng(0)
    wanted = [np.arange(3), np.array([], dtype=int), np.arange(n)]
    controls, hosts = rng.random((3, n)) < 0.6, rng.random((3, 16)) < 0.5
    planned = copy_paste.plan(wanted, controls, hosts, things, seed=4)
    assert set(planned.row) == {0, 2} and planned.equals(copy_paste.plan(wanted, controls, hosts, things, seed=4))
    for p in planned.itertuples():
        assert hosts[p.row, p.host] and p.host not in things.picture[[p.thing, p.control]]
        allowed = np.flatnonzero(controls[p.row] & (things.names != things.names[p.thing]))
        both = [(things.pixels[p.thing] & things.pixels[c]).sum() for c in allowed]
        either = [(things.pixels[p.thing] | things.pixels[c]).sum() for c in allowed]
        assert p.control in allowed and p.alike == pytest.approx(np.max(np.divide(both, either)))
    assert copy_paste.plan(wanted, np.zeros_like(controls), hosts, things, seed=4).empty, "no control, no paste"


def test_class_weights_are_derivatives(clip, things):
    maps, _ = copy_paste.see(clip, things.frames[:3])
    texts = torch.nn.functional.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    found = copy_paste.class_weights(clip, maps, texts)
    assert found.shape == (4, maps.shape[1])

    def cosines(neurons):
        joint = torch.nn.functional.normalize(clip.visual.double().attnpool(neurons), dim=-1)
        return (joint @ texts.double().T).mean(0).numpy()

    for k in (0, 17):
        step = torch.zeros(maps.shape[1], 1, 1, dtype=torch.float64)
        step[k] = 1e-4
        up, down = (cosines(maps.double().relu() + sign * step) for sign in (1, -1))
        assert (up - down) / 2e-4 == pytest.approx(found[:, k], rel=1e-2, abs=1e-6)
    clip.visual.float()


def test_what_is_looked_at_is_what_was_planned(clip, things):
    hosts, controls = np.ones((2, 16), dtype=bool), np.ones((2, len(things.names)), dtype=bool)
    planned = copy_paste.plan([np.array([0, 1]), np.array([2])], controls, hosts, things, seed=0)
    looked = copy_paste.look(clip, things, planned)
    assert list(looked) == ["host", "thing", "control"]
    row = next(planned.iloc[[1]].itertuples())
    made = copy_paste.picture_of(things, row, "thing")
    inside = things.masks[row.thing]
    assert (np.asarray(made)[inside] == np.asarray(things.frames[things.picture[row.thing]])[inside]).all()
    assert (np.asarray(made)[~inside] == np.asarray(things.frames[row.host])[~inside]).all()
    alone = neuron_maps(clip.model, clip.pixels([made])).amax((2, 3))[0]
    torch.testing.assert_close(looked["thing"][0][1], alone, rtol=1e-4, atol=1e-4)
    cut = looked["thing"][0][1] - 0.1  # below what paste 1 gives, for every neuron
    assert copy_paste.fired(looked, np.array([0, 5, 9]), cut)["thing"][1]
    assert not copy_paste.fired(looked, np.array([0, 5, 9]), cut + 0.2)["thing"][1]
    texts = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    p = copy_paste.chances(looked, clip, texts)["control"]
    best = (clip.encode_images([copy_paste.picture_of(things, row, "control")]) @ texts.T).argmax()
    assert p.sum(1) == pytest.approx(1) and p[1].argmax() == best


def test_rates_are_means_over_rows():
    rows = pd.Series([3, 3, 3, 8], index=[5, 6, 7, 8])
    outcome = {"thing": np.array([1, 1, 0, 0], dtype=bool), "control": np.array([0, 0, 0, 1.0]), "host": None}
    found = copy_paste.compare(rows, outcome, seed=0)
    assert (found.ours.value, found.others.value, found.ours.n) == (pytest.approx(1 / 3), 0.5, 2)
    assert found.gain.value == pytest.approx(1 / 3 - 0.5) and copy_paste.decided(found) == "not clearly higher than"
    swapped = {"thing": np.zeros(4), "control": np.ones(4)}
    assert copy_paste.decided(copy_paste.compare(rows, swapped, seed=0)) == "lower than"


def test_figures_show_what_they_are_given(things):
    hosts, controls = np.ones((1, 16), dtype=bool), np.ones((1, len(things.names)), dtype=bool)
    planned = copy_paste.plan([np.array([0, 1])], controls, hosts, things, seed=0)
    said = [["host", f"thing {k}", f"control {k}"] for k in range(2)]
    figure = pixel_plots.pastes(things, planned, said, ["one", "two"])
    assert [ax.get_title() for ax in figure.axes] == said[0] + said[1]
    maps, true = torch.rand(3, 3, 3), things.pixels[:3].reshape(3, 16, 16)
    cards = pixel_plots.cards(["a neuron"], [things.frames[:3]], [maps], [0.5], [true])
    assert len(cards.subfigs) == 1 and len(cards.subfigs[0].axes) == 3
    panels = {"picture": np.asarray(things.frames[0]), "fires": true[0], "boat": true[1]}
    drawn = pixel_plots.masks(panels, fires=["fires"], columns=2)
    assert [ax.get_title() for ax in drawn.axes if ax.get_visible()] == list(panels)
    shades = [drawn.axes[k].images[0].get_array()[panel][0] for k, panel in ((1, true[0]), (2, true[1]))]
    assert (shades[0] != shades[1]).any(), "where a neuron fires has a colour of its own"
    plt.close("all")
