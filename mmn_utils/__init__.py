"""Helpers shared by the book's chapters: `profiles`, `data`, `models`, `neurons`, `metrics`, `results`, `plots`."""

from mmn_utils import _torchvision

_torchvision.install()

__version__ = "0.1.0"
