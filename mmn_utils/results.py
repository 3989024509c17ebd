"""Where a chapter leaves what it found, and where another chapter finds it.

Everything lies in `results/PROFILE/CHAPTER/` below the working root: numbers as JSON, tables as parquet, figures as
SVG or PNG. The root is the repository when the book's engine runs the chapter (it sets `MMN_ROOT`), and the current
folder otherwise. The engine also sets `MMN_RESULTS`, a folder that takes its final name only when the whole chapter
has run, so that no half result is ever read.

>>> chapter = Chapter("miniature", "01_a_language_model_that_sees")            # doctest: +SKIP
>>> chapter.number("captioner.single.first_noun_accuracy", 0.94, low=0.92, high=0.96, n=400)   # doctest: +SKIP
0.94 (95 % interval 0.92 to 0.96, n = 400)
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmn_utils.untrusted import as_visible, inside, read_json

ROOT_VARIABLE = "MMN_ROOT"
STAGING_VARIABLE = "MMN_RESULTS"
CHAPTER_VARIABLE = "MMN_CHAPTER"
READ_EVENT = "mmn_utils.read"
"""Audit event raised for each result file that is read; the engine's kernel writes it down."""
SWEEPS = Path("results/.sweeps")
"""Below the working root: what the sweeps of unfinished and finished chapters have computed (`sweeps.py`)."""

_KEY = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


class Number:
    """One measured number with its interval, written the way the book prints it."""

    def __init__(self, value: float, low: float | None, high: float | None, n: int | None, unit: str | None) -> None:
        self.value, self.low, self.high, self.n, self.unit = value, low, high, n, unit

    def __repr__(self) -> str:
        beside = [] if self.low is None else [f"95 % interval {_shown(self.low)} to {_shown(self.high)}"]
        beside += [] if self.n is None else [f"n = {self.n:,}"]
        unit = f" {self.unit}" if self.unit else ""
        return _shown(self.value) + unit + (f" ({', '.join(beside)})" if beside else "")


class Chapter:
    """The results of one chapter under one profile."""

    def __init__(self, profile: Any, name: str) -> None:
        """`profile`: a `Profile`, or its name. `name`: the chapter's, the same as its notebook's."""
        _check_name(name)
        self.name = name
        self.folder = Path(os.environ.get(STAGING_VARIABLE) or folder_of(profile, name))
        self._numbers: dict[str, dict[str, Any]] = {}

    def number(
        self,
        key: str,
        value: float,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        unit: str | None = None,
        paper: float | None = None,
    ) -> Number:
        """Record one number that the page prints.

        `low` and `high` are a 95 % interval, `paper` is the paper's own figure. In the book, prose can print it as
        ``{glue:text}`KEY:.2f` `` (the value) or ``{glue:text}`KEY.text` `` (with its interval and n).

        Raises: ValueError: the key is not dotted lower case or was used before, a value is not finite, or the
        interval leaves it out.
        """
        record = {"value": value, "low": low, "high": high, "n": n, "unit": unit, "paper": paper, "chapter": self.name}
        record |= {field: _plain(record[field]) for field in ("value", "low", "high", "n", "paper")}
        self._check(key, record)
        self._numbers[key] = record
        write_whole(self.folder / "numbers.json", as_json(self._numbers))
        shown = Number(*(record[field] for field in ("value", "low", "high", "n", "unit")))
        _glue({key: record["value"], f"{key}.text": shown})
        return shown

    def table(self, frame: Any, name: str) -> Any:
        """Keep a pandas data frame as `NAME.parquet`; gives the frame back, so that a cell can end with this call."""
        with whole(inside(self.folder, f"{name}.parquet")) as partial:
            frame.to_parquet(partial)
        return frame

    def figure(self, figure: Any, name: str, *, kind: str = "svg") -> None:
        """Keep a matplotlib figure as `NAME.svg` (lines) or `NAME.png` (images); the same figure gives the same bytes.

        Control characters in its texts, which SVG cannot hold, are written as `\\x1b`.
        """
        import matplotlib

        stamps = {"svg": {"Date": None}, "png": {"Software": None}}.get(kind, {})
        with whole(inside(self.folder, f"{name}.{kind}")) as partial, matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(partial, format=kind, metadata=stamps, bbox_inches="tight", facecolor="white")
            if kind == "svg":
                partial.write_text(as_visible(partial.read_text(encoding="utf-8")), encoding="utf-8")

    def _check(self, key: str, record: dict[str, Any]) -> None:
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"number key: expected dotted lower-case words such as 'captioner.single.accuracy', found {key!r}"
            )
        if key in self._numbers and STAGING_VARIABLE in os.environ:
            raise ValueError(
                f"number key {key!r} is recorded twice in chapter {self.name}: give one of the two another name"
            )
        for field in ("value", "low", "high", "n", "paper"):
            number = record[field]
            if number is not None and not (isinstance(number, (int, float)) and math.isfinite(number)):
                raise ValueError(f"number {key}: {field} is {number!r:.80}, a finite number was expected")
        if record["value"] is None or (record["low"] is None) != (record["high"] is None):
            raise ValueError(f"number {key}: a value is needed, and both low and high or neither; found {record}")
        value, low, high = (record[field] for field in ("value", "low", "high"))
        if low is not None:
            rounding = 1e-12 * max(abs(low), abs(high))  # the mean of equal numbers need not be that number
            if not low - rounding <= value <= high + rounding:
                raise ValueError(f"number {key}: {value} is outside its interval {low} to {high}")


def load(profile: Any, chapter: str, name: str) -> Any:
    """What another chapter left: a data frame for a table, a mapping for `numbers` or any JSON file.

    Where the package was installed from a wheel and no book is being built, as on Colab, a chapter that has left
    nothing yet is run first.

    Raises:
        FileNotFoundError: the chapter has not left it; the message names the chapter to run.
        ValueError: what it left cannot be read.
    """
    folder = folder_of(profile, chapter)
    if not folder.is_dir() and CHAPTER_VARIABLE not in os.environ and shipped_notebook(chapter).is_file():
        _run_first(profile, chapter)
    for path, read in ((folder / f"{name}.parquet", _read_table), (folder / f"{name}.json", read_json)):
        if path.is_file():
            sys.audit(READ_EVENT, str(path))
            try:
                return read(path)
            except (ValueError, OSError) as error:
                again = f"delete {folder} and run notebooks/{chapter}.ipynb again, with the same profile"
                raise ValueError(f"{path} cannot be read: {error}; {again}") from error
    raise FileNotFoundError(
        f"No result {name!r} in {folder}: chapter {chapter} makes it. "
        f"Run notebooks/{chapter}.ipynb first, with the same profile."
    )


def shipped_notebook(chapter: str) -> Path:
    """Where a wheel has the notebook of a chapter; a clone has no such file."""
    return Path(__file__).with_name("notebooks") / f"{chapter}.ipynb"


def _run_first(profile: Any, chapter: str) -> None:
    print(f"Chapter {chapter} has not been run here: running it first, this once.", flush=True)
    command = [sys.executable, "-m", "mmn_utils.alone", chapter, str(getattr(profile, "file", profile))]
    subprocess.run(command, check=True)  # noqa: S603 - our own module, with a chapter that the package has


def root() -> Path:
    """The folder below which `results/` lies: the repository when the engine runs a chapter, else the current
    folder."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path.cwd())


def folder_of(profile: Any, chapter: str) -> Path:
    """`results/PROFILE/CHAPTER` below the working root; `profile` is a `Profile`, its name, or the path of its file."""
    name = str(getattr(profile, "name", profile))
    return root() / "results" / (Path(name).stem if name.endswith((".yml", ".yaml")) else name) / chapter


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever reads half of it, see `whole`."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file takes its own name at the end. After a failure nothing is left of it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, f"{why}; free some space or allow writing, then run again", str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def as_json(content: Any) -> str:
    """JSON as we write it everywhere: sorted, indented, one newline at the end, no NaN."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _check_name(name: str) -> None:
    running = os.environ.get(CHAPTER_VARIABLE, name)
    if running != name:
        raise ValueError(
            f"results.Chapter: this notebook is {running!r} but records its results as {name!r}: use its own name"
        )


def _plain(value: Any) -> Any:
    """A Python number from a numpy or torch scalar; anything else as it is."""
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):
        return value


def _shown(value: float) -> str:
    if float(value).is_integer() and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _glue(values: dict[str, Any]) -> None:
    """Hand values to the page's prose; nothing to do outside a notebook or where the book's tools are not installed."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None or find_spec("myst_nb") is None:
        return
    from myst_nb import glue

    for name, value in values.items():
        glue(name, value, display=False)


def _read_table(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path)
