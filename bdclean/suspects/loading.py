"""Loading a suspect, its images and its trigger in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdclean.attacks import ATTACKS
from bdclean.checkpoint import read
from bdclean.data import PoisonDataModule
from bdclean.modules import Suspect
from bdclean.suspects.completing import complete
from bdclean.suspects.restoring import restore
from bdclean.suspects.vetting import described, resize_of

DRAWN = "procedural"
"""Images that are used by default: the program generates them, without reading a file."""


def load(
    path: str,
    source: str | None = None,
    unlabeled: str | None = None,
    model: Mapping[str, Any] | None = None,
    **data: Any,
) -> tuple[Suspect, PoisonDataModule]:
    """Read a suspect and its trigger.

    Args:
        path: A checkpoint of `bdclean fit` or another program, or a folder of transformers or timm.
        source: Labelled images, an argument of PoisonDataModule; by default the ones that the checkpoint names, if the
            program generates them.
        unlabeled: Other images for the defender, an argument of PoisonDataModule; without a source, the program
            generates them by default.
        model: Arguments of a Suspect that the checkpoint does not contain, or that replace those it contains.
        **data: Arguments of a PoisonDataModule.

    Returns:
        The network, and its images with the trigger of the checkpoint, if there is one.

    Raises:
        InputError: If the file is not a network, or does not describe it completely.
    """
    suspect = read(path)
    claims = described(suspect)
    attack = None if claims.attack is None else ATTACKS[claims.attack](**claims.attack_options)
    given = {"source": source, "unlabeled": unlabeled, "attack": attack} | data
    images = dict(claims.data) | {name: value for name, value in given.items() if value is not None}
    if images.get("source") is None and images.get("unlabeled") is None:
        images["unlabeled"] = DRAWN
    given_model = dict(model or {})
    sized = given_model.get("image_size") is not None
    network = Suspect(**complete(suspect, dict(claims.model) | given_model, images, sized=sized))
    images["image_size"] = images.get("image_size") or network.image_size
    if given.get("resize") is None:
        images["resize"] = resize_of(suspect, images["image_size"])
    datamodule = PoisonDataModule(**images)
    restore(network, datamodule, suspect)
    return network, datamodule
