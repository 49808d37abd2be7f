"""Networks by name, which network weights belong to, and the stages and channels of any network."""

from bdclean.models.channels import Channels, find_channels, scale
from bdclean.models.folding import folded
from bdclean.models.networks import (
    Normalize,
    Stem,
    build_network,
    input_channels,
    is_own_class,
    normalization,
    usual_size,
)
from bdclean.models.probe import channel_axis
from bdclean.models.recognise import (
    Recognised,
    WithoutData,
    best_prefix,
    closest,
    largest_layer,
    last_rows,
    recognise,
    shapes_of,
    without,
)
from bdclean.models.stages import Layer, find_features, find_stages, weights

__all__ = [
    "Channels",
    "Layer",
    "Normalize",
    "Recognised",
    "Stem",
    "WithoutData",
    "best_prefix",
    "build_network",
    "channel_axis",
    "closest",
    "find_channels",
    "find_features",
    "find_stages",
    "folded",
    "input_channels",
    "is_own_class",
    "largest_layer",
    "last_rows",
    "normalization",
    "recognise",
    "scale",
    "shapes_of",
    "usual_size",
    "weights",
    "without",
]
