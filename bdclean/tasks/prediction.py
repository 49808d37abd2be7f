"""Predicting the classes of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdclean import earlier, outputs
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting.files import write_csv
from bdclean.tasks.looking import class_names


@dataclass(frozen=True)
class Predictions:
    """A network's predictions for N images.

    Attributes:
        images: Names of the images.
        probabilities: (N, classes).
        class_names: Names of the classes; empty if unknown.
    """

    images: Sequence[str]
    probabilities: Tensor
    class_names: tuple[str, ...]

    def rows(self) -> Iterator[tuple[str, int, str, str]]:
        """For each image: its name, its predicted class, the name of the class, and its probability."""
        probabilities, labels = self.probabilities.max(1)
        for image, label, probability in zip(self.images, labels.tolist(), probabilities.tolist(), strict=True):
            yield image, label, self.class_names[label] if self.class_names else "", f"{probability:.4f}"


def predict(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    output: str | None = None,
    overwrite: bool = False,
) -> Predictions:
    """Predict the class of each image.

    Args:
        trainer: The Trainer.
        model: The network.
        datamodule: The images: its unlabeled images if it has a source of them, else its test images.
        output: CSV file for the predictions, one row per image; by default none is written.
        overwrite: Whether to replace an existing file.

    Raises:
        InputError: If the file cannot be written, or the Trainer uses several processes.
    """
    files = None
    if output is not None:
        outputs.check_name("predict", output)
    if trainer.world_size > 1:
        raise InputError("trainer.devices", trainer.world_size, "predict runs in one process")
    if output is not None:
        files = outputs.plan(output)
        # The file does not name its network, so that no earlier file counts as predictions of the same network.
        earlier.refuse_others(files, overwrite, lambda path: False)
    with trainer.writing(files):
        batches = trainer.probabilities(model, datamodule)
        probabilities = torch.cat(batches) if batches else torch.zeros(0, model.num_classes)
        names = datamodule.predicted[1] if batches else ()
        result = Predictions(names, probabilities, class_names(model, datamodule))
        if files is not None and batches:
            write_csv(files.result, ["image", "class", "name", "probability"], result.rows())
    return result
