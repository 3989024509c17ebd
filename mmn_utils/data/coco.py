"""Scenes in COCO's layout, read through pycocotools.

    FOLDER/annotations/instances_SPLIT.json     objects with masks
    FOLDER/annotations/captions_SPLIT.json      captions
    FOLDER/SPLIT/                               images

COCO itself and the miniature world are both kept this way: nothing after this point knows which one it looks at.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO


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
        ValueError: an annotation file that is not COCO's JSON.
    """

    def __init__(self, folder: str | Path, split: str = "val") -> None:
        self.folder = Path(folder)
        self.split = split
        self.image_folder = self._existing(Path(split))
        self._instances = _read(self._existing(Path("annotations") / f"instances_{split}.json"))
        self._captions = _read(self._existing(Path("annotations") / f"captions_{split}.json"))
        self.ids: list[int] = sorted(self._instances.getImgIds())
        """Every image id, ascending."""
        self.categories: list[str] = sorted(c["name"] for c in self._instances.loadCats(self._instances.getCatIds()))
        """Every category name, in alphabetical order."""

        self.families: dict[str, str] = {
            c["name"]: c.get("supercategory", c["name"]) for c in self._instances.cats.values()
        }
        """The family of every category, COCO's "supercategory" (`animal`); the category itself where there is none."""

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
        path = self.image_folder / self.info(image_id)["file_name"]
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"image {image_id}: {path} is missing though the annotations list it") from error
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of these for damaged files
            raise OSError(f"image {image_id}: {path} cannot be read ({error}); delete it and fetch it again") from error

    def captions(self, image_id: int) -> list[str]:
        """What people (or the miniature world) wrote about the image, in the file's order."""
        self.info(image_id)
        return [annotation["caption"].strip() for annotation in self._captions.imgToAnns[image_id]]

    def objects(self, image_id: int) -> list[SceneObject]:
        """The objects of the image; regions marked as crowds are left out, as is usual."""
        self.info(image_id)
        annotations = self._instances.loadAnns(self._instances.getAnnIds(imgIds=[image_id], iscrowd=False))
        return [self._object(annotation) for annotation in annotations]

    def _object(self, annotation: dict[str, Any]) -> SceneObject:
        return SceneObject(
            name=self._instances.cats[annotation["category_id"]]["name"],
            mask=self._instances.annToMask(annotation).astype(bool),
            box=tuple(annotation["bbox"]),
            area=float(annotation["area"]),
        )

    def _existing(self, part: Path) -> Path:
        path = self.folder / part
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; expected COCO's layout in {self.folder}")
        return path


def _read(file: Path) -> COCO:
    """pycocotools' index of `file`, without its prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(file))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{file} is not a COCO annotation file: {error!r}") from error
