import types

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, image_transform
from sklearn.metrics import roc_auc_score
from test_clip_neurons import tiny_clip

from mmn_utils import clip_neurons, multimodal, multimodal_plots
from mmn_utils.data.album import Album
from mmn_utils.miniature.album import write_album
from mmn_utils.models.clip import Clip
from mmn_utils.multimodal import FACETS, Seen, auroc, by_facet, counted, judge, most_active, peak, rotated


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --------------------------------------------------------------------------------------------------------------- AUROC


def test_auroc_by_hand():
    """Positives 3, 1 against 2, 0: of four comparisons, 3>2, 3>0 and 1>0 are won."""
    score = auroc(np.array([[3.0], [1.0], [2.0], [0.0]]), np.array([[True, True, False, False]]))
    assert score.tolist() == [[0.75]]


def test_a_tie_counts_half():
    answers = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert auroc(answers, np.array([[True, False, False]])).tolist() == [[0.75, 0.75]]
    assert auroc(np.ones((4, 1)), np.array([[True, False, True, False]])).item() == 0.5


def test_auroc_is_scikit_learns(rng):
    answers = rng.integers(0, 7, (60, 5)).astype(float)  # many ties
    positive = np.eye(4, dtype=bool)[rng.integers(0, 4, 60)].T
    expected = [[roc_auc_score(own, unit) for unit in answers.T] for own in positive]
    np.testing.assert_allclose(auroc(answers, positive), expected, atol=1e-12)


def test_auroc_knows_order_only_and_turns_with_the_sign(rng):
    answers, positive = rng.normal(size=(50, 3)), rng.random((2, 50)) < 0.3
    score = auroc(answers, positive)
    np.testing.assert_array_equal(auroc(np.exp(3 * answers) - 5, positive), score)
    np.testing.assert_allclose(auroc(-answers, positive), 1 - score)


def test_a_concept_without_pictures_has_no_score(rng):
    assert np.isnan(auroc(rng.normal(size=(5, 2)), np.zeros((1, 5), dtype=bool))).all()


# ------------------------------------------------------------------------------------------------- multimodal neurons


def made_up(rng, planted, *, n=12, n_concepts=5, n_units=6):
    """Noise, and units that answer to a concept in some facets: `planted` is {unit: (concept, facets)}."""
    rows = [(facet, f"c{c}") for facet in FACETS for c in range(n_concepts) for _ in range(n)]
    pictures = pd.DataFrame(rows, columns=["facet", "concept"])
    maps = rng.normal(size=(len(rows), n_units, 2, 2)).astype(np.float32)
    for unit, (concept, facets) in planted.items():
        hit = (pictures.concept == concept) & pictures.facet.isin(facets)
        maps[hit.to_numpy(), unit, 0, 1] += 8
    concepts = tuple(f"c{c}" for c in range(n_concepts))
    return Seen(pictures, concepts, torch.from_numpy(maps), torch.zeros(len(rows), 1))


PLANTED = {1: ("c3", FACETS), 4: ("c0", ("photo", "drawing"))}


def test_the_planted_neuron_is_found_and_only_it(rng):
    found, measured = (by_facet(made_up(rng, PLANTED)) for _ in range(2))
    table = judge(found, measured, [f"c{c}" for c in range(5)])
    assert table.index[table.multimodal].tolist() == [1] and table.concept[1] == "c3"
    assert counted(table).value == 1 and counted(table).n == 6
    assert table.weakest[1] == table.loc[1, list(FACETS)].min() > 0.99


def test_what_is_chosen_without_words_is_still_measured_on_words(rng):
    found, measured = (by_facet(made_up(rng, PLANTED)) for _ in range(2))
    table = judge(found, measured, [f"c{c}" for c in range(5)], chosen_by=["photo", "drawing"])
    assert table.concept[4] == "c0" and table.photo[4] > 0.99 > 0.9 > table.text[4]
    assert not table.multimodal[4]


def test_a_pair_must_hold_on_the_other_pictures(rng):
    """The neuron answers to c3 where it is searched for, to c2 where it is measured."""
    found, measured = (by_facet(made_up(rng, {1: (c, FACETS)})) for c in ("c3", "c2"))
    table = judge(found, measured, [f"c{c}" for c in range(5)])
    assert table.concept[1] == "c3" and table.found[1] > 0.99 and not table.multimodal.any()


def test_a_rotation_keeps_the_space_and_loses_the_axes(rng):
    seen = made_up(rng, PLANTED)
    turned = rotated(seen, seed=3)
    torch.testing.assert_close(turned.maps.norm(dim=1), seen.maps.norm(dim=1))
    torch.testing.assert_close(turned.maps, rotated(seen, seed=3).maps)
    gram, turned_gram = (torch.einsum("pnyx,qnyx->pq", s.maps, s.maps) for s in (seen, turned))
    torch.testing.assert_close(turned_gram, gram, rtol=1e-4, atol=1e-3)
    assert (turned.maps - rotated(seen, seed=4).maps).abs().max() > 1


def test_random_directions_are_counted_draw_by_draw(rng):
    found, measured = made_up(rng, PLANTED), made_up(rng, PLANTED)
    counts = multimodal.random_counts(found, measured, n_draws=3, seed=5)
    by_hand = [
        judge(by_facet(rotated(found, seed=k)), by_facet(rotated(measured, seed=k)), found.concepts).multimodal.sum()
        for k in (5, 6, 7)
    ]
    assert counts == by_hand


def test_a_mean_is_counted_by_means(rng):
    """The peak of unit 1 is lost in means that swing far more."""
    sides = [made_up(rng, PLANTED) for _ in range(2)]
    for side in sides:
        swing = torch.from_numpy(rng.choice([0.0, 40.0], (len(side.maps), 1, 1))).float()
        side.maps[:, 1] -= swing * torch.tensor([[1, 0], [1, 1]])
    peaks, means = (judge(*(by_facet(s, pool=p) for s in sides), sides[0].concepts) for p in ("max", "mean"))
    assert peaks.multimodal[1] and not means.multimodal[1]


def test_the_second_concept_is_of_another_family():
    table = pd.DataFrame({"concept": ["cat", "car"]}).rename_axis("unit")
    families = pd.Series({"cat": "animal", "dog": "animal", "car": "vehicle"})
    scores = np.array([[0.99, 0.6], [0.98, 0.7], [0.8, 0.95]])
    second = multimodal.second_concepts(table, scores, families)
    assert second.second.tolist() == ["car", "dog"] and second.holds.tolist() == [0.8, 0.7]


def test_the_most_active_pictures_and_where(rng):
    seen = made_up(rng, {})
    seen.maps[7, 2, 1, 0], seen.maps[3, 2, 0, 1] = 50, 40
    assert most_active(seen, 2, n=2) == [7, 3]
    assert peak(seen.maps[7, 2], 96) == (0, 48, 48) and peak(seen.maps[3, 2], 96) == (48, 0, 48)


# ------------------------------------------------------------------------------------------------ pictures and figures


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return Album(write_album(tmp_path_factory.mktemp("album"), split="val", n=1, facets=["photo", "drawing", "text"]))


@pytest.fixture(scope="module")
def clip():
    preprocess = image_transform(64, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)
    return Clip(tiny_clip().eval(), None, preprocess, "tiny")


def test_looking_gives_neurons_and_embeddings_of_one_pass(clip, album):
    numbers = [3, 300, 10]
    seen = multimodal.look(clip, album, numbers, batch_size=2)
    pixels = clip.pixels(album.images(numbers))
    torch.testing.assert_close(seen.maps, clip_neurons.neuron_maps(clip.visual, pixels), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.embeddings, clip.encode_images(album.images(numbers)), rtol=1e-3, atol=1e-4)
    assert seen.pictures.index.tolist() == numbers and seen.pictures.facet.tolist() == ["photo", "photo", "drawing"]
    np.testing.assert_array_equal(seen.answers(), seen.maps.flatten(2).max(2).values)
    np.testing.assert_allclose(seen.answers("mean"), seen.maps.flatten(2).mean(2), rtol=1e-4, atol=1e-5)


def test_as_many_pictures_of_every_concept_in_every_facet(album):
    chosen = album.pictures.loc[multimodal.first(album, n=1)]
    assert (chosen.groupby(["facet", "concept"]).size() == 1).all() and set(chosen.facet) == set(FACETS)
    with pytest.raises(ValueError, match="expected 2 pictures a cell, found 1"):
        multimodal.first(album, n=2)
    short = types.SimpleNamespace(folder="here", concepts=album.concepts, pictures=album.pictures.iloc[1:])
    with pytest.raises(ValueError, match=f"found 0 of '{album.pictures.concept[0]}' as photo"):
        multimodal.first(short, n=1)


def test_figures_say_what_they_show(clip, album):
    seen = multimodal.look(clip, album, multimodal.first(album, n=1))
    figure = multimodal_plots.three_faces({"clip": (seen, 0)}, album, "dog")
    scores = by_facet(seen)[:, list(seen.concepts).index("dog"), 0]
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes[::2]] == [
        f"{facet}: {score:.2f} {'✓' if score > 0.9 else '✗'}" for facet, score in zip(FACETS, scores, strict=True)
    ]
    figure = multimodal_plots.cards(seen, album, {3: "three", 4: "four"}, n=2)
    best = seen.pictures.iloc[most_active(seen, 3, n=1)[0]]
    first = figure.subfigs[0].axes[0]
    assert (first.get_title(loc="left") or first.get_title()) == f"{best.concept}, {best.facet}"
    assert len(first.patches) == 1
    assert len(multimodal_plots.world(album, ["dog", "red"], FACETS).axes) == 6


def test_the_scatter_marks_those_that_pass(rng):
    from matplotlib import pyplot as plt

    scores = [by_facet(made_up(rng, PLANTED)) for _ in range(2)]
    ax = multimodal_plots.photo_against_text(plt.figure().subplots(), judge(*scores, [f"c{c}" for c in range(5)]), "x")
    assert len(ax.collections[1].get_offsets()) == 1 and "1 in all three" in ax.get_title() + ax.get_title(loc="left")
