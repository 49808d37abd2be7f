"""Networks that timm or transformers build from a description, checked against the weights."""

from __future__ import annotations

from typing import Any

from bdclean import first_ten
from bdclean.checkpoint import Checkpoint
from bdclean.errors import Given, InputError
from bdclean.hub import TooLargeError, bounded
from bdclean.networks import WithoutData, best_prefix, build_network, last_rows, shapes_of, usual_size


def described(checkpoint: Checkpoint, known: dict[str, Any], image_size: int | None, option: Given) -> dict[str, Any]:
    """Complete the arguments of a Suspect whose network a library builds from a description.

    Args:
        checkpoint: The checkpoint with the weights.
        known: The known arguments, including `arch`. The missing ones are added to it.
        image_size: Height and width of the available images, in pixels; None if unknown.
        option: The parameter that named the checkpoint, for messages.

    Raises:
        InputError: If the weights do not fit, or the described network is many times as large as the weights.
    """
    arch, kwargs = known["arch"], known.get("arch_kwargs")
    rows = last_rows(shapes_of(checkpoint.weights))
    known.setdefault("num_classes", rows)
    known.setdefault("image_size", image_size or usual_size(arch, None))
    try:
        with bounded(checkpoint.weights), WithoutData():
            network = build_network(arch, known["num_classes"], known["image_size"], arch_kwargs=kwargs)
    except TooLargeError as error:
        raise InputError(*option, f"{error}") from error
    if wrong := best_prefix(shapes_of(network.state_dict()), shapes_of(checkpoint.weights))[1]:
        raise InputError(*option, f"does not fit {arch} with {known['num_classes']} classes: {first_ten(wrong)}")
    return known
