import dataclasses
import socket

import numpy as np
import pytest
import replicas
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTJForCausalLM

from mmn_utils import profiles
from mmn_utils.models.captioner import Captioner, load_language_model, load_projection
from mmn_utils.models.weights import WeightsError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a test tried to reach the network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def paper_file(tmp_path_factory):
    return replicas.save_paper_models(tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="module")
def captioner(paper_file):
    return Captioner.from_profile(profiles.read(paper_file))


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    return replicas.save_timm_beit(tmp_path_factory.mktemp("timm") / "vision_encoder")


def test_paper_layout_is_loaded_and_captions(captioner):
    captions = captioner.caption(replicas.images(), max_new_tokens=5)
    assert isinstance(captioner.language_model, GPTJForCausalLM)
    assert len(set(captions)) == 3, "random weights, but each image has its say"


def test_no_weight_of_the_encoder_is_left_at_random(paper_file, captioner):
    published = torch.load(paper_file.parent / "beit" / "pytorch_model.bin", weights_only=True)
    assert "beit.encoder.layer.0.attention.attention.query.weight" in published, "the replica has the published names"
    parameters = captioner.encoder.model.named_parameters()
    loaded = sorted(p.double().sum().item() for n, p in parameters if p.numel() > 1 and "pooler" not in n)
    backbone = [t for n, t in published.items() if n.startswith("beit.") and t.is_floating_point() and t.numel() > 1]
    assert loaded == pytest.approx(sorted(t.double().sum().item() for t in backbone))


def test_shapes_and_the_order_of_the_input(captioner):
    images = replicas.images()
    features, prompts = captioner.patch_features(images, batch_size=2), captioner.image_prompts(images)
    text, whole = captioner.text_embeddings(), captioner.prompt_embeddings(images)
    n_patches = 16
    assert features.shape == (3, n_patches, 24) and prompts.shape == (3, n_patches, 32)
    assert torch.equal(whole[:, :n_patches], prompts) and torch.equal(whole[0, n_patches:], text)
    assert torch.equal(captioner.prompt_embeddings(images, ""), prompts)
    ids = captioner.tokenizer("A picture of")["input_ids"]
    assert torch.equal(text, captioner.language_model.transformer.wte.weight[ids])


def test_features_are_limbers(captioner):
    pixels = captioner.encoder.pixels(replicas.images())
    assert pixels.min() >= -1 and pixels.max() <= 1 and pixels.shape == (3, 3, 64, 64)
    states = captioner.encoder.model(pixels).last_hidden_state
    assert isinstance(captioner.encoder.model.layernorm, torch.nn.Identity), "mean pooling: no final norm"
    assert torch.equal(captioner.patch_features(replicas.images()), states[:, 1:])


def test_everything_is_frozen(captioner):
    modules = (captioner.language_model, captioner.encoder.model, captioner.projection)
    assert not any(module.training or p.requires_grad for module in modules for p in module.parameters())


def test_gradients_can_flow_from_a_logit_to_image_prompts(captioner):
    prompts = captioner.prompt_embeddings(replicas.images(1)).requires_grad_()
    captioner.language_model(inputs_embeds=prompts).logits[0, -1, 5].backward()
    assert prompts.grad[0, 0].abs().sum() > 0


def argmax_loop(captioner, embeddings, n):
    """Greedy decoding written out, without a cache: the independent route."""
    tokens = []
    while len(tokens) < n and not set(tokens) & set(captioner.end_ids):
        logits = captioner.language_model(inputs_embeds=embeddings).logits[0, -1, : len(captioner.tokenizer)]
        tokens.append(logits.argmax().item())
        new = captioner.language_model.get_input_embeddings()(torch.tensor([tokens[-1:]]))
        embeddings = torch.cat([embeddings, new], dim=1)
    return captioner.tokenizer.decode(tokens, skip_special_tokens=True).strip()


@torch.no_grad()
def test_captions_are_greedy_whatever_the_batch(captioner):
    images = replicas.images()
    by_hand = [argmax_loop(captioner, captioner.prompt_embeddings([image]), 12) for image in images]
    assert captioner.caption(images, max_new_tokens=12) == by_hand
    assert captioner.caption(images, max_new_tokens=12, batch_size=1) == by_hand


def test_caption_ends_with_the_sentence(captioner):
    stop = captioner.tokenizer(".")["input_ids"]
    assert set(stop) <= set(captioner.end_ids) and captioner.tokenizer.eos_token_id in captioner.end_ids
    a, of = captioner.tokenizer("A")["input_ids"][0], captioner.tokenizer(" of")["input_ids"][0]
    assert captioner._text([a, of, *stop, a, a]) == "A of."


def test_padding_rows_are_never_produced(captioner):
    assert captioner.language_model.get_output_embeddings().weight.shape[0] > len(captioner.tokenizer)
    head = captioner.language_model.lm_head
    before = head.bias.clone()
    head.bias[len(captioner.tokenizer) :] = 1e3
    try:
        assert captioner.caption(replicas.images(), max_new_tokens=3) is not None
        config = captioner._greedy(3)
        assert config.suppress_tokens == list(range(len(captioner.tokenizer), 320))
    finally:
        head.bias.copy_(before)


@pytest.mark.parametrize("kind", ["gptj", "gpt2", "opt", "llama", "neox"])
def test_any_language_model_and_a_timm_encoder(kind, tmp_path, timm_folder):
    replicas.save_language_model(tmp_path / "lm", kind, half=True)
    d_model = 16 if kind == "opt" else 32
    replicas.save_projection(tmp_path / "proj" / "proj.safetensors", d_vision=20, d_model=d_model)
    file = replicas.save_profile(
        tmp_path / "other.yml",
        models__language_model__source="./lm",
        models__vision_encoder={"source": str(timm_folder), "library": "timm"},
        models__projection__source="./proj",
        models__bert__source="bert-base-uncased",
        models__bert__revision="branch:main",
    )
    captioner = Captioner.from_profile(profiles.read(file))
    assert captioner.language_model.dtype == torch.float32, "stored in half precision, computed in the profile's"
    assert captioner.image_prompts(replicas.images()).shape == (3, 64, d_model)
    captions = captioner.caption(replicas.images(), max_new_tokens=4)
    assert captions == captioner.caption(replicas.images(), max_new_tokens=4) and len(captions) == 3


def test_timm_pixels_follow_the_encoders_own_configuration(timm_folder, tmp_path):
    from mmn_utils.models.encoders import TimmEncoder

    encoder = TimmEncoder.load(str(timm_folder), revision=None, cache=tmp_path)
    image = replicas.images()[1].resize((64, 64))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 * 2 - 1
    assert torch.allclose(encoder.pixels([image])[0], expected, atol=1e-6)


def test_convolutional_encoder_gives_patches():
    import timm

    from mmn_utils.models.encoders import TimmEncoder

    encoder = TimmEncoder(model=timm.create_model("test_convnext.r160_in1k", num_classes=0).eval(), name="convnext")
    features = encoder.features(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, 4, encoder.width)


@pytest.mark.parametrize(
    ("d_vision", "d_model", "message"),
    [
        (25, 32, r"the projection's input has 25 numbers, but the vision encoder \(.*beit\) has 24"),
        (24, 31, r"the projection's output has 31 numbers, but the language model \(.*gpt-j-6B\) has 32"),
    ],
)
def test_projection_of_the_wrong_size(captioner, d_vision, d_model, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(captioner, projection=torch.nn.Linear(d_vision, d_model))


def test_projection_without_bias(paper_file, tmp_path):
    file = tmp_path / "proj.ckpt"
    torch.save({"weight": torch.zeros(32, 24)}, file)
    profile = profiles.read(paper_file)
    source = dataclasses.replace(profile.models.projection, source=str(file))
    with pytest.raises(WeightsError, match=r"should hold weight .* and bias .*, found \{'weight': \[32, 24\]\}"):
        load_projection(profile, source)


def test_checkpoint_that_lacks_a_tensor(tmp_path):
    folder = replicas.save_language_model(tmp_path / "lm")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.fc_out.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    profile = profiles.read(replicas.save_profile(tmp_path / "p.yml"), check_folders=False)
    source = dataclasses.replace(profile.models.language_model, source="./lm")
    with pytest.raises(WeightsError, match=r"lm lacks 1 tensors of GPTJForCausalLM: transformer.h.1.mlp.fc_out.weight"):
        load_language_model(profile, source)


def test_folder_that_went_away_after_the_profile_was_read(tmp_path):
    profile = profiles.read(replicas.save_profile(tmp_path / "p.yml"), check_folders=False)
    with pytest.raises(WeightsError, match=r"weights missing: .*gpt-j-6B \(in .*p.yml\) does not exist"):
        load_language_model(profile, profile.models.language_model)


def test_projection_with_another_checksum(paper_file):
    profile = profiles.read(paper_file)
    source = dataclasses.replace(profile.models.projection, checksum="sha256:00")
    with pytest.raises(WeightsError, match=r"wrong checksum: .*proj.ckpt has sha256:\w+, expected sha256:00"):
        load_projection(profile, source)
