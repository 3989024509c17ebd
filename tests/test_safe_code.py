"""What the package's own source never does; ruff's rules against unsafe calls (S) do the rest."""

import ast
import tomllib
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "mmn_utils").rglob("*.py"))
READERS = {"mmn_utils/untrusted.py", "mmn_utils/miniature/art.py", "mmn_utils/miniature/album.py"}
"""Who opens images: the guarded reader, and those that open the package's own drawings."""


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def said(call: ast.Call, option: str) -> object:
    """The value of a literal keyword; None if it is not given."""
    return next((getattr(k.value, "value", "?") for k in call.keywords if k.arg == option), None)


def wrong(source: str, place: str) -> list[str]:
    """The calls in `source` that a reader of foreign files must not make."""
    found = []
    for call in calls(source):
        name = ast.unparse(call.func)
        if name.endswith("torch.load") and said(call, "weights_only") is not True:
            found.append(f"{name} without weights_only=True")
        if said(call, "trust_remote_code") not in (None, False):
            found.append(f"{name} with trust_remote_code")
        if name.endswith(".from_pretrained") and said(call, "trust_remote_code") is None and "hub." not in name:
            found.append(f"{name} that does not refuse remote code")
        if name.endswith(("extractall", "unpack_archive", "yaml.load", "yaml.unsafe_load", "load_model_from_hub")):
            found.append(name)
        if name == "Image.open" and place not in READERS:
            found.append("Image.open instead of untrusted.read_image")
    return found


@pytest.mark.parametrize("source", [
    "torch.load(f)", "torch.load(f, weights_only=False)", "AutoModel.from_pretrained(x)", "tar.extractall(p)",
    "AutoModel.from_pretrained(x, trust_remote_code=True)", "f(trust_remote_code=flag)", "Image.open(f)",
    "yaml.load(f)",
])  # fmt: skip
def test_the_check_sees_what_it_should(source):
    assert wrong(source, "mmn_utils/new.py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules(path):
    own = {"mmn_utils/miniature/stages.py"}  # the package's own tokenizer, a class that holds no code
    if str(path) not in own:
        assert wrong((REPOSITORY / path).read_text(), str(path)) == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_chapters(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "%" not in cell.source:
            assert wrong(cell.source, str(path)) == []


def test_ruff_looks_for_unsafe_calls():
    lint = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"] and not [rule for rule in lint["ignore"] if rule.startswith("S")]
    assert {folder for folder, rules in lint["per-file-ignores"].items() if "S" in rules} == {"tests/*"}
