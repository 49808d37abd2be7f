"""Initial weights of a training, from a network that may have other classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bdclean.checkpoint import Checkpoint, read
from bdclean.errors import Given
from bdclean.modules.identify import identify
from bdclean.modules.weights import load_weights
from bdclean.networks import build_network

PARAMETER = "model.weights"
"""The parameter that names the file of the weights."""


@dataclass(frozen=True)
class Start:
    """A network to start from.

    Attributes:
        checkpoint: The checkpoint of the network.
        arguments: Arguments of a Suspect that build the network.
    """

    checkpoint: Checkpoint
    arguments: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes in the file."""
        return int(self.arguments["num_classes"])

    def load_into(self, network: nn.Module) -> list[str]:
        """Load the weights into a network of the same architecture, which may have another number of classes.

        Args:
            network: The network. It keeps its values of each tensor whose shape depends on the number of classes.

        Returns:
            The names of these tensors; empty if both networks have the same number of classes.

        Raises:
            InputError: If the weights do not fit.
        """
        arch, option = self.arguments["arch"], Given(PARAMETER, self.checkpoint.path)
        stem, arch_kwargs = self.arguments.get("stem"), self.arguments.get("arch_kwargs")
        pretrained = build_network(arch, self.num_classes, self.arguments["image_size"], stem, arch_kwargs)
        load_weights(pretrained, arch, self.num_classes, self.checkpoint, option)
        initial = network.state_dict()
        fitting = {name: value for name, value in pretrained.state_dict().items() if value.shape == initial[name].shape}
        network.load_state_dict({**initial, **fitting})
        return [name for name in initial if name not in fitting]


def start_from(path: str, given: Mapping[str, Any], image_size: int) -> Start:
    """Read a network to start from.

    Args:
        path: A checkpoint in any format that `bdclean cleanse --ckpt` reads.
        given: Arguments of a Suspect from the user, without the number of classes; None for each that is not set.
        image_size: Height and width of the images, in pixels.

    Raises:
        InputError: If the file has no network, or one that does not fit the arguments.
    """
    checkpoint = read(path, PARAMETER)
    return Start(checkpoint, identify(checkpoint, {**given, "image_size": image_size}, image_size, PARAMETER))
