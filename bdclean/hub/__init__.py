"""Networks in the format of transformers and timm: a folder with a configuration, weights and a processor."""

from bdclean.hub.bounds import TooLargeError, bounded
from bdclean.hub.configs import Description, describe, names_of
from bdclean.hub.folders import CONFIG, PROCESSORS, WEIGHTS, Folder, find
from bdclean.hub.networks import build, is_transformers, loaded, model_type

__all__ = [
    "CONFIG",
    "PROCESSORS",
    "WEIGHTS",
    "Description",
    "Folder",
    "TooLargeError",
    "bounded",
    "build",
    "describe",
    "find",
    "is_transformers",
    "loaded",
    "model_type",
    "names_of",
]
