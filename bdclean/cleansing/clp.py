"""Channel Lipschitzness based pruning: without any data."""

from __future__ import annotations

import torch

from bdclean.cleansing.prune import PruningCleanser
from bdclean.modules import Classifier
from bdclean.outlying import amplification, outliers


class CLP(PruningCleanser):
    """Prunes the channels that amplify their input more than the others of their layer: no data, no training.

    A channel k of a layer is pruned if its bound sigma_k > mean + u std, over the channels of the layer, where sigma_k
    is the spectral norm of its weights, times |gamma_k| / sqrt(var_k + eps) of the batch norm behind it. Other norm
    layers contribute |gamma_k| alone, as their divisor depends on the image; without a norm layer the spectral norm
    alone counts. Scale and shift of the channel become 0.

    Source: Zheng, Tang, Li, Liu, "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022.

    Args:
        suspect: The network to cleanse. It is not changed.
        u: Number of standard deviations above the mean from which a channel is pruned.

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 0.02
    epochs = 0
    uses_images = False

    def __init__(self, suspect: Classifier, u: float = 3.0) -> None:
        super().__init__(suspect, shifts=True)
        self.within("u", u, 0)
        self.u = u

    @torch.no_grad()
    def prepare(self) -> None:
        pruned = []
        for channels in self.layers:
            layer = self.get_submodule(channels.layer)
            norm = None if channels.norm is None else self.get_submodule(channels.norm)
            pruned.append(outliers(amplification(layer, norm), self.u))
        self.prune(pruned)
