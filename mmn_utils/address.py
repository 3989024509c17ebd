"""Where the book lives, in one setting, and the command that carries it everywhere.

`[tool.mmn]` in `pyproject.toml` names the repository, its branch, and the tag that Colab installs. They appear again
in `_config.yml`, `CITATION.cff`, `README.md`, the pages of `book/` and the first cell of every chapter:

    python -m mmn_utils.address https://github.com/you/your-book --tag v1.0     move the book
    python -m mmn_utils.address                                                 write the present address everywhere
    python -m mmn_utils.address --check                                         say where another address is found
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import yaml

from mmn_utils.results import write_whole

_COLAB = "https://colab.research.google.com/github/"
_BINDER = "https://mybinder.org/v2/gh/"
_ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Address:
    """The content of `[tool.mmn]`."""

    repository: str
    """https://HOST/OWNER/NAME, without a slash at the end."""
    branch: str
    """Branch whose notebooks the launch buttons open."""
    tag: str
    """Tag that Colab installs the package at."""

    @property
    def name(self) -> str:
        """OWNER/NAME."""
        return "/".join(self.repository.split("/")[-2:])

    def colab(self, path: str) -> str:
        """The link that opens a notebook on Colab."""
        return f"{_COLAB}{self.name}/blob/{self.branch}/{path}"

    def binder(self, path: str) -> str:
        """The link that opens a notebook on Binder."""
        return f"{_BINDER}{self.name}/{self.branch}?urlpath=lab/tree/{path}"


def read(root: Path) -> Address:
    """The address set in `pyproject.toml`."""
    return Address(**tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mmn"])


def install_cell(address: Address) -> str:
    """Source of the first code cell of every chapter: it installs the package on Colab and does nothing elsewhere."""
    return (
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f'    %pip install -q "mmn-utils @ git+{address.repository}@{address.tag}"'
    )


def rewrite(root: Path, new: Address) -> list[Path]:
    """Carry `new` into every file that shows the address; gives the files that changed.

    Raises:
        ValueError: the repository is not written as https://HOST/OWNER/NAME.
    """
    if not _ADDRESS.fullmatch(new.repository):
        raise ValueError(f"repository: expected https://HOST/OWNER/NAME, found {new.repository!r}")
    old = read(root)
    return [path for path in _files(root) if _rewrite_file(path, old, new)]


def disagreements(root: Path) -> list[str]:
    """Each place that shows another address than `pyproject.toml`, in words."""
    address = read(root)
    config = yaml.safe_load((root / "_config.yml").read_text())["repository"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    facts = [
        ("_config.yml repository.url", config["url"], address.repository),
        ("_config.yml repository.branch", config["branch"], address.branch),
        ("CITATION.cff repository-code", citation["repository-code"], address.repository),
    ]
    for path in _files(root):
        if path.suffix == ".ipynb":
            facts += [
                (f"notebooks/{path.name} install cell", source, install_cell(address)) for source in _installs(path)
            ]
        elif path.suffix == ".md":
            facts += [(f"{path.name} Colab link", link, address.colab("")) for link in _colab_links(path.read_text())]
    return [
        f"{place}: {found!r}, but pyproject.toml says {expected!r}"
        for place, found, expected in facts
        if found != expected
    ]


def _files(root: Path) -> Iterator[Path]:
    yield from (root / name for name in ("_config.yml", "CITATION.cff", "README.md"))
    yield from sorted((root / "book").glob("*.md"))
    yield from sorted((root / "notebooks").glob("*.ipynb"))
    yield root / "pyproject.toml"  # last: it says what the others are rewritten from, should this be cut off


def _rewrite_file(path: Path, old: Address, new: Address) -> bool:
    if not path.exists():
        return False
    before = path.read_text()
    after = _in_notebook(path, new) if path.suffix == ".ipynb" else _in_text(before, path.name, old, new)
    if after != before:
        write_whole(path, after)
    return after != before


def _in_text(text: str, name: str, old: Address, new: Address) -> str:
    text = text.replace(old.colab(""), new.colab("")).replace(old.repository, new.repository)
    if name == "pyproject.toml":
        text = re.sub(r'^branch = ".*"$', f'branch = "{new.branch}"', text, flags=re.MULTILINE)
        text = re.sub(r'^tag = ".*"$', f'tag = "{new.tag}"', text, flags=re.MULTILINE)
    if name == "_config.yml":
        text = re.sub(r"^  branch: .*$", f"  branch: {new.branch}", text, flags=re.MULTILINE)
    return text


def _in_notebook(path: Path, new: Address) -> str:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "install" in cell.metadata.get("tags", []):
            cell.source = install_cell(new)
    return nbformat.writes(notebook) + "\n"


def _installs(path: Path) -> list[str]:
    """Sources of the install cells; a notebook without one counts as an empty one."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if "install" in cell.metadata.get("tags", [])] or [""]


def _colab_links(text: str) -> list[str]:
    return [link for link in re.findall(re.escape(_COLAB) + r"[\w.-]+/[\w.-]+/blob/[\w.-]+/", text)]


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(
        prog="python -m mmn_utils.address", description="Move the book to another repository."
    )
    parser.add_argument("repository", nargs="?", help="https://HOST/OWNER/NAME; left out: the present one")
    parser.add_argument("--tag", help="tag that Colab installs")
    parser.add_argument("--branch", help="branch that launch buttons open")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a place shows another address")
    given = parser.parse_args(arguments)
    root = Path.cwd()
    if not (root / "pyproject.toml").exists():
        parser.error(f"no pyproject.toml in {root}: run this in the repository's root")
    if not given.check:
        fields = {"repository": given.repository, "tag": given.tag, "branch": given.branch}
        wanted = {name: value.rstrip("/").removesuffix(".git") for name, value in fields.items() if value}
        for path in rewrite(root, replace(read(root), **wanted)):
            print(f"rewritten: {path.relative_to(root)}")
    found = disagreements(root)
    print("\n".join(found) if found else f"everything says {read(root).repository}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
