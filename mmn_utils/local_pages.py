"""A Sphinx extension: the pages ask no other host for anything, and what lies beside them is never an old copy.

Formulas are set by a MathJax that lies beside the pages. The files come from the `sphinx-mathjax-offline` package
(MathJax 3.2), whose own extension copies all 24 MB of them on every build; the book needs one script and its fonts.
Thebe, which the book's tools put into every page (twice, which the browser calls an error) and which would load its
code from elsewhere, is taken out: chapters are run on Colab or at home.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

_PACKAGE = "sphinx-mathjax-offline"
_SCRIPT = "tex-chtml.js"
_FONTS = Path("output/chtml/fonts")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when the extension is loaded."""
    app.config.mathjax_path = f"mathjax/{_SCRIPT}"
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.add_config_value("mmn_files", "", "html")
    app.connect("config-inited", _weigh_files, priority=900)  # after the engine, which makes some of them
    app.connect("build-finished", _without_maps)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _weigh_files(app: Any, config: Any) -> None:
    """Let all pages be written again if a file beside them changed: only then does Sphinx copy such files, and the
    pages' links carry their checksums.
    """
    folders = [Path(app.srcdir) / folder for folder in (*config.html_static_path, *config.html_extra_path)]
    files = [(folder, path) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    digest = hashlib.sha256()
    for folder, path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    config.mmn_files = digest.hexdigest()


def _without_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in _told_by(file).lower()]


def _told_by(file: Any) -> str:
    """Name and inline text of a script or style sheet."""
    return f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {}).get('body') or ''}"


def _mathjax() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"The book's formulas need {_PACKAGE}; run: pip install 'mmn-utils[book]'")
    return Path(spec.submodule_search_locations[0]) / "static" / "mathjax"


def _copy_mathjax(app: Any, error: Exception | None) -> None:
    target = Path(app.outdir) / "_static" / "mathjax"
    if error or app.builder.format != "html" or (target / _SCRIPT).exists():
        return
    copytree(_mathjax() / _FONTS, target / _FONTS, dirs_exist_ok=True, ignore=ignore_patterns("*.js"))
    partial = target / f"{_SCRIPT}.partial"
    partial.write_bytes((_mathjax() / _SCRIPT).read_bytes())
    partial.rename(target / _SCRIPT)


def _without_maps(app: Any, error: Exception | None) -> None:
    """The theme brings 3 MB of maps for those who debug its scripts; no page asks for them."""
    for path in (Path(app.outdir) / "_static").rglob("*.map"):
        path.unlink()
