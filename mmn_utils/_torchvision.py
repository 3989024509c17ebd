"""Let `import torchvision` work where its binary was built for another torch.

A CPU build of torch beside the default (CUDA) wheel of torchvision is a common pair, and importing torchvision then
fails with "operator torchvision::nms does not exist": its C++ operators cannot be loaded, yet its Python code refers to
two of them. Declaring the two schemas before the first import cures it; everything here needs only torchvision's Python
code (its image transforms).

`install()` puts a watcher in front of Python's import system. The check runs when torchvision is first imported and not
before, so it costs nothing to those who never import it, and does nothing where torchvision is healthy.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Signatures as in torchvision's own C++ registration (torchvision/csrc/ops/nms.cpp and ops/quantized).
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries = []  # torch.library withdraws a schema when its Library object is collected


class _Watcher:
    """A finder that finds nothing; it only sees the first request for torchvision pass by."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            uninstall()
            spec = PathFinder.find_spec("torchvision")
            if spec is not None and spec.origin is not None:
                declare_missing_operators(Path(spec.origin).parent)
        return None


def install() -> None:
    """Watch for the first import of torchvision; does nothing if it is imported or watched already."""
    if "torchvision" not in sys.modules and not _watchers():
        sys.meta_path.insert(0, _Watcher())


def uninstall() -> None:
    """Stop watching."""
    for watcher in _watchers():
        sys.meta_path.remove(watcher)


def declare_missing_operators(folder: Path) -> list[str]:
    """Declare the schemas that the torchvision in `folder` needs and this torch lacks; returns their names."""
    import torch

    _load_operators(folder)
    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(SCHEMAS[name])
        _libraries.append(library)
    return missing


def _load_operators(folder: Path) -> None:
    """Load torchvision's binary as torchvision itself would; a binary that does not fit this torch is left out."""
    import torch

    for suffix in EXTENSION_SUFFIXES:
        try:
            if (folder / f"_C{suffix}").is_file():
                torch.ops.load_library(str(folder / f"_C{suffix}"))
        except (ImportError, OSError):
            pass  # the mismatch this module is about


def _watchers() -> list[_Watcher]:
    return [finder for finder in sys.meta_path if isinstance(finder, _Watcher)]
