"""pyproject.toml, constraints.txt and environment.yml name the same packages with bounds that fit."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LIST = [
    "torch",
    "transformers",
    "timm",
    "jupyter-book",
    "papermill",
    "matplotlib",
    "seaborn",
    "pycocotools",
    "bert-score",
    "open-clip-torch",
]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(*extras):
    listed = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {canonical(Requirement(line).name): Requirement(line) for line in listed}


def pins():
    lines = [
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
    ]
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def conda():
    content = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in content if isinstance(entry, dict)]
    return content, {canonical(Requirement(line).name): Requirement(line) for line in pip if not line.startswith("-")}


def test_the_basis_is_required():
    assert set(LIST) <= set(requirements("book"))


def test_environment_yml_asks_for_the_same():
    content, listed = conda()
    expected = requirements("book", "test")
    assert {name: str(r.specifier) for name, r in listed.items()} == {
        name: str(r.specifier) for name, r in expected.items()
    }
    assert f"python{PROJECT['requires-python']}" in content


@pytest.mark.parametrize("extra", [None, "book", "paper", "ray", "train", "test"])
def test_constraints_pin_every_requirement_within_its_bounds(extra):
    for name, requirement in requirements(*([extra] if extra else [])).items():
        assert name in pins(), f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(pins()[name]), f"{requirement} does not allow {pins()[name]}"


def test_only_the_book_tool_has_an_upper_bound():
    capped = {name for name, r in requirements("book", "paper", "train", "test").items() if "<" in str(r.specifier)}
    assert capped == {"jupyter-book"}


def test_torch_and_torchvision_match_and_no_cuda_package_is_pinned():
    assert (pins()["torch"], pins()["torchvision"]) == ("2.13.0", "0.28.0")
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]
    assert not [version for version in pins().values() if "+" in version]


def test_binder_installs_this_package_within_its_bounds():
    folder = REPOSITORY / ".binder"
    version = re.fullmatch(r"python-(\d+\.\d+)\n", (folder / "runtime.txt").read_text()).group(1)
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    (constraints,) = [line.removeprefix("-c ") for line in lines if line.startswith("-c ")]
    assert (folder / constraints).resolve() == REPOSITORY / "constraints.txt"
    assert lines[-1] == "." and "cpu" in lines[0], "the package from the repository's root; torch without CUDA"
