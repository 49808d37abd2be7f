"""The base classes of methods that prune channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bdclean.cleansing.base import Cleanser, Supervision
from bdclean.cleansing.choosing import Choosing
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import Channels, find_channels, scale
from bdclean.tables import Description, Table


def channels_of(suspect: Classifier, method: str) -> list[Channels]:
    """The channels of all convolution and linear layers of a network except the head.

    Raises:
        InputError: If there is no such layer; the message names the method.
    """
    layers = find_channels(suspect, suspect.image_size)
    if not layers:
        raise InputError("method", method, "the network has no convolution or linear layer before its head")
    return layers


class PruningCleanser(Cleanser):
    """Prunes output channels of layers: their scales become 0, and with `shifts` their shifts too.

    Attributes:
        layers: The channels that can be pruned.
        pruned: For each of these layers, (count,) bool of pruned channels; empty before pruning.
    """

    def __init__(self, suspect: Classifier, supervision: Supervision = "teacher", shifts: bool = False) -> None:
        super().__init__(suspect, supervision)
        self.layers = self.find_layers(suspect)
        self.shifts = shifts
        self.pruned: list[Tensor] = []

    def find_layers(self, suspect: Classifier) -> list[Channels]:
        """The channels that can be pruned: of all convolution and linear layers except the head.

        Raises:
            InputError: If there is no such layer.
        """
        return channels_of(suspect, type(self).__name__)

    def watch(self, hooks: Iterable[RemovableHandle]) -> None:
        """Run the network once on all images, in eval mode, for hooks, which are then removed."""
        self.network.eval()
        for images, _ in self.images():
            self(images)
        for hook in hooks:
            hook.remove()

    def without(self, pruned: Sequence[Tensor]) -> dict[str, Tensor]:
        """The changed parameters after pruning channels.

        Args:
            pruned: For each layer, (count,) bool of the channels to prune.
        """
        kept = [(~channels).to(self.device) for channels in pruned]
        return scale(dict(self.named_parameters()), self.layers, kept, kept if self.shifts else ())

    def prune(self, pruned: Sequence[Tensor]) -> None:
        """Prune channels in place. The argument is that of `without`."""
        self.change(self.without(pruned))
        self.pruned = [channels.cpu() for channels in pruned]

    def describe(self) -> Description:
        if not self.pruned:
            return ()
        rows = (
            (channels.layer.removeprefix("network."), str(channels.count), str(int(which.sum())))
            for channels, which in zip(self.layers, self.pruned, strict=True)
        )
        return (Table(("layer", "channels", "pruned"), tuple(rows)),)


class MaskingCleanser(Choosing, PruningCleanser):
    """Learns a mask in [0, 1] for each channel, and prunes the channels with a small mask.

    Args:
        suspect: The network to cleanse.
        supervision: Targets of the training: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        threshold: Channels with a mask below this are pruned; None is the highest multiple of 0.05 within `tolerance`.
        tolerance: Percent of the selection images on which pruning may change the prediction.

    Attributes:
        masks: For each layer, (count,) masks.
    """

    # With dropout, masks and weights would compensate for dropped units.
    uses_dropout = False

    def __init__(
        self, suspect: Classifier, supervision: Supervision, threshold: float | None, tolerance: float
    ) -> None:
        super().__init__(suspect, supervision)
        self.within("threshold", threshold or 0, 0, 1)
        self.within("tolerance", tolerance, 0, 100)
        self.threshold = threshold
        self.tolerance = tolerance
        self.masks = nn.ParameterList(torch.ones(channels.count) for channels in self.layers)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Called by Lightning: keep the masks in [0, 1]."""
        for mask in self.masks:
            mask.clamp_(0, 1)

    def finish(self) -> None:
        # The suspect itself is pruned, with its original batch norm statistics.
        self.network.load_state_dict(self.teacher.state_dict())
        masks = list(self.masks)
        if self.threshold is None:
            levels = [round(0.05 * step, 2) for step in range(1, 21)]
            chosen = self.furthest(levels, lambda level: self.without([mask < level for mask in masks]), self.tolerance)
            self.threshold = chosen or 0.0
        self.prune([mask < self.threshold for mask in masks])
