"""Attribution over many images: the tables, and what is read out of them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import replicas
import torch

from mmn_utils import captioning, profiles, survey
from mmn_utils.attribution import Ranking, Target, attribute, target_batches, top_pairs, top_units
from mmn_utils.data import Pictures
from mmn_utils.models import Captioner
from mmn_utils.neurons import last_logits, record


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models"))))


@pytest.fixture(scope="module")
def ranked(captioner):
    """Three images of which the second has the longer context, and their rankings."""
    prompts = captioner.image_prompts(replicas.images(3))
    targets = [Target("horse", 7, (5,)), Target("dog", 8, (5, 6)), Target("cat", 9, (4,))]
    return prompts, targets, survey.rank_neurons(captioner, prompts, targets, n_units=12, n_pairs=9, batch_size=1)


def test_one_pass_gives_both_rankings_in_the_images_order(captioner, ranked):
    prompts, targets, (units, pairs) = ranked
    for batch in target_batches(captioner, captioner.with_text(prompts), targets):
        g = attribute(captioner.language_model, batch.embeddings, batch.tokens, positions=slice(0, prompts.shape[1]))
        for found, rank, k in ((units, top_units, 12), (pairs, top_pairs, 9)):
            expected = rank(g, k)
            assert torch.allclose(found.score[batch.images], expected.score, rtol=1e-3, atol=1e-6)
            assert torch.equal(found.flat(64)[batch.images][:, :3], expected.flat(64)[:, :3])


class Album(Pictures):
    """Pictures of which one, perhaps, cannot be read."""

    def __init__(self, n, broken=None):
        super().__init__(replicas.images(n))
        self.broken = broken

    def image(self, number):
        if number == self.broken:
            raise OSError(f"image {number} cannot be read")
        return super().image(number)


def explained(ids):
    """Some images' targets, as a table; two lengths of context."""
    rows = [{"image": i, "noun": "cat", "token": 7 + i % 3, "before": [5, 6][: 1 + i % 2]} for i in ids]
    return pd.DataFrame(rows)


def test_the_sweeps_give_what_one_pass_over_everything_gives(captioner, sweep):
    scenes, ids = Album(40), list(range(40))
    said = survey.captions(captioner, scenes, ids, sweep=sweep)
    assert said["image"].tolist() == ids and said["caption"].tolist() == captioner.caption(scenes.images)
    targets = explained([1, 2, 5, 31, 32, 39])
    found = survey.attributions(captioner, scenes, said["image"], targets, sweep=sweep, n_units=12, n_pairs=9)
    prompts = captioner.image_prompts(scenes.images)[targets["image"].tolist()]
    whole = survey.rank_neurons(captioner, prompts, survey.targets_of(targets), n_units=12, n_pairs=9)
    for table, ranking in zip(found, whole, strict=True):
        expected = survey.ranking_table(ranking, targets["image"])
        pd.testing.assert_frame_equal(table.drop(columns="score"), expected.drop(columns="score"))
        assert np.allclose(table["score"], expected["score"], rtol=1e-3, atol=1e-6)


def test_what_is_there_needs_no_captioner_and_another_ones_is_not_taken_for_it(captioner, sweep, monkeypatch):
    scenes, ids = Album(5), [0, 1, 3]
    said = survey.captions(captioner, scenes, ids, sweep=sweep)
    monkeypatch.setattr(Captioner, "caption", lambda *_: pytest.fail("computed again"))
    assert survey.captions(captioner, scenes, ids, sweep=sweep).equals(said)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        survey.captions(captioning.with_random_projection(captioner, seed=1), scenes, ids, sweep=sweep)


def test_an_image_that_cannot_be_read_is_left_out(captioner, sweep, capsys):
    scenes = Album(6, broken=4)
    said = survey.captions(captioner, scenes, range(6), sweep=sweep)
    assert said["image"].tolist() == [0, 1, 2, 3, 5]
    assert (
        "1 of 6 items left out; the first: 4 (OSError: image 4 cannot be read, at test_survey.py:"
        in capsys.readouterr().err
    )


def test_what_is_sent_to_a_worker_computes_the_same(captioner):
    """Engines send the captioner along, weights and all."""
    cloudpickle = pytest.importorskip("ray.cloudpickle", reason="ray is not installed: pip install ray")
    sent = cloudpickle.loads(cloudpickle.dumps(captioner))
    assert sent is not captioner and sent.caption(replicas.images(3)) == captioner.caption(replicas.images(3))


def test_a_ranking_survives_the_table(ranked):
    _, _, (units, _) = ranked
    table = survey.ranking_table(units, [30, 10, 20])
    assert table["rank"].tolist()[:13] == [*range(12), 0]
    again = survey.ranking(table.sample(frac=1, random_state=0), [10, 30])
    assert torch.equal(again.score, units.score[[1, 0]]) and torch.equal(again.unit, units.unit[[1, 0]])
    with pytest.raises(KeyError, match="image 99: its caption has no noun"):
        survey.ranking(table, [10, 99])


def test_targets_survive_the_table(captioner, tmp_path):
    table = survey.targets_table(captioner, [3, 5, 8], ["of a horse.", "is it so?", "two dogs"], {"horse", "dog"})
    assert table["image"].tolist() == [3, 8] and table["noun"].tolist() == ["horse", "dog"]
    table.to_parquet(tmp_path / "targets.parquet")
    targets = survey.targets_of(pd.read_parquet(tmp_path / "targets.parquet"))
    assert [t.noun for t in targets] == ["horse", "dog"]
    assert captioner.tokenizer.decode([*targets[0].before, targets[0].token]).startswith(" of a h")
    assert all(isinstance(token, int) for t in targets for token in (*t.before, t.token))


def test_every_unit_is_decoded_in_order(captioner):
    decoded = survey.decoded_table(captioner.language_model, captioner.tokenizer)
    n_layers, n_units = 2, 4 * replicas.D_MODEL
    assert len(decoded) == n_layers * n_units and {len(tokens) for tokens in decoded["tokens"]} == {10}
    assert survey.interpretable_mask(decoded).shape == (n_layers, n_units)
    logits = captioner.language_model.lm_head.weight @ captioner.language_model.transformer.h[1].mlp.fc_out.weight[:, 3]
    best = logits[: len(captioner.tokenizer)].topk(10).indices
    row = decoded[(decoded["layer"] == 1) & (decoded["unit"] == 3)].iloc[0]
    assert row["tokens"] == [captioner.tokenizer.decode([i]) for i in best.tolist()]


PAIRS = survey.ranking_table(
    Ranking(
        layer=torch.tensor([[0, 0, 1], [1, 1, 1]]),
        unit=torch.tensor([[5, 5, 5], [2, 3, 5]]),
        patch=torch.tensor([[0, 1, 1], [2, 2, 2]]),
        score=torch.tensor([[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]),
    ),
    [7, 9],
)
DECODED = pd.DataFrame(
    [
        {"layer": layer, "unit": unit, "tokens": [f" t{unit}"] * 10, "interpretable": unit == 5}
        for layer in range(3)
        for unit in range(6)
    ]
)


def test_what_the_tables_show():
    assert survey.distinct_units(PAIRS, first=3).to_dict() == {7: 2, 9: 3}
    assert survey.distinct_units(PAIRS, first=2).to_dict() == {7: 1, 9: 2}
    assert survey.share_of_commonest_patch(PAIRS, first=3).to_dict() == {7: pytest.approx(2 / 3), 9: 1}
    counts = survey.units_by_layer(PAIRS, DECODED)
    assert counts["all"].tolist() == [1, 3, 0] and counts["interpretable"].tolist() == [1, 1, 0]
    rows = survey.example_rows(PAIRS, DECODED, [9, 7], first=2)
    assert rows.loc["A", "neuron"].tolist() == ["L1.2", "L1.3"]
    assert rows.loc[("B", 1), "tokens"] == "t5, t5, t5, t5, t5"


def test_units_shared_by_two_rankings():
    others = PAIRS.assign(unit=[5, 0, 0, 2, 3, 4])
    assert survey.shared_units(PAIRS, others, first=3).to_dict() == {7: 0.5, 9: pytest.approx(2 / 3)}
    assert survey.shared_units(PAIRS, PAIRS, first=3).tolist() == [1, 1]


def test_texts_of_images_are_those_of_distinct_interpretable_units():
    texts = survey.texts_of_images(PAIRS, DECODED, first=3)
    assert texts.to_dict() == {7: [[" t5"] * 10] * 2, 9: [[" t5"] * 10]}
    assert 9 not in survey.texts_of_images(PAIRS, DECODED, first=2)
    best = survey.best_interpretable(PAIRS, DECODED, first=1)
    assert best[["image", "rank", "layer", "unit"]].to_numpy().tolist() == [[7, 0, 0, 5], [9, 0, 1, 5]]


def test_one_image_a_family():
    content = {1: ["dog", "cat"], 2: ["car"], 3: ["cat"], 4: ["dog"]}
    scenes = SimpleNamespace(
        families={"dog": "animal", "cat": "animal", "car": "vehicle"},
        objects=lambda image: [SimpleNamespace(name=name) for name in content[image]],
    )
    assert survey.one_per_family(scenes, [1, 2, 3, 4]) == {"animal": 3, "vehicle": 2}


def test_activations_of_ranked_units(captioner, ranked):
    prompts, _, (units, _) = ranked
    activations = survey.unit_activations(captioner, prompts, units)
    with torch.no_grad(), record(captioner.language_model) as kept:
        last_logits(captioner.language_model, captioner.with_text(prompts))
    layer, unit = int(units.layer[1, 4]), int(units.unit[1, 4])
    assert activations.shape == (3, 12, prompts.shape[1])
    assert torch.allclose(activations[1, 4], kept[layer][1, : prompts.shape[1], unit])


def test_patches_on_objects():
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4, :3] = True
    info = {"height": 8, "width": 8}
    scenes = SimpleNamespace(objects=lambda image: [SimpleNamespace(mask=mask)][image:], info=lambda _: info)
    assert survey.covered_patches(scenes, 0, 4).tolist() == [True, False, False, False]
    assert not survey.covered_patches(scenes, 1, 4).any(), "a picture of which nothing is annotated"


def test_a_random_projection_has_the_trained_ones_length(captioner):
    control = captioning.with_random_projection(captioner, seed=1)
    for name in ("weight", "bias"):
        new, old = getattr(control.projection, name), getattr(captioner.projection, name)
        assert new.norm() == pytest.approx(old.norm().item(), rel=1e-4) and not torch.allclose(new, old)
    again = captioning.with_random_projection(captioner, seed=1)
    assert torch.equal(again.projection.weight, control.projection.weight)
