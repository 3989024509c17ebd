"""A chapter whose results another one needs, run where there is no book to run it: on Colab, with the wheel alone.

    python -m mmn_utils.alone 03_finding_neurons miniature

Wheels carry the chapters' notebooks; `results.load` calls this when a result is missing and no engine is at work.
"""

import sys
import tempfile
from pathlib import Path

from mmn_utils import profiles, results


def run(chapter: str, profile: str) -> None:
    """Run a chapter in the current folder, with the parameters that the profile has for it."""
    import papermill

    notebook = results.shipped_notebook(chapter)
    with tempfile.TemporaryDirectory() as folder:
        papermill.execute_notebook(
            str(notebook),
            str(Path(folder) / "executed.ipynb"),
            profiles.read(profile).chapter_parameters(chapter),
            kernel_name="python3",
            progress_bar=False,
        )


if __name__ == "__main__":
    run(*sys.argv[1:])
