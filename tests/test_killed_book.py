"""`make book`, killed while a chapter is at a sweep: the next one goes on from the finished shards.

`MMN_KILLS=30 python -m pytest -s tests/test_killed_book.py` kills it as often as that, and prints what came of it.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_book import REPOSITORY, TinyBook, notebook

CHAPTER = """
import time
import pandas as pd
from mmn_utils import results
from mmn_utils.sweeps import sweep

def squares(items):
    with open("log", "a") as log:
        print(items[0] // 2, file=log, flush=True)
    time.sleep(0.05)
    return pd.DataFrame({"item": items, "square": [i * i for i in items]})

folder = results.root() / results.SWEEPS / "tiny/01_first/squares"
chapter = results.Chapter("tiny", "01_first")
squares = chapter.table(sweep(squares, range(60), folder=folder, key={"what": "squares"}, size=2).table(), "squares")
chapter.number("first.sum", int(squares["square"].sum()), n=len(squares))"""


@pytest.fixture
def book(tmp_path):
    book = TinyBook(tmp_path)
    book.write("01_first", notebook(CHAPTER))
    book.toc("01_first")
    (book.root / "notebooks/02_second.ipynb").unlink()
    environment(book)
    return book


def environment(book):
    """The Makefile, and the environment of these tests in the place where it makes one: there is nothing to install."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(REPOSITORY / name, book.root / name)
    (book.root / ".venv").mkdir()
    (book.root / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (book.root / ".venv/.book").touch()


def start(book):
    command = ["make", "book", f"PROFILE={book.root / 'tiny.yml'}"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=book.root, env=book.environment(), start_new_session=True, **pipe)


def run(book):
    process = start(book)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def left(book):
    """What the chapter's readers see, byte for byte."""
    names = ["results/tiny/numbers.json", "results/tiny/01_first/squares.parquet", "book/notebooks/01_first.ipynb"]
    return [(book.root / name).read_bytes() for name in names]


def finished(book):
    return {int(path.name[6:11]) for path in (book.root / "results/.sweeps").rglob("shard-*")}


def wait_for(book, process, n_shards):
    """Until so many shards are finished; before the first, -n tenths of a second."""
    time.sleep(max(0, -n_shards) / 10)
    while len(finished(book)) < n_shards and process.poll() is None:
        time.sleep(0.01)


def computed(book):
    log = book.root / "log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def forget(book):
    for name in ("results", "book/notebooks"):
        shutil.rmtree(book.root / name, ignore_errors=True)
    (book.root / "log").unlink(missing_ok=True)


def test_killed_in_a_sweep_the_next_run_goes_on(book):
    run(book)
    expected = left(book)
    assert sorted(computed(book)) == list(range(30))
    seed, n_kills = int(os.environ.get("MMN_KILL_SEED", 0)), int(os.environ.get("MMN_KILLS", 2))
    chance, n_kept = random.Random(seed), []
    while len(n_kept) < n_kills:
        forget(book)
        process = start(book)
        wait_for(book, process, chance.randrange(-5, 30))
        time.sleep(chance.uniform(0, 0.1))
        was_running = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        before, n_computed = finished(book), len(computed(book))
        run(book)
        assert not before & set(computed(book)[n_computed:]), f"seed {seed}: a finished shard was computed again"
        assert left(book) == expected and not list(book.root.rglob("*.partial")), f"seed {seed}"
        n_kept += [len(before)] * was_running
    print(f"{n_kills} kills, {n_kills} resumes to the same bytes, no shard twice; shards found again: {n_kept}")
