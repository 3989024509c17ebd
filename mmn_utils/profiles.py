"""Profiles: which models, which data, which sizes a run of the book uses.

A profile is a yaml file and nothing else; the dataclasses below are its grammar, field by field. Unknown keys are
refused, and so are folders that are not there. This module is the only one that knows where files live. A source is
written as one of

- `package:NAME`: the folder `mmn_utils/miniature/weights/NAME`, shipped with the package;
- `cache:PATH`: below the cache folder (`Profile.cache_folder`);
- a folder or file beginning with `/`, `./`, `../` (seen from the yaml file) or `~`;
- `miniature:NAME` (scenes only): drawn on first use into the cache folder;
- anything else (language model, encoder, BERT): the name of a model on the Hugging Face hub or in timm.
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import platformdirs
import yaml

if TYPE_CHECKING:
    import torch

PRESETS = Path(__file__).parent / "presets"
WEIGHTS = Path(__file__).parent / "miniature" / "weights"
T = TypeVar("T")


class ProfileError(ValueError):
    """A profile that cannot be used as it stands; the message names the file and the key."""


@dataclass(frozen=True)
class LanguageModelSource:
    """Any causal language model of Hugging Face transformers."""

    source: str
    revision: str | None = None
    """Commit or branch on the hub."""
    tokenizer: str | None = None
    """Where the tokenizer comes from if not from `source`."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """The type to compute in, whatever the weights are stored as."""
    device_map: str | None = None
    """accelerate's way to spread a large model (`auto`); null puts all of it on `device`."""


@dataclass(frozen=True)
class VisionEncoderSource:
    """A timm model, or a transformers model with one class token before its patches (BEIT)."""

    source: str
    library: Literal["timm", "transformers"] = "timm"
    revision: str | None = None


@dataclass(frozen=True)
class ProjectionSource:
    """One linear layer with bias: a folder with `proj.safetensors`, or a state dict (`.safetensors`, `.ckpt`)."""

    source: str
    checksum: str | None = None
    """`sha256:HEX`, or `git-blob:HEX` (what `git hash-object FILE` prints)."""


@dataclass(frozen=True)
class BertSource:
    """The model behind BERTScore, and the layer whose states it compares."""

    source: str
    num_layers: int
    revision: str | None = None


@dataclass(frozen=True)
class Models:
    """Everything that is loaded."""

    language_model: LanguageModelSource
    vision_encoder: VisionEncoderSource
    projection: ProjectionSource
    bert: BertSource
    prompt: str = "A picture of"
    """The words between the image prompts and the caption."""


@dataclass(frozen=True)
class SceneSource:
    """Images with captions and masks, in COCO's layout. All but the first two matter only to `miniature:` sources."""

    source: str
    split: str = "val"
    """Annotations are in `annotations/{instances,captions}_SPLIT.json`, images in `SPLIT/`."""
    n: int | None = None
    """How many scenes to draw."""
    seed: int = 0
    """Added to the profile's seed."""
    styles: list[str] | None = None
    """Art sets to draw from; null means all."""
    n_objects: list[int] | None = None
    """How many objects a scene may have; null means the world's own mixture."""


@dataclass(frozen=True)
class Profile:
    """A profile as read; `file` and `cache` are the only machine-dependent parts."""

    name: str
    models: Models
    data: dict[str, SceneSource]
    """Scene sets by name; `scenes` is the one that chapters use if they say nothing else."""
    chapters: dict[str, dict[str, Any]]
    """Parameters of each chapter, by the chapter's name."""
    seed: int = 0
    device: Literal["cpu", "cuda", "auto"] = "auto"
    cache: str | None = None
    """Cache folder; null means the user's own. The environment variable MMN_CACHE goes before both."""
    file: Path = field(default=Path(), metadata={"in_yaml": False})
    """The yaml file that this was read from."""

    @property
    def cache_folder(self) -> Path:
        """Where downloaded and drawn files are kept (made when first written to)."""
        if chosen := os.environ.get("MMN_CACHE"):
            return Path(chosen).expanduser().absolute()
        return self._from_file(self.cache) if self.cache else Path(platformdirs.user_cache_dir("mmn_utils"))

    @property
    def torch_device(self) -> "torch.device":
        """The device to compute on; `auto` takes a GPU if there is one."""
        import torch

        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise ProfileError(f"{self.file}: device is cuda, but torch {torch.__version__} sees no GPU; use auto")
        return torch.device("cuda" if available and self.device != "cpu" else "cpu")

    def is_file_source(self, source: str) -> bool:
        """Whether `source` is a place on this machine (and not a hub or timm name)."""
        return source.startswith(("package:", "cache:", "/", "./", "../", "~"))

    def path(self, source: str) -> Path:
        """The folder or file that `source` stands for, whether or not it exists."""
        scheme, _, rest = source.partition(":")
        if scheme == "package":
            return WEIGHTS / rest
        if scheme == "cache":
            return self.cache_folder / rest
        if self.is_file_source(source):
            return self._from_file(source)
        raise ProfileError(f"{self.file}: {source!r} is no file or folder; begin it with package:, cache:, / or ./")

    def locate(self, source: str) -> str:
        """`source` as the libraries want it: a path if it is one, else the hub or timm name untouched."""
        return str(self.path(source)) if self.is_file_source(source) else source

    def sources(self) -> dict[str, str]:
        """Every source by its dotted key."""
        return dict(_walk_sources(self.models, "models") | _walk_sources(self.data, "data"))

    def files(self) -> list[Path]:
        """All weight files on this machine that the profile names, sorted (a hub's are pinned by revision instead)."""
        sources = [source for key, source in self.sources().items() if key.startswith("models.")]
        places = {self.path(source) for source in sources if self.is_file_source(source)}
        found = (file for place in places for file in [place, *place.rglob("*")])
        return sorted(file for file in found if file.is_file())

    def check_folders(self) -> None:
        """Refuse a folder or file that is not there; shipped weights have their own check when they are loaded."""
        for key, source in self.sources().items():
            local = self.is_file_source(source) and not source.startswith("package:")
            if local and not self.path(source).exists():
                raise ProfileError(
                    f"{self.file}: {key} is {source!r}, but {self.path(source)} does not exist; "
                    "put it there (comments in the profile say where it comes from) or change the profile"
                )

    def chapter_parameters(self, chapter: str) -> dict[str, Any]:
        """What papermill passes to `chapter`: `profile` and the chapter's own entries."""
        preset = self.file.parent == PRESETS
        return {"profile": self.name if preset else str(self.file), **self.chapters.get(chapter, {})}

    def _from_file(self, path: str) -> Path:
        return (self.file.parent / Path(path).expanduser()).resolve()


def presets() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(file.stem for file in PRESETS.glob("*.yml"))


def read(name_or_path: str | Path, *, check_folders: bool = True) -> Profile:
    """Read a profile by name (`miniature`) or by the path of a yaml file, and refuse what is wrong with it.

    Raises:
        ProfileError: no such profile, not yaml, an unknown or missing key, a value of the wrong type, a missing folder.
    """
    file = _find(name_or_path)
    profile = replace(_build(Profile, _load_yaml(file), file=file, key=""), file=file)
    if check_folders:
        profile.check_folders()
    return profile


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate closest in spelling to `name`, or all of them if none is close."""
    candidates = sorted(candidates)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(candidates) or 'none'}"


def _find(name_or_path: str | Path) -> Path:
    """The yaml file of a preset's name or of a path."""
    text = str(name_or_path)
    if text in presets():
        return PRESETS / f"{text}.yml"
    path = Path(text).expanduser()
    if path.is_file():
        return path.absolute()
    if path.suffix in {".yml", ".yaml"} or len(path.parts) > 1:
        raise ProfileError(f"profile file {path} does not exist (seen from {Path.cwd()})")
    raise ProfileError(f"no profile is called {text!r}; {nearest(text, presets())} (or give the path of a yaml file)")


def _load_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{file}: not a yaml file: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{file}: expected a mapping of keys to values, found {type(content).__name__}")
    return content


def _build(cls: type[T], content: dict[str, Any], *, file: Path, key: str) -> T:
    """An instance of the dataclass `cls` from `content`, which stands under the dotted `key` of `file`."""
    allowed = {f.name: f for f in fields(cls) if f.metadata.get("in_yaml", True)}
    for name in content:
        if name not in allowed:
            raise ProfileError(f"{file}: unknown key {_dotted(key, name)!r}; {nearest(str(name), allowed)}")
    for name, f in allowed.items():
        if name not in content and f.default is MISSING and f.default_factory is MISSING:
            raise ProfileError(f"{file}: missing key {_dotted(key, name)!r}")
    kinds = get_type_hints(cls)
    return cls(**{n: _value(kinds[n], v, file=file, key=_dotted(key, n)) for n, v in content.items()})


def _value(kind: Any, value: Any, *, file: Path, key: str) -> Any:
    """`value` if it is of `kind` (a dataclass, a dict of something, a union, a choice of words, or a plain type)."""
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, file=file, key=key)
    if get_origin(kind) is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {str(n): _value(inner, v, file=file, key=_dotted(key, n)) for n, v in value.items()}
    if not _fits(kind, value):
        raise ProfileError(f"{file}: {key} should be {_describe(kind)}, found {value!r}")
    return value


def _fits(kind: Any, value: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, UnionType):
        return any(_fits(option, value) for option in get_args(kind))
    if get_origin(kind) is dict:
        return False  # `_value` has taken the mappings out already
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(get_args(kind)[0], item) for item in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if isinstance(kind, UnionType):
        return " or ".join(_describe(option) for option in get_args(kind))
    if get_origin(kind) is list:
        return f"a list, each {_describe(get_args(kind)[0])},"
    if get_origin(kind) is dict or is_dataclass(kind):
        return "a mapping"
    return {NoneType: "null", int: "a whole number", str: "a string", bool: "true or false"}.get(kind, kind.__name__)


def _dotted(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _walk_sources(node: Any, key: str) -> dict[str, str]:
    """Every `source` (and `tokenizer`) below `node`, by dotted key."""
    children = node.items() if isinstance(node, dict) else ((f.name, getattr(node, f.name)) for f in fields(node))
    found = {}
    for name, child in children:
        if is_dataclass(child):
            found |= _walk_sources(child, _dotted(key, name))
        elif name in {"source", "tokenizer"} and child is not None:
            found[_dotted(key, name)] = child
    return found
