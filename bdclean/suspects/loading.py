"""A suspect from a file, with its images and its trigger, in one call."""

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
"""Images that stand in where none are named: the program draws them, and reads no file."""


def load(
    path: str,
    source: str | None = None,
    unlabeled: str | None = None,
    model: Mapping[str, Any] | None = None,
    **data: Any,
) -> tuple[Suspect, PoisonDataModule]:
    """Read a suspect and its trigger.

    Args:
        path: The checkpoint: one of `bdclean fit`, anybody's, or a folder of transformers or timm.
        source: Labelled images, as PoisonDataModule takes them; by default those that the checkpoint names, if the
            program draws them.
        unlabeled: Other images for the defender, as PoisonDataModule takes them; by default the program draws some,
            where there is no source either.
        model: Arguments of a Suspect that the checkpoint does not say, or says wrongly.
        **data: The same of a PoisonDataModule.

    Returns:
        The network, and its images, which carry the trigger of the checkpoint if there is one.

    Raises:
        InputError: If the file is no network, or does not say enough of it.
    """
    suspect = read(path)
    said = described(suspect)
    attack = None if said.attack is None else ATTACKS[said.attack](**said.attack_options)
    given = {"source": source, "unlabeled": unlabeled, "attack": attack} | data
    images = dict(said.data) | {name: value for name, value in given.items() if value is not None}
    if images.get("source") is None and images.get("unlabeled") is None:
        images["unlabeled"] = DRAWN
    given_model = dict(model or {})
    sized = given_model.get("image_size") is not None
    network = Suspect(**complete(suspect, dict(said.model) | given_model, images, sized=sized))
    images["image_size"] = images.get("image_size") or network.image_size
    if given.get("resize") is None:
        images["resize"] = resize_of(suspect, images["image_size"])
    datamodule = PoisonDataModule(**images)
    restore(network, datamodule, suspect)
    return network, datamodule
