"""The pages that the engine makes of results: status, costs, data of a chapter."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_book import TinyBook

from mmn_utils import pages, profiles
from mmn_utils.freshness import Inputs, Manifest

TABLE = """# A chapter

| | miniature | paper |
| --- | --- | --- |
| runs on | 2 processor cores | one GPU |
| time | about 1 minute | an hour (estimate: not yet run) |
| memory | 1 GB | 24 GB |
| disk | nothing to download | 40 GB of models |"""


def run(peak=3 * 2**29, seconds=42.4):
    return Manifest(Inputs("", "", {}), {}, {}, seconds, "2026-01-02T03:04:05+00:00", {"python": "3.12"}, peak)


@pytest.fixture
def folder(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for name, size in (("table.parquet", 2**19), ("large.parquet", 3 * 2**20), ("lines.svg", 10), ("photo.png", 2**20)):
        (results / name).write_bytes(bytes(size))
    for name in ("manifest.json", "executed.ipynb"):
        (results / name).write_bytes(bytes(9 * 2**20))
    return results


def page():
    return new_notebook(cells=[new_markdown_cell(TABLE)])


def test_what_was_measured_stands_in_the_column_of_the_profile(folder):
    made = page()
    pages.with_costs(made, "miniature", run(), folder)
    assert made.cells[0].source.splitlines()[4:] == [
        "| runs on | 2 processor cores | one GPU |",
        "| time | 42 s (measured) | an hour (estimate: not yet run) |",
        "| memory | 1.5 GB (measured) | 24 GB |",
        "| disk | nothing to download; 4.5 MB of results (measured) | 40 GB of models |",
    ]
    pages.with_costs(made, "paper", run(seconds=4000), folder)
    assert "| time | 42 s (measured) | 67 min (measured) |" in made.cells[0].source


def test_without_a_measurement_or_a_column_the_table_stays(folder):
    made = page()
    pages.with_costs(made, "mine", run(), folder)
    assert made.cells[0].source == TABLE
    pages.with_costs(made, "miniature", run(peak=None), folder)
    assert "| memory | 1 GB | 24 GB |" in made.cells[0].source


def test_the_last_cell_links_to_every_table_and_names_what_is_too_large(folder):
    made = page()
    pages.with_files(made, folder, folder.parent / "book/notebooks")
    text = made.cells[-1].source
    nbformat.validate(made)
    assert "{download}`table.parquet <../../results/table.parquet>`" in text
    assert "{download}`lines.svg <../../results/lines.svg>`" in text
    assert "`large.parquet` (3.0 MB)" in text and "{download}`large.parquet" not in text
    assert "manifest" not in text and "photo.png" not in text


def test_a_number_is_found_in_the_section_that_recorded_it():
    def recorded(key):
        return new_code_cell(outputs=[new_output("display_data", metadata={"scrapbook": {"name": key}})])

    cells = [new_markdown_cell("# Title"), recorded("a.b"), new_markdown_cell("text\n\n## Is it *so*?\n\ntext")]
    made = new_notebook(cells=[*cells, new_markdown_cell("no heading"), recorded("c.d")])
    assert pages.places("01_first", made) == {
        "a.b": "notebooks/01_first.html#title",
        "c.d": "notebooks/01_first.html#is-it-so",
    }


def test_the_status_page_has_profile_dates_seconds_memory_seed_and_versions():
    text = pages.status(profiles.read("miniature"), {"01_first": run()}, {})
    for words in ("`miniature`", "2026-01-02 03:04", "| 42 | 1.5 GB |", "the seed 0", "| python | 3\\.12 |", "package"):
        assert words in text


def test_the_engine_measures_a_chapters_memory_and_puts_it_on_its_page(tmp_path):
    book = TinyBook(tmp_path)
    book.run()
    for name in ("01_first", "02_second"):
        manifest = Manifest.load(book.root / "results/tiny" / name)
        assert 10 * 2**20 < manifest.peak < 2**34, "a Python process takes more than 10 MB, and less than 16 GB"
        assert "Data of this chapter" in book.page(name).read_text()
    text = (book.root / "book/status.md").read_text()
    assert text.count(" GB |") == 2 and "`first.n`" in text
