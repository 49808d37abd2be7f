"""Connect a network and its images: check that they fit, and exchange settings."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from bdclean.data import PoisonDataModule
from bdclean.modules import AttackModule, Classifier


def introduce(model: Classifier, data: PoisonDataModule, trainer: pl.Trainer) -> None:
    """Connect a network and its images, before the first batch.

    Raises:
        InputError: If the images have more classes than the network, or another size.
    """
    model.check(data.num_classes, data.numbered, data.image_size)
    data.tell(trainer.strategy.root_device, trainer.world_size, model.num_classes)
    if isinstance(model, AttackModule):
        model.poison_with(data.attack, data.augment)


class Introduction(pl.Callback):
    """Connects the network and the images of each run, in each process."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called by Lightning, before the setup of the network."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        if isinstance(pl_module, Classifier) and isinstance(data, PoisonDataModule):
            introduce(pl_module, data, trainer)
