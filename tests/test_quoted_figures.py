"""Figures of chapters on other pages, built by Sphinx."""

import base64
import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from sphinx.application import Sphinx

from mmn_utils import quoted_figures

CONF = "extensions = ['myst_parser', 'mmn_utils.quoted_figures']\nexclude_patterns = ['_build', 'notebooks']\n"


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "png")
    return buffer.getvalue()


def chapter(path, pictures):
    cells = [new_code_cell("x = 1")]
    for name, content in pictures.items():
        shown = {"figure": {"name": name, "caption": "Its own."}, "image": {"alt": f"what {name} says"}}
        data = {"image/png": base64.encodebytes(content).decode(), "text/plain": "<Figure>"}
        cells.append(new_code_cell("draw()", metadata={"mystnb": shown}, outputs=[new_output("display_data", data)]))
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture
def book(tmp_path):
    (tmp_path / "conf.py").write_text(CONF)
    chapter(tmp_path / "notebooks/01_first.ipynb", {"fig-a": png("red"), "fig-b": png("blue")})
    return tmp_path


def build(book, text):
    (book / "index.md").write_text(f"# Book\n\n```{{quoted-figure}} {text}\nWhat **we** see.\n```\n")
    return rebuild(book)


def rebuild(book):
    said = io.StringIO()
    out = book / "_build/html"
    Sphinx(str(book), str(book), str(out), str(book / "_build/trees"), "html", status=None, warning=said).build()
    # A second book in one process registers what the first one did, whichever test built that.
    warnings = "".join(line for line in said.getvalue().splitlines() if "already registered" not in line)
    return (out / "index.html").read_text(), warnings, out / "_images"


def test_the_page_shows_the_chapters_picture_with_its_alternative_text_and_a_caption_of_its_own(book):
    page, said, images = build(book, "01_first fig-b")
    assert said == ""
    assert 'alt="what fig-b says"' in page and "What <strong>we</strong> see." in page and "Its own." not in page
    assert [path.read_bytes() for path in images.iterdir()] == [png("blue")]


def test_a_chapter_that_ran_again_changes_the_page(book):
    build(book, "01_first fig-a")
    chapter(book / "notebooks/01_first.ipynb", {"fig-a": png("green")})
    _, _, images = rebuild(book)
    assert [path.read_bytes() for path in images.iterdir()] == [png("green")]


@pytest.mark.parametrize("asked", ["01_first fig-c", "02_second fig-a"])
def test_what_is_not_there_is_named_beside_what_is(book, asked):
    _, said, _ = build(book, asked)
    assert "ERROR" in said
    assert all(word in said for word in (["fig-c", "fig-a, fig-b"] if "fig-c" in asked else ["02_second"]))


def test_a_cell_that_drew_nothing_has_no_figure(tmp_path):
    chapter(tmp_path / "notebooks/01_first.ipynb", {"fig-a": png("red")})
    notebook = nbformat.read(tmp_path / "notebooks/01_first.ipynb", as_version=4)
    notebook.cells[1].outputs = []
    nbformat.write(notebook, tmp_path / "notebooks/01_first.ipynb")
    with pytest.raises(ValueError, match="no figure 'fig-a'"):
        quoted_figures.find(tmp_path / "notebooks/01_first.ipynb", "fig-a")
