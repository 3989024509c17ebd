"""The chapters as they are committed: clean sources that every tool can open."""

import statistics
from pathlib import Path

import nbformat
import pytest

from mmn_utils import address, chapters, profiles

REPOSITORY = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NAMES)
def notebook(request):
    return nbformat.read(REPOSITORY / "notebooks" / f"{request.param}.ipynb", as_version=4)


def test_the_table_of_contents_and_the_notebooks_agree():
    assert sorted(chapters.find(REPOSITORY)) == NAMES


@pytest.mark.parametrize("profile_name", profiles.presets())
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_fits_every_chapter(name, profile_name):
    profile = profiles.read(profile_name, check_folders=False)
    chapters.check(name, chapters.read(REPOSITORY, name), profile.chapter_parameters(name))
    assert set(profile.chapters) <= set(NAMES)


def test_a_chapter_is_valid_and_has_no_outputs(notebook):
    nbformat.validate(notebook)
    for cell in chapters.code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell.metadata)


def test_the_first_code_cell_installs_on_colab_only(notebook):
    first = chapters.code_cells(notebook)[0]
    assert chapters.tags(first)[:1] == ["install"]
    assert first.source == address.install_cell(address.read(REPOSITORY))


def test_the_default_is_the_miniature(notebook):
    (parameters,) = [cell for cell in chapters.code_cells(notebook) if "parameters" in chapters.tags(cell)]
    values = {}
    exec(parameters.source, values)
    assert values["profile"] == "miniature"


def test_chapters_do_not_ask_which_profile_runs(notebook):
    assert "if profile" not in "\n".join(cell.source for cell in chapters.code_cells(notebook))


def test_the_first_cell_says_what_the_chapter_costs(notebook):
    rows = [line.strip("|").split("|") for line in notebook.cells[0].source.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["", "miniature", "paper"]
    assert [row[0].strip() for row in rows[2:6]] == ["runs on", "time", "memory", "disk"]
    assert all(cell.strip() for row in rows[2:] for cell in row)
    assert all("estimate" in row[2] for row in rows[3:5]), "nobody has run the papers' models yet"


def test_cells_are_short(notebook):
    lines = [len(cell.source.splitlines()) for cell in chapters.code_cells(notebook)]
    assert max(lines) <= 40 and statistics.median(lines) <= 12


def figures(notebook):
    described = [cell.metadata.get("mystnb", {}) for cell in chapters.code_cells(notebook)]
    return [mystnb for mystnb in described if "figure" in mystnb or "image" in mystnb]


def test_each_figure_has_a_name_a_caption_and_words_for_who_cannot_see_it(notebook):
    for mystnb in figures(notebook):
        assert mystnb["figure"]["name"].startswith("fig-"), mystnb
        assert len(mystnb["figure"]["caption"]) > 30 and len(mystnb["image"]["alt"]) > 40, mystnb


def test_no_two_figures_have_one_name():
    notebooks = [nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4) for name in NAMES]
    names = [mystnb["figure"]["name"] for notebook in notebooks for mystnb in figures(notebook)]
    assert len(set(names)) == len(names) > 50
