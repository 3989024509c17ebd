"""Models of Hugging Face transformers, from a folder or the hub: one way to load them, quiet and strict."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from mmn_utils.models.weights import WeightsError


def load_pretrained(
    auto_class: Any, source: str, *, revision: str | None, cache: Path, **options: Any
) -> PreTrainedModel:
    """`auto_class.from_pretrained`, never running code from `source`, and refusing to leave a weight at random.

    Poolers are excepted: nothing here uses them, and models trained on masked words or patches come without.

    Raises:
        WeightsError: the checkpoint lacks tensors that the model needs; the message names them.
    """
    with _quiet():
        model, report = auto_class.from_pretrained(
            source,
            revision=revision or "main",
            cache_dir=cache,
            output_loading_info=True,
            trust_remote_code=False,
            **options,
        )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        names = ", ".join(missing[:5])
        raise WeightsError(f"{source} lacks {len(missing)} tensors of {type(model).__name__}: {names}, …")
    return model


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
