"""Channel Lipschitzness based pruning: without any data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdclean.cleansing.prune import PruningCleanser, outliers
from bdclean.modules import Classifier


def channel_lipschitz(weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """An upper bound of the Lipschitz constant of each output channel of a layer.

    For channel k, it is the spectral norm of its weights as a matrix of input channels by kernel positions, times
    |scale|.

    Args:
        weight: (out, in, ...) of a convolution, or (out, in) of a linear layer.
        scales: (out,) factor of each channel in the norm layer after it.

    Returns:
        (out,), at least 0.
    """
    matrices = weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]
    bounds = torch.linalg.matrix_norm(matrices.float(), ord=2)
    return bounds if scales is None else bounds * scales.abs()


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
            weight: Any = self.get_submodule(channels.layer).weight
            norm: Any = None if channels.norm is None else self.get_submodule(channels.norm)
            scales = None if norm is None else norm.weight
            if getattr(norm, "running_var", None) is not None:
                scales = scales / (norm.running_var + norm.eps).sqrt()
            pruned.append(outliers(channel_lipschitz(weight, scales), self.u))
        self.prune(pruned)
