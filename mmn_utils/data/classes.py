"""Images by what they show: scenes in which only one category is annotated, or folders named by class.

Folders are FOLDER/SPLIT/CLASS/*.JPEG, as ImageNet's training images, and both splits of Imagenette, are kept.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmn_utils.data.coco import CocoScenes
from mmn_utils.data.scenes import scenes
from mmn_utils.profiles import Profile, nearest
from mmn_utils.untrusted import inside, read_image

ENDINGS = {".jpeg", ".jpg", ".png"}
Reader = Callable[[], Image.Image]


class Pictures:
    """Images from anywhere, numbered from 0, where scenes could stand."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = list(images)

    def image(self, number: int) -> Image.Image:
        """One of them."""
        return self.images[number]

    @property
    def identity(self) -> dict[str, str]:
        """What the key of a sweep over these images says of them: a digest of all pixels."""
        seen = hashlib.sha256()
        for image in self.images:
            seen.update(f"{image.mode} {image.size} ".encode() + image.tobytes())
        return {"pixels": seen.hexdigest()}


def alone(annotated: CocoScenes) -> dict[str, list[int]]:
    """For each category the images, ascending, in which it is annotated and nothing else is; any number of instances.

    The category with most images comes first; of equal ones the alphabetically first.
    """
    found: dict[str, list[int]] = {}
    for image in annotated.ids:
        names = {o.name for o in annotated.objects(image)}
        if len(names) == 1:
            found.setdefault(names.pop(), []).append(image)
    return dict(sorted(found.items(), key=_by_size))


def class_images(
    profile: Profile, name: str, classes: Sequence[str], n: int, *, seed: int = 0
) -> list[list[Image.Image]]:
    """`n` random images of each class from the profile's `data.NAME`, RGB; all if there are fewer.

    A class is written `label`, or `label=folder` where they differ (`tench=n01440764`). Data in COCO's layout give
    the images in which only that category is annotated (`alone`); other data are folders by class.

    Raises:
        ValueError: a class without images; the message gives the nearest name.
        FileNotFoundError: neither annotations nor folders are where the profile says.
    """
    found = _annotated(profile, name) if _has_annotations(profile, name) else _folders(_split_folder(profile, name))
    rng = np.random.default_rng(seed)
    return [[read() for read in _draw(found, folder_of(c), n, rng)] for c in classes]


def label_of(name: str) -> str:
    """What a class is called.

    >>> label_of("tench=n01440764"), label_of("dog")
    ('tench', 'dog')
    """
    return name.partition("=")[0]


def folder_of(name: str) -> str:
    """Where a class is kept: the part after `=`, or the label."""
    return name.partition("=")[2] or name


def _has_annotations(profile: Profile, name: str) -> bool:
    drawn = profile.data[name].source.startswith("miniature:")
    return drawn or (_split_folder(profile, name).parent / "annotations").is_dir()


def _split_folder(profile: Profile, name: str) -> Path:
    return inside(profile.path(profile.data[name].source), profile.data[name].split)


def _draw(found: dict[str, list[Reader]], name: str, n: int, rng: np.random.Generator) -> list[Reader]:
    if not found.get(name):
        raise ValueError(f"no images of class {name!r}; {nearest(name, found)}")
    return [found[name][i] for i in sorted(rng.permutation(len(found[name]))[:n].tolist())]


def _annotated(profile: Profile, name: str) -> dict[str, list[Reader]]:
    source = scenes(profile, name)
    return {category: [partial(source.image, i) for i in ids] for category, ids in alone(source).items()}


def _folders(folder: Path) -> dict[str, list[Reader]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; expected a folder for each class in it")
    files = {child.name: sorted(child.iterdir()) for child in sorted(folder.iterdir()) if child.is_dir()}
    return {
        name: [partial(read_image, f) for f in inside if f.suffix.lower() in ENDINGS] for name, inside in files.items()
    }


def _by_size(item: tuple[str, list[int]]) -> tuple[int, str]:
    return -len(item[1]), item[0]
