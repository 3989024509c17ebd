"""Paper against ours: every number is in the list, the list holds none of ours, and the rules do what they say."""

import json
import re
from pathlib import Path

import pytest

from mmn_utils import paper_numbers
from mmn_utils.paper_numbers import Paper, Row, verdict

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "results/miniature/numbers.json"
PAPERS = paper_numbers.read()
ROWS = [row for paper in PAPERS for row in paper.rows]


@pytest.fixture(scope="module")
def measured():
    if not RESULTS.exists():
        pytest.skip(f"no {RESULTS}; lifted by: make book")
    return json.loads(RESULTS.read_text())


def number(value, low=None, high=None, paper=None):
    return {"value": value, "low": low, "high": high, "n": 7, "unit": None, "paper": paper, "chapter": "01_a"}


NUMBERS = {
    "a.low": number(1, 0, 2, paper=1.5),
    "a.high": number(6, 5, 7, paper=4),
    "a.wide": number(2, 1, 6),
    "a.point": number(3),
}


def row(key="a.low", expect=None, **other):
    return Row(**{"what": "w", "paper": "1", "where": "Table 1", "why": "x"} | other, key=key, expect=expect)


def test_every_number_beside_a_papers_is_in_the_list(measured):
    listed = {row.key for row in ROWS}
    assert [key for key, record in measured.items() if record["paper"] is not None and key not in listed] == []


def test_every_key_in_the_list_is_measured_and_every_rule_can_be_applied(measured):
    assert [row.key for row in ROWS if row.key and row.key not in measured] == []
    assert [row.key for row in ROWS if verdict(row, measured) == "not in this build"] == []


def test_a_paper_has_one_number_here_and_in_its_chapter(measured):
    """What is printed in the list is what the chapter sets beside ours."""
    for entry in (row for row in ROWS if row.key in measured and measured[row.key]["paper"] is not None):
        paper = measured[entry.key]["paper"]
        found = [float(digits) for digits in re.findall(r"-?\d*\.?\d+", entry.paper.replace(",", ""))]
        meant = {
            *found,
            *(value / 100 for value in found),
            *(a / b for a, b in zip(found, found[1:], strict=False) if b),
        }
        meant |= {0.0} if entry.paper.startswith("about 0") else set()
        assert min(abs(value - paper) for value in meant) < 0.005 * max(1, abs(paper)), (entry, paper)


def test_each_key_is_listed_once_and_whatever_has_none_says_why():
    keys = [row.key for row in ROWS if row.key]
    assert len(keys) == len(set(keys)) > 40
    assert [row for row in ROWS if len(row.why) < 20 or not row.why.endswith(".")] == []
    assert [row for row in ROWS if row.key is None and row.expect] == []


def test_no_result_of_ours_is_in_the_file():
    """A row has no field for one (`read` refuses others), and no reason states a measured value."""
    assert [row for row in ROWS if re.search(r"\d?\.\d", row.why)] == []


@pytest.mark.parametrize(
    ("key", "expect", "expected"),
    [
        ("a.high", "above a.low", "yes"),
        ("a.high", "below a.low", "no"),
        ("a.low", "below a.high", "yes"),
        ("a.wide", "above a.low", "cannot be said"),
        ("a.low", "above 0", "cannot be said"),
        ("a.high", "above 0", "yes"),
        ("a.low", "below -1.5", "no"),
        ("a.point", "above 2.9", "yes"),
        ("a.point", "above 3", "cannot be said"),
        ("a.low", "like a.wide", "yes"),
        ("a.low", "like a.high", "no"),
        ("a.low", "equals", "yes"),
        ("a.high", "equals", "no"),
        ("a.low", "control", "control or setting"),
        ("a.low", None, "not comparable"),
        ("a.none", "above 0", "not in this build"),
        ("a.low", "above a.none", "not in this build"),
        (None, None, "not regenerated"),
    ],
)
def test_the_rules(key, expect, expected):
    assert verdict(row(key, expect), NUMBERS) == expected


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"expected above, below.*found 'over 3'"):
        verdict(row("a.low", "over 3"), NUMBERS)


@pytest.mark.parametrize("entry", ["{what: a, paper: b, where: c}", "{what: a, paper: b, where: c, why: d, ours: e}"])
def test_a_row_that_lacks_or_adds_a_field_is_refused(tmp_path, entry):
    file = tmp_path / "rows.yml"
    file.write_text(f"reasons: {{}}\npapers:\n  - title: A\n    part: part1\n    rows:\n      - {entry}\n")
    with pytest.raises(ValueError, match="expected text for expect, key, paper"):
        paper_numbers.read(file)


def test_the_page_has_paper_interval_direction_reason_and_link():
    papers = [Paper("Somebody 2020", "part1", [row(expect="below a.high", what="accuracy", why="Smaller.")])]
    text = paper_numbers.page(papers, NUMBERS, "miniature", {"a.low": "notebooks/01_a.html#how"})
    (line,) = [line for line in text.splitlines() if "accuracy" in line]
    for part in (
        'href="notebooks/01_a.html#how"',
        "| 1 <br> Table 1 |",
        "1 (0 to 2) <br> n = 7",
        "**yes**: below 6 (`a.high`)",
        "Smaller.",
    ):
        assert part in line
    assert "| [Somebody 2020](part1.md) | 1 | 0 | 0 |" in text
    assert "## Not yet in the list" in text and "| `a.high` | 4 |" in text


def test_a_part_shows_what_can_be_judged_and_counts_the_rest():
    rows = [row(expect="below a.high", what="first"), row(what="second"), row(key=None, what="third")]
    text = paper_numbers.of_part(Paper("Somebody 2020", "part1", rows), NUMBERS, {})
    assert "1 yes, 1 not comparable, 1 not regenerated" in text
    assert "first" in text and "second" not in text and "third" not in text
