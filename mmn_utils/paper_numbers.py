"""Paper against ours: what the three papers print beside what this book measured, with a direction by a stated rule.

`paper_numbers.yml` has, for each printed number, where it stands, the key under which a chapter records ours, what the
paper says of it (`above OTHER`, `below OTHER`, `like OTHER`, `equals`), and why ours may differ. No result of ours is
in it: those come from `results/PROFILE/numbers.json`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from mmn_utils.untrusted import as_markdown, read_yaml

FILE = Path(__file__).with_name("paper_numbers.yml")
_NOT_JUDGED = {"": "not comparable", "control": "control or setting", "setting": "control or setting"}
_JUDGED = ("yes", "no", "cannot be said")
VERDICTS = (*_JUDGED, "control or setting", "not comparable", "not in this build", "not regenerated")
RULE = """The column **same direction?** is filled in by rule, from the 95 % intervals; a number without one counts as
its value.

- *above* and *below* another number: **yes** if the two intervals are apart in the paper's order, **no** if they are
  apart in the other order, **cannot be said** if they overlap.
- *like* another number (the paper sees no difference): **yes** if the intervals overlap, **no** if they do not.
- *equals*: **yes** if our interval holds the paper's number, **no** if it does not.
- *control or setting*: what others are held against, or what was chosen; it has no direction of its own.
- *not comparable*: the paper's number and ours measure different things, so that neither size nor direction says
  anything.
"""
Numbers = Mapping[str, Mapping[str, Any]]
"""The content of `numbers.json`."""


@dataclass(frozen=True)
class Row:
    """One number that a paper prints, or several of a kind that the book has none of."""

    what: str
    paper: str
    """The number as it is printed, or in words what is said of it."""
    where: str
    """Table, figure or section of the paper."""
    why: str
    """Why ours may differ; for a row without a key, why there is none of ours."""
    key: str | None = None
    """Of our number in `numbers.json`; None: not regenerated."""
    expect: str | None = None
    """What the paper says of the number; None: not comparable."""


@dataclass(frozen=True)
class Paper:
    """One of the three papers."""

    title: str
    part: str
    """Page of the part of the book that is about it."""
    rows: list[Row]


def read(file: Path = FILE) -> list[Paper]:
    """The papers and their rows, in the order of the file.

    Raises:
        ValueError: a row lacks a field or has one that is not known; the message has the row.
    """
    content = read_yaml(file)
    reasons = content["reasons"]
    return [
        Paper(paper["title"], paper["part"], [_row(row, reasons, file) for row in paper["rows"]])
        for paper in content["papers"]
    ]


def _row(entry: dict[str, Any], reasons: dict[str, str], file: Path) -> Row:
    known = {field.name for field in fields(Row)}
    lacking = {"what", "paper", "where", "why"} - set(entry)
    if lacking or set(entry) - known or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError(f"{file}: expected text for {', '.join(sorted(known))} in each row, found {entry}")
    return Row(**{**entry, "why": reasons.get(entry["why"], entry["why"])})


def verdict(row: Row, numbers: Numbers) -> str:
    """One of `VERDICTS`, by the rules in `RULE`.

    Raises:
        ValueError: the row's rule is none of those.
    """
    if row.key is None:
        return "not regenerated"
    rule, _, other = (row.expect or "").partition(" ")
    if row.key not in numbers or ("." in other and not _is_number(other) and other not in numbers):
        return "not in this build"
    if rule in _NOT_JUDGED:
        return _NOT_JUDGED[rule]
    if rule not in ("above", "below", "like", "equals"):
        raise ValueError(f"{row.what}: expected above, below, like, equals, control or setting, found {row.expect!r}")
    other = str(numbers[row.key]["paper"]) if rule == "equals" else other
    return _direction(rule, _interval(row.key, numbers), _interval(other, numbers))


def _direction(rule: str, ours: tuple[float, float], other: tuple[float, float]) -> str:
    overlap = ours[0] <= other[1] and other[0] <= ours[1]
    if rule in ("like", "equals"):
        return "yes" if overlap else "no"
    return "cannot be said" if overlap else "yes" if (ours[0] > other[1]) == (rule == "above") else "no"


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _interval(key: str, numbers: Numbers) -> tuple[float, float]:
    """The interval of a recorded number, or of a number that is written out."""
    if key not in numbers:
        return float(key), float(key)
    record = numbers[key]
    return (record["value"],) * 2 if record["low"] is None else (record["low"], record["high"])


def counts(paper: Paper, numbers: Numbers) -> Counter[str]:
    """How many rows of a paper have which verdict."""
    return Counter(verdict(row, numbers) for row in paper.rows)


def page(papers: list[Paper], numbers: Numbers, profile: str, places: Mapping[str, str]) -> str:
    """The page *Paper against ours*.

    Args:
        papers: from `read`.
        numbers: ours.
        profile: name of the profile that they were measured with.
        places: where on the site each number is computed, `notebooks/NAME.html#SECTION` by key.
    """
    lines = [
        "# Paper against ours",
        "",
        "Every number that the three papers print and this book computes again, and what it does not compute. "
        f"Ours are of the profile `{profile}`; the names in the first column lead to the section that computes them.",
        "",
    ]
    if profile == "miniature":
        lines += ["The miniature is a small world of its own: look at the direction, not at the size.", ""]
    lines += [RULE, *_summary(papers, numbers)]
    names = {row.key: row.what for paper in papers for row in paper.rows if row.key}
    for paper in papers:
        lines += ["", f"## {paper.title}", "", "| number | paper | here | same direction? | why they may differ |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [_line(row, numbers, places, names) for row in paper.rows]
    return "\n".join([*lines, *_unlisted(names, numbers)]) + "\n"


def _summary(papers: list[Paper], numbers: Numbers) -> list[str]:
    lines = [f"| paper | {' | '.join(VERDICTS)} |", "| --- |" + " ---: |" * len(VERDICTS)]
    for paper in papers:
        found = counts(paper, numbers)
        lines.append(f"| [{paper.title}]({paper.part}.md) | " + " | ".join(str(found[v]) for v in VERDICTS) + " |")
    return lines


def of_part(paper: Paper, numbers: Numbers, places: Mapping[str, str]) -> str:
    """The summary on the opening page of a part: the counts, and each number whose direction can be judged."""
    found = counts(paper, numbers)
    said = ", ".join(f"{found[v]} {v}" for v in VERDICTS if found[v])
    lines = [f"Is the direction the same? Of {len(paper.rows)} entries: {said}. Those that can be judged:", ""]
    lines += ["| number | paper | here | same direction? |", "| --- | --- | --- | --- |"]
    for row in paper.rows:
        if (judged := verdict(row, numbers)) in _JUDGED:
            lines.append(f"| {_linked(row, places)} | {row.paper} | {ours(numbers[row.key])} | {judged} |")
    return (
        "\n".join([*lines, "", "All of them, by which rule, and why they may differ: [](paper_against_ours.md)."])
        + "\n"
    )


def _line(row: Row, numbers: Numbers, places: Mapping[str, str], names: Mapping[str, str]) -> str:
    record = numbers.get(row.key or "")
    here = "–" if record is None else ours(record)
    here += f" <br> n = {record['n']:,}" if record and record["n"] is not None else ""
    judged = verdict(row, numbers)
    if judged in _JUDGED:
        judged = f"**{judged}**: {_in_words(row.expect or '', numbers, names)}"
    return f"| {_linked(row, places)} | {row.paper} <br> {row.where} | {here} | {judged} | {row.why} |"


def _linked(row: Row, places: Mapping[str, str]) -> str:
    place = places.get(row.key or "")
    return f'<a class="reference internal" href="{escape(place)}">{row.what}</a>' if place else row.what


def ours(record: Mapping[str, Any]) -> str:
    """One number of ours with its unit and interval, as Markdown."""
    unit = f" {as_markdown(record['unit'])}" if record["unit"] else ""
    interval = "" if record["low"] is None else f" ({record['low']:.3g} to {record['high']:.3g})"
    return f"{record['value']:.3g}{unit}{interval}"


def _in_words(expect: str, numbers: Numbers, names: Mapping[str, str]) -> str:
    rule, _, other = expect.partition(" ")
    if other not in numbers:
        return expect
    return f"{rule} {numbers[other]['value']:.3g} ({names.get(other, f'`{other}`')})"


def _unlisted(listed: Mapping[str, str], numbers: Numbers) -> list[str]:
    """Numbers that a chapter sets beside a paper's and that the file does not have: shown all the same."""
    left = {key: record for key, record in numbers.items() if record["paper"] is not None and key not in listed}
    if not left:
        return []
    lines = ["", "## Not yet in the list", "", "| number | paper | here |", "| --- | --- | --- |"]
    return lines + [f"| `{key}` | {record['paper']:.3g} | {ours(record)} |" for key, record in left.items()]
