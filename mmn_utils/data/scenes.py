"""Open the scenes that a profile names; those of the miniature world are drawn on first use and kept."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from mmn_utils.data.coco import CocoScenes
from mmn_utils.profiles import Profile, ProfileError, SceneSource, nearest

WORLD = Path(__file__).parents[1] / "miniature"


def scenes(profile: Profile, name: str = "scenes") -> CocoScenes:
    """The scene set called `name` in the profile's `data`."""
    if name not in profile.data:
        raise ProfileError(f"{profile.file}: data.{name} is not there; {nearest(name, profile.data)}")
    source = profile.data[name]
    in_miniature = source.source.startswith("miniature:")
    return CocoScenes(drawn(profile, source) if in_miniature else profile.path(source.source), source.split)


def drawn(profile: Profile, source: SceneSource) -> Path:
    """The folder of the drawn scenes, named by a digest of what was asked for and of the code and art that drew it."""
    if source.n is None:
        raise ProfileError(f"{profile.file}: the scene source {source.source!r} needs n, the number of scenes to draw")
    wanted = {"seed": profile.seed + source.seed, "split": source.split}
    wanted |= {
        key: value for key in ("n", "styles", "n_objects", "facets") if (value := getattr(source, key)) is not None
    }
    asked = json.dumps(wanted | {"source": source.source}, sort_keys=True).encode()
    folder = profile.cache_folder / "miniature" / hashlib.sha256(asked + _world_digest()).hexdigest()[:16]
    return folder if folder.is_dir() else _draw(folder, source.source.partition(":")[2], wanted)


def _draw(folder: Path, what: str, wanted: dict) -> Path:
    """Draw into a temporary folder beside `folder`, then rename: a half-drawn world is never found."""
    from mmn_utils.miniature.album import write_album
    from mmn_utils.miniature.world import write_scenes

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="drawing_", dir=folder.parent))
    try:
        (write_album if what == "album" else write_scenes)(temporary, **wanted)
        if not folder.is_dir():  # another process may have been quicker
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _world_digest() -> bytes:
    """Digest of the code and art that draw scenes and write their captions."""
    code = [WORLD / f"{name}.py" for name in ("world", "album", "art", "concepts", "text", "lexicon")]
    digest = hashlib.sha256()
    for file in [*code, *sorted(path for path in (WORLD / "sources").iterdir() if path.is_file())]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.digest()
