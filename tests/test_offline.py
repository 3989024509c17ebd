"""The book builds with the network cut off: a chapter, its results and its page, in a network namespace of its own.

Chapter 02 on a few images is enough for models, images, captions, BERTScore, figures and formulas. The environment
variable `MMN_OFFLINE_CHAPTERS` names other chapters (comma-separated, or `all`), with the miniature's own parameters.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmn_utils import profiles

REPOSITORY = Path(__file__).parents[1]
ASKED = os.environ.get("MMN_OFFLINE_CHAPTERS")
CHAPTERS = ASKED or "02_does_the_projection_speak"
FEW = {"n_images": 12}
OFFLINE = ["unshare", "--net", "--map-root-user", sys.executable, str(Path(__file__).with_name("without_network.py"))]


def chosen() -> list[str]:
    there = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
    return there if CHAPTERS == "all" else CHAPTERS.split(",")


@pytest.fixture
def book(tmp_path):
    """The repository's book, less the other chapters, with a profile for those that are left."""
    for name in ("_config.yml", "notebooks", "book"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy2
        ignore = {"ignore": shutil.ignore_patterns("_build", "notebooks", "status.md", "profiles"), "symlinks": True}
        copy(REPOSITORY / name, tmp_path / name, **(ignore if copy is shutil.copytree else {}))
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        if path.stem not in chosen():
            path.unlink()
    pages = [*(f"notebooks/{name}" for name in chosen()), "status"]
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": page} for page in pages]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    profile = yaml.safe_load((profiles.PRESETS / "miniature.yml").read_text())
    profile["chapters"] = {name: entries for name, entries in profile["chapters"].items() if name in chosen()}
    if not ASKED:
        profile["chapters"][CHAPTERS] |= FEW
        profile["data"]["scenes"]["n"] = 40
    (tmp_path / "offline.yml").write_text(yaml.safe_dump(profile | {"name": "offline", "cache": "./cache"}))
    return tmp_path


@pytest.fixture
def no_network():
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: network namespaces are Linux's")
    tried = subprocess.run([*OFFLINE, "true"], capture_output=True, text=True)
    if "unshare" in tried.stderr:
        pytest.skip(f"no network namespace may be made here: {tried.stderr.strip()}")
    assert tried.returncode == 0, tried.stderr


@pytest.mark.slow
def test_the_book_builds_with_the_network_cut_off(book, no_network):
    gone = ("MMN_CACHE", "MMN_ROOT", "MMN_RESULTS", "MMN_CHAPTER", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    environment |= {"MMN_PROFILE": str(book / "offline.yml"), "PYTHONPATH": str(REPOSITORY), "HOME": str(book)}
    environment["HF_HOME"] = str(book / "empty")
    command = [*OFFLINE, str(Path(sys.executable).with_name("jupyter-book")), "build", "book"]
    built = subprocess.run(command, cwd=book, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    assert (
        built.stdout.startswith("without network")
        and f"{len(chosen())} of {len(chosen())} chapters run" in built.stdout
    )
    for name in chosen():
        assert (book / "book/_build/html/notebooks" / f"{name}.html").stat().st_size > 10_000
        assert (book / "results/offline" / name / "numbers.json").exists()
