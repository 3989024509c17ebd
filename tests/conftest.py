import mmn_utils  # noqa: F401, I001  (goes before transformers and timm, wherever torchvision was built for another torch)

import pytest
import replicas

from mmn_utils import profiles
from mmn_utils.sweeps import Sweeps


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """The sweeps of a chapter, kept in the test's own folder."""
    monkeypatch.setenv("MMN_ROOT", str(tmp_path / "root"))
    return Sweeps(profiles.read(replicas.save_profile(tmp_path / "p.yml"), check_folders=False), "03_x")
