"""Weights to start a training from: of a network that may have other classes."""

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
"""It names the file of the weights."""


@dataclass(frozen=True)
class Start:
    """A network to start from.

    Attributes:
        checkpoint: Its file.
        said: Arguments of a Suspect that make the network of the file.
    """

    checkpoint: Checkpoint
    said: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes in the file."""
        return int(self.said["num_classes"])

    def load_into(self, network: nn.Module) -> list[str]:
        """Load the weights into a network of the same architecture, which may have another number of classes.

        Args:
            network: The network, which keeps its own values in every tensor whose shape depends on that number.

        Returns:
            The names of these tensors; empty if both have the same classes.

        Raises:
            InputError: If the weights do not fit.
        """
        arch, option = self.said["arch"], Given(PARAMETER, self.checkpoint.path)
        shape = (self.num_classes, self.said["image_size"], self.said.get("stem"), self.said.get("arch_kwargs"))
        whole = build_network(arch, *shape)
        load_weights(whole, arch, self.num_classes, self.checkpoint, option)
        own = network.state_dict()
        fitting = {name: value for name, value in whole.state_dict().items() if value.shape == own[name].shape}
        network.load_state_dict({**own, **fitting})
        return [name for name in own if name not in fitting]


def start_from(path: str, given: Mapping[str, Any], image_size: int) -> Start:
    """Read a network to start from.

    Args:
        path: A checkpoint, as `bdclean cleanse --ckpt` takes it.
        given: Arguments of a Suspect as the user gives them, but for the number of classes; None for what is not given.
        image_size: Height and width of the images, in pixels.

    Raises:
        InputError: If the file is no network, or not the one that is given.
    """
    checkpoint = read(path, PARAMETER)
    return Start(checkpoint, identify(checkpoint, {**given, "image_size": image_size}, image_size, PARAMETER))
