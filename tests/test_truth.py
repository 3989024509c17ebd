import numpy as np
import pandas as pd
import pytest
import replicas
import torch

from mmn_utils import profiles, survey, truth
from mmn_utils.attribution import attribute
from mmn_utils.data import Pictures
from mmn_utils.models import Captioner
from mmn_utils.neurons import NeuronId, ablate, last_logits


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return Captioner.from_profile(profiles.read(replicas.save_paper_models(tmp_path_factory.mktemp("models"))))


@pytest.fixture
def measured(captioner, sweep):
    rows = [{"image": 0, "noun": "a", "token": 7, "before": [3]}, {"image": 1, "noun": "b", "token": 9, "before": []}]
    targets = pd.DataFrame([*rows, {"image": 2, "noun": "c", "token": 11, "before": [5]}])
    units, generator = torch.tensor([0, 5, 40, 41, 77, 100, 120]), torch.Generator().manual_seed(0)
    given = {"units": units, "batch_size": 2, "n_steps": 3, "generator": generator, "sweep": sweep}
    found = truth.effects(captioner, Pictures(replicas.images(3)), targets, **given)
    return captioner.image_prompts(replicas.images(3)), survey.targets_of(targets), found


@torch.no_grad()
def test_the_effect_is_what_ablation_takes_away(captioner, measured):
    prompts, targets, found = measured
    assert found.exact.shape == (3, 1, 7), "the last layer of two is left out"
    assert list(found.estimates) == list(truth.METHODS)
    assert all(scores.shape == found.exact.shape for scores in found.estimates.values())
    embed, n_patches = captioner.language_model.get_input_embeddings(), prompts.shape[1]
    for image, target in enumerate(targets):
        before = embed(torch.tensor([target.before], dtype=torch.long))
        x = torch.cat([captioner.with_text(prompts[image : image + 1]), before], dim=1)
        y = last_logits(captioner.language_model, x)[0, target.token]
        for place in (1, 4):
            unit = NeuronId(0, int(found.units[place]))
            with ablate(captioner.language_model, [unit], positions=slice(0, n_patches)):
                without = last_logits(captioner.language_model, x)[0, target.token]
            assert found.exact[image, 0, place] == pytest.approx((y - without).item(), abs=2e-3)


@pytest.mark.parametrize("kind", ["opt", "gptj"])
def test_before_and_after_the_non_linearity(kind):
    model = replicas.language_model(kind).double()
    x = torch.randn(1, 6, model.get_input_embeddings().weight.shape[1], dtype=torch.float64)
    before = attribute(model, x, torch.tensor([7]))
    after = truth.activation_times_gradient(model, x, torch.tensor([7]))
    assert after.shape == before.shape
    assert torch.allclose(before, after, rtol=0, atol=1e-9) == (kind == "opt"), "the same with a ReLU only"


def test_what_agrees_with_itself_agrees_wholly(measured):
    _, _, found = measured
    perfect = truth.Effects(found.units, found.exact, {"self": found.exact, "reversed": -found.exact})
    rows = truth.agreement(perfect, k=2)
    by = rows.groupby("method")[["spearman", "precision"]].mean()
    assert by.loc["self"].tolist() == pytest.approx([1, 1]) and by.loc["reversed", "spearman"] == pytest.approx(-1)
    assert set(rows["layer"]) == {"all", 0} and len(rows) == 2 * 3 * 2
    whole = rows[rows["layer"] == "all"]
    assert truth.mean_by(whole, "spearman", 0)["self"].low == pytest.approx(1)
    assert truth.lead(whole, "spearman", "self", "reversed", 0).value == pytest.approx(2)


def test_rank_correlation_by_hand():
    assert truth.spearman(np.array([1, 2, 2, 9]), np.array([0.1, 5, 5, 6])) == pytest.approx(1)
    assert truth.spearman(np.ones(3), np.arange(3)) == 0
    assert truth.precision(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 5) == 1 / 1


def test_share_of_harm_by_hand():
    exact = torch.tensor([[[3.0, -5.0], [1.0, 0.0]]])
    found = truth.Effects(torch.arange(2), exact, {})
    assert truth.share_of_harm(found, 1).tolist() == [0.75]
