"""Fine-pruning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.choosing import Choosing
from bdclean.cleansing.finetune import FineTune
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import find_stages
from bdclean.tables import Description, Table


class FinePrune(Choosing, FineTune):
    """Prunes the units of the last hidden layer that clean images hardly use, and fine-tunes.

    Units are pruned in the order of their mean absolute activation over the defender's images, lowest first, as long
    as the cost stays within `tolerance`; then the network is trained as in FineTune. A unit is an input of the head:
    behind a convolution, a channel pooled over the image. It is pruned by setting its weights in the head to 0.

    Source: Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks",
    RAID 2018.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of the training: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        tolerance: Percent of the selection images on which pruning may change the prediction (with labels: lose the
            right one).
        **options: Options of FineTune.

    Raises:
        InputError: If the head is not a linear layer, or an option is out of range.
    """

    relative_time = 1.0

    def __init__(
        self, suspect: Classifier, supervision: Supervision = "teacher", tolerance: float = 10.0, **options: Any
    ) -> None:
        super().__init__(suspect, supervision, **options)
        self.within("tolerance", tolerance, 0, 100)
        self.tolerance = tolerance
        layers = find_stages(suspect, suspect.image_size)
        name = layers[-1].name if layers else ""
        head = self.get_submodule(name)
        if not isinstance(head, nn.Linear) or f"{name}.weight" not in dict(self.named_parameters()):
            raise InputError("method", "FinePrune", f"the last layer of the network, {name}, is not a linear layer")
        self.head = name
        self.register_buffer("kept", torch.ones(head.in_features), persistent=False)
        self.kept: Tensor

    @torch.no_grad()
    def prepare(self) -> None:
        head, weight = self.get_submodule(self.head), self.get_parameter(f"{self.head}.weight")
        total = torch.zeros_like(self.kept)

        def watch(_head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # After a ReLU, abs() changes nothing; elsewhere, a unit far below 0 counts as used too.
            total.add_(inputs[0].abs().flatten(0, -2).sum(0))

        hook = head.register_forward_pre_hook(watch)
        self.network.eval()
        for images, _ in self.images():
            self(images)
        hook.remove()
        self.set_mode(True)
        # On the CPU, because other processes do not have this one's device.
        order = self.trainer.strategy.broadcast(total.argsort().cpu())

        def without(count: int) -> dict[str, Tensor]:
            kept = torch.ones_like(self.kept)
            kept[order[:count]] = 0
            return {f"{self.head}.weight": weight * kept}

        # In steps of one percent, because trying each unit of a wide layer would take long.
        counts = range(1, len(order), math.ceil(len(order) / 100))
        count = self.furthest(counts, without, self.tolerance) or 0
        self.kept[order[:count]] = 0
        weight.mul_(self.kept)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Called by Lightning: keep pruned weights at 0."""
        self.get_parameter(f"{self.head}.weight").mul_(self.kept)

    def describe(self) -> Description:
        pruned = int((self.kept == 0).sum())
        name = self.head.removeprefix("network.")
        row = (f"inputs of {name}", str(len(self.kept)), str(pruned))
        return (Table(("layer", "units", "pruned"), (row,)),)
