import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models._hub import save_for_hf
from torch import nn

from mmn_utils.miniature import __main__ as command
from mmn_utils.miniature import encoder, stages, training, world
from mmn_utils.miniature.art import STYLES
from mmn_utils.miniature.concepts import concepts
from mmn_utils.models.encoders import TimmEncoder
from mmn_utils.models.weights import verify_folder

# --- the loop ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """The least model with both kinds of parameters: a matrix inside "blocks", a bias and a gain outside of it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.gain * self.blocks[0](x)


def fit(checkpoint, *, stop_at=None, n_steps=12, poison=None, seed=0):
    """Weights, log and steps made by training a `Block` on random data; Ctrl-C before step `stop_at`."""
    torch.manual_seed(0)
    model, made = Block(), []

    def step_loss(step):
        if step == stop_at:
            raise KeyboardInterrupt
        made.append(step)
        x = torch.randn(8, 4)
        return (model(x) - x.flip(1)).square().mean() * (poison if poison is not None and step == 3 else 1)

    solvers = training.optimizers(model, muon=1e-2, adam=1e-2)
    try:
        log = training.fit([model], step_loss, solvers, n_steps=n_steps, checkpoint=checkpoint, seed=seed)
    except KeyboardInterrupt:
        log = None
    return torch.cat([p.detach().flatten() for p in model.parameters()]), log, made


@pytest.fixture
def often(monkeypatch):
    """A checkpoint every four steps, a log line every two."""
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    monkeypatch.setattr(training, "LOG_EVERY", 2)


@pytest.mark.parametrize("stop_at", [2, 4, 6, 11])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, often, stop_at):
    whole, log, _ = fit(tmp_path / "whole.pt")
    _, nothing, made = fit(tmp_path / "cut.pt", stop_at=stop_at)
    assert nothing is None and made == list(range(stop_at))
    resumed, log_, made = fit(tmp_path / "cut.pt")
    assert made == list(range(stop_at // 4 * 4, 12)), "from the last checkpoint on"
    assert torch.equal(whole, resumed)
    assert [(e["step"], e["loss"]) for e in log] == [(e["step"], e["loss"]) for e in log_]
    assert [e["step"] for e in log_] == [2, 4, 6, 8, 10, 12]
    seconds = [e["seconds"] for e in log_]
    assert seconds == sorted(seconds) and seconds[0] >= 0, "time goes on counting where it stopped"


def test_what_was_finished_is_not_trained_again(tmp_path, often):
    weights, log, _ = fit(tmp_path / "a.pt")
    again, log_, made = fit(tmp_path / "a.pt")
    assert made == [] and torch.equal(weights, again) and log == log_


def test_seed_and_step_decide(tmp_path):
    one, two, other = (fit(tmp_path / f"{i}.pt", seed=s)[0] for i, s in enumerate((0, 0, 1)))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_it_learns(tmp_path, capsys):
    log = fit(tmp_path / "learn.pt", n_steps=400)[1]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert "learn: step 400/400, loss " in capsys.readouterr().out


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, often, poison):
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step 3 of bad; lower the learning rate"):
        fit(tmp_path / "bad.pt", poison=poison)
    assert not (tmp_path / "bad.pt").exists(), "spoilt weights are not kept"


def test_killed_while_saving_the_last_checkpoint_is_whole(tmp_path, often, monkeypatch):
    save, whole = torch.save, fit(tmp_path / "whole.pt")[0]

    def dying(state, path):
        if json.loads(state["progress"])["step"] == 8:
            path.write_bytes(b"half a check")
            raise KeyboardInterrupt
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying)
        assert fit(tmp_path / "cut.pt")[1] is None
    resumed, _, made = fit(tmp_path / "cut.pt")
    assert made[0] == 4 and torch.equal(whole, resumed)


def truncated(path, share):
    """A checkpoint at step 4, cut off after a share of its bytes."""
    fit(path, stop_at=5)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_truncated_checkpoint_is_not_trained_on(tmp_path, often, share):
    path = truncated(tmp_path / "cut.pt", share)
    size = path.stat().st_size
    with pytest.raises((EOFError, OSError, RuntimeError)):
        fit(path)
    assert path.stat().st_size == size, "nor overwritten"


@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_truncated_checkpoint_is_named(tmp_path, often, share):
    with pytest.raises(Exception, match=r"checkpoint .*cut.pt cannot be read .*delete it"):
        fit(truncated(tmp_path / "cut.pt", share))


def test_the_rate_rises_stays_and_falls():
    rates = [training.learning_rate_factor(step, 1_000) for step in range(1_001)]
    assert rates[0] == 0.01 and rates[49] == 0.5 and set(rates[99:501]) == {1.0}
    assert rates[750] == 0.5 and rates[1_000] == 0
    assert rates[:100] == sorted(rates[:100]) and rates[500:] == sorted(rates[500:], reverse=True)
    assert all(training.learning_rate_factor(step, 2) > 0 for step in range(2)), "even the shortest run makes its steps"


def test_muon_gets_the_blocks_matrices_and_adam_the_rest():
    model = Block()
    model.gain.requires_grad_(False)
    muon, adam = training.optimizers(model, muon=1e-2, adam=1e-3)
    (inside,), (rest,) = muon.param_groups, adam.param_groups
    assert isinstance(muon, torch.optim.Muon) and isinstance(adam, torch.optim.AdamW)
    assert [id(p) for p in inside["params"]] == [id(model.blocks[0].weight)]
    assert [id(p) for p in rest["params"]] == [id(model.blocks[0].bias)], "what is frozen is in neither"
    assert (inside["lr"], rest["lr"]) == (1e-2, 1e-3)


# --- the encoder ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretext():
    """An untrained encoder with its training head, in evaluation mode, running means away from their start."""
    torch.manual_seed(0)
    made = encoder.PatchPretext(encoder.build())
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 64, 64), torch.zeros(4, 64, dtype=torch.bool))
    return made.eval()


@pytest.fixture(scope="module")
def pictures():
    """uint8 [image, y, x, RGB]"""
    return np.stack([world.scene((0, world.SPLIT_SEEDS["test"], k)).image for k in range(4)])


def test_patches_belong_to_whoever_covers_most_of_them():
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, :8, :8] = True  # all of patch 0
    masks[0, :8, 8:12] = True  # half of patch 1 ...
    masks[1, :5, 12:16] = True  # ... and five sixteenths of it
    masks[0, 8:10, :8] = True  # a quarter of patch 8
    masks[1, 8:10, 8:15] = True  # less of patch 9
    masks[0, 56:58, 56:64] = True  # a quarter of patch 63 ...
    masks[1, 58:64, 56:64] = True  # ... and the rest of it
    owner = encoder.patch_owner(masks)
    assert owner.shape == (64,)
    assert {i: int(owner[i]) for i in np.flatnonzero(owner >= 0)} == {0: 0, 1: 0, 8: 0, 63: 1}
    assert np.flatnonzero(encoder.patch_owner(masks, 0.6) >= 0).tolist() == [0, 63]
    assert encoder.patch_owner(masks, 0.2)[9] == 1


def test_pixels_become_minus_one_to_one():
    image = np.zeros((1, 2, 3, 3), dtype=np.uint8)
    image[0, 1, 2] = (255, 51, 0)
    made = encoder.as_input(image)
    assert made.shape == (1, 3, 2, 3) and made.dtype == torch.float32
    assert made[0, :, 1, 2].tolist() == pytest.approx([1, -0.6, -1]) and (made.min(), made.max()) == (-1, 1)


@torch.no_grad()
def test_hidden_patches_are_hidden(pretext, pictures):
    images = encoder.as_input(pictures)
    none, everything = (torch.full((4, 64), value) for value in (False, True))
    seen, blind = pretext(images, none), pretext(images, everything)
    assert seen.shape == (4, 64, len(STYLES) * len(concepts()) + 1)
    assert torch.allclose(blind, blind[:1].expand_as(blind), atol=1e-5), "nothing of the image gets through"
    assert not torch.allclose(seen[0], seen[1], atol=1e-3), "and it does where nothing is hidden"
    assert torch.equal(pretext(images, none), seen), "the hook is gone afterwards"
    assert torch.equal(pretext.pictures(encoder.patch_features(pretext.encoder, images)), seen)


@torch.no_grad()
def test_only_the_hidden_patch_is_hidden(pretext):
    """A change in the corner reaches the others through the blocks, unless the corner is hidden."""
    before = torch.zeros(1, 3, 64, 64)
    after, corner = before.clone(), torch.zeros(1, 64, dtype=torch.bool)
    after[..., 56:, 56:], none = 1.0, torch.zeros(1, 64, dtype=torch.bool)
    one, two = (pretext.encoder.patch_embed(x)[0] for x in (before, after))
    reached = (one != two).any(1).nonzero().flatten().tolist()
    assert 63 in reached and set(reached) <= {54, 55, 62, 63}, "the stem sees a patch and a little of its neighbours"
    corner[0, reached] = True
    assert torch.equal(pretext(before, corner), pretext(after, corner))
    assert not torch.allclose(pretext(before, none)[0, 0], pretext(after, none)[0, 0], atol=1e-6)


def test_the_targets_are_pictures_not_names(monkeypatch):
    monkeypatch.setattr(encoder, "N_IMAGES", 6)
    images, targets = encoder.batch(0, 3)
    assert images.shape == (6, 3, 64, 64) and targets.shape == (6, 64)
    ground = len(STYLES) * len(concepts())
    for k, found in enumerate(targets):
        made = world.scene((0, world.SPLIT_SEEDS["encoder"], 3, k))
        pictures = set(found.tolist()) - {ground}
        assert {list(STYLES)[p // len(concepts())] for p in pictures} == {made.style}
        assert {concepts()[p % len(concepts())].word for p in pictures} <= set(made.words)
        outside = ~made.masks.any(0).reshape(8, 8, 8, 8).any(axis=(1, 3)).ravel()
        assert (found[torch.from_numpy(outside)] == ground).all()
    again, other = encoder.batch(0, 3), encoder.batch(0, 4)
    assert torch.equal(again[0], images) and torch.equal(again[1], targets) and not torch.equal(other[0], images)


def test_a_step_of_the_pretext_teaches_every_part(monkeypatch, pretext):
    monkeypatch.setattr(encoder, "N_IMAGES", 4)
    encoder.step_loss(pretext, 0, 0).backward()
    idle = [name for name, p in pretext.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    pretext.zero_grad()
    assert idle == ["encoder.fc_norm.weight", "encoder.fc_norm.bias"], "patch features are taken before that layer"


@torch.no_grad()
def test_a_saved_encoder_gives_the_same_features_anywhere(tmp_path, pretext, pictures):
    """Written as the stage writes it, read by the book (timm's local-dir) and by the later stages: the same numbers."""
    half = encoder.build()
    half.load_state_dict(pretext.encoder.state_dict())
    save_for_hf(half.half(), tmp_path / "vision_encoder", safe_serialization=True)
    kept = half.float().eval()
    shop = stages.Workshop(tmp_path, tmp_path / "work", torch.device("cpu"))
    loaded = TimmEncoder.load(str(tmp_path / "vision_encoder"), revision=None, cache=tmp_path)
    loaded.model.float().eval()
    assert loaded.width == 192
    pixels = loaded.pixels([Image.fromarray(p) for p in pictures])
    assert torch.allclose(pixels, encoder.as_input(pictures), atol=1e-6)
    expected = encoder.patch_features(kept, encoder.as_input(pictures))
    assert expected.shape == (4, 64, 192) and expected.std() > 0.01
    assert torch.equal(loaded.features(encoder.as_input(pictures)), expected)
    assert torch.equal(encoder.patch_features(shop.finished_encoder(), encoder.as_input(pictures)), expected)


# --- the stages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path, monkeypatch, often):
    """A workshop of two tiny stages, `first` and `second`, which needs what the first leaves."""
    made = Workshop(tmp_path / "weights", tmp_path / "work", torch.device("cpu"))
    monkeypatch.setattr(stages, "STEPS", {"first": 8, "second": 4})
    monkeypatch.setattr(stages, "STAGES", {"first": lambda s: s.train("first"), "second": lambda s: s.train("second")})
    monkeypatch.setattr(stages, "NEEDS", {"second": ("first",)})
    return made


class Workshop(stages.Workshop):
    """A workshop whose stages train a `Block`."""

    stop_at = None

    def train(self, stage):
        """As the stages do it: train, save the weights, score."""
        model = self.fresh(Block)
        self.made = []

        def step_loss(step):
            if step == self.stop_at:
                raise KeyboardInterrupt
            self.made.append(step)
            return model(torch.randn(8, 4)).square().mean()

        log = training.fit(
            [model],
            step_loss,
            training.optimizers(model, muon=1e-2, adam=1e-2),
            n_steps=self.n_steps(stage),
            checkpoint=self.checkpoint(stage),
            seed=self.seed,
        )
        (self.weights / stage).mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), self.weights / stage / "proj.safetensors")
        return log, {"held out": 0.123456, "other": 1.0}


def test_stages_leave_weights_report_and_checksums(shop):
    rows = stages.run(shop, ["first", "second"])
    assert [row["stage"] for row in rows] == ["first", "second"] and [row["steps"] for row in rows] == [8, 4]
    report = json.loads((shop.weights / "report.json").read_text())
    assert report == stages.read_report(shop.weights) and set(report) == {"first", "second"}
    entry = report["first"]
    assert entry["scores"] == {"held out": 0.1235, "other": 1.0} and entry["seed"] == 0
    assert [step for step, _ in entry["curve"]] == [2, 4, 6, 8] and entry["curve"][-1][1] == entry["loss"]
    listed = json.loads((shop.weights / "checksums.json").read_text())
    file = shop.weights / "first" / "proj.safetensors"
    assert listed["first/proj.safetensors"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(listed) == {"first/proj.safetensors", "second/proj.safetensors"}
    verify_folder(shop.weights / "first")
    assert not list(shop.work.iterdir()) and not list(shop.weights.glob("*.partial")), "nothing unfinished is left"


def test_a_finished_stage_is_not_trained_again(shop, capsys, monkeypatch):
    before = stages.run(shop, ["first"])
    monkeypatch.setitem(stages.STAGES, "first", lambda s: pytest.fail("trained again"))
    assert stages.run(shop, ["first"]) == before
    assert "first: finished on 20" in capsys.readouterr().out


def test_a_finished_stage_is_trained_again_when_asked(shop, monkeypatch):
    stages.run(shop, ["first"])
    calls = []
    outcome = ([{"step": 1, "loss": 0.5, "seconds": 1.0}], {"held out": 1.0})
    monkeypatch.setitem(stages.STAGES, "first", lambda s: calls.append(s) or outcome)
    (row,) = stages.run(shop, ["first"], again=True)
    assert calls == [shop] and row["scores"] == {"held out": 1.0}


def test_an_interrupted_stage_goes_on(shop, tmp_path):
    shop.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        stages.run(shop, ["first"])
    assert stages.read_report(shop.weights) == {} and not (shop.weights / "first").exists()
    shop.stop_at = None
    stages.run(shop, ["first"])
    assert shop.made == [4, 5, 6, 7], "from the checkpoint at step 4"
    other = Workshop(tmp_path / "other", tmp_path / "other_work", torch.device("cpu"))
    stages.run(other, ["first"])
    assert stages.checksums(other.weights) == stages.checksums(shop.weights)


def test_what_a_stage_needs_is_named(shop):
    message = r"second needs first in .*weights; train these stages first"
    with pytest.raises(FileNotFoundError, match=message):
        stages.run(shop, ["second"])
    assert not shop.weights.exists()


@pytest.mark.parametrize("stage", ["projection", "untrained_control"])
def test_the_projections_need_the_encoder(tmp_path, stage):
    shop = stages.Workshop(tmp_path, tmp_path, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match=rf"{stage} needs language_model and vision_encoder"):
        stages.run(shop, [stage])


def test_another_seed_or_scale_is_no_finished_stage(shop, tmp_path):
    stages.run(shop, ["first"])
    other = Workshop(shop.weights, shop.work, torch.device("cpu"), seed=1)
    with pytest.raises(ValueError, match=r"first in .* was trained with seed, scale = \(0, 1.0\), now \(1, 1.0\)"):
        stages.run(other, ["first"])


def test_again_forgets_what_was_trained_on_it_and_can_be_resumed(shop):
    stages.run(shop, ["first", "second"])
    shop.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        stages.run(shop, ["first"], again=True)
    assert stages.read_report(shop.weights) == {}
    shop.stop_at = None
    stages.run(shop, ["first"])
    assert shop.made == [4, 5, 6, 7], "from the checkpoint at step 4"


def test_every_stage_has_its_steps():
    assert list(stages.STAGES) == list(stages.STEPS)
    shop = stages.Workshop(None, None, torch.device("cpu"), scale=1e-9)
    assert [shop.n_steps(stage) for stage in stages.STAGES] == [2] * len(stages.STAGES)


def test_the_curve_is_short_and_ends_with_the_last_loss(shop):
    log = [{"step": 50 * k, "loss": 1 / k, "seconds": 60.0 * k} for k in range(1, 181)]
    entry = stages._entry(shop, log, {})
    assert len(entry["curve"]) == 60 and entry["curve"][-1] == [9000, entry["loss"]] and entry["minutes"] == 180


# --- the command ---------------------------------------------------------------------------------------------------


def test_an_unknown_stage_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["train", "language_modle", "--weights", str(tmp_path / "w"), "--work", str(tmp_path / "c")])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert "unknown stage language_modle; the stages are language_model, vision_encoder, projection" in said


def test_the_command_trains_and_prints_a_table(shop, capsys, monkeypatch):
    monkeypatch.setattr(stages, "Workshop", Workshop)
    said = ["train", "--weights", str(shop.weights), "--work", str(shop.work), "--device", "cpu", "--scale", "0.5"]
    assert command.main(said) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("stage"))
    assert lines[head].split() == ["stage", "minutes", "steps", "loss", "held-out", "scores"]
    assert [line.split()[0] for line in lines[head + 1 :: 2]] == ["first", "second"]
    assert [line.split()[2] for line in lines[head + 1 :: 2]] == ["4", "2"]


def test_the_table():
    row = {"stage": "bert", "minutes": 9.5, "steps": 1200, "loss": 2.34567, "scores": {"one": 0.5, "two": 0.25}}
    assert command.table([row, row | {"stage": "projection", "scores": {"one": 1.0}}]).splitlines() == [
        "stage              minutes  steps    loss  held-out scores",
        "bert                   9.5   1200   2.346  one 0.500",
        "                                           two 0.250",
        "projection             9.5   1200   2.346  one 1.000",
    ]
