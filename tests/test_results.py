import json
import math

import numpy as np
import pandas as pd
import pytest

from mmn_utils import results


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in (results.ROOT_VARIABLE, results.STAGING_VARIABLE, results.CHAPTER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def chapter():
    return results.Chapter("miniature", "01_first")


def test_a_number_has_the_agreed_fields_and_a_readable_form(chapter, here):
    shown = chapter.number("a.b", np.float32(0.5), low=0.25, high=0.75, n=np.int64(1200), unit="nats", paper=0.4)
    assert repr(shown) == "0.50 nats (95 % interval 0.25 to 0.75, n = 1,200)"
    record = json.loads((here / "results/miniature/01_first/numbers.json").read_text())["a.b"]
    expected = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 1200, "unit": "nats", "paper": 0.4, "chapter": "01_first"}
    assert record == expected


def test_the_order_of_recording_does_not_show(here):
    texts = []
    for keys in (["a.b", "c.d"], ["c.d", "a.b"]):
        chapter = results.Chapter("miniature", "01_first")
        for key in keys:
            chapter.number(key, 1.0)
        texts.append((here / "results/miniature/01_first/numbers.json").read_bytes())
    assert texts[0] == texts[1]


def test_a_mean_of_equal_numbers_may_be_off_by_rounding(here):
    results.Chapter("miniature", "01_first").number("a.b", 0.04761904761904764, low=1 / 21, high=1 / 21)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("Accuracy", {"value": 1}, "dotted lower-case"),
        ("a.b", {"value": math.nan}, "value is nan"),
        ("a.b", {"value": 1, "low": 0}, "both low and high"),
        ("a.b", {"value": 1, "low": 2, "high": 3}, "outside its interval"),
        ("a.b", {"value": 1, "low": 0, "high": math.inf}, "high is inf"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(chapter, here, key, given, message):
    with pytest.raises(ValueError, match=message):
        chapter.number(key, **given)
    assert not (here / "results").exists()


def test_a_key_is_recorded_once_when_the_engine_runs(monkeypatch, here):
    monkeypatch.setenv(results.STAGING_VARIABLE, str(here / "staging"))
    chapter = results.Chapter("miniature", "01_first")
    chapter.number("a.b", 1)
    with pytest.raises(ValueError, match="twice"):
        chapter.number("a.b", 2)
    assert (here / "staging/numbers.json").exists()


def test_a_notebook_records_under_its_own_name(monkeypatch):
    monkeypatch.setenv(results.CHAPTER_VARIABLE, "02_second")
    with pytest.raises(ValueError, match="02_second.*01_first"):
        results.Chapter("miniature", "01_first")


def test_a_table_comes_back_as_it_was(chapter):
    frame = pd.DataFrame({"unit": [3, 1], "score": [0.5, np.nan]}, index=["x", "y"])
    assert chapter.table(frame, "scores") is frame
    pd.testing.assert_frame_equal(results.load("miniature", "01_first", "scores"), frame)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_figure_gives_the_same_bytes(chapter, kind):
    from matplotlib.figure import Figure

    made = []
    for _ in range(2):
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([1, 2])
        chapter.figure(figure, "line", kind=kind)
        made.append((chapter.folder / f"line.{kind}").read_bytes())
    assert made[0] == made[1]


def test_a_missing_result_names_the_chapter_that_makes_it():
    with pytest.raises(FileNotFoundError, match=r"notebooks/01_first\.ipynb first"):
        results.load("miniature", "01_first", "scores")


def test_a_write_that_fails_leaves_the_old_file(here, monkeypatch):
    path = here / "file.json"
    results.write_whole(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        results.write_whole(path, "new")
    assert path.read_text() == "old"
