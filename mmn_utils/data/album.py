"""Pictures of concepts in several facets (photo, drawing, text, logo), with the truth about each (Part II).

A folder with `album.json` and images. `concepts`: one record a concept (`key`, `word`, `family`, `prompt`, `written`:
the words that mean it, `icons`: for a feeling, the cues it is made of). `pictures`: one record an image (`file`,
`concept`, `facet`, `caption`; and, as far as known, `cue`, `hand`, `written`, `ink`, `others`).
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
from PIL import Image

from mmn_utils.data.scenes import drawn
from mmn_utils.profiles import Profile, ProfileError, nearest
from mmn_utils.untrusted import inside, read_image, read_json

NEEDED = {"concepts": {"key", "word", "family", "prompt", "written"}, "pictures": {"file", "concept", "facet"}}


class Album:
    """An album on disk.

    Raises:
        FileNotFoundError: no `album.json` in the folder.
        ValueError: it lacks a list or a key, or a picture shows a concept that is not listed; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, file = folder, folder / "album.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; an album is a folder with album.json and its images")
        content = read_json(file)
        for name, keys in NEEDED.items():
            records = content.get(name) if isinstance(content, dict) else None
            if not isinstance(records, list) or not records or not all(map(keys.issubset, records)):
                raise ValueError(f"{file}: expected a list {name!r} of records with {', '.join(sorted(keys))}")
        self.concepts = pd.DataFrame(content["concepts"]).set_index("key", drop=False)
        """One row a concept, by key."""
        self.pictures = pd.DataFrame(content["pictures"])
        """One row a picture, numbered from 0."""
        if unknown := sorted(set(self.pictures.concept) - set(self.concepts.key)):
            raise ValueError(f"{file}: picture of {unknown[0]!r}, which is no listed concept")

    def image(self, number: int) -> Image.Image:
        """Picture `number`, RGB."""
        return read_image(inside(self.folder, self.pictures.file.iloc[number]))

    def images(self, numbers: Sequence[int]) -> list[Image.Image]:
        """Several pictures, RGB."""
        return [self.image(int(n)) for n in numbers]

    @cached_property
    def concept_number(self) -> pd.Series:
        """Row of `concepts` that each picture shows, int [picture]."""
        return self.pictures.concept.map({key: i for i, key in enumerate(self.concepts.key)})


def album(profile: Profile, name: str = "album") -> Album:
    """The album called `name` in the profile's `data`; the miniature's are drawn on first use and kept."""
    if name not in profile.data:
        raise ProfileError(f"{profile.file}: data.{name} is not there; {nearest(name, profile.data)}")
    source = profile.data[name]
    in_miniature = source.source.startswith("miniature:")
    return Album(drawn(profile, source) if in_miniature else profile.path(source.source) / source.split)
