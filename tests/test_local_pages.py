"""What lies beside the pages is what lies in the sources."""

import io

import pytest
from sphinx.application import Sphinx

from mmn_utils import local_pages

CONF = "extensions = ['mmn_utils.local_pages']\nhtml_static_path = ['_static']\nhtml_extra_path = ['beside']\n"


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setattr(local_pages, "_copy_mathjax", lambda app, error: None)
    for name, content in {
        "conf.py": CONF,
        "index.rst": "Book\n====\n",
        "_static/own.css": "p {}",
        "beside/a.js": "1",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with (tmp_path / "conf.py").open("a") as conf:
        conf.write("exclude_patterns = ['_build']\nhtml_css_files = ['own.css']\n")
    return tmp_path


def build(book):
    out = book / "_build/html"
    Sphinx(
        str(book), str(book), str(out), str(book / "_build/trees"), "html", status=None, warning=io.StringIO()
    ).build()
    return {name: (out / name).read_text() for name in ("_static/own.css", "a.js", "index.html")}


@pytest.mark.parametrize("source, built", [("_static/own.css", "_static/own.css"), ("beside/a.js", "a.js")])
def test_a_file_that_changed_is_copied_though_no_page_did(book, source, built):
    build(book)
    (book / source).write_text("2")
    assert build(book)[built] == "2"


def test_the_page_asks_for_the_new_style_sheet_and_nothing_is_written_where_nothing_changed(book):
    first = build(book)
    written = (book / "_build/html/index.html").stat().st_mtime_ns
    build(book)
    assert (book / "_build/html/index.html").stat().st_mtime_ns == written
    (book / "_static/own.css").write_text("p { color: red }")
    assert build(book)["index.html"] != first["index.html"]
