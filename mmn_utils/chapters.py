"""The chapters of the book: which there are, whether they can be run, and how an executed one is shown.

A chapter is `notebooks/NAME.ipynb`, listed in `_toc.yml` as `notebooks/NAME`. It has one cell tagged `parameters` and
may have one tagged `install` (Colab's first cell). Whatever is wrong with one is refused here, by name, before
anything runs.
"""

import ast
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from mmn_utils.untrusted import read_yaml

FOLDER = "notebooks"
KERNEL = "python3"
_TIMING = ("papermill", "execution", "ExecuteTime", "widgets")


class BookError(Exception):
    """Something the reader of the message can put right; the message says what."""


def find(root: Path) -> list[str]:
    """Names of the chapters, in the order of the table of contents.

    Raises:
        BookError: a chapter is listed but not there, there but not listed, or listed twice.
    """
    listed = [Path(entry).name.removesuffix(".ipynb") for entry in _entries(root) if Path(entry).parts[:1] == (FOLDER,)]
    there = {path.stem for path in (root / FOLDER).glob("*.ipynb")}
    for name in listed:
        if name not in there:
            raise BookError(
                f"_toc.yml lists the chapter {name}, but there is no {FOLDER}/{name}.ipynb{_nearest(name, there)}"
            )
        if listed.count(name) > 1:
            raise BookError(f"_toc.yml lists the chapter {name} {listed.count(name)} times; once is enough")
    for name in sorted(there - set(listed)):
        raise BookError(
            f"{FOLDER}/{name}.ipynb is missing from _toc.yml: add `- file: {FOLDER}/{name}`, or move the notebook away"
        )
    return listed


def _entries(root: Path) -> Iterator[str]:
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise BookError(
            f"No table of contents at {toc}: the book is built from the repository's root, as `jupyter-book build book`"
        )
    try:
        content = read_yaml(toc)
    except ValueError as error:
        raise BookError(str(error)) from error
    yield from _files(content)


def _files(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _files(item)
    elif isinstance(node, dict):
        if isinstance(node.get("file"), str):
            yield node["file"]
        for value in node.values():
            yield from _files(value)


def read(root: Path, name: str) -> nbformat.NotebookNode:
    """The source notebook, with its outputs (there should be none) left out."""
    path = root / FOLDER / f"{name}.ipynb"
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # NotJSONError, ValidationError, AttributeError, RecursionError, ...
        raise BookError(f"{FOLDER}/{name}.ipynb cannot be read as a notebook: {str(error)[:200]}") from error
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def check(name: str, notebook: nbformat.NotebookNode, parameters: Mapping[str, Any]) -> None:
    """Refuse a chapter that could not run as asked: another kernel, no parameters cell, or a parameter it does not
    have."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != KERNEL:
        raise BookError(
            f"{name}: the notebook asks for the kernel {kernel!r}; chapters run on {KERNEL!r}, "
            "the Python that builds the book. "
            f"Set metadata.kernelspec.name to {KERNEL!r}"
        )
    known = parameter_names(name, notebook)
    for parameter in parameters:
        if parameter not in known:
            raise BookError(
                f"{name}: the profile gives the parameter {parameter!r}, which the parameters cell does not have"
                f"{_nearest(parameter, known)}. It has: {', '.join(sorted(known))}"
            )


def parameter_names(name: str, notebook: nbformat.NotebookNode) -> set[str]:
    """What the parameters cell assigns."""
    try:
        return {target for target, _ in _assignments(_parameters_cell(name, notebook).source)}
    except SyntaxError as error:
        raise BookError(f"{name}: the parameters cell is not Python: line {error.lineno}: {error.msg}") from error


def shown(name: str, executed: nbformat.NotebookNode, parameters: Mapping[str, Any]) -> nbformat.NotebookNode:
    """The executed notebook as the page shows it.

    The cell that papermill injected is dropped and its values stand in the parameters cell instead; the install cell
    is hidden; timings and what was written to stderr are left out.
    """
    page = nbformat.from_dict(executed)
    _parameters_cell(name, page).source = with_values(_parameters_cell(name, page).source, parameters)
    page.cells = [cell for cell in page.cells if "injected-parameters" not in tags(cell)]
    for part in (page, *page.cells):
        for key in _TIMING:
            part.metadata.pop(key, None)
    for cell in code_cells(page):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        if "install" in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "remove-cell"]
    return page


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Source of a parameters cell with other values; types and comments stay.

    >>> with_values("n_images: int = 8  # drawn from the split", {"n_images": 400})
    'n_images: int = 400  # drawn from the split'
    """
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for target, value in reversed(list(_assignments(source))):
        if target in values and not _is(value, values[target]):
            begin = starts[value.lineno - 1] + value.col_offset
            end = starts[value.end_lineno - 1] + value.end_col_offset
            text = text[:begin] + repr(values[target]).encode() + text[end:]
    return text.decode()


def stderr_lines(executed: nbformat.NotebookNode) -> list[str]:
    """What the chapter wrote to stderr: not for the page, but the person who builds should see it."""
    outputs = [output for cell in code_cells(executed) for output in cell.outputs if output.get("name") == "stderr"]
    return [line for output in outputs for line in output.text.splitlines() if line.strip()]


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The cell's tags."""
    return list(cell.metadata.get("tags", []))


def _parameters_cell(name: str, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    found = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    if len(found) != 1:
        raise BookError(
            f"{name}: expected one code cell tagged `parameters`, found {len(found)}; tag the cell that sets `profile`"
        )
    return found[0]


def _assignments(source: str) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            yield from ((target.id, node.value) for target in targets if isinstance(target, ast.Name))


def _is(node: ast.expr, value: Any) -> bool:
    try:
        return ast.literal_eval(node) == value
    except ValueError:
        return False


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
