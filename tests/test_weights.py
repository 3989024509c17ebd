import hashlib
import json
import pickle
import subprocess

import pytest
import replicas
import torch

from mmn_utils.models import weights
from mmn_utils.models.weights import WeightsError, load_tensors, verify_file, verify_folder


@pytest.fixture
def folder(tmp_path):
    """A shipped folder with one weight file and its checksum."""
    file = replicas.save_projection(tmp_path / "projection" / "proj.safetensors", d_vision=4)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "checksums.json").write_text(json.dumps({"projection/proj.safetensors": checksum, "other/x": "0"}))
    return tmp_path / "projection"


def cut(file, n_bytes):
    file.write_bytes(file.read_bytes()[:n_bytes])


def test_whole_files_pass(folder):
    verify_folder(folder)
    assert set(load_tensors(folder / "proj.safetensors")) == {"weight", "bias"}


def test_missing(folder):
    (folder / "proj.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"weights missing: .*proj.safetensors does not exist.*mmn_utils.miniature tr"
    ):
        verify_folder(folder)


@pytest.mark.parametrize("n_bytes", [0, 5, 60, 300])
def test_truncated(folder, n_bytes):
    cut(folder / "proj.safetensors", n_bytes)
    with pytest.raises(WeightsError, match=rf"weights truncated: .*proj.safetensors ends early \({n_bytes} bytes"):
        verify_folder(folder)


def test_wrong_checksum(folder):
    file = folder / "proj.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match=r"wrong checksum: .*proj.safetensors has sha256:\w+, expected sha256:\w+"):
        verify_folder(folder)


def test_no_list_of_checksums(folder):
    (folder.parent / "checksums.json").unlink()
    with pytest.raises(WeightsError, match=r"checksums.json is missing: the shipped weights cannot be checked"):
        verify_folder(folder)


def test_folder_that_is_not_listed(folder):
    with pytest.raises(WeightsError, match=r"lists nothing for 'encoder'"):
        verify_folder(folder.parent / "encoder")


def test_a_file_is_digested_once_but_a_changed_one_again(folder, monkeypatch):
    verify_folder(folder)
    monkeypatch.setattr(weights, "digest", lambda *_: pytest.fail("read twice"))
    verify_folder(folder)
    monkeypatch.undo()
    (folder / "proj.safetensors").write_bytes(b"something else")
    with pytest.raises(WeightsError):
        verify_folder(folder)


def test_git_blob_checksum_is_gits_own(tmp_path):
    file = replicas.save_projection(tmp_path / "proj.ckpt", d_vision=4)
    found = subprocess.run(["git", "hash-object", str(file)], capture_output=True, text=True, check=True).stdout.strip()
    verify_file(file, f"git-blob:{found}")


def test_checksum_of_an_unknown_kind(tmp_path):
    file = replicas.save_projection(tmp_path / "proj.ckpt", d_vision=4)
    with pytest.raises(WeightsError, match="expected sha256:HEX or git-blob:HEX"):
        verify_file(file, "crc32:00")


def test_truncated_checkpoint_of_torch(tmp_path):
    file = replicas.save_projection(tmp_path / "proj.ckpt", d_vision=4)
    cut(file, 500)
    with pytest.raises(WeightsError, match="weights truncated"):
        load_tensors(file)


class Trap:
    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda thing, file: file.write_bytes(pickle.dumps(thing))])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, save):
    save({"weight": Trap()}, tmp_path / "proj.ckpt")
    with pytest.raises(WeightsError, match="cannot be read as named tensors and nothing else"):
        load_tensors(tmp_path / "proj.ckpt")
    assert not Trap.sprung


def test_checkpoint_that_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "proj.ckpt")
    with pytest.raises(WeightsError, match=r"should hold a state dict \(names to tensors\), found list"):
        load_tensors(tmp_path / "proj.ckpt")
