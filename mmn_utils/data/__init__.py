"""Images, captions and masks: `scenes(profile)` opens what a profile names, drawn or photographed."""

from mmn_utils.data.classes import Pictures
from mmn_utils.data.coco import CocoScenes, SceneObject
from mmn_utils.data.scenes import scenes

__all__ = ["CocoScenes", "Pictures", "SceneObject", "scenes"]
