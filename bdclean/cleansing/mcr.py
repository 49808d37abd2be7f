"""Mode connectivity repair."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.choosing import Choosing
from bdclean.cleansing.phases import TwoPhases
from bdclean.modules import Classifier
from bdclean.tables import Description, Table


def bezier(start: Tensor, bend: Tensor, end: Tensor, t: float | Tensor) -> Tensor:
    """A point of the quadratic Bezier curve: (1 - t)^2 start + 2 t (1 - t) bend + t^2 end, for t in [0, 1]."""
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


class MCR(Choosing, TwoPhases):
    """Connects the suspect with a fine-tuned copy by a curve of accurate networks, and takes one from its middle.

    min_theta E_t[L(phi(t)) + weight_decay / 2 |phi(t)|^2] with phi(t) = (1 - t)^2 w_0 + 2 t (1 - t) theta + t^2 w_1, t
    uniform in [0, 1] for each batch, w_0 the suspect, w_1 the suspect after fine-tuning, L the cross-entropy. Networks
    far from both ends are accurate on clean images, on which the curve was trained, and less so on triggered ones.
    Batch norm statistics of the chosen network are measured on the defender's images.

    Source: Zhao, Chen, Das, Ramamurthy, Lin, "Bridging Mode Connectivity in Loss Landscapes and Adversarial
    Robustness", ICLR 2020.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of both phases: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        t: Position of the chosen network on the curve, from 0 (the suspect) to 1. By default the one nearest to 0.5,
            in steps of 0.05 from the suspect, whose cost is within `tolerance`.
        tolerance: Percent of the selection images on which the chosen network may change the prediction (with labels:
            lose the right one).
        first_phase_fraction: Share of the epochs in which w_1 is fine-tuned; the curve is trained in the others.
        first_phase_lr: Learning rate of the fine-tuning of w_1; by default `lr`.
        **options: Options of FineTune.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 1.1
    epochs = 110

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        t: float | None = None,
        tolerance: float = 2.0,
        first_phase_fraction: float = 0.1,
        first_phase_lr: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, first_phase_fraction, first_phase_lr, **options)
        self.within("t", t or 0, 0, 1)
        self.within("tolerance", tolerance, 0, 100)
        self.t = t
        self.tolerance = tolerance
        self.ends: dict[str, tuple[Tensor, Tensor]] = {}

    def start_second_phase(self) -> None:
        start = dict(self.teacher.named_parameters())
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                self.ends[name] = start[name].detach(), value.clone()
                value.copy_((start[name] + value) / 2)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]  # there is one
            # In this phase it is part of the loss.
            group["weight_decay"] = 0.0

    def point(self, bends: dict[str, Tensor], t: float | Tensor) -> dict[str, Tensor]:
        """The weights at position t, for given bends."""
        return {name: bezier(start, bends[name], end, t) for name, (start, end) in self.ends.items()}

    def second_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        weights = self.point(dict(self.network.named_parameters()), torch.rand((), device=self.device))
        size = torch.stack([value.square().sum() for value in weights.values()]).sum()
        logits = functional_call(self.network, weights, (self.normalize(images),))
        return F.cross_entropy(logits, targets) + self.weight_decay / 2 * size

    @torch.no_grad()
    def finish(self) -> None:
        bends = {name: value.clone() for name, value in self.network.named_parameters()}
        self.network.load_state_dict(self.teacher.state_dict())

        def network(t: float) -> dict[str, Tensor]:
            weights = self.point(bends, t)
            moments = self.measure(weights)
            return {f"network.{name}": value for name, value in (weights | moments).items()}

        levels = [0.05 * step for step in range(1, 11)]
        self.t = self.furthest(levels, network, self.tolerance) if self.t is None else self.t
        if self.t is not None:
            self.change(network(self.t))

    def measure(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Measure the batch norm statistics for these weights on the defender's images."""
        norms = {
            name: module
            for name, module in self.network.named_modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        }
        if not norms:
            return {}
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        momenta = {name: norm.momentum for name, norm in norms.items()}
        self.network.eval()
        for norm in norms.values():
            norm.reset_running_stats()
            # The mean over all batches.
            norm.momentum = None
            norm.train()
        for images, _ in self.images():
            functional_call(self.network, weights, (self.normalize(images),))
        found = {
            f"{name}.{kind}": getattr(norm, kind).clone()
            for name, norm in norms.items()
            for kind in ("running_mean", "running_var")
        }
        for name, norm in norms.items():
            norm.momentum = momenta[name]
            norm.eval()
        self.network.load_state_dict(before)
        return found

    def describe(self) -> Description:
        return () if self.t is None else (Table(("t",), ((f"{self.t:.2f}",),)),)
