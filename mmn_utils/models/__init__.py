"""Loading models: the captioner and its parts."""

from mmn_utils.models.captioner import Captioner
from mmn_utils.models.weights import WeightsError

__all__ = ["Captioner", "WeightsError"]
