"""Identify the architecture and the settings of a checkpoint's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdclean import first_ten
from bdclean.checkpoint import Checkpoint
from bdclean.errors import Given, InputError
from bdclean.hub import is_transformers
from bdclean.modules.described import described
from bdclean.modules.suspect import fitting_size
from bdclean.networks import (
    WithoutData,
    best_prefix,
    build_network,
    closest,
    has_library,
    is_own_class,
    last_rows,
    of_transformers,
    recognise,
    recognise_timm,
    shapes_of,
    usual_size,
)
from bdclean.networks.recognise import Recognised


def identify(
    checkpoint: Checkpoint, given: Mapping[str, Any], image_size: int | None, parameter: str = "ckpt"
) -> dict[str, Any]:
    """Identify the network of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        given: Arguments of a Suspect from the user; None for each that the user did not set.
        image_size: Height and width of the available images, in pixels; None if unknown.
        parameter: The parameter that named the checkpoint, for messages.

    Returns:
        The arguments of a Suspect, completed from the checkpoint and its weights.

    Raises:
        InputError: If the network is not recognised and the user named none, or if it accepts several image sizes and
            none is set.
    """
    known = checkpoint.model | {name: value for name, value in given.items() if value is not None}
    if isinstance(known.get("mean"), str) and "std" in known and known["std"] == checkpoint.model.get("std"):
        # The name of a mean also sets the std, so that the std of the checkpoint must not override it.
        known["std"] = None
    option = Given(parameter, checkpoint.path)
    arch = known.get("arch")
    if arch is not None and is_own_class(arch):
        if given.get("arch") is None:
            raise InputError(
                *option,
                f"its network is {arch}, which is not part of bdclean: pass {Given('model.arch', arch)} if you trust "
                "its code",
            )
        return _identified_class(arch, known, checkpoint, image_size, option)
    if arch is not None and has_library(arch) and (known.get("arch_kwargs") or is_transformers(arch)):
        return described(checkpoint, known, image_size, option)
    found = _recognised(checkpoint, arch, known, option)
    classes = known.get("num_classes", found.num_classes)
    if classes != found.num_classes:
        raise InputError(
            *option, f"does not fit {found.arch} with {classes} classes: its weights are for {found.num_classes}"
        )
    size = found.image_size or usual_size(found.arch, found.stem)
    if "image_size" not in known and found.image_size is None and image_size not in (None, size):
        raise InputError(
            "model.image_size",
            None,
            f"needed, as {found.arch} accepts many image sizes, usually {size} pixels, and these have {image_size}",
        )
    return {"arch": found.arch, "stem": found.stem, "num_classes": found.num_classes, "image_size": size} | known


def _recognised(checkpoint: Checkpoint, arch: str | None, known: Mapping[str, Any], option: Given) -> Recognised:
    """The known network that the weights fit; only `arch` is tried if it is set."""
    archs = None if arch is None else [arch]
    found = recognise(checkpoint.weights, archs, known.get("image_size"))
    if found is None and arch is None:
        if (name := of_transformers([*checkpoint.weights])) is not None:
            raise InputError(*option, f"a network of transformers ({name}): put its config.json beside it")
        found = recognise_timm(checkpoint.weights, option)
    if found is not None:
        return found
    near, wrong = closest(checkpoint.weights)
    _, differences = closest(checkpoint.weights, archs)
    if arch is None:
        advice = f"{Given('model.arch', 'my_module.MyNet')} names the class of the network"
        if near is not None:
            advice = f"the closest is {near.arch} with {near.num_classes} classes: {first_ten(wrong)}"
        raise InputError("model.arch", None, f"needed, as {checkpoint.path} fits no known network; {advice}")
    closest_one = f"; the closest known network is {near.arch} with {near.num_classes} classes" if near else ""
    raise InputError(*option, f"does not fit {arch}: {first_ten(differences)}{closest_one}")


def _identified_class(
    arch: str, known: dict[str, Any], checkpoint: Checkpoint, image_size: int | None, option: Given
) -> dict[str, Any]:
    """`identify` for a user's own class."""
    known.setdefault("num_classes", _classes_of(arch, known.get("arch_kwargs"), checkpoint))
    if (kwargs := checkpoint.model.get("arch_kwargs")) and kwargs == known.get("arch_kwargs"):
        # Build it without allocating memory: an untrusted file can ask for layers of any size.
        with WithoutData():
            shapes = shapes_of(build_network(arch, known["num_classes"], 0, arch_kwargs=kwargs).state_dict())
        if wrong := best_prefix(shapes, shapes_of(checkpoint.weights))[1]:
            raise InputError(*option, f"does not fit {arch} with {dict(kwargs)}, by its metadata: {first_ten(wrong)}")
    if "image_size" not in known:
        network = build_network(arch, known["num_classes"], 0, arch_kwargs=known.get("arch_kwargs"))
        known["image_size"] = fitting_size(network, image_size, Given("model.arch", arch))
    return known


def _classes_of(arch: str, arch_kwargs: Mapping[str, Any] | None, checkpoint: Checkpoint) -> int:
    """The number of classes with which a user's own class fits the weights, by trying the row counts of 2D tensors."""
    given = shapes_of(checkpoint.weights)
    rows = [shape[0] for shape in reversed(given.values()) if len(shape) == 2]
    for count in [*dict.fromkeys(rows)][:10]:
        with WithoutData():
            shapes = shapes_of(build_network(arch, count, 0, arch_kwargs=arch_kwargs).state_dict())
        if not best_prefix(shapes, given)[1]:
            return count
    return last_rows(given)
