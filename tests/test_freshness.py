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


def test_a_manifest_that_cannot_be_read_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text('{"half": ')
    assert freshness.Manifest.load(tmp_path) is None
    assert freshness.Manifest.load(tmp_path / "nowhere") is None


def test_the_real_package_is_found():
    assert Path("results.py") in closure(["from mmn_utils import results"])
