"""Helpers shared by the book's chapters: `profiles`, `data`, `models`, `neurons`, `metrics`, `results`, `plots`."""

import warnings

from mmn_utils import _torchvision

_torchvision.install()
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm misses a widget that no page could show

__version__ = "0.1.0"
