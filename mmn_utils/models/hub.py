"""Models of Hugging Face transformers, from a folder or the hub: one way to load them, pinned, quiet and strict."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.file_download import repo_folder_name
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from mmn_utils.models.weights import WeightsError, why
from mmn_utils.profiles import pinned


def load_pretrained(
    auto_class: Any, source: str, *, revision: str | None, cache: Path, **options: Any
) -> PreTrainedModel:
    """`auto_class.from_pretrained`, refusing to leave a weight at random.

    Poolers are excepted: nothing here uses them, and models trained on masked words or patches come without.

    Raises:
        WeightsError: as `from_pretrained`, or the checkpoint lacks tensors that the model needs.
    """
    with _quiet():
        model, report = from_pretrained(
            auto_class, source, revision=revision, cache=cache, output_loading_info=True, **options
        )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        names = ", ".join(missing[:5])
        raise WeightsError(f"{source} lacks {len(missing)} tensors of {type(model).__name__}: {names}, …")
    return model


def load_tokenizer(source: str, *, revision: str | None, cache: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or on the hub."""
    return from_pretrained(AutoTokenizer, source, revision=revision, cache=cache)


def settled(source: str, revision: str | None, cache: Path) -> str:
    """The revision to ask the hub for: a commit that the profile names, or what a branch meant when it was first
    fetched into `cache`, where the hub's library wrote it down. So a branch that moves does not change later runs.

    Raises:
        ValueError: see `mmn_utils.profiles.pinned`.
    """
    wanted = pinned(source, revision)
    noted = cache / repo_folder_name(repo_id=source, repo_type="model") / "refs" / wanted
    return noted.read_text(encoding="utf-8").strip() if noted.is_file() else wanted


def from_pretrained(auto_class: Any, source: str, *, revision: str | None, cache: Path, **options: Any) -> Any:
    """`auto_class.from_pretrained` of an absolute folder, or of a hub name at a revision that `pinned` accepts.

    Raises:
        WeightsError: what is there cannot be loaded, or only by running code that came with it, which is never done.
    """
    local = Path(source).is_absolute()
    revision = "main" if local else settled(source, revision, cache)
    try:
        return auto_class.from_pretrained(
            source, revision=revision, cache_dir=cache, trust_remote_code=False, **options
        )
    except Exception as error:  # the libraries below raise whatever comes, down to plain Exception
        remedy = "copy the folder again" if local else f"fetch it again into {cache}"
        raise WeightsError(
            f"{auto_class.__name__} cannot load {source}: {why(error)}; {remedy}, or name another"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and reports on a notebook's page; transformers is as talkative as before afterwards."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
