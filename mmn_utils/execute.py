"""The engine of the book: a Sphinx extension that runs, by papermill, each chapter that is not fresh.

`jupyter-book build book` loads it (`_config.yml`). Before Sphinx reads a page, every chapter of the table of contents
is checked, those that have to be run are run (`freshness.py` says which), and the executed notebooks are put to
`book/notebooks/`, where the pages are made from. A chapter works in a folder of its own, which takes its final name
`results/PROFILE/CHAPTER` only when the last cell has passed: a run that fails or is killed leaves nothing that the
next one could mistake for a result.

The profile is the environment variable `MMN_PROFILE`, else `mmn_profile` in `_config.yml`.
"""

import fcntl
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat

from mmn_utils import chapters, freshness, pages, paper_numbers, profiles, results
from mmn_utils.chapters import BookError
from mmn_utils.freshness import Inputs, Manifest
from mmn_utils.kernel import PEAK, READS_VARIABLE
from mmn_utils.untrusted import read_json

EXECUTED = "executed.ipynb"
REPORTS = Path("book/_build/reports")
_UNFINISHED = ".unfinished"
_VERSIONS = (
    "mmn-utils",
    "torch",
    "transformers",
    "timm",
    "open_clip_torch",
    "bert-score",
    "pycocotools",
    "numpy",
    "matplotlib",
    "papermill",
)
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Chapter:
    """One chapter, checked and ready to run."""

    name: str
    notebook: nbformat.NotebookNode
    parameters: dict[str, Any]
    inputs: Inputs
    folder: Path
    """`results/PROFILE/NAME`."""


@dataclass(frozen=True)
class Book:
    """Everything about one build that does not change while chapters run."""

    root: Path
    profile: profiles.Profile
    chapters: list[Chapter]
    places: dict[str, Path]
    """Folders whose files a chapter's freshness depends on, see `freshness.digest_reads`."""
    built: list[Path]
    """Folders below which earlier builds may have left a page."""

    @property
    def results(self) -> Path:
        """`results/PROFILE`."""
        return self.root / "results" / self.profile.name


def open_book(root: Path, profile_name: str, *, built: list[Path] | None = None) -> Book:
    """Read and check the table of contents, the notebooks and the profile.

    Raises:
        BookError, ProfileError: something does not fit together; the message names it. Nothing has been run or removed.
    """
    profile = profiles.read(profile_name)
    names = chapters.find(root)
    for name in profile.chapters:
        if name not in names:
            raise BookError(
                f"{profile.file}: chapters.{name}: the book has no such chapter; it has: {', '.join(names)}"
            )
    if find_spec("ipykernel") is None:
        raise BookError(
            f"There is no kernel to run chapters with: {sys.executable} lacks ipykernel. Run: pip install ipykernel"
        )
    ready = [_prepare(root, name, profile) for name in names]
    return Book(
        root,
        profile,
        ready,
        _places(root, profile),
        built or [root / "book/_build/html", root / "book/_build/.doctrees"],
    )


def run_chapters(book: Book) -> list[str]:
    """Run what is not fresh, publish what is; gives the names of the chapters that were run.

    Raises:
        BookError: a chapter failed. Its page, and the pages of chapters that read its results, are gone.
    """
    with _alone(book.root):
        shutil.rmtree(book.root / "results/.running", ignore_errors=True)
        _withdraw_stale(book)
        ran = [chapter.name for chapter in book.chapters if _bring_up_to_date(book, chapter)]
        _withdraw_unlisted(book)
        _merge_numbers(book, book.chapters)
        _write_pages(book)
        _say(f"{len(ran)} of {len(book.chapters)} chapters run, profile {book.profile.name}")
    return ran


def _prepare(root: Path, name: str, profile: profiles.Profile) -> Chapter:
    notebook = chapters.read(root, name)
    parameters = profile.chapter_parameters(name)
    if parameters["profile"] != profile.name:
        parameters["profile"] = os.path.relpath(profile.file, root)
    chapters.check(name, notebook, parameters)
    inputs = freshness.inputs_of(name, notebook, profile.file)
    return Chapter(name, notebook, parameters, inputs, root / "results" / profile.name / name)


def _places(root: Path, profile: profiles.Profile) -> dict[str, Path]:
    asked = {f"{name}.{key}": value for name, values in profile.chapters.items() for key, value in values.items()}
    named = profile.sources() | {key: value for key, value in asked.items() if isinstance(value, str)}
    brought = {
        f"{'weights' if key.startswith('models.') else 'data'} {key}": profile.path(source)
        for key, source in named.items()
        if profile.is_file_source(source)
    }
    return {"package": freshness.PACKAGE, "results": root / "results", **brought}


def _reason(book: Book, chapter: Chapter) -> str | None:
    return freshness.reason_to_run(chapter.folder, chapter.inputs, book.places)


def _withdraw_stale(book: Book) -> None:
    """Take away every page that may show an old result, before anything runs (or fails)."""
    stale: list[str] = []
    for chapter in book.chapters:
        if _reason(book, chapter) or any(freshness.reads_chapter(chapter.folder, other) for other in stale):
            stale.append(chapter.name)
            _withdraw(book, f"notebooks/{chapter.name}.ipynb")
    if stale:
        _withdraw(book, "status.md")
        _withdraw(book, "paper_against_ours.md")
    _merge_numbers(book, [chapter for chapter in book.chapters if chapter.name not in stale])


def _bring_up_to_date(book: Book, chapter: Chapter) -> bool:
    reason = _reason(book, chapter)
    if reason is None:
        _say(f"{chapter.name}: up to date")
    else:
        _say(f"{chapter.name}: running ({reason})")
        if freshness.data_changed(chapter.folder, book.places):
            _forget_sweeps(book, chapter)
        seconds = run_chapter(book, chapter)
        _say(f"{chapter.name}: done in {seconds:.0f} s")
    _publish(book, chapter)
    return reason is not None


def _forget_sweeps(book: Book, chapter: Chapter) -> None:
    """What was computed of other data: shards know a picture by its number. Without a manifest, this happens once."""
    shutil.rmtree(book.root / results.SWEEPS / book.profile.name / chapter.name, ignore_errors=True)
    (chapter.folder / freshness.MANIFEST).unlink()


def run_chapter(book: Book, chapter: Chapter) -> float:
    """Run one chapter in a folder of its own, which becomes `results/PROFILE/CHAPTER` at the end; gives the seconds
    it took.

    Raises:
        BookError: a cell failed or the kernel died; the message has chapter, cell, source and traceback.
    """
    work = book.root / "results/.running" / f"{chapter.name}.{os.getpid()}"
    staging, reads = work / "results", work / "reads"
    staging.mkdir(parents=True)
    begin = time.monotonic()
    executed = _papermill(book, chapter, work, {results.STAGING_VARIABLE: str(staging), READS_VARIABLE: str(reads)})
    seconds = time.monotonic() - begin
    for line in chapters.stderr_lines(executed)[:10]:
        _say(f"{chapter.name}: stderr: {line[:200]}")
    results.write_whole(staging / EXECUTED, nbformat.writes(executed))
    working = [book.root / "results/.running", book.root / results.SWEEPS]
    ignore = [book.profile.file, profiles.WEIGHTS / "checksums.json", *working]
    read = freshness.digest_reads(reads, book.places, ignore)
    _manifest(chapter, read, staging, seconds, _peak(reads)).save(staging)
    (chapter.folder / freshness.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(chapter.folder, ignore_errors=True)
    chapter.folder.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(chapter.folder)
    shutil.rmtree(work)
    return seconds


def _papermill(book: Book, chapter: Chapter, work: Path, variables: dict[str, str]) -> nbformat.NotebookNode:
    import papermill
    from nbclient.exceptions import DeadKernelError

    own = {results.ROOT_VARIABLE: str(book.root), results.CHAPTER_VARIABLE: chapter.name}
    try:
        return papermill.execute_notebook(
            nbformat.from_dict(chapter.notebook),
            str(work / EXECUTED).replace("{", "{{").replace("}", "}}"),  # papermill fills in what stands in braces
            chapter.parameters,
            cwd=book.root,
            kernel_manager_class=kernel_manager(_QUIET | own | variables),
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        raise BookError(_failure(book, chapter, work, error)) from None
    except DeadKernelError:
        raise BookError(_death(book, chapter, work)) from None


def kernel_manager(variables: dict[str, str]) -> type:
    """A kernel manager whose one kernel is the running interpreter, whatever kernels this machine has.

    `variables` are added to the kernel's environment.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from traitlets import default

    command = [sys.executable, "-m", "mmn_utils.kernel", "--log-level=ERROR", "-f", "{connection_file}"]
    spec = KernelSpec(argv=command, display_name="Python 3", language="python", env=variables)

    class RunningInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return spec

    class Manager(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _running_interpreter(self) -> KernelSpecManager:
            return RunningInterpreter(parent=self)

    return Manager


def _failure(book: Book, chapter: Chapter, work: Path, error: Any) -> str:
    from papermill.exceptions import strip_color

    source = "\n".join(f"    {number:3} {line}" for number, line in enumerate(error.source.splitlines(), 1))
    return (
        f"Chapter {chapter.name} failed in cell In [{error.exec_count}]: {error.ename}: {strip_color(error.evalue)}"
        + f"\n\n{source}\n\n"
        + strip_color("\n".join(error.traceback))
        + f"\n\nThe notebook as far as it ran: {_keep_report(book, chapter, work)}"
    )


def _death(book: Book, chapter: Chapter, work: Path) -> str:
    report = _keep_report(book, chapter, work)
    cells = chapters.code_cells(nbformat.read(book.root / report, as_version=4))
    begun = [cell.source for cell in cells if cell.metadata.get("papermill", {}).get("status") != "pending"]
    return (
        f"Chapter {chapter.name}: the kernel died (often for want of memory) in the cell\n\n"
        + "\n".join(f"    {line}" for source in begun[-1:] for line in source.splitlines())
        + f"\n\nThe notebook as far as it ran: {report}"
    )


def _keep_report(book: Book, chapter: Chapter, work: Path) -> Path:
    report = REPORTS / f"{chapter.name}.ipynb"
    results.write_whole(book.root / report, (work / EXECUTED).read_bytes())
    shutil.rmtree(work, ignore_errors=True)
    return report


def _manifest(chapter: Chapter, reads: dict[str, str], staging: Path, seconds: float, peak: int | None) -> Manifest:
    machine = {"system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processor cores"}
    versions = machine | {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(chapter.inputs, reads, freshness.digest_outputs(staging), round(seconds, 1), date, versions, peak)


def _peak(reads: Path) -> int | None:
    """The memory that the chapter's kernel has written down; None if it could not."""
    path = reads.with_name(PEAK)
    return int(path.read_text()) if path.exists() else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _publish(book: Book, chapter: Chapter) -> None:
    executed = nbformat.read(chapter.folder / EXECUTED, as_version=4)
    page, folder = chapters.shown(chapter.name, executed, chapter.parameters), book.root / "book" / chapters.FOLDER
    pages.with_costs(page, book.profile.name, Manifest.load(chapter.folder), chapter.folder)
    pages.with_files(page, chapter.folder, folder)
    _write_changed(folder / f"{chapter.name}.ipynb", nbformat.writes(page) + "\n")


def _write_changed(target: Path, content: str) -> None:
    """Write only what differs: Sphinx makes a page again when its source is newer."""
    if not target.exists() or target.read_text() != content:
        results.write_whole(target, content)


def _withdraw(book: Book, source: str) -> None:
    """Remove a page's source from `book/`, and what was made from it."""
    (book.root / "book" / source).unlink(missing_ok=True)
    for folder in book.built:
        for made in (folder / source, folder / "_sources" / source):
            for path in (made, made.with_suffix(".html"), made.with_suffix(".doctree")):
                path.unlink(missing_ok=True)


def _withdraw_unlisted(book: Book) -> None:
    listed = {chapter.name for chapter in book.chapters}
    for path in (book.root / "book/notebooks").glob("*.ipynb"):
        if path.stem not in listed:
            _withdraw(book, f"notebooks/{path.name}")


def _merge_numbers(book: Book, fresh: list[Chapter]) -> None:
    """`results/PROFILE/numbers.json`: the numbers of the fresh chapters in one flat mapping."""
    merged: dict[str, Any] = {}
    for chapter in fresh:
        path = chapter.folder / "numbers.json"
        numbers = read_json(path) if path.exists() else {}
        for key in sorted(set(numbers) & set(merged)):
            raise BookError(
                f"The number {key} is recorded by two chapters: {merged[key]['chapter']} and {chapter.name}; rename one"
            )
        merged |= numbers
    _write_changed(book.results / "numbers.json", results.as_json(merged))


def _write_pages(book: Book) -> None:
    """The pages below `book/` that are made of results: none of them is kept in the repository."""
    runs = {chapter.name: Manifest.load(chapter.folder) for chapter in book.chapters}
    numbers, papers = read_json(book.results / "numbers.json"), paper_numbers.read()
    places: dict[str, str] = {}
    for chapter in book.chapters:
        places |= pages.places(chapter.name, nbformat.read(chapter.folder / EXECUTED, as_version=4))
    made = {f"{paper.part}_numbers": paper_numbers.of_part(paper, numbers, places) for paper in papers}
    made["paper_against_ours"] = paper_numbers.page(papers, numbers, book.profile.name, places)
    made["status"] = pages.status(book.profile, runs, numbers)
    for name, content in made.items():
        _write_changed(book.root / "book" / f"{name}.md", content)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Only one process runs chapters at a time; the lock goes with the process, however it ends."""
    path = root / "results/.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BookError(
                f"Another build is running chapters of this book (it holds {path}): wait for it to end"
            ) from None
        yield


def _say(message: str) -> None:
    print(message, flush=True)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when the extension is loaded."""
    app.add_config_value("mmn_profile", "miniature", "env")
    app.connect("config-inited", _before_reading)
    app.connect("build-finished", _after_writing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _before_reading(app: Any, config: Any) -> None:
    """Run the chapters; on failure say why and leave with a non-zero code (Sphinx would bury the message in its
    own)."""
    folders = [Path(app.outdir), Path(app.doctreedir)]
    try:
        run_chapters(
            open_book(Path(app.srcdir).parent, os.environ.get("MMN_PROFILE") or config.mmn_profile, built=folders)
        )
    except (BookError, profiles.ProfileError, OSError) as error:
        print(f"\nThe book was not built.\n{error}\n", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(
            "\nInterrupted: finished chapters are kept; the one that ran begins again, with its finished shards.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    _begin_pages(app)


def _begin_pages(app: Any) -> None:
    """Pages are cheap: if the last build was cut off while it wrote them, all are made again."""
    mark = Path(app.outdir).parent / _UNFINISHED
    if mark.exists():
        for folder in (Path(app.outdir), Path(app.doctreedir)):
            for path in folder.iterdir() if folder.exists() else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _after_writing(app: Any, error: Exception | None) -> None:
    if error is None:
        (Path(app.outdir).parent / _UNFINISHED).unlink(missing_ok=True)
