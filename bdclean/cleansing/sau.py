"""Shared adversarial unlearning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.cleansing.base import Cleanser, Supervision, classes_of
from bdclean.data.batch import Batch
from bdclean.modules import Classifier


def js_divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two networks' predictions for each image, from logits (N, C) each: (N,), in nats."""
    one, other = logits.softmax(1), others.softmax(1)
    middle = ((one + other) / 2).clamp(min=1e-8).log()
    divergences = (F.kl_div(middle, p.clamp(min=1e-8), reduction="none").sum(1) for p in (one, other))
    return sum(divergences) / 2  # type: ignore[return-value]  # of two tensors


def unlearning_loss(logits: Tensor, suspect: Tensor, clean: Tensor, classes: Tensor) -> Tensor:
    """The mean of -log(1 - p) over the batch, with p the student's probability of the suspect's wrong prediction.

    Args:
        logits: (N, C) logits of the student on perturbed images.
        suspect: (N, C) logits of the suspect on the same images.
        clean: (N,) the suspect's predictions for the clean images.
        classes: (N,) true classes. Images that the suspect predicts as this class or as `clean` have no loss.
    """
    wrong = suspect.argmax(1)
    fooled = (wrong != classes) & (wrong != clean)
    # From the sum over the other classes: 1 - p would round to 0, without a gradient, where the backdoor is strongest.
    others = logits.scatter(1, wrong[:, None], -torch.inf)
    losses = logits.logsumexp(1) - others.logsumexp(1)
    return (losses * fooled).sum() / len(logits)


class SAU(Cleanser):
    """Unlearns adversarial images that fool the student and the suspect alike, towards the same class.

    Adversarial images that fool both networks include the triggered ones. The inner problem: d minimises
    adversarial_weight L_adv + shared_weight L_sh in |d|_inf <= eps, by steps eps sign(grad) from d = eps. L_adv is
    minus the cross-entropy of both networks, on images that do not fool them yet; L_sh is their Jensen-Shannon
    divergence, on images that do not fool both towards one class yet. The outer problem: w minimises L(f(x), y) +
    unlearn_weight L_sar with L_sar = -log(1 - p(y')), where y' is the class that the suspect predicts for x + d. The
    student stays in eval mode, so that its batch norm statistics do not change.

    Source: Wei, Zhang, Zha, Wu, "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial
    Examples", NeurIPS 2023.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of Adam (AMSGrad).
        eps: Largest change of a pixel by d, in pixel values.
        steps: Number of steps of the search for d.
        adversarial_weight: Weight of L_adv.
        shared_weight: Weight of L_sh.
        unlearn_weight: Weight of L_sar.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 4.7
    epochs = 100
    freezes_batch_norm = True

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 1e-4,
        eps: float = 0.2,
        steps: int = 5,
        adversarial_weight: float = 0.01,
        shared_weight: float = 1.0,
        unlearn_weight: float = 1.0,
    ) -> None:
        super().__init__(suspect, supervision)
        self.within("lr", lr, 0, above=True)
        self.within("eps", eps, 0, 1)
        self.within("steps", steps, 0)
        self.within("adversarial_weight", adversarial_weight, 0)
        self.within("shared_weight", shared_weight, 0)
        self.within("unlearn_weight", unlearn_weight, 0)
        self.lr = lr
        self.eps = eps
        self.steps = steps
        self.adversarial_weight = adversarial_weight
        self.shared_weight = shared_weight
        self.unlearn_weight = unlearn_weight

    def inner_loss(self, logits: tuple[Tensor, Tensor], clean: tuple[Tensor, Tensor], classes: Tensor) -> Tensor:
        """The objective that d minimises.

        Args:
            logits: (N, C) logits of student and suspect on perturbed images.
            clean: (N,) their predictions for the clean images.
            classes: (N,) true classes.
        """
        size = len(classes)
        predicted = [one.argmax(1) for one in logits]
        resist = [one == before for one, before in zip(predicted, clean, strict=True)]
        losses = [F.cross_entropy(one, classes, reduction="none") for one in logits]
        fooling = -sum((loss * mask).sum() for loss, mask in zip(losses, resist, strict=True)) / (2 * size)
        both = ~resist[0] & ~resist[1] & (predicted[0] == predicted[1])
        return self.adversarial_weight * fooling + self.shared_weight * (js_divergence(*logits) * ~both).sum() / size

    def perturb(self, images: Tensor, clean: tuple[Tensor, Tensor], classes: Tensor) -> Tensor:
        """The perturbation d of each image, (N, C, H, W)."""
        d = torch.full_like(images, self.eps)
        for _ in range(self.steps):
            d.requires_grad_()
            perturbed = images + d
            loss = self.inner_loss((self(perturbed), self.teach_through(perturbed)), clean, classes)
            (gradient,) = torch.autograd.grad(loss, d)
            d = (d.detach() - self.eps * gradient.sign()).clamp(-self.eps, self.eps)
        return d.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        classes = classes_of(targets)
        logits = self(images)
        clean = logits.argmax(1), self.teach(images).argmax(1)
        perturbed = images + self.perturb(images, clean, classes)
        unlearning = unlearning_loss(self(perturbed), self.teach(perturbed), clean[1], classes)
        loss = F.cross_entropy(logits, targets) + self.unlearn_weight * unlearning
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.lr, amsgrad=True)
