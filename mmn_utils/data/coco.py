"""Scenes in COCO's layout, read through pycocotools.

    FOLDER/annotations/instances_SPLIT.json     objects with masks
    FOLDER/annotations/captions_SPLIT.json      captions
    FOLDER/SPLIT/                               images

COCO itself and the miniature world are both kept this way: nothing after this point knows which one it looks at.
"""

import contextlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as polygons
from pycocotools.coco import COCO

from mmn_utils.untrusted import as_visible, check_size, inside, read_image, read_json

_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int},
}
_INSTANCE = {"category_id": int, "bbox": list, "area": (int, float), "segmentation": (list, dict), "iscrowd": int}
_CAPTION = {"caption": str}
"""What an annotation has besides, in either file."""


@dataclass(frozen=True)
class SceneObject:
    """One annotated object of a scene."""

    name: str
    """Category, in COCO's words (`traffic light`)."""
    mask: np.ndarray
    """bool [y, x], the size of the image."""
    box: tuple[float, float, float, float]
    """Left, top, width, height in pixels."""
    area: float
    """Pixels inside the mask, as annotated."""


class CocoScenes:
    """The scenes of one split. Images and masks are read when asked for; annotations at once.

    Raises:
        FileNotFoundError: a part of the layout above is not there; the message names it.
        ValueError: an annotation file that is not COCO's JSON; the message names the record.
    """

    def __init__(self, folder: str | Path, split: str = "val") -> None:
        self.folder = Path(folder)
        self.split = split
        self.image_folder = self._existing(split)
        self._instances = _read(self._existing(f"annotations/instances_{split}.json"), _INSTANCE)
        self._captions = _read(self._existing(f"annotations/captions_{split}.json"), _CAPTION)
        self.ids: list[int] = sorted(self._instances.getImgIds())
        """Every image id, ascending."""
        self.categories: list[str] = sorted(c["name"] for c in self._instances.loadCats(self._instances.getCatIds()))
        """Every category name, in alphabetical order."""

        self.families: dict[str, str] = {
            c["name"]: c.get("supercategory", c["name"]) for c in self._instances.cats.values()
        }
        """The family of every category, COCO's "supercategory" (`animal`); the category itself where there is none."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the key of a sweep over these scenes says of them."""
        return {"folder": self.folder.name, "split": self.split, "n": len(self)}

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        """As its folder and split: another process reads the annotations itself."""
        return type(self), (self.folder.absolute(), self.split)

    def __len__(self) -> int:
        return len(self.ids)

    def info(self, image_id: int) -> dict[str, Any]:
        """COCO's own record of the image (`file_name`, `width`, `height`; the miniature adds `style`)."""
        try:
            return self._instances.imgs[image_id]
        except KeyError:
            where = f"split {self.split!r} in {self.folder}"
            raise KeyError(f"image {image_id} is not among the {len(self.ids)} images of {where}") from None

    def image(self, image_id: int) -> Image.Image:
        """The image, RGB."""
        path = inside(self.image_folder, self.info(image_id)["file_name"])
        try:
            return read_image(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"image {image_id}: {path} is missing though the annotations list it") from error
        except OSError as error:
            raise OSError(f"image {image_id}: {error}") from error

    def captions(self, image_id: int) -> list[str]:
        """What people (or the miniature world) wrote about the image, in the file's order; control characters are
        written out (`\\x1b`)."""
        self.info(image_id)
        return [as_visible(annotation["caption"].strip()) for annotation in self._captions.imgToAnns[image_id]]

    def objects(self, image_id: int) -> list[SceneObject]:
        """The objects of the image; regions marked as crowds are left out, as is usual.

        Raises:
            ValueError: an outline or a mask that does not fit the image; the message names the annotation.
        """
        size = self.info(image_id)["height"], self.info(image_id)["width"]
        annotations = self._instances.loadAnns(self._instances.getAnnIds(imgIds=[image_id], iscrowd=False))
        return [self._object(annotation, size) for annotation in annotations]

    def _object(self, annotation: dict[str, Any], size: tuple[int, int]) -> SceneObject:
        try:
            mask = mask_of(annotation["segmentation"], size)
        except (ValueError, TypeError, KeyError) as error:
            where = f"annotation {annotation['id']} of image {annotation['image_id']} in {self.folder}"
            raise ValueError(f"{where}: {error!r}; leave the annotation out or fetch the file again") from error
        return SceneObject(
            name=self._instances.cats[annotation["category_id"]]["name"],
            mask=mask,
            box=tuple(annotation["bbox"]),
            area=float(annotation["area"]),
        )

    def _existing(self, part: str) -> Path:
        path = inside(self.folder, part)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; expected COCO's layout in {self.folder}")
        return path


def mask_of(segmentation: list[Any] | dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons [x0, y0, x1, y1, ...], or its run lengths, as a mask, bool [y, x]; `size`: height, width.

    pycocotools trusts both: corners far outside keep it busy for ever, and runs too short leave the mask undefined.

    Raises:
        ValueError: corners beyond the image's width or height around it, or runs that do not cover it exactly.
    """
    if isinstance(segmentation, list):
        return _filled(segmentation, size)
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"the mask is {segmentation['size']} (height, width), the image {list(size)}")
    counts = segmentation["counts"]
    runs = np.array(counts, dtype=np.int64) if isinstance(counts, list) else run_lengths(counts)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"the mask's runs add up to {runs.sum():,} pixels, the image has {size[0] * size[1]:,}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order="F")


def run_lengths(text: str) -> np.ndarray:
    """COCO's compressed run lengths, int [run]: background, object, background, ..., column by column.

    Each character holds five bits and, in the sixth, whether more of the same number follow, lowest first; the last
    one's fifth bit is the sign. From the fourth number on, each is the difference from the one two before it.
    """
    bits = np.frombuffer(text.encode("ascii", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((bits & 32) == 0)
    starts = np.r_[0, last[:-1] + 1]
    lengths = last - starts + 1
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or last[-1:] != [len(bits) - 1] or lengths.max() > 7:
        raise ValueError("the mask's run lengths are not as COCO writes them")
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((bits & 31) << (5 * place), starts) - ((bits[last] & 16) > 0) * (1 << (5 * lengths))
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def _filled(corners: list[Any], size: tuple[int, int]) -> np.ndarray:
    height, width = size
    for polygon in corners:
        points = np.array(polygon, dtype=float)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon of {points.size} numbers, expected x and y of three corners or more")
        near = (np.abs(points[::2] - width / 2) <= 1.5 * width) & (np.abs(points[1::2] - height / 2) <= 1.5 * height)
        if not near.all():  # NaN is not near either
            raise ValueError(f"a polygon with corners far outside the image of {width} x {height}")
    if not corners:
        return np.zeros(size, dtype=bool)
    return polygons.decode(polygons.merge(polygons.frPyObjects(corners, height, width))).astype(bool)


def _read(file: Path, special: dict[str, Any]) -> COCO:
    """pycocotools' index of `file`, without its prints."""
    coco = COCO()
    try:
        coco.dataset = read_json(file)
        _check(coco.dataset, special)
    except ValueError as error:
        raise ValueError(f"{file} is not a COCO annotation file: {error}") from error
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _check(content: Any, special: dict[str, Any]) -> None:
    """Refuse records that are not as COCO's are."""
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping, found {type(content).__name__}")
    wanted = dict(_FIELDS, annotations=_FIELDS["annotations"] | special)
    if special is _CAPTION:
        del wanted["categories"]
    found = {part: _records(content.get(part), part, kinds) for part, kinds in wanted.items()}
    for image in found["images"].values():
        inside(Path(), image["file_name"])
        check_size(image["width"], image["height"])
    for annotation in found["annotations"].values():
        _check_annotation(annotation, found)


def _records(records: Any, part: str, kinds: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The records of one part by their id."""
    if not isinstance(records, list):
        raise ValueError(f"{part} should be a list, found {type(records).__name__}")
    by_id: dict[int, dict[str, Any]] = {}
    for place, record in enumerate(records):
        for name, kind in kinds.items():
            if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                found = repr(record.get(name) if isinstance(record, dict) else record)
                raise ValueError(f"{part}[{place}] should have a proper {name!r}, found {found:.80}")
        by_id[record["id"]] = record
    if len(by_id) != len(records):
        raise ValueError(f"{len(records) - len(by_id)} of {part} have an id that another one has")
    return by_id


def _check_annotation(annotation: dict[str, Any], found: dict[str, dict[int, Any]]) -> None:
    where = f"annotation {annotation['id']}"
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        if key in annotation and annotation[key] not in found.get(part, {}):
            raise ValueError(f"{where}: its {key} {annotation[key]} is not among the {part}")
    numbers = [*annotation.get("bbox", [0] * 4), annotation.get("area", 0)]
    if len(numbers) != 5 or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
        raise ValueError(f"{where}: bbox and area should be five finite numbers, found {numbers!r:.80}")
