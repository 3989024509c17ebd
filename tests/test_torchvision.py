import subprocess
import sys
from pathlib import Path

from mmn_utils import _torchvision

ROOT = Path(__file__).parents[1]


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_torchvision_can_be_imported_and_nothing_heavy_comes_before_it():
    code = """
import sys, mmn_utils
assert not {"torch", "torchvision"} & set(sys.modules), "importing the package loads neither"
import torchvision.transforms
from mmn_utils import _torchvision
assert not _torchvision._watchers(), "the watcher has left"
assert hasattr(torchvision.torch.ops.torchvision, "nms")
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_nothing_is_declared_where_the_operators_exist():
    import torchvision

    assert _torchvision.declare_missing_operators(Path(torchvision.__file__).parent) == []


def test_watcher_is_not_installed_twice(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    _torchvision.install()
    _torchvision.install()
    assert len(_torchvision._watchers()) == 1
    _torchvision.uninstall()
    assert not _torchvision._watchers()
