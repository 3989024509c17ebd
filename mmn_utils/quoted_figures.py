"""A Sphinx extension: a figure of a chapter, shown again on a page that is not a notebook.

    ```{quoted-figure} 03_finding_neurons fig-six-families
    What the reader should see in it.
    ```

The picture is the one on the chapter's page and so comes from the same run, whatever the profile, and its alternative
text comes along. The text of the directive is the caption.
"""

import base64
from pathlib import Path
from typing import Any, ClassVar

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from mmn_utils import chapters

FOLDER = Path("_build/quoted")
"""Below the book's source: where the pictures are put for Sphinx to find."""


class QuotedFigure(SphinxDirective):
    """`{quoted-figure} CHAPTER NAME`, with a caption for text."""

    required_arguments = 2
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The figure as a docutils node."""
        chapter, name = self.arguments
        source = Path(self.env.srcdir) / chapters.FOLDER / f"{chapter}.ipynb"
        self.env.note_dependency(str(source))
        try:
            alt, png = find(source, name)
        except (OSError, ValueError) as error:
            raise self.error(f"{chapter}: {error}") from error
        path = Path(self.env.srcdir) / FOLDER / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        image = nodes.image(uri=f"/{(FOLDER / path.name).as_posix()}", alt=alt)
        caption, _ = self.state.inline_text("\n".join(self.content), self.lineno)
        return [nodes.figure("", image, nodes.caption("", "", *caption))]


def find(notebook: Path, name: str) -> tuple[str, bytes]:
    """Alternative text and PNG of the figure called `name` in an executed notebook.

    Raises:
        ValueError: no cell has a figure of that name, or it left no picture; the message lists the names there are.
    """
    figures = {}
    for cell in chapters.code_cells(nbformat.read(notebook, as_version=4)):
        shown = cell.metadata.get("mystnb", {})
        pictures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        if pictures and "figure" in shown:
            figures[shown["figure"]["name"]] = (shown["image"]["alt"], base64.b64decode(pictures[0]))
    if name not in figures:
        raise ValueError(f"{notebook.name} has no figure {name!r} with a picture; it has: {', '.join(figures)}")
    return figures[name]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when the extension is loaded."""
    app.add_directive("quoted-figure", QuotedFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
