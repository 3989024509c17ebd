import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from tiny_book import notebook

import mmn_utils
from mmn_utils import address

REPOSITORY = Path(__file__).parents[1]
ELSEWHERE = "https://github.com/someone/another-book"


@pytest.fixture
def copy(tmp_path):
    for name in ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for folder in ("book", "notebooks"):
        (tmp_path / folder).mkdir()
    chapter = notebook("1 + 1")
    chapter.cells.insert(1, nbformat.v4.new_code_cell("old", metadata={"tags": ["install"]}))
    nbformat.write(chapter, tmp_path / "notebooks/01_first.ipynb")
    address.rewrite(tmp_path, address.read(tmp_path))
    return tmp_path


def test_the_repository_agrees_with_itself():
    assert address.disagreements(REPOSITORY) == []


def test_versions_agree():
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert version == mmn_utils.__version__ == yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"]


def test_moving_reaches_every_place(copy, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    old = address.read(copy).repository
    assert address.main([ELSEWHERE + ".git", "--tag", "v9", "--branch", "trunk"]) == 0
    assert address.read(copy) == address.Address(ELSEWHERE, "trunk", "v9")
    left = [path for path in copy.rglob("*.*") if path.is_file() and old in path.read_text()]
    assert left == []
    first = nbformat.read(copy / "notebooks/01_first.ipynb", as_version=4).cells[1].source
    assert f"git+{ELSEWHERE}@v9" in first


@pytest.mark.parametrize("name", ["_config.yml", "CITATION.cff", "notebooks/01_first.ipynb"])
def test_a_disagreement_is_found(copy, name):
    assert address.disagreements(copy) == []
    path = copy / name
    path.write_text(path.read_text().replace(address.read(copy).repository, ELSEWHERE))
    (found,) = address.disagreements(copy)
    assert Path(name).name in found and ELSEWHERE in found


def test_a_strange_address_is_refused_and_nothing_changes(copy):
    before = (copy / "_config.yml").read_text()
    with pytest.raises(ValueError, match="https://HOST/OWNER/NAME"):
        address.rewrite(copy, address.Address("git@github.com:a/b", "main", "v1"))
    assert (copy / "_config.yml").read_text() == before


def test_the_install_cell_does_nothing_outside_colab():
    from IPython.core.inputtransformer2 import TransformerManager

    source = TransformerManager().transform_cell(address.install_cell(address.read(REPOSITORY)))
    exec(compile(source, "cell", "exec"), {})
