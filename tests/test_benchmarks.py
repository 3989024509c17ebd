import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import compositional, features, full_size, neurons, timing


def test_ratios_by_hand():
    row = timing.compared([1.0, 2.0, 9.0], [2.0, 2.0, 3.0])
    assert row == {"ours": 2.0, "theirs": 2.0, "ratio": 1.0, "unit": "s", "n": 3}


def test_repeats_are_interleaved_after_one_that_does_not_count():
    calls = []
    times = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert "".join(calls) == "ab" * 3 and [len(t) for t in times.values()] == [2, 2]


def test_the_command_writes_what_the_contract_says(tmp_path, monkeypatch, capsys):
    row = timing.compared([1.0], [2.0])
    monkeypatch.setattr(neurons, "all_benchmarks", lambda: {"neurons.attribution.vs_bare": row})
    monkeypatch.setattr(compositional, "formulas", lambda: {"compositional.search.vs_loop": row})
    monkeypatch.setattr(features, "all_benchmarks", lambda: {"features.step.vs_bare": row})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
    command.main()
    names = ["compositional.search.vs_loop", "neurons.attribution.vs_bare", "features.step.vs_bare"]
    assert json.loads((tmp_path / "results.json").read_text()) == dict.fromkeys(names, row)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_nine_sizes_in_three_conditions():
    for n_embd in (192, 32):  # with 32, there are so few units that the paper's shares coincide
        masks = neurons.curve_masks(neurons.model(n_embd=n_embd, n_tokens=50))
        assert [m.shape for m in masks.values()] == [(9, 6, 4 * n_embd)] * 3
        assert masks["top"].sum((1, 2)).diff().min() > 0


def test_both_ways_give_the_same_curve():
    lm, x = neurons.model(n_layer=2, n_embd=64, n_tokens=50), neurons.embeddings(1, 64)
    masks = {"top": torch.rand(3, 2, 256) < 0.1}
    ours = neurons.probability_curve(lm, x, 7, masks)["top"]
    for last_only in (True, False):
        theirs = neurons.one_pass_each(lm, x, masks, last_only=last_only)
        assert torch.allclose(ours, torch.tensor(theirs), rtol=1e-4)


def test_full_size_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a GPU with 24 GB"):
        full_size.main([])


def test_the_full_size_script_measures_all_three_in_small():
    found = full_size.run(full_size.TINY, "cpu", rows=2, repeats=1)
    assert set(found["results"]) == {f"full_size.{name}" for name in ("attribution", "decoding", "ablation_curve")}
    assert found["n_units"] == 3 * 4 * 64 and all(row["ratio"] > 0 for row in found["results"].values())


def test_the_search_is_compared_with_a_loop_that_finds_the_same(monkeypatch):
    monkeypatch.delenv("MMN_SNLI_DEV", raising=False)
    small = {"n_pairs": 80, "n_words": 12, "n_neurons": 64, "sample": 64, "n_looped": 2, "repeats": 1}
    rows = compositional.formulas(**small)
    assert set(rows) == {f"compositional.search.vs_{name}" for name in ("loop", "bare_products", "bare_sums")}
    assert all(row["text"] == "made up" and row["shape"] == [80, 27, 64] for row in rows.values())
    wrong = lambda fires, truth: [(0.0, (0,))]  # noqa: E731
    monkeypatch.setattr(compositional, "one_formula_after_the_other", wrong)
    with pytest.raises(ValueError, match="the search and the loop disagree"):
        compositional.formulas(**small)


def test_the_made_up_text_is_like_the_real_one():
    found = compositional.pair_concepts(*compositional.made_up_pairs(3_000))
    assert found.truth.shape == (3_000, 4_003)
    assert 0.003 < found.truth.mean() < 0.006  # SNLI: 0.0041
    assert np.allclose(found.truth[:, -3:].mean(axis=0), [0.54, 0.22, 0.12], atol=0.15)


def test_a_text_in_a_folder_is_taken(monkeypatch, tmp_path):
    (tmp_path / "snli_1.0_dev.tok").write_text("A dog .\nA cat .\nMen ran .\nMen sat .\n")
    monkeypatch.setenv("MMN_SNLI_DEV", str(tmp_path))
    assert compositional.sentence_pairs(1) == ("SNLI dev", [["A", "dog", "."]], [["A", "cat", "."]])


def test_a_step_of_feature_visualisation_is_timed_even_without_its_peer(monkeypatch, capsys):
    monkeypatch.setattr(features, "N_STEPS", 1)
    monkeypatch.setitem(sys.modules, "lucent", None)  # as if it were not installed
    rows = features.step(repeats=1)
    assert list(rows) == ["features.step.vs_bare"] and rows["features.step.vs_bare"]["ours"] > 0
    assert "vs_lucent is left out" in capsys.readouterr().out


def test_the_bare_pass_goes_down_to_the_images():
    visual = features.tower(width=8)
    images = torch.rand(1, 3, 96, 96).to(features.DEVICE)
    assert features.bare_pass(visual, images).shape == images.shape
    assert not any(weight.requires_grad for weight in visual.parameters())
