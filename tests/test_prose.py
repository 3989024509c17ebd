"""What every chapter owes its reader besides code: limits, exercises, and words and papers that can be looked up."""

import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted((BOOK.parent / "notebooks").glob("*.ipynb"))


def prose(path):
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


def defined(glossary):
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", glossary, flags=re.DOTALL)
    return [[line for line in block.splitlines() if line and not line.startswith(" ")] for block in blocks]


def section(text, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem[:2])
def test_a_chapter_ends_with_what_it_does_not_show_and_with_exercises(path):
    text = prose(path)
    exercises = re.findall(r"^\d\. .+", section(text, "Try this"), flags=re.MULTILINE)
    assert 2 <= len(exercises) <= 5, f"exercises under '## Try this': {exercises}"
    assert section(text, "(What this shows, and what it does not|Use and limits)").strip()


@pytest.mark.parametrize("path", [*CHAPTERS, *sorted(BOOK.glob("*.md"))], ids=lambda path: path.stem[:8])
def test_every_paper_and_word_that_a_page_refers_to_can_be_looked_up(path):
    text = prose(path)
    papers = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), flags=re.MULTILINE))
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in keys.split(",")}
    assert cited <= papers, cited - papers
    words = {word for block in defined((BOOK / "glossary.md").read_text()) for word in block}
    used = {asked.rstrip(">").split("<")[-1] for asked in re.findall(r"\{term\}`([^`]+)`", text)}
    assert used <= words, used - words


def test_the_glossary_is_in_order_and_explains_no_word_twice():
    blocks = defined((BOOK / "glossary.md").read_text())
    words = [word.lower() for block in blocks for word in block]
    assert len(words) == len(set(words)) > 40
    assert all(block == sorted(block, key=str.lower) for block in blocks)


def test_every_paper_in_the_list_is_referred_to_somewhere():
    text = "".join(prose(path) for path in [*CHAPTERS, *sorted(BOOK.glob("*.md"))])
    papers = re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), flags=re.MULTILINE)
    assert [paper for paper in papers if paper not in text] == []
