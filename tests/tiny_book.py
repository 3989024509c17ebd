"""A book of two short chapters in a temporary folder, for tests of the engine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

REPOSITORY = Path(__file__).parents[1]
PROFILE = """
name: tiny
models:
  language_model: {source: ./weights/language_model}
  vision_encoder: {source: nothing, revision: "branch:none"}
  projection: {source: ./weights/projection}
  bert: {source: nothing, num_layers: 1, revision: "branch:none"}
data:
  scenes: {source: "miniature:scenes"}
chapters:
  01_first: {n: 3}
"""
FIRST = """from mmn_utils import results
from pathlib import Path
chapter = results.Chapter("tiny", "01_first")
weights = Path("weights/language_model/config.json").read_text()
chapter.number("first.n", n, low=0, high=10, n=5)"""
SECOND = """from mmn_utils import results
print(results.load("tiny", "01_first", "numbers")["first.n"]["value"])
results.Chapter("tiny", "02_second").number("second.n", 2)"""


def notebook(
    *sources: str,
    parameters: str = 'profile: str = "miniature"  # which\nn: int = 1  # how many',
    kernel: str = "python3",
):
    cells = [new_markdown_cell("# A chapter"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    made = new_notebook(cells=cells + [new_code_cell(source) for source in sources])
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
    made.metadata["kernelspec"] = {"name": kernel, "display_name": "Python 3", "language": "python"}
    return made


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TinyBook:
    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("notebooks", "book", "weights/language_model", "weights/projection"):
            (root / folder).mkdir(parents=True)
        (root / "weights/language_model/config.json").write_text("{}")
        (root / "weights/language_model/model.safetensors").write_text("weights")
        (root / "weights/projection/proj.safetensors").write_text("never opened")
        (root / "tiny.yml").write_text(PROFILE)
        (root / "book/index.md").write_text("# A book\n")
        config = (REPOSITORY / "_config.yml").read_text().replace("bibtex_bibfiles:\n  - references.bib\n", "")
        (root / "_config.yml").write_text(config)
        for link in ("_config.yml", "_toc.yml"):
            (root / "book" / link).symlink_to(f"../{link}")
        self.write("01_first", notebook(FIRST))
        self.write("02_second", notebook(SECOND))
        self.toc("01_first", "02_second")

    def write(self, name: str, content: nbformat.NotebookNode) -> None:
        nbformat.write(content, self.root / "notebooks" / f"{name}.ipynb")

    def toc(self, *names: str) -> None:
        files = [*(f"notebooks/{name}" for name in names), "status"]
        (self.root / "_toc.yml").write_text(
            json.dumps({"format": "jb-book", "root": "index", "chapters": [{"file": f} for f in files]})
        )

    def run(self, profile: str | None = None) -> list[str]:
        """Run the chapters in this process; gives the names of those that were run."""
        from mmn_utils import execute

        return execute.run_chapters(execute.open_book(self.root, profile or str(self.root / "tiny.yml")))

    def page(self, name: str) -> Path:
        return self.root / "book/notebooks" / f"{name}.ipynb"

    def html(self, name: str) -> Path:
        return self.root / "book/_build/html/notebooks" / f"{name}.html"

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return os.environ | {"MMN_PROFILE": str(self.root / "tiny.yml"), "PYTHONPATH": path}

    def start(self) -> subprocess.Popen:
        """`jupyter-book build book`, as typed; Ctrl-C is heard even where the tests run in the background."""
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book"]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        alone = {"start_new_session": True, "preexec_fn": _hear_ctrl_c}
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), **alone, **pipe)

    def build(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=300)
        return process.returncode, output
