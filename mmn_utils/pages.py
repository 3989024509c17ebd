"""What the engine writes around the chapters: the status page, paper against ours, costs, and the data of figures.

Nothing here is written by hand or kept: everything comes from the manifests (`freshness.py`), the numbers and the
executed notebooks of the last run.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from mmn_utils import paper_numbers
from mmn_utils.freshness import Manifest
from mmn_utils.profiles import Profile
from mmn_utils.untrusted import as_markdown

SUFFIXES = (".parquet", ".csv", ".svg", ".json")
"""Kinds of results that a reader can download from a chapter's page; images are on the page itself."""
MOST_DOWNLOAD = 550_000
"""Bytes of the largest file that is copied into the site."""
_OWN = ("manifest.json", "executed.ipynb")


def with_costs(page: nbformat.NotebookNode, profile: str, run: Manifest, folder: Path) -> None:
    """Put what was measured into the cost table of the chapter's first cell, in the column of `profile`.

    Args:
        page: the notebook that becomes the page; changed in place.
        profile: name of the profile of this build. A table without a column of that name stays as it is.
        run: the chapter's last complete run.
        folder: the results that it left.
    """
    left = sum(path.stat().st_size for path in folder.iterdir() if path.name not in _OWN)
    measured = {"time": _duration(run.seconds), "memory": _memory(run), "disk": f"{_megabytes(left)} of results"}
    lines = page.cells[0].source.splitlines()
    header = next((_cells(line) for line in lines if line.startswith("| |")), [])
    if profile in header:
        column = header.index(profile)
        page.cells[0].source = "\n".join(_measured(line, column, measured) for line in lines)


def _measured(line: str, column: int, measured: Mapping[str, str | None]) -> str:
    cells = _cells(line) if line.startswith("|") else []
    value = measured.get(cells[0]) if len(cells) > column else None
    if value is None:
        return line
    before = f"{cells[column]}; " if cells[0] == "disk" else ""  # what is downloaded is known, and not measured
    cells[column] = f"{before}{value} (measured)"
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _memory(run: Manifest) -> str | None:
    """The most that the chapter held; None if its kernel has not written it down."""
    return None if run.peak is None else f"{run.peak / 2**30:.1f} GB"


def with_files(page: nbformat.NotebookNode, folder: Path, source: Path) -> None:
    """Add a last cell with a link to each file of results behind the chapter's figures and tables.

    Args:
        page: the notebook that becomes the page; changed in place.
        folder: the chapter's results.
        source: the folder of the page's source.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.name not in _OWN]
    small = [path for path in files if path.stat().st_size <= MOST_DOWNLOAD]
    links = ", ".join(f"{{download}}`{path.name} <{os.path.relpath(path, source)}>`" for path in small)
    large = ", ".join(f"`{path.name}` ({_megabytes(path.stat().st_size)})" for path in files if path not in small)
    text = f"## Data of this chapter\n\nThe numbers, tables (parquet) and figures (SVG) of this page: {links}."
    text += f" Too large to be copied here, made by the same run: {large}." if large else ""
    text += " The download button at the top of the page gives the executed notebook."
    page.cells.append(new_markdown_cell(text, id="data-of-this-chapter"))


def _megabytes(size: int) -> str:
    return f"{max(size / 2**20, 0.1):.1f} MB"


def places(name: str, executed: nbformat.NotebookNode) -> dict[str, str]:
    """The section of the chapter's page that recorded each number, `notebooks/NAME.html#SECTION` by key."""
    from docutils.nodes import make_id

    section, found = "", {}
    for cell in executed.cells:
        if cell.cell_type == "markdown":
            section = ([section] + re.findall(r"^#+ +(.+)$", cell.source, flags=re.MULTILINE))[-1]
        for output in cell.get("outputs", []):
            if key := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                found[key] = f"notebooks/{name}.html#{make_id(section)}"
    return found


def status(profile: Profile, runs: Mapping[str, Manifest], numbers: paper_numbers.Numbers) -> str:
    """The page that says which profile made the pictures, when, in how long, with which versions, and every number."""
    lines = ["# Status", "", _made(profile, runs), "", "| chapter | run on (UTC) | seconds | memory |"]
    lines += ["| --- | --- | ---: | ---: |", *(_run_row(name, run) for name, run in runs.items())]
    lines += ["", "## Versions", "", "| package | version |", "| --- | --- |"]
    newest = max(runs.values(), key=lambda run: run.date).versions if runs else {}
    lines += [f"| {package} | {as_markdown(version)} |" for package, version in newest.items()]
    lines += ["", "## Models, data and seeds", "", _seeds(profile), "", "| what | from |", "| --- | --- |"]
    lines += [f"| {as_markdown(key)} | {as_markdown(source)} |" for key, source in profile.sources().items()]
    lines += ["", "## Every number", "", f"Also in `results/{profile.name}/numbers.json`.", ""]
    lines += ["| number | here | 95 % interval | n | paper |", "| --- | ---: | :---: | ---: | ---: |"]
    return "\n".join([*lines, *(_number_row(key, record) for key, record in numbers.items())]) + "\n"


def _made(profile: Profile, runs: Mapping[str, Manifest]) -> str:
    text = f"Every picture and number of this book was made with the profile `{profile.name}`"
    if not runs:
        return text + "."
    dates, seconds = sorted(run.date for run in runs.values()), sum(run.seconds for run in runs.values())
    return f"{text}, between {_when(dates[0])} and {_when(dates[-1])} (UTC), in {seconds / 60:.0f} minutes of chapters."


def _run_row(name: str, run: Manifest) -> str:
    return f"| [](notebooks/{name}.ipynb) | {_when(run.date)} | {run.seconds:.0f} | {_memory(run) or ''} |"


def _when(date: str) -> str:
    return date[:16].replace("T", " ")


def _seeds(profile: Profile) -> str:
    own = {name: given["seed"] for name, given in profile.chapters.items() if "seed" in given}
    others = "".join(f", {seed} in {name}" for name, seed in own.items())
    return f"Whatever is drawn at random begins with the seed {profile.seed}{others}: two runs give the same tables."


def _number_row(key: str, record: Mapping[str, Any]) -> str:
    interval = "" if record["low"] is None else f"{record['low']:.3g} to {record['high']:.3g}"
    n, paper = ("" if record[field] is None else f"{record[field]:,}" for field in ("n", "paper"))
    return f"| `{key}` | {record['value']:.3g} {as_markdown(record['unit'] or '')} | {interval} | {n} | {paper} |"
