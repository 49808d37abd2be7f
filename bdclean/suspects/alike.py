"""Another network of the suspect's architecture, such as the cleansed one."""

from __future__ import annotations

import torch

from bdclean.checkpoint import read
from bdclean.errors import InputError
from bdclean.modules import Classifier, Suspect


def load_alike(path: str, suspect: Classifier, parameter: str) -> Suspect:
    """Read a network that has the architecture and the normalisation of a suspect.

    Args:
        path: A checkpoint in any format that `bdclean cleanse --ckpt` reads; its claims are ignored.
        suspect: The suspect, which was built by name.
        parameter: The parameter that names the file, for messages.

    Raises:
        InputError: If the weights do not fit the architecture, or are the suspect's own.
    """
    checkpoint = read(path, parameter)
    network = Suspect(**suspect.hparams)
    network.load(checkpoint, parameter)
    own = suspect.state_dict()
    if all(torch.equal(value, own[name].to(value.device)) for name, value in network.state_dict().items()):
        raise InputError(parameter, path, "has the suspect's own weights, so that the two networks never disagree")
    return network
