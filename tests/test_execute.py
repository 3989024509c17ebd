"""The engine on a tiny book, run for real: papermill, kernels, Sphinx, and kills at random moments."""

import json
import os
import random
import re
import signal
import time

import nbformat
import pytest
from tiny_book import FIRST, SECOND, TinyBook, notebook

from mmn_utils.chapters import BookError, with_values
from mmn_utils.profiles import ProfileError

BOTH = ["01_first", "02_second"]


@pytest.fixture
def book(tmp_path):
    return TinyBook(tmp_path)


@pytest.fixture
def only_first(book):
    """One chapter: half the time."""
    book.toc("01_first")
    (book.root / "notebooks/02_second.ipynb").unlink()
    return book


def numbers(book):
    return json.loads((book.root / "results/tiny/numbers.json").read_text())


def pages(book):
    """The chapters' pages, without the checksums that later builds put behind the names of style sheets."""
    return {name: re.sub(r"\?v=[0-9a-f]+", "", book.html(name).read_text()) for name in BOTH}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_runs_again_and_what_does_not(book):
    assert book.run() == BOTH
    assert {key: record["value"] for key, record in numbers(book).items()} == {"first.n": 3, "second.n": 2}
    before = {path: path.stat().st_mtime_ns for path in (book.page("01_first"), book.root / "book/status.md")}
    assert book.run() == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    edit(book.root / "tiny.yml", "name: tiny", "# a comment\nname: tiny")
    (book.root / "weights/projection/proj.safetensors").write_text("not read by any chapter")
    (book.root / "book/index.md").write_text("# Another title\n")
    assert book.run() == []
    edit(book.root / "notebooks/02_second.ipynb", "# A chapter", "# The second chapter")
    assert book.run() == ["02_second"]
    (book.root / "weights/language_model/model.safetensors").write_text("trained longer")
    assert book.run() == ["01_first"]  # with the same result, so that the second chapter stays as it is
    edit(book.root / "tiny.yml", "n: 3", "n: 4")
    assert book.run() == BOTH
    assert numbers(book)["first.n"]["value"] == 4
    (book.root / "results/tiny/01_first/numbers.json").write_text("{}")
    assert book.run() == ["01_first"]
    first = (book.root / "results/tiny/numbers.json").read_bytes()
    for chapter in BOTH:
        (book.root / f"results/tiny/{chapter}/manifest.json").unlink()
    assert book.run() == BOTH
    assert (book.root / "results/tiny/numbers.json").read_bytes() == first


PHOTOS = """from pathlib import Path
import pandas as pd
from mmn_utils import results, sweeps
def letters(names):
    return pd.DataFrame({"n": [len(Path(f"photos/val/{name}").read_text()) for name in names]})
folder = results.root() / results.SWEEPS / "tiny/01_first/letters-0"
found = sweeps.sweep(letters, ["a"], folder=folder, key={}).table()
chapter = results.Chapter("tiny", "01_first")
chapter.number("first.n", found["n"].sum(), low=0, high=10, n=int(n))"""


@pytest.mark.parametrize(
    ("old", "new"), [('"miniature:scenes"', "./photos"), ("{n: 3}", "{n: 3, map_folder: ./photos}")]
)
def test_pictures_exchanged_under_the_same_name_are_seen(only_first, old, new):
    """By the chapter, and by its sweep, whose key has the pictures' names alone."""
    photo = only_first.root / "photos/val/a"
    photo.parent.mkdir(parents=True)
    photo.write_text("one")
    edit(only_first.root / "tiny.yml", old, new)
    parameters = 'profile: str = "miniature"\nn: int = 1\nmap_folder: str = ""'
    only_first.write("01_first", notebook(PHOTOS, parameters=parameters))
    assert only_first.run() == ["01_first"] and numbers(only_first)["first.n"]["value"] == 3
    assert only_first.run() == []
    photo.write_text("three")
    assert only_first.run() == ["01_first"] and numbers(only_first)["first.n"]["value"] == 5
    edit(only_first.root / "tiny.yml", "{n: 3", "{n: 4")
    shards = list((only_first.root / "results/.sweeps/tiny").rglob("shard-*"))
    before = shards[0].stat().st_mtime_ns
    assert only_first.run() == ["01_first"] and shards[0].stat().st_mtime_ns == before  # kept where data stay


def test_the_page_shows_values_and_neither_injection_nor_noise(only_first):
    install = nbformat.v4.new_code_cell("import sys", metadata={"tags": ["install"]})
    chapter = notebook("import sys; print('seen'); print('noise', file=sys.stderr)", FIRST)
    chapter.cells.insert(1, install)
    only_first.write("01_first", chapter)
    only_first.run()
    page = nbformat.read(only_first.page("01_first"), as_version=4)
    assert [cell.metadata.tags for cell in page.cells if cell.metadata.get("tags")] == [
        ["install", "remove-cell"],
        ["parameters"],
    ]
    assert page.cells[2].source == "profile: str = 'tiny.yml'  # which\nn: int = 3  # how many"
    text = only_first.page("01_first").read_text()
    assert "seen" in text and "noise\\n" not in text and '"papermill"' not in text and str(only_first.root) not in text


def test_values_keep_types_comments_and_unchanged_text():
    source = 'name: str = "é"  # a letter\nsizes = [\n    1,\n    2,\n]\nother = "same"'
    values = {"name": "ö", "sizes": [3], "other": "same"}
    assert with_values(source, values) == "name: str = 'ö'  # a letter\nsizes = [3]\nother = \"same\""


def test_a_kernel_of_that_name_is_not_needed(only_first, monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "empty"))
    only_first.write(
        "01_first", notebook("import sys; from pathlib import Path; Path('who').write_text(sys.executable)")
    )
    only_first.run()
    assert os.path.samefile((only_first.root / "who").read_text(), os.sys.executable)


def refuse(book, *words, error=BookError, profile=None):
    with pytest.raises(error) as caught:
        book.run(profile)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not (book.root / "results").exists() and not (book.root / "book/notebooks").exists()


def test_unknown_parameters_are_refused_by_name(book):
    edit(book.root / "tiny.yml", "{n: 3}", "{m: 3}")
    refuse(book, "01_first", "'m'", "It has: n, profile")


def test_unknown_profile_keys_are_refused_by_name(book):
    edit(book.root / "tiny.yml", "name: tiny", "name: tiny\nsede: 1")
    refuse(book, "'sede'", "'seed'", error=ProfileError)


def test_a_profile_for_a_chapter_that_is_not_there_is_refused(book):
    edit(book.root / "tiny.yml", "01_first", "01_frist")
    refuse(book, "01_frist", "01_first")


def test_another_kernel_is_refused_by_name(book):
    book.write("02_second", notebook(SECOND, kernel="julia-1.9"))
    refuse(book, "02_second", "'julia-1.9'", "'python3'")


def test_a_chapter_without_parameters_cell_is_refused(book):
    chapter = notebook(SECOND)
    chapter.cells[1].metadata = {}
    book.write("02_second", chapter)
    refuse(book, "02_second", "`parameters`", "found 0")


def test_toc_and_notebooks_must_agree(book):
    book.toc("01_first")
    refuse(book, "notebooks/02_second.ipynb", "missing from _toc.yml")
    book.toc("01_first", "02_second", "03_third")
    refuse(book, "03_third", "there is no notebooks/03_third.ipynb")
    book.toc("01_first", "02_second", "02_second")
    refuse(book, "02_second 2 times")


def test_a_file_that_is_no_notebook_is_refused(book):
    (book.root / "notebooks/02_second.ipynb").write_text('{"cells": [')
    refuse(book, "notebooks/02_second.ipynb", "cannot be read")


def test_two_chapters_with_one_key_are_refused(book):
    book.write("02_second", notebook(SECOND.replace("second.n", "first.n").replace('["first.n"]["value"]', "")))
    with pytest.raises(BookError, match=r"first\.n.*01_first and 02_second"):
        book.run()


def test_a_second_build_at_the_same_time_is_refused(book):
    import fcntl

    (book.root / "results").mkdir()
    with (book.root / "results/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BookError, match="Another build"):
            book.run()


def test_a_kernel_that_dies_is_reported(only_first):
    only_first.write("01_first", notebook("import os; os._exit(9)  # the last straw"))
    with pytest.raises(BookError, match=r"(?s)01_first: the kernel died.*the last straw"):
        only_first.run()
    assert not only_first.page("01_first").exists()


def test_failure_is_loud_and_leaves_no_stale_page(book):
    code, output = book.build()
    assert code == 0, output
    assert book.html("01_first").exists() and "done in" in output
    code, output = book.build()
    assert code == 0 and "0 of 2 chapters run" in output
    book.write("01_first", notebook("x = 1", "def divide(a):\n    return a / 0\n\ndivide(x)"))
    code, output = book.build()
    assert code == 1
    for word in (
        "01_first failed in cell In [4]",
        "ZeroDivisionError: division by zero",
        "4 divide(x)",
        "reports/01_first.ipynb",
    ):
        assert word in output
    for chapter in BOTH:  # the second reads results of the first
        assert not book.html(chapter).exists() and not book.page(chapter).exists()
    assert numbers(book) == {} and not (book.root / "book/_build/html/status.html").exists()
    book.write("01_first", notebook(FIRST))
    code, output = book.build()
    assert code == 0 and "0 of 2 chapters run" in output  # back to what had run: nothing to do but to print the pages
    assert book.html("01_first").exists() and book.html("02_second").exists()


def test_killed_anywhere_the_next_build_is_whole(book):
    """kill -9 at random moments of a build, pages included; then one build, compared with one that was left alone."""
    code, output = book.build()
    assert code == 0, output
    expected = pages(book)
    seed = int(os.environ.get("MMN_KILL_SEED", time.time_ns() % 2**32))
    chance = random.Random(seed)
    moments = [chance.uniform(0.3, 5) for _ in range(int(os.environ.get("MMN_KILLS", 3)))]
    for moment in moments:
        book.write("01_first", notebook(FIRST + f"\nmoment = {moment}"))
        process = book.start()
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    book.write("01_first", notebook(FIRST))
    code, output = book.build()
    assert code == 0, f"seed {seed}: {output}"
    assert pages(book) == expected, f"seed {seed}"
    assert not list((book.root / "results").glob(".running/*")), f"seed {seed}"
    assert not [path for path in book.root.rglob("*.partial")], f"seed {seed}"
    code, output = book.build()
    assert "0 of 2 chapters run" in output, f"seed {seed}: {output}"


def test_interrupted_by_hand(only_first):
    only_first.write("01_first", notebook("import time; time.sleep(60)"))
    process = only_first.start()
    while process.poll() is None and not list(only_first.root.glob("results/.running/*/reads")):
        time.sleep(0.1)  # until the chapter's kernel is there, on however busy a machine
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in output, output
    assert not only_first.page("01_first").exists()
