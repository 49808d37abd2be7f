"""Entropy-based pruning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from bdclean.cleansing.prune import PruningCleanser
from bdclean.modules import Classifier
from bdclean.outlying import outliers


def entropies(values: Tensor, width: float) -> Tensor:
    """The differential entropy of each of K standardised distributions, from a histogram.

    Args:
        values: (K, N) N samples of each distribution.
        width: Width of the bins, in standard deviations; the first begins at the smallest sample.

    Returns:
        (K,) in nats; NaN where all samples are equal.
    """
    spread, mean = torch.std_mean(values.double(), 1, keepdim=True)
    standard = (values - mean) / spread
    bins = ((standard - standard.amin(1, keepdim=True)) / width).nan_to_num(0).long()
    # Numbers of bins that no other distribution has.
    numbers = bins + (bins.amax() + 1) * torch.arange(len(bins), device=bins.device)[:, None]
    _, places, counts = torch.unique(numbers, return_inverse=True, return_counts=True)
    shares = counts[places] / values.shape[1]
    return torch.where(spread[:, 0] > 0, math.log(width) - shares.log().mean(1), torch.nan)


class EP(PruningCleanser):
    """Prunes the channels whose activations have a low entropy: those of a mixture of clean and triggered images.

    A channel that serves the backdoor has two groups of activations if some images carry the trigger, and a mixture of
    two narrow groups has, after standardisation, a lower differential entropy than a normal distribution. A channel k
    of a layer is pruned if H(phi_k) < mean - u std, over the channels of the layer, where phi_k is the largest output
    of the channel (before norm and activation) in each image, standardised over the images. Its scale becomes 0, its
    shift stays. No training, no labels.

    **The images have to contain triggered ones**, as the attacker's training set does, on which the paper measures H.
    On clean images alone there is no second group: which channels are pruned is then hardly related to the backdoor.

    Source: Zheng, Tang, Li, Liu, "Pre-activation Distributions Expose Backdoor Neurons", NeurIPS 2022. Channels with
    the same value for all images are left out here; layers without a norm are pruned, too.

    Args:
        suspect: The network to cleanse. It is not changed.
        u: Number of standard deviations below the mean from which a channel is pruned; the default is that of the
            authors' code.
        width: Width of the bins of the histogram for H, in standard deviations; the default is that of the authors'
            code, for 50,000 images. With few images, most bins hold one image, and H is an underestimate.

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 0.08
    epochs = 0

    def __init__(self, suspect: Classifier, u: float = 3.0, width: float = 0.01) -> None:
        super().__init__(suspect)
        self.within("u", u, 0)
        self.within("width", width, 0, above=True)
        self.u = u
        self.width = width

    @torch.no_grad()
    def prepare(self) -> None:
        samples: dict[str, list[Tensor]] = {channels.layer: [] for channels in self.layers}

        def watch(name: str, layer: Any) -> Any:
            axis = 1 if isinstance(layer, _ConvNd) else -1

            def note(_layer: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
                values = output.float().movedim(axis, 1)
                samples[name].append(values.reshape(*values.shape[:2], -1).amax(2))

            return layer.register_forward_hook(note)

        hooks = [watch(name, self.get_submodule(name)) for name in samples]
        self.watch(hooks)
        pruned = []
        for values in samples.values():
            found = entropies(torch.cat(values).T, self.width)
            low = torch.zeros_like(found, dtype=torch.bool)
            low[~found.isnan()] = outliers(-found[~found.isnan()], self.u)
            pruned.append(low)
        self.prune(pruned)
