import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import full_size, neurons, timing


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
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
    command.main()
    assert json.loads((tmp_path / "results.json").read_text()) == {"neurons.attribution.vs_bare": row}
    assert "neurons.attribution.vs_bare" in capsys.readouterr().out


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
