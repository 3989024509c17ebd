import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmn_utils import words

STRINGS = st.text("abc", max_size=6)


@pytest.mark.parametrize(
    ("a", "b", "d"), [("", "", 0), ("owl", "", 3), ("owl", "owl", 0), ("owl", "bowl", 1), ("flaw", "lawn", 2)]
)
def test_edit_distance_by_hand(a, b, d):
    assert words.edit_distance(a, b) == d


@given(STRINGS, STRINGS, STRINGS)
def test_edit_distance_is_a_metric(a, b, c):
    d = words.edit_distance
    assert d(a, b) == d(b, a) and (d(a, b) == 0) == (a == b)
    assert d(a, c) <= d(a, b) + d(b, c)
    assert abs(len(a) - len(b)) <= d(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize("distance", [1, 2])
def test_misspellings_are_new_and_as_far_as_asked(distance):
    known = ["owl", "bee", "zebra", "owk"]
    made = words.misspelt(["owl", "zebra"], known, distance=distance, seed=0)
    assert [words.edit_distance(*pair) for pair in zip(made, ["owl", "zebra"], strict=True)] == [distance] * 2
    assert [len(m) for m in made] == [3, 5] and not set(made) & set(known)
    assert made == words.misspelt(["owl", "zebra"], known, distance=distance, seed=0)


def test_a_word_without_a_misspelling_is_named():
    with pytest.raises(ValueError, match="'a' with 2 other letters"):
        words.misspelt(["a"], [], distance=2, seed=0)


def test_ranks_are_one_more_than_the_others_at_least_as_high():
    activations = torch.tensor([[3.0, 1.0, 2.0], [5.0, 2.0, 2.0], [4.0, 3.0, 0.0]])
    assert words.ranks(activations, [[1], [0], [0]]).tolist() == [1, 3, 2]
    assert words.ranks(activations, [[0, 1], [0, 1], [1, 2]]).tolist() == [1, 2, 2]


def test_answers_by_distance_are_means_in_deviations():
    activations = torch.tensor([[4.0], [2.0], [0.0], [-2.0], [-4.0]])
    table = words.by_distance(activations, ["owl", "owk", "own", "oak", "zebra"], ["owl"])
    sd = activations.std().item()
    assert table.columns.tolist() == [0, 1, 2, 3]
    assert table.iloc[0].tolist() == pytest.approx([4 / sd, 1 / sd, -2 / sd, -4 / sd])


def test_a_census_counts_neurons_whose_top_strings_are_all_of_the_kind():
    activations = torch.tensor([[3.0, 3.0], [2.0, 1.0], [1.0, 2.0]])
    assert words.census(activations, np.array([True, True, False]), top=2).tolist() == [True, False]


def test_embeddings_are_centred_before_their_length_is_taken():
    found = words.embedded(torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 4.0]]))
    torch.testing.assert_close(found[0], torch.tensor([1.0, -1.0]) / 2**0.5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_neighbours_of_the_group_with_ties_and_without_loners():
    likeness = torch.tensor([[9.0, 2, 1, 0], [2, 9, 2, 0], [1, 2, 9, 0], [0, 0, 0, 9]])
    assert words.neighbours_agree(likeness, np.array([0, 0, 1, 2])).tolist() == [1.0, 0.5]


def test_spelling_is_nearest_for_the_same_letters():
    like = words.spelling(["owl", "bowl", "zebra"])
    assert like[0, 0] == 0 > like[0, 1] == pytest.approx(-0.25) and like[0, 2] < like[0, 1]


def test_climbing_finds_words_that_help_only_together_once_one_of_them_helps_alone():
    worth = {"big": 1.0, "red": 0.8, "dog": 0.9, "the": -1.0}

    def score(texts):
        return torch.tensor([sum(worth[w] for w in set(t.split())) - 0.1 * t.count(" ") for t in texts])

    text, best = words.climb(score, list(worth), longest=4)
    assert set(text.split()) == {"big", "red", "dog"} and len(text.split()) == 3
    assert best == pytest.approx(2.7 - 0.2)
    assert words.climb(score, list(worth), longest=1) == ("big", 1.0)
    assert words.climb(score, list(worth), penalty=0.85)[0] == "big"


def test_climbing_can_take_words_back():
    worth = {"a": 1.0, "a b": 2.0, "c b": 3.0, "c": 0.5, "b": 0.2, "c b a": 2.5}

    def score(texts):
        return torch.tensor([worth.get(t, 0.0) for t in texts])

    assert words.climb(score, ["a", "b", "c"]) == ("c b", 3.0)


def test_co_occurrence_by_hand():
    counts = words.co_occurrence(["An owl and a bee", "the owl", "a bee and an owl and a bee"], ["owl", "bee", "cat"])
    assert counts.tolist() == [[3, 2, 0], [2, 2, 0], [0, 0, 0]]


def test_an_analogy_made_to_come_out_comes_out_and_not_without_the_analogy():
    city, land = torch.eye(4)[2], torch.eye(4)[3]
    place = torch.eye(4)[:2]
    vectors = torch.stack([place[0] + city, place[0] + land, place[1] + city, place[1] + land, city, -land])
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    quadruples = np.array([[0, 1, 2, 3], [2, 3, 0, 1]])
    assert words.completed(vectors, quadruples).tolist() == [True, True]
    assert words.completed(vectors, np.array([[0, 1, 2, 4]])).tolist() == [False]
    assert words.completed(vectors, np.array([[0, 1, 2, 4]]), analogy=False).tolist() == [True]


def test_a_neuron_goes_by_letters_if_misspellings_move_it_as_words_do():
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(30, 3, generator=generator)
    other = torch.randn(30, generator=generator)
    found = words.letter_bound(right, torch.stack([2 * right[:, 0] + 1, -right[:, 1], other], dim=1))
    assert found[:2] == pytest.approx([1, -1]) and abs(found[2]) < 0.5
    assert found[2] == pytest.approx(np.corrcoef(right[:, 2], other)[0, 1], abs=1e-5)
