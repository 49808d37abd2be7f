"""Building networks by name, recognising them from weights, and finding stages and channels of any network."""

from bdclean.networks.build import (
    Stem,
    build_network,
    channels_of,
    has_library,
    input_channels,
    is_own_class,
    usual_size,
)
from bdclean.networks.channels import Channels, find_channels, scale
from bdclean.networks.copies import check_gradient, check_trainable, duplicate, frozen, renewed
from bdclean.networks.cost import WithoutData, largest_layer
from bdclean.networks.finite import check_finite
from bdclean.networks.folding import folded
from bdclean.networks.normalization import Moments, Normalize, normalization
from bdclean.networks.outputs import Outputs, noise, outputs_of, plain, read_logits
from bdclean.networks.penultimate import last_layer, penultimate
from bdclean.networks.probe import channel_axis
from bdclean.networks.recognise import (
    Recognised,
    best_prefix,
    closest,
    last_rows,
    recognise,
    shapes_of,
    without,
)
from bdclean.networks.recognise_timm import of_transformers, recognise_timm
from bdclean.networks.stages import Layer, find_features, find_stages, weights

__all__ = [
    "Channels",
    "Layer",
    "Moments",
    "Normalize",
    "Outputs",
    "Recognised",
    "Stem",
    "WithoutData",
    "best_prefix",
    "build_network",
    "channel_axis",
    "channels_of",
    "check_finite",
    "check_gradient",
    "check_trainable",
    "closest",
    "duplicate",
    "find_channels",
    "find_features",
    "find_stages",
    "folded",
    "frozen",
    "has_library",
    "input_channels",
    "is_own_class",
    "largest_layer",
    "last_layer",
    "last_rows",
    "noise",
    "normalization",
    "of_transformers",
    "outputs_of",
    "penultimate",
    "plain",
    "read_logits",
    "recognise",
    "recognise_timm",
    "renewed",
    "scale",
    "shapes_of",
    "usual_size",
    "weights",
    "without",
]
