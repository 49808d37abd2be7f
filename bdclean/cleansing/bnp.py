"""Pruning by the statistics of batch norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bdclean.cleansing.prune import PruningCleanser
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import Channels
from bdclean.outlying import outliers


def gaussian_divergence(mean: Tensor, var: Tensor, other_mean: Tensor, other_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(other_mean, other_var)), element by element; variances above 0."""
    return ((other_var / var).log() + (var + (mean - other_mean) ** 2) / other_var - 1) / 2


class BNP(PruningCleanser):
    """Prunes the channels whose batch norm statistics differ between training and clean images.

    The mean and variance that a channel learned in training are those of clean and poisoned images together; on clean
    images alone, a channel that serves the backdoor has a different mean and variance. A channel k of a layer is pruned
    if its divergence KL(N(mu_k, var_k) || N(mu'_k, var'_k)) > mean + u std, over the channels of the layer, where mu,
    var are measured on the defender's images and mu', var' are those in the network. Its scale becomes 0, its shift
    stays.

    Source: Zheng, Tang, Li, Liu, "Pre-activation Distributions Expose Backdoor Neurons", NeurIPS 2022.

    Args:
        suspect: The network to cleanse. It is not changed.
        u: Number of standard deviations above the mean from which a channel is pruned.

    Raises:
        InputError: If the network has no batch norm with statistics and scales, or an option is out of range.
    """

    relative_time = 0.08
    epochs = 0

    def __init__(self, suspect: Classifier, u: float = 3.0) -> None:
        super().__init__(suspect)
        self.within("u", u, 0)
        self.u = u

    def find_layers(self, suspect: Classifier) -> list[Channels]:
        """The channels of all batch norms, in any position."""
        norms = {
            name: module
            for name, module in suspect.named_modules()
            if isinstance(module, _BatchNorm)
            if module.running_var is not None and module.affine
        }
        if not norms:
            raise InputError("method", "BNP", "the network has no batch norm with learned statistics and scales")
        return [Channels(name, name, norm.num_features) for name, norm in norms.items()]

    @torch.no_grad()
    def prepare(self) -> None:
        norms: list[Any] = [self.get_submodule(channels.layer) for channels in self.layers]
        moments = {norm: torch.zeros(2, norm.num_features, device=self.device) for norm in norms}
        counts = dict.fromkeys(norms, 0)

        def watch(norm: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            # Centred on the running mean, because squares of large numbers would lose small differences.
            values = (inputs[0].float().transpose(0, 1).flatten(1).T - norm.running_mean).T
            moments[norm] += torch.stack([values.sum(1), (values**2).sum(1)])
            counts[norm] += values.shape[1]

        hooks = [norm.register_forward_hook(watch) for norm in norms]
        self.watch(hooks)
        pruned = []
        for norm in norms:
            shift, square = moments[norm] / max(1, counts[norm])
            var = (square - shift**2).clamp(min=0) + norm.eps
            divergence = gaussian_divergence(shift, var, torch.zeros_like(shift), norm.running_var + norm.eps)
            pruned.append(outliers(divergence, self.u))
        self.prune(pruned)
