"""Long computations over many items, in pieces that outlive whatever happens to the process that computes them.

The items (image ids, say) are cut into shards. What is computed of a shard is written whole into one file, parquet for
tables and safetensors for tensors; whoever asks for the same sweep again finds the finished shards and computes the
others. A sweep's folder holds

    key.json                                what the sweep is of: models, data, parameters, items, versions
    shard-00012.0c1f3b5a79d2e468.parquet    the shard's number, and the first 16 digits of the file's own SHA-256

and each shard repeats the key's digest, its number, and the items that could not be computed. Nothing of a file is
used before its digest is found to be the one in its name.

>>> lengths = sweep(lambda words: pd.DataFrame({"n": [len(w) for w in words]}), ["a", "unit"], folder=somewhere,
...                 key={"parameters": {}})                                                     # doctest: +SKIP
>>> lengths.table()["n"].tolist()                                                               # doctest: +SKIP
[1, 4]
"""

import fcntl
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow
from pyarrow import parquet
from safetensors import SafetensorError
from tqdm import tqdm

from mmn_utils import __version__, freshness, results
from mmn_utils.engines import ENGINES, SweepError
from mmn_utils.profiles import Profile
from mmn_utils.untrusted import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

Compute = Callable[[list], Any]
"""Gives a data frame, or tensors by name (first dimension: the item), for a list of items."""
_ABOUT = "mmn_utils.sweep"
_KEY = "key.json"
_PATIENCE = 15
"""Seconds to wait for another process that is at the same sweep."""


@dataclass(frozen=True)
class Shard:
    """A shard to be computed."""

    number: int
    items: list


@dataclass(frozen=True)
class Finished:
    """A shard as it will stand in its file."""

    number: int
    content: bytes
    suffix: str
    bad: list[tuple[Any, str]]
    """Items that could not be computed, and why."""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"shard-{self.number:05}.{hashlib.sha256(self.content).hexdigest()[:16]}.{self.suffix}"


@dataclass(frozen=True)
class Shards:
    """A finished sweep. Shards are read when they are asked for, one after the other, in the order of the items."""

    files: list[Path]
    bad: list[tuple[Any, str]]
    """Items that were left out, and why."""

    def __iter__(self) -> Iterator[Any]:
        """What was computed of each shard that has anything: a data frame, or tensors by name."""
        return (content for file in self.files if (content := _read(file)[1]) is not None)

    def table(self) -> pd.DataFrame:
        """All rows, in the order of the items."""
        return pd.concat(list(self), ignore_index=True)

    def tensors(self) -> "dict[str, Tensor]":
        """All tensors by name, joined along their first dimension, in the order of the items.

        Raises:
            SweepError: an item was left out, so that the rows are no longer the items'.
        """
        if self.bad:
            item, reason = self.bad[0]
            raise SweepError(f"{len(self.bad)} items were left out, the first: {item!r} ({reason}): ask without them")
        return _joined(list(self))


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of one chapter: what their keys have in common, what computes them, and where they are kept.

    That is `results/.sweeps/PROFILE/CHAPTER/NAME-KEY` below the working root, KEY being the key's first digits.
    """

    profile: Profile
    chapter: str

    def __call__(
        self, name: str, compute: Compute, items: Sequence, *, models: "Iterable[nn.Module]", size: int = 32, **key: Any
    ) -> Shards:
        """`sweep` with this chapter's folder, engine and key.

        `models`: those whose weights decide the result; their checksum becomes part of the key. `key`: everything else
        that does (`data`, `parameters`), as plain values. The code of `compute`'s module, and all that it imports, is
        in the key if it belongs to the package: after a change, nothing old is found.
        """
        libraries = {name: metadata.version(name) for name in ("torch", "transformers")}
        key |= {
            "models": asdict(self.profile.models),
            "weights": weights_checksum(models),
            "device": self.profile.torch_device.type,
            "versions": libraries | {"mmn-utils": __version__},
            "code": freshness.digest_module(compute.__module__),
        }
        short = digest(key | {"items": _plain(items)})[:8]
        folder = results.root() / results.SWEEPS / self.profile.name / self.chapter / f"{name}-{short}"
        return sweep(compute, items, folder=folder, key=key, size=size, engine=self.profile.engine)


def sweep(
    compute: Compute,
    items: Sequence,
    *,
    folder: Path,
    key: Mapping[str, Any],
    size: int = 32,
    bad_share: float = 0.01,
    engine: str = "in-process",
) -> Shards:
    """`compute` of all items, `size` at a time; what `folder` has of the same sweep is not computed again.

    Where `compute` fails, the shard is halved until it passes, and an item that fails alone is left out, reported and
    counted. What is too much for the memory is said, and the following shards are computed in pieces that fitted.
    Items are plain values, as JSON has them.

    Raises:
        SweepError: the folder has another sweep, a file in it is damaged, it cannot be written to, another process is
            at it, all items or more than `bad_share` of them (and more than one) fail, or a single item is too much
            for the memory.
    """
    items = _plain(items)
    if not items:
        raise SweepError(f"{folder}: there are no items to compute anything of")
    shards = [Shard(number, items[start : start + size]) for number, start in enumerate(range(0, len(items), size))]
    about = dict(key) | {"items": digest(items), "n_items": len(items), "size": size}
    with _alone(folder):
        _check_key(folder, about)
        done = {number: (file, bad) for number, file, bad in _found(folder, digest(about), shards)}
        job = _Job(compute, digest(about), most=size)
        todo = [shard for shard in shards if shard.number not in done]
        with _progress(folder, len(items), sum(len(shards[number].items) for number in done)) as bar:
            for finished in ENGINES[engine](job, todo):
                done[finished.number] = (_keep(folder, finished), finished.bad)
                _check_bad(folder, list(done.values()), len(items), bad_share)
                bar.update(len(shards[finished.number].items))
    files, bad = zip(*(done[shard.number] for shard in shards), strict=True)
    return Shards(list(files), _reported(folder, sum(bad, []), len(items)))


def weights_checksum(models: "Iterable[nn.Module]") -> str:
    """A checksum of what is in the memory: of each parameter and buffer the name, type, shape, the sum of all bytes,
    and about a thousand of its numbers."""
    import torch

    digest = hashlib.sha256()
    for model in models:
        for name, tensor in model.state_dict().items():
            flat = tensor.detach().contiguous().flatten()
            total = flat.view(torch.uint8).sum(dtype=torch.int64).item()
            some = flat[:: max(1, len(flat) // 1024)].contiguous().view(torch.uint8).cpu().numpy().tobytes()
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]} {total} ".encode() + some)
    return digest.hexdigest()


def _plain(items: Iterable) -> list:
    """Python's own numbers in place of numpy's."""
    return [item.item() if isinstance(item, np.generic) else item for item in items]


# --- one shard -------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """Computes shards, wherever the engine lets it."""

    compute: Compute
    key: str
    most: int
    """How many items are computed at once; less after the memory was found too small for more."""

    def __call__(self, shard: Shard) -> Finished:
        """A shard computed and put into the form of its file."""
        pieces, bad = self._pieces(shard.items)
        about = json.dumps({"key": self.key, "number": shard.number, "bad": bad})
        content = _joined(pieces)
        if isinstance(content, dict):
            from safetensors.torch import save

            return Finished(shard.number, save(content, metadata={_ABOUT: about}), "safetensors", bad)
        table = pyarrow.table({}) if content is None else pyarrow.Table.from_pandas(content, preserve_index=False)
        file = BytesIO()
        parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), _ABOUT: about}), file)
        return Finished(shard.number, file.getvalue(), "parquet", bad)

    def _pieces(self, items: list) -> tuple[list, list[tuple[Any, str]]]:
        """What `compute` gives for the items, halved where it fails, and the items that fail alone."""
        if len(items) <= self.most:
            try:
                return [self.compute(items)], []
            except Exception as error:
                if len(items) == 1:
                    return [], [(items[0], _reason(error, items[0]))]
                if _is_memory(error):
                    self.most = len(items) // 2
                    print(f"{len(items)} items are too much for the memory: now {self.most} at once", file=sys.stderr)
        middle = len(items) // 2
        (first, bad), (second, more) = (self._pieces(half) for half in (items[:middle], items[middle:]))
        return first + second, bad + more


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _reason(error: Exception, item: Any) -> str:
    if _is_memory(error):
        raise SweepError(f"item {item!r} alone is too much for the memory: take a smaller model or image") from error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {Path(place.filename).name}:{place.lineno}"


def _joined(pieces: list) -> Any:
    """Data frames or tensors by name, one after the other; None if there are none."""
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    if isinstance(pieces[0], pd.DataFrame):
        return pd.concat(pieces, ignore_index=True)
    import torch

    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


# --- the folder ------------------------------------------------------------------------------------------------------


def _keep(folder: Path, finished: Finished) -> Path:
    """Write a shard whole and so that it survives a power cut: temporary name, fsync, rename, fsync of the folder."""
    path, partial_path = folder / finished.name, folder / f".{finished.number}.partial"
    with _writing(folder):
        with partial_path.open("wb") as file:
            file.write(finished.content)
            file.flush()
            os.fsync(file.fileno())
        partial_path.rename(path)
        _sync(folder)
    return path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path) -> tuple[dict[str, Any], Any]:
    """What a shard says about itself, and what was computed (None: nothing), after its checksum has been compared."""
    content = file.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest()[:16], file.name.split(".")[1]
    if found != expected:
        raise SweepError(
            f"{file} is damaged: its SHA-256 begins with {found}, its name says {expected}. "
            "Delete this one file and run again; the other shards are kept."
        )
    try:
        about, result = (_from_safetensors if file.suffix == ".safetensors" else _from_parquet)(content)
        if {*about} != {"key", "number", "bad"}:
            raise ValueError(f"it says {sorted(about)} about itself")
    except (pyarrow.ArrowException, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SweepError(f"{file} is not a shard of a sweep ({error!r}): take it away and run again") from error
    return about, result


def _from_parquet(content: bytes) -> tuple[dict[str, Any], pd.DataFrame | None]:
    table = parquet.read_table(BytesIO(content))
    return json.loads(table.schema.metadata[_ABOUT.encode()]), table.to_pandas() if table.num_columns else None


def _from_safetensors(content: bytes) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"][_ABOUT]), load(content)


def _found(folder: Path, key: str, shards: list[Shard]) -> Iterator[tuple[int, Path, list]]:
    """The finished shards in the folder: number, file, bad items."""
    for file in sorted(folder.glob("shard-*.*.*")):
        about, _ = _read(file)
        if about["key"] != key or about["number"] >= len(shards):
            raise SweepError(f"{file} belongs to another sweep than {folder / _KEY} describes: take it away, run again")
        yield about["number"], file, [tuple(entry) for entry in about["bad"]]


def _check_key(folder: Path, about: dict[str, Any]) -> None:
    """Write the key of a new sweep; refuse a folder that has another one's."""
    path = folder / _KEY
    if not path.exists():
        with _writing(folder):
            results.write_whole(path, results.as_json(about))
            _sync(folder)
    try:
        there, wanted = read_json(path), json.loads(json.dumps(about))
    except ValueError as error:
        raise SweepError(f"{error}. Delete {folder} to compute everything anew.") from error
    if different := sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name)):
        name = different[0]
        raise SweepError(
            f"{folder} holds another sweep: {', '.join(different)} differ (there: {name} = {there.get(name)!r}, "
            f"wanted: {wanted.get(name)!r}). Name another folder, or delete this one to compute everything anew."
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say what it means if the folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise SweepError(
            f"{folder} cannot be written to: {error.strerror or error}. Finished shards are whole and stay; "
            "free some space or make the folder writable, then run again: it goes on from there."
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; what was left half written goes, before and after."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    with lock:
        _hold(lock, folder)
        try:
            _clear(folder)
            yield
        finally:
            _clear(folder)


def _hold(lock: IO, folder: Path) -> None:
    """Take the lock; the kernel of a chapter whose engine was killed keeps it for a moment longer."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise SweepError(f"{folder}: another process is computing this sweep; wait for it to end") from None
            time.sleep(0.1)


def _clear(folder: Path) -> None:
    for left in folder.glob(".*.partial"):
        left.unlink(missing_ok=True)


# --- what is said ----------------------------------------------------------------------------------------------------


def _progress(folder: Path, n_items: int, n_done: int) -> tqdm:
    """A bar with the time left, where somebody looks (a terminal)."""
    return tqdm(total=n_items, initial=n_done, desc=folder.name, disable=None, leave=False, unit="item")


def _check_bad(folder: Path, done: list[tuple[Path, list]], n_items: int, bad_share: float) -> None:
    """Stop a sweep whose items fail too often; the shards that have them go, to be tried again."""
    bad = [entry for _, entries in done for entry in entries]
    if len(bad) <= max(1, bad_share * n_items) and len(bad) < n_items:
        return
    for file, entries in done:
        if entries:
            file.unlink()
    item, reason = bad[0]
    raise SweepError(
        f"{folder}: {len(bad)} of {n_items} items failed, more than the {bad_share:.0%} that may; "
        f"the first: {item!r} ({reason}). Mend the cause and run again: only the shards of failed items are repeated."
    )


def _reported(folder: Path, bad: list[tuple[Any, str]], n_items: int) -> list[tuple[Any, str]]:
    if bad:
        item, reason = bad[0]
        print(f"{folder.name}: {len(bad)} of {n_items} items left out; the first: {item!r} ({reason})", file=sys.stderr)
    return bad


def digest(content: Any) -> str:
    """SHA-256 of plain values, as JSON has them."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
