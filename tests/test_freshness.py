import os
from pathlib import Path

import pytest
from tiny_book import notebook

from mmn_utils import freshness
from mmn_utils.freshness import closure


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package: `write(NAME, SOURCE)` makes a module."""
    root = tmp_path / "mmn_utils"

    def write(name, source):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    write("__init__.py", "")
    monkeypatch.setattr(freshness, "PACKAGE", root)
    return write


def names(*sources):
    return [str(path) for path in closure(sources)]


@pytest.mark.parametrize(
    "source",
    [
        "import mmn_utils.a",
        "import mmn_utils.a as x",
        "from mmn_utils import a",
        "from mmn_utils.a import thing",
        "def f():\n    from mmn_utils.a import thing",
        "import importlib\nimportlib.import_module('mmn_utils.a')",
    ],
)
def test_every_way_to_import_is_seen(package, source):
    package("a.py", "")
    package("b.py", "")
    assert names(source) == ["__init__.py", "a.py"]


def test_the_closure_is_transitive_relative_and_survives_circles(package):
    package("a.py", "from .room import b")
    package("room/__init__.py", "")
    package("room/b.py", "from . import c\nfrom ..d import x")
    package("room/c.py", "import mmn_utils.a")
    package("d.py", "import numpy")
    package("unused.py", "")
    assert names("from mmn_utils import a") == [
        "__init__.py",
        "a.py",
        "d.py",
        "room/__init__.py",
        "room/b.py",
        "room/c.py",
    ]


def inputs(profile_text, *sources, tmp_path):
    profile = tmp_path / "p.yml"
    profile.write_text(profile_text)
    return freshness.inputs_of("01_first", notebook(*sources), profile)


def test_docstrings_and_comments_do_not_count_but_code_does(package, tmp_path):
    def code(source):
        package("a.py", source)
        return inputs("name: p", "import mmn_utils.a", tmp_path=tmp_path).code["a.py"]

    first = code('"""Old."""\ndef f():\n    """Old."""\n    return 1\n')
    assert code('"""New."""\n\n\ndef f():\n    # why\n    return (1)\n') == first
    assert code("def f():\n    return 2\n") != first


def test_code_that_shows_its_docstrings_counts_to_the_letter(package, tmp_path):
    def code(text):
        package("a.py", f'"""{text}"""\nprint(__doc__)')
        return inputs("name: p", "import mmn_utils.a", tmp_path=tmp_path).code["a.py"]

    assert code("Old.") != code("New.")


def test_of_a_profile_comments_and_other_chapters_do_not_count(package, tmp_path):
    def profile(text):
        return inputs(text, tmp_path=tmp_path).profile

    first = profile("name: p\nseed: 0\nchapters: {01_first: {n: 1}}")
    assert profile("# more\nchapters: {01_first: {n: 1}, 02_second: {n: 9}}\nseed: 0\nname: p") == first
    assert profile("name: p\nseed: 1\nchapters: {01_first: {n: 1}}") != first
    assert profile("name: p\nseed: 0\nchapters: {01_first: {n: 2}}") != first


def test_commands_of_ipython_do_not_hide_imports(package, tmp_path):
    package("a.py", "")
    source = "if colab:\n    %pip install x\n!ls\nfrom mmn_utils import a"
    assert "a.py" in inputs("name: p", source, "%%bash\nls", tmp_path=tmp_path).code


def test_only_reads_in_known_places_count(tmp_path):
    package, weights = tmp_path / "package", tmp_path / "weights"
    for path in (
        package / "words.txt",
        package / "a.py",
        weights / "config.json",
        weights / "model.bin",
        tmp_path / "other.txt",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    log = tmp_path / "log"
    opened = [package / "words.txt", package / "a.py", weights / "config.json", tmp_path / "other.txt"]
    log.write_bytes(b"".join(str(path).encode() + b"\0" for path in opened))
    places = {"package": package, "weights w": weights}
    reads = freshness.digest_reads(log, places)
    assert list(reads) == ["package:words.txt", "weights w:"]
    (weights / "model.bin").write_text("y")
    assert freshness.digest_reads(log, places)["weights w:"] != reads["weights w:"]


def reads(tmp_path, places, *opened):
    log = tmp_path / "log"
    log.write_bytes(b"".join(str(path).encode() + b"\0" for path in opened))
    return freshness.digest_reads(log, places)


def put(path, text, seconds=1e9):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return path


def test_of_data_every_file_beside_one_that_was_read_counts_by_name_size_and_time(tmp_path):
    photos = tmp_path / "photos"
    list_, first = put(photos / "annotations/list.json", "[]"), put(photos / "val/1.jpg", "one")
    second, other = put(photos / "val/2.jpg", "two"), put(photos / "train/1.jpg", "one")
    places = {"package": tmp_path / "package", "data scenes": photos}
    before = reads(tmp_path, places, list_, first)
    assert list(before) == ["data scenes:annotations", "data scenes:val"]

    def changed():
        after = reads(tmp_path, places, list_, first)
        return [key for key in before if after[key] != before[key]]

    put(other, "not read"), put(photos / "val/.hidden", "nor is this")
    assert changed() == []
    put(second, "longer")
    assert changed() == ["data scenes:val"]
    put(second, "owt", 2e9)
    assert changed() == ["data scenes:val"]
    put(second, "two"), put(photos / "val/3.jpg", "new")
    assert changed() == ["data scenes:val"]
    (photos / "val/3.jpg").unlink(), put(list_, "{}", 2e9)
    assert changed() == ["data scenes:annotations"]


def test_of_pictures_nothing_is_opened(tmp_path, monkeypatch):
    photo = put(tmp_path / "photos/1.jpg", "one")
    monkeypatch.setattr(freshness, "digest_file", lambda path: pytest.fail(f"{path} was read"))
    assert list(reads(tmp_path, {"data scenes": tmp_path / "photos"}, photo)) == ["data scenes:"]


def test_dates_count_neither_in_the_package_nor_of_weights_nor_of_results(tmp_path):
    """As in two clones; data that lie in the package are the package's."""
    package, weights, results = (tmp_path / name for name in ("package", "weights", "results"))
    paths = [package / "data/words.txt", package / "data/list.json", weights / "model.bin", results / "1/numbers.json"]
    places = {"package": package, "results": results, "weights w": weights, "data d": package / "data"}
    first = reads(tmp_path, places, *(put(path, "x", 1e9) for path in paths))
    assert reads(tmp_path, places, *(put(path, "x", 2e9) for path in paths)) == first
    assert [key.partition(":")[0] for key in first] == ["package", "package", "results", "weights w"]


@pytest.mark.parametrize("place", ["weights w", "data d"])
def test_files_behind_links_count_as_where_the_profile_says(tmp_path, place):
    """As the hub's cache has them: names that lead to files named by their content."""
    blob, folder = put(tmp_path / "blobs/c0ffee", "one"), tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").symlink_to("../blobs/c0ffee")
    before = reads(tmp_path, {place: folder}, folder / "config.json")
    assert list(before) == [f"{place}:"]
    put(blob, "another")
    assert reads(tmp_path, {place: folder}, folder / "config.json") != before


def test_a_manifest_that_cannot_be_read_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text('{"half": ')
    assert freshness.Manifest.load(tmp_path) is None
    assert freshness.Manifest.load(tmp_path / "nowhere") is None


def test_the_real_package_is_found():
    assert Path("results.py") in closure(["from mmn_utils import results"])
