"""A Sphinx extension: formulas are set by a MathJax that lies beside the pages, so that the book needs no other host.

The files come from the `sphinx-mathjax-offline` package (MathJax 3.2). Its own extension copies all 24 MB of them on
every build; the book needs one script and its fonts.
"""

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
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _source() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(
            f"The book needs the package {_PACKAGE} for its formulas: pip install 'mmn-utils[book]'"
        )
    return Path(spec.submodule_search_locations[0]) / "static" / "mathjax"


def _copy(app: Any, error: Exception | None) -> None:
    target = Path(app.outdir) / "_static" / "mathjax"
    if error or app.builder.format != "html" or (target / _SCRIPT).exists():
        return
    copytree(_source() / _FONTS, target / _FONTS, dirs_exist_ok=True, ignore=ignore_patterns("*.js"))
    partial = target / f"{_SCRIPT}.partial"
    partial.write_bytes((_source() / _SCRIPT).read_bytes())
    partial.rename(target / _SCRIPT)
