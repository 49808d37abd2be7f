"""Fine-tuning with sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.steps import fixed_statistics
from bdclean.data.batch import Batch
from bdclean.modules import Classifier


def climb(parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rho: float) -> dict[str, Tensor]:
    """The weights near w with the highest loss, to first order: w + rho T^2 g / |T g|, with T = |w|.

    Args:
        parameters: w, by name.
        gradients: g, the gradient of the loss, by name.
        rho: Norm of the step, measured in T.

    Returns:
        The perturbed weights; their derivative with respect to w is 1.
    """
    scales = {name: value.detach().abs() for name, value in parameters.items()}
    norms = [(scales[name] * gradients[name]).norm() for name in parameters]
    factor = rho / torch.stack(norms).norm().clamp(min=1e-12)
    return {name: value + factor * scales[name] ** 2 * gradients[name] for name, value in parameters.items()}


class FTSAM(FineTune):
    """Fine-tunes the suspect towards a flat minimum, with larger perturbations for larger weights.

    min_w L(w + e(w)), with e(w) = rho T^2 grad L(w) / |T grad L(w)| and T = |w|, L the cross-entropy. Weights that
    carry the backdoor are large, so they shrink. With several processes, each computes e(w) from its own part of a
    batch.

    Source: Zhu, Wei, Shen, Fan, Wu, "Enhancing Fine-Tuning based Backdoor Defense with Sharpness-Aware Minimization",
    ICCV 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets of the training: `teacher`, the suspect's predicted probabilities; `labels`, the true
            labels.
        rho: Radius of the weight perturbation; the default is the paper's.
        **options: Options of FineTune.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 1.9

    def __init__(
        self, suspect: Classifier, supervision: Supervision = "teacher", rho: float = 2.0, **options: Any
    ) -> None:
        super().__init__(suspect, supervision, **options)
        self.within("rho", rho, 0)
        self.rho = rho

    def prepare(self) -> None:
        """Skip FineTune's check: at perturbed weights there is a gradient even if the student equals the teacher."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        parameters = dict(self.network.named_parameters())
        here = F.cross_entropy(self(images), targets)
        gradients = torch.autograd.grad(here, list(parameters.values()), allow_unused=True, materialize_grads=True)
        perturbed = climb(parameters, dict(zip(parameters, gradients, strict=True)), self.rho)
        with fixed_statistics(self.network):
            loss = F.cross_entropy(functional_call(self.network, perturbed, (self.normalize(images),)), targets)
        self.log_loss(loss, images)
        return loss
