"""Weight files: whole, unaltered, and read without executing anything that came with them."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file

from mmn_utils.untrusted import inside, read_json

CHECKSUMS = "checksums.json"
REMEDY = (
    "Reinstall the package, or make the weights again with `python -m mmn_utils.miniature train` "
    "(for files of your own: copy them again)."
)
_verified: set[tuple[Path, int, int, str]] = set()


class WeightsError(OSError):
    """A weight file that is missing, truncated, altered, or not what its place expects; the message names it."""


def verify_folder(folder: Path) -> None:
    """Check every file of a shipped folder against `checksums.json` beside it ({"NAME/file": sha256}).

    A file is read once per process; see `verify_file` for what is raised.
    """
    listed = folder.parent / CHECKSUMS
    if not listed.is_file():
        raise WeightsError(f"{listed} is missing: the shipped weights cannot be checked. {REMEDY}")
    wanted = {name: value for name, value in _read_checksums(listed).items() if name.startswith(f"{folder.name}/")}
    if not wanted:
        raise WeightsError(f"{listed} lists nothing for {folder.name!r}. {REMEDY}")
    for name, value in wanted.items():
        verify_file(folder.parent / name, f"sha256:{value}")


def _read_checksums(listed: Path) -> dict[str, str]:
    """{"NAME/file": sha256} as it stands in the file."""
    try:
        checksums = read_json(listed)
        if not isinstance(checksums, dict) or not all(isinstance(value, str) for value in checksums.values()):
            raise ValueError("expected names of files and their sha256")
        for name in checksums:
            inside(listed.parent, name)
    except ValueError as error:
        raise WeightsError(f"{listed} is no list of checksums: {error}. {REMEDY}") from error
    return checksums


def verify_file(path: Path, checksum: str | None) -> None:
    """Check that `path` is there, whole, and has this checksum (`sha256:HEX`, `git-blob:HEX`; None: not compared).

    Raises:
        WeightsError: one message each for a missing, a truncated and a changed file.
    """
    if not path.is_file():
        raise WeightsError(f"weights missing: {path} does not exist. {REMEDY}")
    state = path.stat()
    key = (path.resolve(), state.st_size, state.st_mtime_ns, checksum or "")
    if key in _verified:
        return
    if is_truncated(path):
        raise WeightsError(f"weights truncated: {path} ends early ({state.st_size} bytes are there). {REMEDY}")
    found = digest(path, checksum) if checksum else checksum
    if found != checksum:
        raise WeightsError(f"wrong checksum: {path} has {found}, expected {checksum}. {REMEDY}")
    _verified.add(key)


def digest(path: Path, like: str) -> str:
    """The checksum of `path`, of the same kind as `like`."""
    kind = like.partition(":")[0]
    if kind not in {"sha256", "git-blob"}:
        raise WeightsError(f"checksum {like!r} of {path}: expected sha256:HEX or git-blob:HEX")
    with path.open("rb") as file:
        if kind == "sha256":
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        header = f"blob {path.stat().st_size}\0".encode()
        return f"git-blob:{hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()}"  # noqa: S324


def is_truncated(path: Path) -> bool:
    """Whether the file ends before its own header says it should (safetensors, torch's zip files; empty files)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            return size < 8 or size < _announced_size(file, size)
        return size == 0 or (file.read(2) == b"PK" and not zipfile.is_zipfile(path))


def _announced_size(file: BinaryIO, size: int) -> int:
    """Bytes that a safetensors file should have: 8 of length, the header, the tensors; 0 if it is something else."""
    length = int.from_bytes(file.read(8), "little")
    header = file.read(min(length, size))
    if header.startswith(b"{") and len(header) < length:
        return 8 + length
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
    return 8 + length + max(ends, default=0)


def load_tensors(path: Path, checksum: str | None = None) -> dict[str, torch.Tensor]:
    """The named tensors in a safetensors file, or in a state dict written by `torch.save`; on the CPU.

    Raises:
        WeightsError: as `verify_file`, or the file holds anything but named tensors.
    """
    verify_file(path, checksum)
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _load_state_dict(path)
    except Exception as error:  # torch's reader raises whatever comes: UnpicklingError, RuntimeError, KeyError, ...
        raise WeightsError(
            f"{path} cannot be read as named tensors and nothing else: {why(error)}. {REMEDY}"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise WeightsError(f"{path} should hold a state dict (names to tensors), found {type(tensors).__name__}")
    for name, tensor in tensors.items():
        if tensor.nbytes > path.stat().st_size:  # one number, repeated by a stride of 0, can pose as any shape
            raise WeightsError(f"{path}: {name} claims {tensor.nbytes:,} bytes, more than the whole file. {REMEDY}")
    return tensors


def why(error: Exception) -> str:
    """What a library says of its failure, less the advice to run whatever came with the weights."""
    advice = any(option in str(error).lower() for option in ("trust_remote_code", "weights_only", "weights only"))
    return "damaged, or in need of code that came with it, which is never run" if advice else str(error)


def _load_state_dict(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        for part in zipfile.ZipFile(path).infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"{part.filename} is compressed, which torch.save never does: it could fill the memory"
                )
    return torch.load(path, map_location="cpu", weights_only=True)
