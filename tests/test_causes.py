import re

import pandas as pd
import pytest
import replicas
import torch
from matplotlib import pyplot as plt

from mmn_utils import cause_plots, causes, profiles
from mmn_utils.attribution import Target, attribute, first_noun_target, top_units
from mmn_utils.metrics import Estimate
from mmn_utils.models.captioner import Captioner
from mmn_utils.neurons import ablate, last_logits

SIZES = (0, 1, 3)
TARGETS = [Target("one", 5, (3,)), None, Target("two", 9, (3, 7)), Target("three", 11, (4,))]


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("replica")))


@pytest.fixture(scope="module")
def captioner(profile):
    return Captioner.from_profile(profile)


@pytest.fixture(scope="module")
def prompts(captioner):
    return captioner.prompt_embeddings([*replicas.images(3), *replicas.images(1)])


def test_plans_follow_the_attributions(captioner, prompts):
    made = list(causes.plans(captioner, prompts, TARGETS, sizes=SIZES, seed=3))
    assert [plan.image for plan in made] == [0, 3, 2], "images of one context length stand together"
    for plan in made:
        g = attribute(captioner.language_model, plan.context, torch.tensor([plan.token]), positions=slice(0, 16))
        best = top_units(g, 3).flat(128)[0]
        assert sorted(best.tolist()) == plan.masks["top"][2].flatten().nonzero()[:, 0].tolist()
        assert torch.equal(plan.masks["top"], plan.masks["interpretable"]), "all units count as interpretable"
        assert torch.equal(plan.masks["random"].sum(2), plan.masks["top"].sum(2))
    for before, plan in zip(made[:-1], made[1:], strict=True):
        assert torch.equal(plan.masks["other"], before.masks["top"])
    again = list(causes.plans(captioner, prompts, TARGETS, sizes=SIZES, seed=3))
    assert all(torch.equal(a.masks["random"], b.masks["random"]) for a, b in zip(made, again, strict=True))


def test_random_units_that_may_be_top_ones():
    chosen = torch.zeros(2, 8, dtype=torch.bool)
    chosen[0, :6] = True
    drawn = causes.any_units(chosen, torch.Generator().manual_seed(0))
    assert drawn.sum(1).tolist() == [6, 0] and (drawn & chosen).any()


def test_random_units_of_both_kinds(captioner, prompts):
    given = {"sizes": (0, 40), "seed": 1}
    (apart, mixed) = (next(causes.plans(captioner, prompts, TARGETS, leave_out_top=k, **given)) for k in (True, False))
    assert not (apart.masks["random"] & apart.masks["top"]).any()
    assert (mixed.masks["random"] & mixed.masks["top"]).any()
    assert torch.equal(mixed.masks["random"].sum(2), mixed.masks["top"].sum(2))


@pytest.mark.parametrize("where", [None, slice(0, 16)])
def test_probabilities_are_those_of_plain_forward_passes(captioner, prompts, where):
    table = causes.probabilities(captioner, prompts, TARGETS, sizes=SIZES, positions=where).set_index(
        ["image", "condition", "n_units"]
    )
    assert sorted(set(table.index.get_level_values("image"))) == [0, 2, 3]
    assert (table.xs(0, level="n_units")["relative"] == 1).all()
    for plan in causes.plans(captioner, prompts, TARGETS, sizes=SIZES):
        for condition, masks in plan.masks.items():
            for size, mask in zip(SIZES, masks, strict=True):
                with torch.no_grad(), ablate(captioner.language_model, mask, positions=where):
                    p = last_logits(captioner.language_model, plan.context)[0].softmax(-1)[plan.token]
                assert table.loc[plan.image, condition, size]["probability"] == pytest.approx(p.item(), rel=1e-4)
    with pytest.raises(ValueError, match=r"expected to begin with 0, the model as it is, found \[1, 3\]"):
        causes.probabilities(captioner, prompts, TARGETS, sizes=(1, 3))


def test_captions_and_their_likeness(captioner, prompts, profile):
    table = causes.captions(captioner, prompts, TARGETS, sizes=SIZES)
    assert len(table) == 3 * 4 * len(SIZES)
    as_is = captioner.complete(prompts)
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


def test_a_captioner_by_itself(captioner, prompts):
    images = [*replicas.images(3), *replicas.images(1)]
    said = captioner.complete(prompts)
    nouns = set(re.findall(r"[a-z]+", said[1].lower()))
    table = causes.own_probabilities(captioner, images, nouns, sizes=SIZES)
    targets = [first_noun_target(captioner, text, nouns) for text in said]
    assert table.equals(causes.probabilities(captioner, prompts, targets, sizes=SIZES))
    assert 1 in set(table["image"]) == {k for k, target in enumerate(targets) if target}
    with pytest.raises(ValueError, match="none of 4 images has a target: no caption holds one of the nouns"):
        causes.own_probabilities(captioner, images, set(), sizes=SIZES)


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
    places = cause_plots._apart(ax, {"a": 0.5, "b": 0.49, "c": 0.9})
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
