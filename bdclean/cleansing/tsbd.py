"""Two-stage defence: re-initialisation by weight changes in unlearning, and activeness-aware fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Supervision, classes_of
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.prune import channels_of
from bdclean.cleansing.steps import fixed_statistics
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.metrics import correct
from bdclean.modules import Classifier
from bdclean.progress import bar
from bdclean.tables import Description, Table


def reset_weights(changes: Sequence[Tensor], neurons: float, subweights: float) -> list[Tensor]:
    """The weights that are set to 0: those that changed most, of the neurons whose weights changed most.

    Args:
        changes: For each layer, (out, ...) absolute changes of its weights.
        neurons: Share of the neurons of all layers, in [0, 1].
        subweights: Share of the weights of these neurons, in [0, 1].

    Returns:
        For each layer, (out, ...) bool.
    """
    sums = torch.cat([change.flatten(1).sum(1) for change in changes])
    chosen = torch.zeros_like(sums, dtype=torch.bool)
    chosen[sums.topk(int(neurons * len(sums))).indices] = True
    rows = torch.split(chosen, [len(change) for change in changes])
    theirs = torch.cat([change[row].flatten() for change, row in zip(changes, rows, strict=True)])
    reset = torch.zeros_like(theirs, dtype=torch.bool)
    reset[theirs.topk(int(subweights * len(theirs))).indices] = True
    masks, first = [], 0
    for change, row in zip(changes, rows, strict=True):
        mask = torch.zeros_like(change, dtype=torch.bool)
        count = change[row].numel()
        mask[row] = reset[first : first + count].view_as(change[row])
        masks.append(mask)
        first += count
    return masks


class TSBD(FineTune):
    """Resets the weights that change most while clean images are unlearned, and fine-tunes with a bounded gradient.

    Stage 1: a copy of the suspect ascends L(f(x; w), y) on clean images until it predicts as few of them right as
    chance does. Neurons, rows of the weights of convolution and linear layers before the head, are ranked by the sum of
    the absolute changes of their weights. Of the `neurons` with the largest sum, in the suspect, the `subweights` that
    changed most are set to 0. Stage 2: the student is fine-tuned with (1 - alpha) g + alpha g', where g is the gradient
    of L at w and g' that at w + radius g / |g|: a penalty of the gradient's norm, as neurons of a backdoored network
    are too active.

    Source: Lin, Liu, Wei, Li, Xiong, "Unveiling and Mitigating Backdoor Vulnerabilities based on Unlearning Weight
    Changes and Backdoor Activeness", NeurIPS 2024. |g| is the norm over all weights, as in the paper's formula; the
    authors' code takes that of each tensor. There layers of shortcuts are left out, and at most 1,000 epochs unlearn.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        neurons: Share of the neurons from whose weights some are reset. The authors' code tries shares from 0.01 to
            0.9; 0.15 is, as far as we know, what the paper uses for CIFAR-10.
        subweights: Share of the weights of these neurons that are reset; the default is that of the authors' code.
        radius: Distance at which the second gradient is taken; the default is that of the authors' code.
        alpha: Weight of the second gradient; the default is that of the authors' code.
        unlearning_lr: Learning rate of SGD in unlearning, with the same momentum and without weight decay; the default
            is that of the authors' code.
        unlearning_epochs: Maximum number of epochs of unlearning.
        weight_decay: Weight decay of SGD in fine-tuning (L2 penalty); none by default, as in the authors' code.
        **options: Options of FineTune.

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 2.4
    epochs = 20

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        neurons: float = 0.15,
        subweights: float = 0.7,
        radius: float = 0.05,
        alpha: float = 0.7,
        unlearning_lr: float = 1e-4,
        unlearning_epochs: int = 20,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, weight_decay=weight_decay, **options)
        for name, value in {"neurons": neurons, "subweights": subweights, "alpha": alpha}.items():
            self.within(name, value, 0, 1)
        self.within("radius", radius, 0)
        self.within("unlearning_lr", unlearning_lr, 0, above=True)
        self.within("unlearning_epochs", unlearning_epochs, 1)
        self.neurons = neurons
        self.subweights = subweights
        self.radius = radius
        self.alpha = alpha
        self.unlearning_lr = unlearning_lr
        self.unlearning_epochs = unlearning_epochs
        names = [f"{channels.layer}.weight" for channels in channels_of(suspect, type(self).__name__)]
        parameters = dict(self.named_parameters())
        self.weights = [name for name in names if name in parameters]
        if not self.weights:
            raise InputError("method", "TSBD", "the layers before the head of the network have no plain weights")
        self.reset: list[Tensor] = []
        """For each layer, (out, ...) bool of the weights that were set to 0; empty before."""

    def unlearn(self) -> None:
        """Ascend the loss of the training images until chance is reached, in place."""
        optimizer = torch.optim.SGD(self.network.parameters(), self.unlearning_lr, self.momentum)
        for _ in bar(range(self.unlearning_epochs), "unlearning"):
            right = total = 0
            for images, targets in self.images():
                logits = self(images)
                optimizer.zero_grad()
                torch.autograd.backward(-F.cross_entropy(logits, targets))
                optimizer.step()
                right, total = right + int(correct(logits, classes_of(targets)).sum()), total + len(images)
            if right * self.num_classes <= total:
                break
        optimizer.zero_grad()

    def prepare(self) -> None:
        self.unlearn()
        before, after = dict(self.teacher.named_parameters(prefix="network")), dict(self.named_parameters())
        changes = [(after[name] - before[name]).detach().abs() for name in self.weights]
        self.network.load_state_dict(self.teacher.state_dict())
        masks = reset_weights(changes, self.neurons, self.subweights)
        # All processes use one result, because of different rounding.
        self.reset = self.trainer.strategy.broadcast([mask.cpu() for mask in masks])
        self.change(
            {name: before[name] * ~mask.to(self.device) for name, mask in zip(self.weights, self.reset, strict=True)}
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        parameters = dict(self.network.named_parameters())
        loss = F.cross_entropy(self(images), targets)
        values = list(parameters.values())
        gradients = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True, materialize_grads=True)
        norm = torch.stack([one.norm() for one in gradients]).norm().clamp(min=1e-12)
        moved = {
            name: value + self.radius / norm * one
            for (name, value), one in zip(parameters.items(), gradients, strict=True)
        }
        with fixed_statistics(self.network):
            other = F.cross_entropy(functional_call(self.network, moved, (self.normalize(images),)), targets)
        self.log_loss(loss, images)
        return (1 - self.alpha) * loss + self.alpha * other

    def describe(self) -> Description:
        rows = tuple(
            (name.removeprefix("network."), str(mask.numel()), str(int(mask.sum())))
            for name, mask in zip(self.weights, self.reset, strict=False)
        )
        return (Table(("layer", "weights", "set to 0"), rows),) if rows else ()
