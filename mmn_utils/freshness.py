"""Which chapters have to run again, and why.

A chapter is fresh as long as all of these are what they were when it ran:

- its notebook, outputs left out;
- its profile: models, data, seed, and the parameters of this chapter (not those of others);
- the modules of `mmn_utils` that it imports, directly or through other modules, comments and docstrings left out;
- the files of the package, the weights, the data and the results of other chapters that it opened while it ran
  (`kernel.py` writes them down);
- what it left behind: its executed notebook and its results.

Contents count, not dates. The exceptions are outside the package: files above 256 MB count by size and time, and so
do data that the profile names by path, each file by its name too, because there may be a hundred thousand of them.
All of it is written to `results/PROFILE/CHAPTER/manifest.json` when the chapter has run to its end.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from mmn_utils.chapters import code_cells
from mmn_utils.results import as_json, write_whole
from mmn_utils.untrusted import read_json, read_yaml

PACKAGE = Path(__file__).parent
MANIFEST = "manifest.json"
_BY_CONTENT = 256 * 2**20
"""Files above this many bytes (large language models) are compared by size and time instead of content."""
_TELLS_ITS_TEXT = re.compile(r"__doc__|getsource|\bhelp\(")
"""Code that shows docstrings or source is compared to the letter."""


@dataclass(frozen=True)
class Inputs:
    """Digests of what decides a chapter's result before it runs."""

    notebook: str
    profile: str
    code: dict[str, str]
    """One digest for each module file, by its path in the package."""


@dataclass(frozen=True)
class Manifest:
    """What is known about a chapter's last complete run."""

    inputs: Inputs
    reads: dict[str, str]
    """Digests of the files that were opened, by their place."""
    outputs: dict[str, str]
    """Digests of the files that were left, by their name in the chapter's results."""
    seconds: float
    date: str
    versions: dict[str, str]
    peak: int | None = None
    """The most bytes of memory that its kernel held, where that is known."""

    def save(self, folder: Path) -> None:
        """Write `folder/manifest.json`."""
        write_whole(folder / MANIFEST, as_json(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Manifest | None":
        """The manifest in `folder`, or None where there is none that can be read."""
        try:
            content = read_json(folder / MANIFEST)
            found = cls(**{**content, "inputs": Inputs(**content["inputs"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        texts = (found.inputs.code, found.reads, found.outputs, found.versions, {"date": found.date})
        numbers = isinstance(found.seconds, (int, float)) and isinstance(found.peak, (int, type(None)))
        return found if numbers and all(_is_text_by_name(mapping) for mapping in texts) else None


def _is_text_by_name(mapping: Any) -> bool:
    return isinstance(mapping, dict) and all(isinstance(value, str) for value in mapping.values())


def inputs_of(name: str, notebook: nbformat.NotebookNode, profile_file: Path) -> Inputs:
    """Digests of the notebook, the profile as this chapter sees it, and the code that the notebook imports."""
    cells = [[cell.cell_type, cell.source, cell.metadata] for cell in notebook.cells]
    profile = read_yaml(profile_file)
    profile["chapters"] = (profile.get("chapters") or {}).get(name)
    sources = [_plain_python(cell.source) for cell in code_cells(notebook)]
    return Inputs(
        _digest_of(cells), _digest_of(profile), {str(path): _digest_code(PACKAGE / path) for path in closure(sources)}
    )


def reason_to_run(folder: Path, inputs: Inputs, places: Mapping[str, Path]) -> str | None:
    """Why the chapter whose results are in `folder` has to run; None if it is fresh. `places`: see `digest_reads`."""
    manifest = Manifest.load(folder)
    if manifest is None:
        return "no complete run yet"
    if manifest.inputs.notebook != inputs.notebook:
        return "its notebook changed"
    if manifest.inputs.profile != inputs.profile:
        return "its profile changed"
    if changed := _changed(manifest.inputs.code, inputs.code):
        return f"mmn_utils/{changed} changed"
    if changed := _changed(manifest.reads, {key: _digest_read(key, places) for key in manifest.reads}):
        return f"{changed.removeprefix('package:').removesuffix(':')} changed"
    if changed := _changed(manifest.outputs, digest_outputs(folder)):
        return f"its result {changed} changed"
    return None


def data_changed(folder: Path, places: Mapping[str, Path]) -> bool:
    """Whether data that the chapter whose results are in `folder` has read are no longer what they were then."""
    manifest = Manifest.load(folder)
    reads = {key: value for key, value in manifest.reads.items() if key.startswith("data")} if manifest else {}
    return _changed(reads, {key: _digest_read(key, places) for key in reads}) is not None


def reads_chapter(folder: Path, other: str) -> bool:
    """Whether the chapter whose results are in `folder` has read results of the chapter `other`."""
    manifest = Manifest.load(folder)
    return manifest is not None and any(
        key.startswith("results:") and other in Path(key).parts for key in manifest.reads
    )


def digest_reads(log: Path, places: Mapping[str, Path], ignore: Iterable[Path] = ()) -> dict[str, str]:
    """Digests of the files named in the kernel's `log` that lie in one of the `places`.

    `places` gives each folder that counts a name: `package`, `results`, `weights KEY` for each place of weights, and
    `data KEY` for each of data. Of a folder of weights all files count as soon as one was opened (safetensors reads
    without telling Python), of data all that are in the same folder as one (other processes may have read those).
    Files and folders in `ignore` do not count.
    """
    names = log.read_bytes().split(b"\0") if log.exists() else []
    opened = [(path, path.resolve()) for path in (Path(os.fsdecode(name)) for name in names if name)]
    opened = _outside(opened, ignore)
    brought = _outside(opened, [folder for place, folder in places.items() if place in ("package", "results")])
    keys: set[str] = set()
    for place, folder in places.items():
        inside = _inside(brought if place.startswith("data") else opened, folder)
        if place.startswith("weights"):
            keys |= {f"{place}:"} if inside else set()
        else:
            keys |= {_key(place, path) for path in inside if path.suffix not in (".py", ".pyc", ".so")}
    return {key: _digest_read(key, places) for key in sorted(keys)}


def _outside(opened: list[tuple[Path, Path]], folders: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Those of the files, each the path that was opened and where symbolic links lead, that lie in no such folder."""
    roots = [folder.resolve() for folder in folders]
    return [forms for forms in opened if not any(forms[1].is_relative_to(root) for root in roots)]


def _inside(opened: list[tuple[Path, Path]], folder: Path) -> set[Path]:
    """Where the files lie in the folder, by either path."""
    roots = {folder, folder.resolve()}
    return {path.relative_to(root) for forms in opened for path in forms for root in roots if path.is_relative_to(root)}


def _key(place: str, path: Path) -> str:
    return f"{place}:{os.path.dirname(path) if place.startswith('data') else path}"


def digest_outputs(folder: Path) -> dict[str, str]:
    """Digests of the files in a chapter's results, without the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): digest_file(path) for path in files if not path.name.endswith(".partial")}


def digest_file(path: Path) -> str:
    """Digest of one file, or `missing`."""
    try:
        status = path.stat()
        if status.st_size > _BY_CONTENT:
            return f"size {status.st_size}, time {status.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "missing"


def digest_module(name: str) -> str:
    """Digest of the code of a module and of all that it imports, as far as it belongs to the package."""
    return _digest_of({str(path): _digest_code(PACKAGE / path) for path in closure([f"import {name}"])})


def closure(sources: Iterable[str]) -> list[Path]:
    """Files of all modules of the package that these pieces of Python import, directly or not; paths are relative to
    the package."""
    found: set[Path] = set()
    todo = [path for source in sources for path in _imported(source, "")]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imported((PACKAGE / path).read_text(), _package_name(path))
    return sorted(found)


def _imported(source: str, package: str) -> Iterator[Path]:
    for name in _imported_names(source, package):
        parts = name.split(".")
        if parts[0] == PACKAGE.name:
            for end in range(1, len(parts) + 1):
                yield from _files_of(parts[1:end])


@cache
def _imported_names(source: str, package: str) -> tuple[str, ...]:
    """Every name that may be a module: `from a import b` gives `a` and `a.b`, because `b` may be a module."""
    names: list[str] = []
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names += [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return tuple(name for name in names if isinstance(name, str))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _files_of(parts: list[str]) -> Iterator[Path]:
    for path in (Path(*parts, "__init__.py"), Path(*parts).with_suffix(".py") if parts else Path()):
        if (PACKAGE / path).is_file():
            yield path


def _package_name(path: Path) -> str:
    return ".".join([PACKAGE.name, *path.parent.parts])


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _plain_python(source: str) -> str:
    """A cell without its IPython commands (`%pip ...`, `!ls`), so that the rest can be parsed."""
    if source.lstrip().startswith("%%"):
        return ""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def _digest_code(path: Path) -> str:
    source = path.read_text()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return _digest_of(source)
    if _TELLS_ITS_TEXT.search(source):
        return _digest_of(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _is_text(statement)] or [ast.Pass()]
    return _digest_of(ast.dump(tree))


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, or a string that documents a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _digest_read(key: str, places: Mapping[str, Path]) -> str:
    place, _, name = key.partition(":")
    if place not in places:
        return "no longer in the profile"
    path = places[place] / name
    if not path.is_dir():
        return digest_file(path)
    return _digest_of(_stamps(path) if place.startswith("data") else digest_outputs(path))


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of each file in a folder, hidden ones and those of folders in it left out."""
    with os.scandir(folder) as entries:
        files = [(entry.name, entry.stat()) for entry in entries if entry.name[0] != "." and entry.is_file()]
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in files)


def _digest_of(content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return names[0] if names else None
