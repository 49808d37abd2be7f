"""IBD-PSC: the consistency of predictions under amplified batch norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from bdclean.errors import InputError
from bdclean.filtering.base import Context, ImageScore, PredictedBatch
from bdclean.networks.probe import probe


def batch_norms(network: nn.Module, image_size: int) -> list[str]:
    """Names of the batch norms with scales, in the order of the forward pass."""
    calls = probe(network, image_size)
    return list(dict.fromkeys(one.name for one in calls if isinstance(one.module, _BatchNorm) and one.module.affine))


def amplified(network: nn.Module, norms: list[str], factor: float) -> dict[str, Tensor]:
    """Scales and shifts of some batch norms, times a factor."""
    names = [f"{name}.{part}" for name in norms for part in ("weight", "bias")]
    return {name: factor * network.get_parameter(name) for name in names}


class IBDPSC(ImageScore):
    """How sure the suspect stays of its prediction while the scales and shifts of its last batch norms are amplified.

    The last k batch norms are multiplied by a factor, for several networks with k, k + 1, ... amplified layers; k is
    the smallest number with which most clean images change their class. The score is the mean probability of the
    suspect's own prediction over these networks: predictions for triggered images tend to survive.

    Source: Hou et al., "IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling Consistency", ICML 2024
    (arXiv:2405.09786). The paper finds k with labels; here the suspect's own predictions replace them.

    Args:
        factor: The factor.
        networks: Number of amplified networks.
        changed_fraction: Share of clean images whose class has to change.
    """

    def __init__(self, factor: float = 1.5, networks: int = 5, changed_fraction: float = 0.6) -> None:
        self.within("factor", factor, 1)
        self.within("networks", networks, 1)
        self.within("changed_fraction", changed_fraction, 0, 1)
        self.factor = factor
        self.networks = networks
        self.changed_fraction = changed_fraction
        self.parameters: list[dict[str, Tensor]] = []
        """Parameters of each amplified network."""

    def check(self, context: Context) -> None:
        norms = batch_norms(context.suspect, context.overlays.shape[-1])
        if not norms:
            raise InputError("score", "IBDPSC", "amplifies batch norms, and the suspect has none with scales")
        own = context.suspect(context.overlays).argmax(1)
        first = next(
            (
                k
                for k in range(1, len(norms) + 1)
                if self._changed(context, amplified(context.suspect, norms[-k:], self.factor), own)
                >= self.changed_fraction
            ),
            len(norms),
        )
        counts = range(first, min(len(norms), first + self.networks - 1) + 1)
        self.parameters = [amplified(context.suspect, norms[-k:], self.factor) for k in counts]

    def score(self, context: Context, batch: PredictedBatch) -> Tensor:
        kept = [
            functional_call(context.suspect, one, batch.images).softmax(1).gather(1, batch.predicted[:, None])[:, 0]
            for one in self.parameters
        ]
        return torch.stack(kept).mean(0)

    def _changed(self, context: Context, parameters: dict[str, Tensor], own: Tensor) -> float:
        """Share of the overlays whose class differs from the suspect's own prediction."""
        predicted = functional_call(context.suspect, parameters, context.overlays).argmax(1)
        return float((predicted != own).float().mean())
