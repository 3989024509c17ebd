"""Links between the book's pages and the neuron explorer: a Sphinx extension, and what the explorer's data needs of it.

A neuron is written `L4.217` (or `L4.N217`) in Part I, `CLIP N88` in Part II and `NLI N870` in Part III. Wherever a
chapter's page has such a name, in prose, tables or printed text, it becomes a link; `mentions` is the way back. The
explorer's page (`book/explorer/`) and its data, which a chapter left with its results, go to the site's root.
"""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import nbformat

from mmn_utils import profiles
from mmn_utils.chapters import tags
from mmn_utils.explorer import address_of
from mmn_utils.freshness import Manifest
from mmn_utils.untrusted import read_json

CHAPTER = "20_the_neuron_explorer"
SITE = "site"
"""Folder in the chapter's results that is laid over the site's root."""
DATA = "explorer/data"
"""Where the data is below it."""
NAME = re.compile(r"(?<![\w.])(?:L(?P<layer>\d+)\.N?(?P<lm>\d+)|CLIP[ ]N(?P<clip>\d+)|NLI[ ]N(?P<nli>\d+))(?![\w.]*\w)")
OTHER = "other-model"
"""Tag of a cell that prints neurons of a model that the explorer does not have."""
_TEXT = re.compile(
    rf"""(?sx)
    <!--.*?--> | <(?P<element>a|script|style|svg|button)\b.*?</(?P=element)>
    | <div\ class="cell\ [^"]*tag_{OTHER}\b.*?(?=<div\ class="cell\ |</?section\b|$)
    | <[^>]*> | {NAME.pattern}"""
)
"""Everything in a page that is no text, and the names in the text."""


def named(found: re.Match[str]) -> str:
    """The address of a neuron that `NAME` found.

    >>> named(NAME.search("as L4.217 shows")), named(NAME.search("CLIP N88."))
    ('lm/L4/N217', 'clip/N88')
    """
    part = next(key for key in ("lm", "clip", "nli") if found[key])
    return address_of(part, int(found[part]), int(found["layer"]) if found["layer"] else None)


def linked(html: str, addresses: Collection[str], page: str) -> str:
    """`html` with a link on each neuron's name in its text, not in tags, links, scripts, drawings or `OTHER` cells.

    addresses: those that exist; page: the explorer's address as seen from this page.
    """

    def link(found: re.Match[str]) -> str:
        if not any(found[key] for key in ("lm", "clip", "nli")) or named(found) not in addresses:
            return found[0]
        return f'<a class="neuron" href="{page}#/{named(found)}">{found[0]}</a>'

    return _TEXT.sub(link, html)


# --- the way back ----------------------------------------------------------------------------------------------------


def mentions(results: Path, *, before: str = CHAPTER) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Which chapters name each neuron, by its address, and these chapters' `title` and `href`.

    results: `results/PROFILE`. Chapters whose name comes before `before` are read, if they have run.
    """
    found, chapters = defaultdict(list), {}
    for path in sorted(results.glob("*/executed.ipynb")):
        if path.parent.name >= before:
            continue
        texts = list(_texts(nbformat.read(path, as_version=4)))
        addresses = sorted({named(match) for text in texts for match in NAME.finditer(text)})
        for address in addresses:
            found[address].append(path.parent.name)
        if addresses:
            heading = re.search(r"(?m)^# (.+)$", texts[0])
            title = heading[1].strip() if heading else path.parent.name
            chapters[path.parent.name] = {"title": title, "href": f"notebooks/{path.parent.name}.html"}
    return dict(found), chapters


def newest_run(results: Path, *, before: str = CHAPTER) -> str | None:
    """When the chapter that ran last of those before `before` did so (UTC); None where the engine ran none."""
    runs = [Manifest.load(path.parent) for path in results.glob("*/executed.ipynb") if path.parent.name < before]
    return max((run.date for run in runs if run), default=None)


def _texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """What a reader sees of a notebook, without pictures and code."""
    for cell in notebook.cells:
        if OTHER in tags(cell):
            continue
        if cell.cell_type == "markdown":
            yield cell.source
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            yield output.get("text") or shown.get("text/html") or shown.get("text/plain") or ""


# --- the pages -------------------------------------------------------------------------------------------------------


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when the extension is loaded."""
    app.connect("builder-inited", _read_addresses)
    app.connect("html-page-context", _link_neurons)
    app.connect("build-finished", _lay_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _site(app: Any) -> Path:
    profile = profiles.read(os.environ.get("MMN_PROFILE") or app.config.mmn_profile).name
    return Path(app.srcdir).parent / "results" / profile / CHAPTER / SITE


def _read_addresses(app: Any) -> None:
    path = _site(app) / DATA / "index.json"
    labels = read_json(path)["labels"] if path.is_file() else {}
    app.neuron_addresses = {
        address_of(part, unit, layer if part == "lm" else None)
        for part, layers in labels.items()
        for layer, units in enumerate(layers)
        for unit, label in enumerate(units)
        if label
    }


def _link_neurons(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page.startswith("notebooks/") and app.neuron_addresses:
        context["body"] = linked(context["body"], app.neuron_addresses, context["pathto"]("explorer.html", 1))


def _lay_out(app: Any, error: Exception | None) -> None:
    """Put the explorer's page and its data into the site (Sphinx's own `html_extra_path` does so only when a page has
    changed)."""
    if error or app.builder.format != "html":
        return
    shutil.rmtree(Path(app.outdir) / DATA, ignore_errors=True)
    for folder in (Path(app.srcdir) / "explorer", _site(app)):
        if folder.is_dir():
            shutil.copytree(folder, app.outdir, dirs_exist_ok=True)
