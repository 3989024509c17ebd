import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmn_utils import compositional
from mmn_utils.compositional import Concepts, firing, pack, ranked, search
from mmn_utils.formulas import Explanation, Formula, Scored

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "compexp"


def true_where(formula, concepts):
    """Case by case, by Python's own words."""
    masks = []
    for case in concepts.tolist():
        value = case[formula[0]]
        for operator, leaf in formula[1]:
            value = {"OR": value or case[leaf], "AND": value and case[leaf], "AND NOT": value and not case[leaf]}[
                operator
            ]
        masks.append(value)
    return masks


def one_by_one(fires, concepts, *, max_length, beam=10, operands="matching", deduplicate=False, length_penalty=1.0):
    """The search as section 7 of its description tells it: every formula with its mask, no counts in common."""

    def entry(leaf, steps):
        mask = true_where((leaf, steps), concepts)
        both = sum(m and a for m, a in zip(mask, fires, strict=True))
        either = sum(m or a for m, a in zip(mask, fires, strict=True))
        length = 1 + len(steps) + sum(operator == "AND NOT" for operator, _ in steps)
        return (leaf, steps), length_penalty ** (length - 1) * (both / either if either else 0), both, either, mask

    def first(entries):
        entries = sorted(entries, key=lambda e: e[1], reverse=True)  # stable: the earlier of equals stays first
        if deduplicate:
            entries = [e for i, e in enumerate(entries) if e[4] not in [before[4] for before in entries[:i]]]
        return entries[:beam]

    leaves = [entry(leaf, ()) for leaf in range(concepts.shape[1])]
    added = [e[0][0] for e in leaves if operands == "all" or e[1] > 0]
    history = [first(leaves)]
    for _ in range(1, max_length):
        longer = [
            entry(leaf, (*steps, (operator, other)))
            for (leaf, steps), *_ in history[-1]
            for other in added
            for operator in ("OR", "AND", "AND NOT")
        ]
        history.append(first(history[-1] + longer))
    return [[(formula, score, both, either) for formula, score, both, either, _ in own] for own in history]


def plain(explanation):
    return [
        [((s.formula.leaf, s.formula.steps), s.score, s.intersection, s.union) for s in own]
        for own in explanation.beams
    ]


def random_case(seed):
    """Few cases, so that most scores tie; an empty, a full and a doubled concept; a neuron that meets none."""
    generator = np.random.default_rng(seed)
    n_cases, n_concepts = int(generator.integers(3, 15)), int(generator.integers(1, 9))
    concepts = generator.random((n_cases, n_concepts)) < generator.choice([0.1, 0.3, 0.6])
    for column, kind in zip(generator.permutation(n_concepts), generator.integers(6, size=n_concepts), strict=True):
        if kind < 3:
            concepts[:, column] = [False, True, concepts[:, generator.integers(n_concepts)]][kind]
    fires = generator.random((n_cases, 3)) < generator.choice([0.2, 0.5, 0.8])
    fires[:, 0] = ~concepts.any(axis=1)
    fires[:, 1] = True
    return fires, concepts


SETTINGS = [
    {},
    {"operands": "all"},
    {"deduplicate": True},
    {"length_penalty": 0.9},
    {"beam": 3, "operands": "all", "deduplicate": True, "length_penalty": 0.97},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(map(str, s)) or "published")
def test_agrees_with_one_formula_after_the_other(settings):
    searched = left_out = unmet = tied = 0
    for seed in range(80):
        fires, concepts = random_case(seed)
        for own in search(fires, concepts, max_length=3, **settings):
            fired = fires[:, own.neuron]
            if not fired.any():
                assert own == Explanation(own.neuron, 0, ())
                left_out += 1
                continue
            expected = one_by_one(fired.tolist(), concepts, max_length=3, **settings)
            assert plain(own) == expected
            searched += 1
            unmet += not (concepts & fired[:, None]).any()
            tied += len({score for _, score, _, _ in expected[-1]}) < len(expected[-1])
    assert searched > 120 and left_out > 10 and unmet > 3 and tied > 50  # the cases are what they are meant to be


@pytest.mark.parametrize("sparse", [0, 2])
def test_cases_and_neurons_in_blocks_give_the_same(monkeypatch, sparse):
    generator = np.random.default_rng(0)
    concepts, fires = generator.random((101, 12)) < 0.2, generator.random((101, 7)) < 0.3
    whole = search(fires, concepts, max_length=4)
    monkeypatch.setattr(compositional, "CASES_AT_ONCE", 24)
    monkeypatch.setattr(compositional, "SPARSE_ROWS_AT_ONCE" if sparse else "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(compositional, "SPARSE", sparse)
    assert search(fires, concepts, max_length=4) == whole
    table = Concepts(concepts)
    assert table.sparse == (sparse == 2) and len(table.starts) == 5
    assert (table.count(pack(fires)) == fires.T.astype(int) @ concepts).all()
    for start in table.starts:
        assert (table._columns(table.bits, start).numpy() == concepts[start : start + 24]).all()


@pytest.mark.parametrize("name, n_beams", [("random_sparse", 90), ("snli_small", 60)])
def test_recorded_runs_of_the_published_search(name, n_beams):
    if not RECORDED.is_dir():
        pytest.skip("recorded runs are absent; lifted by: putting them in ../shared/data/compexp beside the clone")
    case = np.load(RECORDED / f"{name}.npz")
    recorded = json.loads((RECORDED / f"{name}.off.json").read_text())["neurons"]
    found = search(case["acts"], case["feats"], max_length=5, min_firing=int(case["min_acts"]))
    n_agreeing = 0
    for own, theirs in zip(found, recorded, strict=True):
        assert (own.n_firing, own.searched) == (theirs["n_active"], not theirs.get("skipped"))
        for beam, row in zip(own.beams, theirs["by_length"] if own.searched else [], strict=True):
            assert [[str(s.formula), s.iou] for s in beam] == row["beam"]  # bit for bit: JSON keeps a float64 whole
            best = beam[0]
            assert (best.intersection, best.union) == (row["intersection"], row["union"])
            assert (len(best.formula), best.formula.n_nodes) == (row["n_leaves"], row["original_len"])
            assert best.formula.text(case["concept_names"], alphabetical=True) == row["names"]
            n_agreeing += 1
    assert n_agreeing == n_beams


def test_worked_example_of_the_paper():
    """The neuron fires on "I am going to Paris by train" and "Beautiful cars"; "Ugly cars" has a noun too."""
    noun, fires = np.array([[True], [True], [True], [False]]), np.array([[True], [True], [False], [False]])
    best = search(fires, noun, max_length=1)[0].best()
    assert (best.intersection, best.union, best.iou) == (2, 3, 2 / 3)


def test_what_longer_formulas_and_all_operands_gain():
    # 2 is true where the neuron fires and in two cases more; one of these is 0's, which shares no case with the neuron
    concepts = np.array([[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0]], dtype=bool).T
    fires = np.array([[1, 1, 0, 0, 0, 0]], dtype=bool).T
    published, every = (search(fires, concepts, max_length=2, operands=o)[0] for o in ("matching", "all"))
    assert (str(published.best().formula), published.best().iou) == ("2", 0.5)
    assert (str(every.best().formula), every.best().iou) == ("(2 AND (NOT 0))", 1.0)
    assert every.best(1).iou == 0.5


def test_only_one_formula_for_a_mask():
    generator = np.random.default_rng(1)
    concepts, fires = generator.random((60, 9)) < 0.3, generator.random((60, 4)) < 0.4
    for own, published in zip(
        search(fires, concepts, max_length=4, deduplicate=True), search(fires, concepts, max_length=4), strict=True
    ):
        masks = [[s.formula.mask(concepts).tobytes() for s in beam] for beam in own.beams]
        assert all(len(set(beam)) == len(beam) for beam in masks)
        assert own.best().iou >= published.best().iou
        again = [s.formula.mask(concepts).tobytes() for s in published.beams[1]]
        assert len(set(again)) < len(again)  # A OR B beside B OR A


def test_iou_never_falls_with_length_and_is_that_of_the_mask():
    generator = np.random.default_rng(2)
    concepts, fires = generator.random((200, 20)) < 0.2, generator.random((200, 6)) < 0.3
    for own in search(fires, concepts, max_length=5):
        a = fires[:, own.neuron]
        assert all(x[0].iou <= y[0].iou for x, y in itertools.pairwise(own.beams))
        for scored in itertools.chain(*own.beams):
            mask = scored.formula.mask(concepts)
            assert scored.iou == (mask & a).sum() / (mask | a).sum()


def test_torch_tensors_and_pixel_masks_will_do():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 8, 8, 5, generator=generator) < 0.3  # [image, row, column, concept]
    fires = pixels[..., :1] & ~pixels[..., 1:2]
    best = search(fires.reshape(-1, 1), pixels.reshape(-1, 5), max_length=2, operands="all")[0].best()
    assert (str(best.formula), best.iou) == ("(0 AND (NOT 1))", 1.0)


def test_neurons_that_fire_too_seldom_are_reported():
    fires = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    found = search(fires, np.eye(2, dtype=bool), max_length=1, min_firing=2)
    assert [(own.neuron, own.n_firing, own.searched) for own in found] == [(0, 0, False), (1, 1, False), (2, 2, True)]
    with pytest.raises(ValueError, match="neuron 1 fires in 1 cases, too few: it was not searched"):
        found[1].best()
    with pytest.raises(ValueError, match="the search went from 1 to 1, found 2"):
        found[2].best(2)


GOOD = np.ones((4, 2), dtype=bool)


@pytest.mark.parametrize(
    "fires, concepts, settings, message",
    [
        (GOOD.astype(int), GOOD, {}, r"firing: expected booleans \[case, neuron\].* found int64 of shape \(4, 2\)"),
        (GOOD, GOOD.astype(float), {}, r"concepts: expected booleans \[case, concept\].* found float64"),
        (GOOD[:, 0], GOOD, {}, r"found bool of shape \(4,\)"),
        (GOOD, GOOD[:, :0], {}, r"concepts: .*at least one of each, found bool of shape \(4, 0\)"),
        (GOOD, GOOD[:3], {}, "expected the same cases in both, found 4 in firing, 3 in concepts"),
        (GOOD, GOOD, {"operands": "some"}, 'expected "matching" or "all", found \'some\''),
        (GOOD, GOOD, {"max_length": 0}, "expected at least 1, 1, and above 0 up to 1; found 0, 10, 1.0"),
        (GOOD, GOOD, {"length_penalty": 1.5}, "found 1, 10, 1.5"),
    ],
)
def test_refused(fires, concepts, settings, message):
    with pytest.raises(ValueError, match=message):
        search(fires, concepts, **({"max_length": 1} | settings))


def test_firing():
    activations = np.array([[0.0, 3.0], [-1.0, 1.0], [0.5, 2.0], [0.1, 0.0]])
    assert firing(activations).tolist() == [[False, True], [False, True], [True, True], [True, False]]
    assert firing(activations, top=0.25).tolist() == [[False, True], [False, False], [True, False], [False, False]]
    activations[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"expected numbers, found 1 NaN, in neurons \[1\] \(1 in all\)"):
        firing(activations)


def test_order_of_equals():
    scores = np.zeros((3, 2, 2))
    scores[2, 0, 1] = scores[0, 1, 0] = scores[1, 0, 1] = 0.5
    assert list(zip(*(p.tolist() for p in ranked(scores, above=0, n=None)), strict=True)) == [
        (1, 0, 1),
        (2, 0, 1),
        (0, 1, 0),
    ]
    assert [p.tolist() for p in ranked(scores, above=0, n=1)] == [[1], [0], [1]]
    assert ranked(scores, above=0.5, n=1)[0].size == 0


def test_formulas_print_in_the_published_notation():
    formula = Formula(2, (("OR", 0), ("AND", 1), ("AND NOT", 2)))
    assert str(formula) == "(((2 OR 0) AND 1) AND (NOT 2))"
    assert formula.text("abc", alphabetical=True) == "(((a OR c) AND b) AND (NOT c))"
    assert Formula(1, (("AND NOT", 0),)).text("ab", alphabetical=True) == "((NOT a) AND b)"
    assert (len(formula), formula.n_nodes, formula.leaves) == (4, 5, (2, 0, 1, 2))
    with pytest.raises(ValueError, match="needs concept 2, found 2 concepts"):
        formula.mask(GOOD)


def test_empty_union_scores_nothing():
    assert Scored(Formula(0), 0.0, 0, 0).iou == 0
