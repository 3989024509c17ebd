from dataclasses import replace

import pandas as pd
import pytest
import replicas
import torch
from matplotlib import pyplot as plt

from mmn_utils import cause_plots, causes, profiles
from mmn_utils.attribution import attribute, top_units
from mmn_utils.data import Pictures
from mmn_utils.metrics import Estimate
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import ablate, last_logits

SIZES = (0, 1, 3)
SCENES = Pictures([*replicas.images(3), *replicas.images(1)])
TARGETS = pd.DataFrame(
    {"image": [0, 2, 3], "noun": ["one", "two", "three"], "token": [5, 9, 11], "before": [[3], [3, 7], [4]]}
)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("replica")))


@pytest.fixture(scope="module")
def captioner(profile):
    return Captioner.from_profile(profile)


@pytest.fixture
def plan(captioner, sweep):
    return causes.plan(captioner, SCENES, TARGETS, sizes=SIZES, seed=3, sweep=sweep)


def context(captioner, place):
    row = TARGETS.iloc[place]
    before = captioner.language_model.get_input_embeddings()(torch.tensor(row["before"]))
    return torch.cat([captioner.prompt_embeddings([SCENES.image(row["image"])]), before[None]], dim=1), row["token"]


def test_plans_follow_the_attributions(captioner, plan):
    for place in range(3):
        x, token = context(captioner, place)
        g = attribute(captioner.language_model, x, torch.tensor([token]), positions=slice(0, 16))
        best, masks = top_units(g, 3).flat(128)[0], plan.masks(place)
        assert sorted(best.tolist()) == masks["top"][2].flatten().nonzero()[:, 0].tolist()
        assert torch.equal(masks["top"], masks["interpretable"]), "all units count as interpretable"
        assert torch.equal(masks["random"].sum(2), masks["top"].sum(2))
        assert torch.equal(masks["other"], plan.masks(place - 1 if place else 2)["top"])
        assert torch.equal(masks["random"], plan.masks(place)["random"]), "drawn anew, the same"
    first = plan.first(1)
    assert torch.equal(first.masks(0)["random"], plan.masks(0)["random"]) and len(first.targets) == 1


def test_units_that_cannot_be_read_are_passed_over(captioner, sweep):
    legible = torch.zeros(2, 128, dtype=torch.bool)
    legible[1, ::2] = True
    given = {"sizes": (0, 40), "interpretable": legible, "sweep": sweep}
    masks = causes.plan(captioner, SCENES, TARGETS, **given).masks(1)
    assert (masks["interpretable"][1] & ~legible).sum() == 0 and masks["interpretable"][1].sum() == 40
    with pytest.raises(ValueError, match="expected at least 65 interpretable units, found 64"):
        causes.plan(captioner, SCENES, TARGETS, **given | {"sizes": (0, 65)})


def test_random_units_of_both_kinds(captioner, sweep):
    apart = causes.plan(captioner, SCENES, TARGETS, sizes=(0, 40), sweep=sweep)
    mixed = replace(apart, leave_out_top=False).masks(0)
    assert not (apart.masks(0)["random"] & apart.masks(0)["top"]).any()
    assert (mixed["random"] & mixed["top"]).any()
    assert torch.equal(mixed["random"].sum(2), mixed["top"].sum(2))


@pytest.mark.parametrize("where", [None, slice(0, 16)])
def test_probabilities_are_those_of_plain_forward_passes(captioner, plan, sweep, where):
    table = causes.probabilities(captioner, SCENES, plan, positions=where, sweep=sweep)
    table = table.set_index(["image", "condition", "n_units"])
    assert sorted(set(table.index.get_level_values("image"))) == [0, 2, 3]
    assert (table.xs(0, level="n_units")["relative"] == 1).all()
    for place, image in enumerate(TARGETS["image"]):
        x, token = context(captioner, place)
        for condition, masks in plan.masks(place).items():
            for size, mask in zip(SIZES, masks, strict=True):
                with torch.no_grad(), ablate(captioner.language_model, mask, positions=where):
                    p = last_logits(captioner.language_model, x)[0].softmax(-1)[token]
                assert table.loc[image, condition, size]["probability"] == pytest.approx(p.item(), rel=1e-3)
    with pytest.raises(ValueError, match=r"expected to begin with 0, the model as it is, found \[1, 3\]"):
        causes.probabilities(captioner, SCENES, replace(plan, sizes=(1, 3)), sweep=sweep)


def test_captions_and_their_likeness(captioner, plan, profile, sweep):
    table = causes.captions(captioner, SCENES, plan, sweep=sweep)
    assert len(table) == 3 * 4 * len(SIZES)
    as_is = captioner.caption(SCENES.images)
    unchanged = table[table["n_units"] == 0]
    assert all(caption == as_is[image] for image, caption in zip(unchanged["image"], unchanged["caption"], strict=True))
    table.loc[1, "caption"] = ""
    scored = causes.against_original(table, profile)
    assert scored.loc[1, "bertscore"] == 0 and (scored["bertscore"] <= 1 + 1e-6).all()
    same = scored[(scored["caption"] == scored["original"]) & (scored["caption"] != "")]
    assert same["bertscore"].to_numpy() == pytest.approx(1, abs=1e-5)


def by_hand():
    relative = {"top": ([1, 0.5, 0.1], [1, 0.3, 0.1]), "random": ([1, 1, 1.1], [1, 1, 0.9])}
    rows = [
        (image, condition, size, value)
        for condition, images in relative.items()
        for image, values in enumerate(images)
        for size, value in zip(SIZES, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["image", "condition", "n_units", "relative"])


def test_readings_by_hand():
    table = by_hand()
    assert [e.value for e in causes.curve(table, "relative", "top", 0)] == pytest.approx([1, 0.4, 0.1])
    assert causes.drops(table, "random", 3) == pytest.approx([-0.1, 0.1])
    assert causes.units_until(table, "top", 0.8, seed=0) == Estimate(3, 3, 3, 2)
    assert causes.units_until(table, "top", 0.6, seed=0) == Estimate(1, 1, 3, 2)
    assert causes.units_until(table, "random", 0.8, seed=0).value == 3, "the largest stands for none"


def test_curves_say_what_they_are():
    table, names = by_hand(), {"top": "top units", "random": "random units"}
    figure, ax = plt.subplots()
    lines = {condition: causes.curve(table, "relative", condition, 0) for condition in names}
    cause_plots.curves(ax, SIZES, lines, names, n_units=300, unit="p(c), share")
    assert [line.get_label() for line in ax.lines] == ["top units", "random units"]
    assert {line.get_linestyle() for line in ax.lines} == {"-", ":"}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0\n0 %", "1\n0.33 %", "3\n1 %"]
    assert {t.get_text() for t in ax.texts} == {"top units", "random units"}
    assert ax.get_xlabel() == "ablated units, and their share of all" and ax.get_ylabel() == "p(c), share"
    plt.close(figure)


def test_labels_stand_apart():
    figure, ax = plt.subplots()
    ax.set_ylim(0, 1)
    places = cause_plots._apart(ax, {"a": 0.5, "b": 0.49, "c": 0.9}, least=0.1)
    assert places == pytest.approx({"b": 0.49, "a": 0.59, "c": 0.9})
    plt.close(figure)


def test_the_ladder_marks_what_changed():
    rows = [("top", 0, "a dog.", "a dog."), ("top", 2, "a cat.", "a dog.")]
    figure, ax = plt.subplots()
    table = pd.DataFrame(rows, columns=["condition", "n_units", "caption", "original"])
    cause_plots.caption_ladder(ax, table, {"top": "top units"})
    colours = {t.get_text(): t.get_color() for t in ax.texts}
    assert colours["a dog."] == "black" and colours["a cat."] != "black" and {"top units", "0", "2"} <= set(colours)
    plt.close(figure)
