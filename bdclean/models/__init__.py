"""Networks by name, and the stages of any network."""

from bdclean.models.networks import Normalize, build_network
from bdclean.models.stages import Layer, find_stages, weights

__all__ = ["Layer", "Normalize", "build_network", "find_stages", "weights"]
