import itertools

import numpy as np
import pytest

from mmn_utils import nli_edits
from mmn_utils.formulas import Explanation, Formula, Scored
from mmn_utils.nli_edits import Edit, State, matched

TEXT = [["a", "dog", "runs"], ["a", "red", "dog", "runs"], ["the", "dog", "sits"]]
TAGS = [["dt", "nn", "vbz"], ["dt", "jj", "nn", "vbz"], ["dt", "nn", "vbz"]]


def test_edits_of_a_sentence_by_hand():
    found = list(nli_edits.one_word_away(TEXT[0], nli_edits.followers(TEXT)))
    assert found == [
        ("replaced", slice(0, 1), ("the",)),
        ("put in", slice(1, 1), ("red",)),
        ("replaced", slice(2, 3), ("sits",)),
    ]
    left_out = [e for e in nli_edits.one_word_away(TEXT[1], nli_edits.followers(TEXT)) if e[0] == "left out"]
    assert left_out == [("left out", slice(1, 2), ())]
    assert list(nli_edits.one_word_away(["x"], nli_edits.followers([["x"], ["x", "x"]]))) == [
        ("put in", slice(0, 0), ("x",)),
        ("put in", slice(1, 1), ("x",)),
    ], "a sentence never loses its last word"


def test_an_edited_sentence_is_one_word_away_and_its_neighbours_are_known():
    rng = np.random.default_rng(0)
    text = [[f"w{k}" for k in rng.integers(9, size=rng.integers(1, 7))] for _ in range(40)]
    tags = [[f"t{int(w[1]) // 3}" for w in sentence] for sentence in text]
    sides, labels = (text[:20], text[20:]), (tags[:20], tags[20:])
    edits = nli_edits.draw_edits(sides, labels, pairs=range(20), n=2, seed=1)
    known = nli_edits.followers(text)
    for edit in edits:
        old, new = sides[edit.side][edit.pair], edit.tokens
        assert len(new) - len(old) == {"put in": 1, "left out": -1, "replaced": 0}[edit.kind]
        shorter, longer = sorted((list(old), list(new)), key=len)
        without = [list(longer[:k] + longer[k + 1 :]) for k in range(len(longer))]
        if edit.kind == "replaced":
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
        else:
            assert shorter in without
        assert edit.tags == tuple(f"t{int(w[1]) // 3}" for w in new)
        assert all(b in known[a] for a, b in itertools.pairwise(("", *new, "")))
    counts = {}
    for edit in edits:
        counts[edit[:3]] = counts.get(edit[:3], 0) + 1
    assert max(counts.values()) == 2 and {e.kind for e in edits} == {"put in", "left out", "replaced"}
    assert edits == nli_edits.draw_edits(sides, labels, pairs=range(20), n=2, seed=1)
    assert edits != nli_edits.draw_edits(sides, labels, pairs=range(20), n=2, seed=2)


def test_a_new_word_has_its_usual_tag():
    text = (["an", "orange"], ["the", "orange", "dog"], ["an", "apple"], ["an", "orange"])
    tags = (["dt", "nn"], ["dt", "jj", "nn"], ["dt", "nn"], ["dt", "nn"])
    edits = nli_edits.draw_edits((text[:3], text[1:]), (tags[:3], tags[1:]), pairs=[2], n=9, seed=0)
    (edit,) = [e for e in edits if e.side == 0 and e.tokens == ("an", "orange")]
    assert edit.tags == ("dt", "nn")


def test_edits_are_put_into_their_pairs():
    edits = [Edit(1, 0, "replaced", ("x",), ("t",)), Edit(0, 1, "put in", ("y", "z"), ("u", "v"))]
    sides = ([["a"], ["b"]], [["c"], ["d"]])
    assert nli_edits.applied(edits, sides, "tokens") == ([("x",), ("a",)], [("d",), ("y", "z")])
    assert nli_edits.applied(edits, sides, "tags")[0] == [("t",), ("a",)]


def test_matched_by_hand():
    """Stratum 0: 2 turned, both hits, and of 2 controls one; 1: 1 turned, no hit, 1 control, a hit; 2, 3: one sort."""
    strata = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    turned = np.array([1, 1, 0, 0, 1, 0, 1, 0], dtype=bool)
    outcome = np.array([1, 1, 1, 0, 0, 1, 1, 0], dtype=bool)
    found = matched(turned, outcome, strata)
    assert found == (pytest.approx(2 / 3), pytest.approx((2 * 0.5 + 1) / 3), 3)
    assert matched(turned[6:], outcome[6:], strata[6:]).n == 0
    assert matched(turned[:0], outcome[:0], strata[:0]).n == 0


def test_what_does_not_hang_on_the_formula_shows_no_difference():
    """Strata differ much in their rate; within them, whether an edit turns the formula says nothing."""
    rng = np.random.default_rng(0)
    strata = rng.integers(50, size=40_000)
    turned = rng.random(40_000) < (strata / 60)
    naive, differences = [], []
    for _ in range(20):
        outcome = rng.random(40_000) < (strata / 50)
        found = matched(turned, outcome, strata)
        differences.append(found.turned - found.control)
        naive.append(outcome[turned].mean() - outcome[~turned].mean())
    assert abs(np.mean(differences)) < 0.005 and np.mean(naive) > 0.1


def state(*rows):
    """Of rows (concept 0, concept 1, neuron fires, answer)."""
    truth, fires, answers = np.array([r[:2] for r in rows]), np.array([[r[2]] for r in rows]), [r[3] for r in rows]
    return State(truth.astype(bool), fires.astype(bool), np.array(answers))


def explained(formula):
    return Explanation(0, 5, ((Scored(formula, 0.5, 1, 2),),))


def test_turns_by_hand():
    """Formula: 0 AND NOT 1; the neuron speaks for class 2."""
    own, weights = explained(Formula(0, (("AND NOT", 1),))), np.array([[-1.0], [0.0], [0.5]])
    before = state((1, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, 2), (0, 0, 0, 1), (1, 0, 1, 2))
    after = state((1, 0, 1, 2), (1, 0, 1, 2), (1, 0, 1, 2), (0, 1, 1, 2), (0, 0, 1, 1))
    on = nli_edits.turn(own, before, after, weights, on=True)
    assert on.open.tolist() == [True, False, False, True, False]
    assert on.formula.tolist() == [True, True, True, False, False] and on.answer.tolist() == [True] * 4 + [False]
    off = nli_edits.turn(own, before, after, weights, on=False)
    assert off.open.tolist() == [False] * 4 + [True]
    assert (off.formula[4], off.neuron[4], off.answer[4]) == (True, False, True)


def test_trials_of_a_neuron_that_follows_its_formula_and_of_one_that_does_not():
    rng = np.random.default_rng(0)
    truth = [rng.random((4000, 2)) < 0.5 for _ in range(2)]
    fires = [np.column_stack([t[:, 0], rng.random(4000) < 0.5]) for t in truth]
    before, after = (State(t, f, np.where(f[:, 0], 1, 0)) for t, f in zip(truth, fires, strict=True))
    neurons = [Explanation(k, 9, explained(Formula(0)).beams) for k in (0, 1)] + [Explanation(2, 0, ())]
    given = {"weights": np.array([[0.0, 0.0], [1.0, 1.0]]), "strata": rng.integers(20, size=4000)}
    table = nli_edits.trials(neurons, before, after, **given).set_index(["neuron", "on", "follows"])
    assert len(table) == 8 and (table.n > 200).all()
    for on in (True, False):
        assert tuple(table.loc[0, on, "neuron"][:2]) == (1, 0) == tuple(table.loc[1, on, "answer"][:2])
        assert abs(table.loc[(1, on, "neuron"), "turned"] - table.loc[(1, on, "neuron"), "control"]) < 0.12
    assert nli_edits.trials(neurons, before, after, **given, least=10**4).empty
