"""What Colab does: the wheel alone, with no repository beside it, runs a chapter."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from tiny_book import notebook

REPOSITORY = Path(__file__).parents[1]
CHAPTER = REPOSITORY / "notebooks/01_a_language_model_that_sees.ipynb"
WEIGHTS = REPOSITORY / "mmn_utils/miniature/weights"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel installs, and nothing else of ours."""
    pytest.importorskip("hatchling", reason="hatchling is missing; lifted by: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, REPOSITORY], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def tracked(folder):
    listed = subprocess.run(["git", "ls-files", folder], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git clone; lifted by: running in one")
    return {Path(line) for line in listed.stdout.splitlines()}


def test_the_wheel_has_every_file_of_the_package(site):
    missing = [path for path in tracked("mmn_utils") if not (site / path).exists()]
    assert missing == []
    others = {path.parts[0] for path in (file.relative_to(site) for file in site.rglob("*"))}
    assert {name for name in others if not name.endswith(".dist-info")} == {"mmn_utils"}


def test_the_wheel_is_small_enough_to_ship(site):
    weights = site / "mmn_utils/miniature/weights"
    assert sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) < 40e6


def alone(site, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMN_")}
    return environment | {"PYTHONPATH": str(site), "MMN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}


def test_the_wheel_has_every_chapter(site):
    chapters = {path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    assert {path.name for path in (site / "mmn_utils/notebooks").iterdir()} == chapters


def test_a_chapter_that_another_one_needs_is_run_first(site, tmp_path):
    """As on Colab: the wheel, an empty folder, and `results.load` of what nobody has made yet."""
    source = "from mmn_utils import results\nresults.Chapter(profile, '00_before').number('before.n', 3)"
    nbformat.write(notebook(source), site / "mmn_utils/notebooks/00_before.ipynb")
    ask = "from mmn_utils import results; print(results.load('miniature', '00_before', 'numbers')['before.n']['value'])"
    for expected in (["Chapter 00_before has not been run here: running it first, this once.", "3"], ["3"]):
        command, options = [sys.executable, "-c", ask], {"capture_output": True, "text": True}
        done = subprocess.run(command, cwd=tmp_path, env=alone(site, tmp_path), **options)
        assert done.stdout.splitlines() == expected, done.stderr[-2000:]
    (site / "mmn_utils/notebooks/00_before.ipynb").unlink()


def test_a_chapter_runs_with_the_wheel_alone(site, tmp_path):
    if not (WEIGHTS / "checksums.json").exists():
        pytest.skip("the miniature has no weights; lifted by: python -m mmn_utils.miniature train")
    environment = alone(site, tmp_path)
    where = subprocess.run(
        [sys.executable, "-c", "import mmn_utils; print(mmn_utils.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)
    command = [sys.executable, "-m", "papermill", CHAPTER, "out.ipynb", "-p", "n_images", "60", "--no-progress-bar"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results/miniature/01_a_language_model_that_sees/numbers.json").exists()
