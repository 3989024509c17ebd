"""Profiles: which models, which data, which sizes a run of the book uses.

A profile is a yaml file and nothing else; the dataclasses below are its grammar, field by field. Unknown keys are
refused, and so are folders that are not there. This module is the only one that knows where files live. A source is
written as one of

- `package:NAME`: the folder `mmn_utils/miniature/weights/NAME`, shipped with the package;
- `cache:PATH`: below the cache folder (`Profile.cache_folder`);
- a folder or file beginning with `/`, `./`, `../` (seen from the yaml file) or `~`;
- `miniature:NAME` (scenes only): drawn on first use into the cache folder;
- anything else (language model, encoder, BERT): the name of a model on the Hugging Face hub or in timm.

What comes from the hub is pinned: its `revision` is a commit, or says in so many words that it may move (`pinned`).
"""

import difflib
import os
import re
import reprlib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import platformdirs

from mmn_utils.untrusted import inside, is_plain, read_yaml

if TYPE_CHECKING:
    import torch

PRESETS = Path(__file__).parent / "presets"
WEIGHTS = Path(__file__).parent / "miniature" / "weights"
T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ProfileError(ValueError):
    """A profile that cannot be used as it stands; the message names the file and the key."""


@dataclass(frozen=True)
class LanguageModelSource:
    """Any causal language model of Hugging Face transformers."""

    source: str
    revision: str | None = None
    """Where the source is on the hub: its commit, see `pinned`."""
    tokenizer: str | None = None
    """Where the tokenizer comes from if not from `source`."""
    tokenizer_revision: str | None = None
    """The commit of a tokenizer with a source of its own."""
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
    num_layers: int = field(metadata={"between": (1, 1000)})
    revision: str | None = None


@dataclass(frozen=True)
class ClipSource:
    """A CLIP with a ModifiedResNet tower in open_clip's layout: a folder, or a repository of the hub (RN50x4 with
    OpenAI's weights is `timm/resnet50x4_clip.openai`)."""

    source: str
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
    clip: dict[str, ClipSource] = field(default_factory=dict)
    """CLIP models by name: `clip` is the one that is studied, the others are what it is compared with."""


@dataclass(frozen=True)
class SceneSource:
    """Images with captions and masks, in COCO's layout. All but the first two matter only to `miniature:` sources."""

    source: str
    split: str = "val"
    """Annotations are in `annotations/{instances,captions}_SPLIT.json`, images in `SPLIT/`."""
    n: int | None = field(default=None, metadata={"between": (1, 10**9)})
    """How many scenes to draw."""
    seed: int = field(default=0, metadata={"between": (0, 2**32)})
    """Added to the profile's seed."""
    styles: list[str] | None = None
    """Art sets to draw from; null means all."""
    n_objects: list[int] | None = None
    """How many objects a scene may have; null means the world's own mixture."""
    facets: list[str] | None = None
    """Facets of an album's pictures, `n` of each for each concept; null means the world's own mixture."""


@dataclass(frozen=True)
class Profile:
    """A profile as read; `file` and `cache` are the only machine-dependent parts."""

    name: str
    """Also the name of the folder of its results."""
    models: Models
    data: dict[str, SceneSource]
    """Scene sets by name; `scenes` is the one that chapters use if they say nothing else."""
    chapters: dict[str, dict[str, Any]]
    """Parameters of each chapter, by the chapter's name."""
    seed: int = field(default=0, metadata={"between": (0, 2**32)})
    device: Literal["cpu", "cuda", "auto"] = "auto"
    cache: str | None = None
    """Cache folder; null means the user's own. The environment variable MMN_CACHE goes before both."""
    engine: Literal["in-process", "ray"] = "in-process"
    """What computes the sweeps (`engines.py`): the chapter's own process, or the workers of a Ray cluster."""
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
        try:
            if scheme in {"package", "cache"}:
                return inside(WEIGHTS if scheme == "package" else self.cache_folder, rest)
        except ValueError as error:
            raise ProfileError(f"{self.file}: {source!r}: {error}") from error
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

    def check_names(self) -> None:
        """Refuse a name that is no folder's, and sources and splits that could be no place."""
        if not _NAME.fullmatch(self.name):
            raise ProfileError(
                f"{self.file}: name is {self.name!r}; it names the folder of the results: "
                "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
            )
        for key, text in (self.sources() | {f"data.{n}.split": s.split for n, s in self.data.items()}).items():
            if not text or not is_plain(text):
                raise ProfileError(f"{self.file}: {key} is {text!r}, which is empty or has a control character")
        for source in filter(self.is_file_source, self.sources().values()):
            self.path(source)

    def check_revisions(self) -> None:
        """Refuse a model of the hub that is not pinned."""
        parts = {name: getattr(self.models, name) for name in ("language_model", "vision_encoder", "bert")}
        clips = {f"clip.{name}": clip for name, clip in self.models.clip.items()}
        asked = {key: (part.source, part.revision) for key, part in {**parts, **clips}.items()}
        if (language := self.models.language_model).tokenizer is not None:
            asked["language_model.tokenizer"] = (language.tokenizer, language.tokenizer_revision)
        for key, (source, revision) in asked.items():
            if not self.is_file_source(source):
                try:
                    pinned(source, revision)
                except ValueError as error:
                    raise ProfileError(f"{self.file}: models.{key}: {error}") from error

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
        ProfileError: no such profile, not yaml, an unknown or missing key, a value of the wrong type, a missing folder,
            a model of the hub without its commit.
    """
    file = _find(name_or_path)
    profile = replace(_build(Profile, _load_yaml(file), file=file, key=""), file=file)
    profile.check_names()
    profile.check_revisions()
    if check_folders:
        profile.check_folders()
    return profile


def pinned(source: str, revision: str | None) -> str:
    """The revision of `source` to ask the hub for: a commit, or what follows `branch:`.

    A branch can point to other weights tomorrow, so that only a commit is taken as it stands.

    >>> pinned("gpt2", "branch:main")
    'main'

    Raises:
        ValueError: neither; the message says where to find the commit.
    """
    branch = (revision or "").removeprefix("branch:")
    if revision and (_COMMIT.fullmatch(revision) or (branch and branch != revision)):
        return branch
    raise ValueError(
        f"the revision of {source!r} is {revision!r}, expected a commit of 40 hexadecimal digits, which its page on "
        "the hub lists under Files, History. To take what a branch happens to hold, write branch:main"
    )


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
        content = read_yaml(file)
    except ValueError as error:
        raise ProfileError(str(error)) from error
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
    values = {n: _value(kinds[n], v, file=file, key=_dotted(key, n)) for n, v in content.items()}
    for name, value in values.items():
        limits = allowed[name].metadata.get("between")
        if limits and value is not None and not limits[0] <= value <= limits[1]:
            raise ProfileError(f"{file}: {_dotted(key, name)} is {value:,}, expected {limits[0]:,} to {limits[1]:,}")
    return cls(**values)


def _value(kind: Any, value: Any, *, file: Path, key: str) -> Any:
    """`value` if it is of `kind` (a dataclass, a dict of something, a union, a choice of words, or a plain type)."""
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, file=file, key=key)
    if get_origin(kind) is dict and isinstance(value, dict):
        inner = get_args(kind)[1]
        return {str(n): _value(inner, v, file=file, key=_dotted(key, n)) for n, v in value.items()}
    if not _fits(kind, value):
        hint = f"; {nearest(value, get_args(kind))}" if get_origin(kind) is Literal and isinstance(value, str) else ""
        raise ProfileError(f"{file}: {key} should be {_describe(kind)}, found {reprlib.repr(value)}{hint}")
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
        if is_dataclass(child) or isinstance(child, dict):
            found |= _walk_sources(child, _dotted(key, name))
        elif name in {"source", "tokenizer"} and child is not None:
            found[_dotted(key, name)] = child
    return found
