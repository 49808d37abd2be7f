"""Neural Cleanse."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean.cleansing.base import Supervision
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.steps import first_batches
from bdclean.data.batch import Batch
from bdclean.modules import Classifier
from bdclean.perturbations import overlay
from bdclean.progress import bar
from bdclean.scanning import Network
from bdclean.tables import Description, Table
from bdclean.training import pieces

SEARCH_IMAGES = 1000
"""Maximum number of images of a search."""
SEARCH_BATCH = 32
"""Images per step of a search."""
SEARCH_LR = 0.1
"""Learning rate of Adam in a search."""
BETAS = (0.5, 0.9)
"""Betas of Adam in a search."""
FIRST_COST = 1e-3
"""Initial weight of the mask's norm."""
COST_FACTOR = 2.0
"""Factor by which the weight of the norm rises; it falls by this to the power of 1.5."""
PATIENCE = 5
"""Rounds in a row with (or without) success after which the weight of the norm rises (or falls)."""
STALE_ROUNDS = 25
"""Rounds without a mask whose norm is 1 % smaller, after which a search ends."""
UNLEARNED_IMAGES = 5000
"""Images of the paper's single epoch on CIFAR-10: a tenth of the training set."""
SHOWN = 10
"""Maximum number of classes in the report."""


def invert(network: Network, images: Tensor, target: int, rounds: int, success: float) -> Tensor:
    """Search for a small mask m and a pattern p so that (1 - m) x + m p is predicted as a class.

    Args:
        network: Maps images in [0, 1] to logits, with a gradient for the images.
        images: (N, C, H, W) in [0, 1].
        target: The class.
        rounds: Maximum number of passes over the images.
        success: Share of the images that have to be predicted as the class.

    Returns:
        A layer for `overlay`, (1, 1 + C, H, W): of all masks that were successful at the end of a round the one with
        the smallest norm; if none was, the last.
    """
    raw = images.new_zeros(1, 1 + images.shape[1], *images.shape[-2:]).requires_grad_()
    optimizer = torch.optim.Adam([raw], SEARCH_LR, BETAS)
    best, smallest, stale = raw.detach(), math.inf, 0
    cost, streak = FIRST_COST, 0
    for _ in range(rounds):
        hits = torch.zeros((), device=images.device)
        for part in pieces(images, SEARCH_BATCH):
            layer = as_layer(raw)
            logits = network(overlay(part, layer))
            loss = F.cross_entropy(logits, torch.full_like(logits[:, 0], target, dtype=torch.long))
            (raw.grad,) = torch.autograd.grad(loss + cost * layer[:, :1].sum(), raw)
            optimizer.step()
            hits += (logits.argmax(1) == target).sum()
        successful = bool(hits >= success * len(images))
        found = as_layer(raw.detach())
        norm = float(found[:, :1].sum())
        stale = 0 if successful and norm < 0.99 * smallest else stale + 1
        if (successful and norm < smallest) or smallest == math.inf:
            best, smallest = found, norm if successful else math.inf
        if stale >= STALE_ROUNDS and smallest < math.inf:
            break
        # Positive: rounds in a row with success; negative: without.
        streak = max(streak, 0) + 1 if successful else min(streak, 0) - 1
        if abs(streak) == PATIENCE:
            cost, streak = cost * (COST_FACTOR if successful else COST_FACTOR**-1.5), 0
    return best


def as_layer(raw: Tensor) -> Tensor:
    """A layer for `overlay`, (1, 1 + C, H, W), of a mask and a pattern in [0, 1] from unbounded values."""
    values = (raw.tanh() + 1) / 2
    return torch.cat([values[:, :1], values[:, :1] * values[:, 1:]], 1)


def anomaly_indices(norms: Tensor) -> Tensor:
    """How far each of (P,) norms is below their median, in median absolute deviations, as of a normal distribution.

    Negative above the median; NaN at the median if at least half of the norms are equal.
    """
    deviations = norms.quantile(0.5) - norms
    return deviations / (1.4826 * deviations.abs().quantile(0.5))


class NC(FineTune):
    """Recovers a trigger for each class, and unlearns those of classes with an outstandingly small one.

    For each class t, min_{m, p} L(f((1 - m) x + m p), t) + c |m|_1 over a mask m and a pattern p in [0, 1], with c
    adjusted so that `success` of the images are predicted as t. A class is suspicious if the norm of its mask is more
    than `threshold` times 1.4826 MAD below the median of all classes, where MAD is the median absolute deviation. Then
    the student is fine-tuned: `share` of each batch carries the trigger of a suspicious class and keeps its right y.
    Without a suspicious class the suspect is returned unchanged.

    Source: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in
    Neural Networks", IEEE S&P 2019: there one epoch over a tenth of the training images, 20 % of them with the trigger;
    by default as many images are trained on here. The constants of the search are those of the authors' code, but for
    its start, a grey pattern with a mask of 0.5 instead of random ones, so that the result has no seed. The paper's
    other mitigation, pruning neurons that the trigger activates, is not included.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities of the image without the trigger;
            `labels`, the true labels.
        rounds: Maximum number of passes over (at most 1,000) images in the search for each class. The authors' code
            has up to 1,000; 80 are BackdoorBench's.
        success: Share of the images that a trigger has to flip to its class; the default is the paper's.
        threshold: Anomaly index above which a class is suspicious; the default is the paper's.
        share: Share of the images of a batch that carry a trigger; the default is the paper's.
        **options: Options of FineTune.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 5.0
    epochs = 10

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        rounds: int = 80,
        success: float = 0.99,
        threshold: float = 2.0,
        share: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(suspect, supervision, **options)
        self.within("rounds", rounds, 1)
        self.within("success", success, 0, 1)
        self.within("threshold", threshold, 0)
        self.within("share", share, 0, 1)
        self.rounds = rounds
        self.success = success
        self.threshold = threshold
        self.share = share
        self.norms = torch.zeros(0)
        """(P,) norm of the mask of each class."""
        self.triggers = torch.zeros(0)
        """(K, 1 + C, H, W) layers for `overlay`, of the suspicious classes."""

    def epochs_of(self, images: int) -> int:
        return max(1, round(UNLEARNED_IMAGES / max(1, images)))

    @property
    def suspicious(self) -> Tensor:
        """(P,) bool of the classes whose trigger is unlearned."""
        return anomaly_indices(self.norms) > self.threshold

    def prepare(self) -> None:
        """Recover the triggers; FineTune's check does not apply, because triggers have a gradient from the start."""
        images = torch.cat([images for images, _ in first_batches(self.images(), SEARCH_IMAGES)])[:SEARCH_IMAGES]
        with self.trainer.precision_plugin.forward_context():
            found = [
                invert(self.teach_through, images, target, self.rounds, self.success)
                for target in bar(range(self.num_classes), "triggers")
            ]
        # All processes use one result, because of different rounding.
        layers = self.trainer.strategy.broadcast(torch.cat(found).cpu())
        self.norms = layers[:, 0].sum((1, 2))
        self.triggers = layers[self.suspicious].to(self.device)

    def perturb(self, images: Tensor) -> Tensor:
        """A copy of a batch (N, C, H, W) whose first images carry a trigger, in equal parts if there are several."""
        triggered = images.clone()
        if len(self.triggers):
            places = torch.arange(math.ceil(self.share * len(images)), device=images.device)
            for some, layer in zip(places.tensor_split(len(self.triggers)), self.triggers, strict=True):
                triggered[some] = overlay(images[some], layer[None].to(images))
        return triggered

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        loss = F.cross_entropy(self(self.perturb(images)), targets)
        self.log_loss(loss, images)
        return loss

    def finish(self) -> None:
        if not len(self.triggers):
            self.network.load_state_dict(self.teacher.state_dict())

    def describe(self) -> Description:
        if not len(self.norms):
            return ()
        indices, suspicious = anomaly_indices(self.norms), self.suspicious
        rows = tuple(
            (str(number), f"{self.norms[number]:.1f}", f"{indices[number]:.1f}", "yes" if suspicious[number] else "no")
            for number in self.norms.argsort()[:SHOWN].tolist()
        )
        table = Table(("class", "norm of the mask", "anomaly index", "unlearned"), rows)
        if len(self.triggers):
            return (table,)
        return table, f"No class has an anomaly index above {self.threshold:g}: the network is unchanged."
