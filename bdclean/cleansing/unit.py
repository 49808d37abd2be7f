"""Neural distribution tightening, distilled into the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.base import Supervision, classes_of
from bdclean.cleansing.choosing import Choosing
from bdclean.cleansing.prune import channels_of
from bdclean.cleansing.steps import first_batches
from bdclean.data.batch import Batch
from bdclean.metrics import correct
from bdclean.modules import Classifier
from bdclean.networks import frozen
from bdclean.perturbations import radius
from bdclean.progress import bar
from bdclean.tables import Description, Table
from bdclean.training import cosine

SEARCH_IMAGES = 2048
"""Maximum number of images for which the bounds are tightened."""
BETAS = (0.5, 0.9)
"""Betas of Adam in the tightening; this and the following ones are those of the authors' code."""
FIRST_COST = 1e-3
"""Initial weight of the bounds."""
MAX_COST = 1e9
"""Largest weight of the bounds; Adam's steps hardly depend on it by then."""
COST_FACTOR = 2.0
"""Factor by which the weight of the bounds rises; it falls by this to the power of 1.5."""
PATIENCE = 5
"""Steps in a row within the tolerance (or not) after which the weight of the bounds rises (or falls)."""

Parts = Sequence[tuple[Tensor, Tensor]]
"""Batches of images (n, C, H, W) in [0, 1] and targets."""


class Clipped(nn.Module):
    """A frozen network in which the outputs of layers are clipped from above.

    Args:
        network: Maps images in [0, 1] to logits.
        layers: Names of the layers.

    Attributes:
        bounds: For each layer, the largest value of each output of an image, above 0; empty if nothing is clipped. To
            clip before a ReLU is then the same as to clip after it.
    """

    def __init__(self, network: nn.Module, layers: Iterable[str]) -> None:
        super().__init__()
        self.network = frozen(network)
        self.bounds: list[Tensor] = []
        self.outputs: list[Tensor] = []
        for place, name in enumerate(layers):
            layer = self.network.get_submodule(name)
            layer.register_forward_hook(lambda _layer, _inputs, output, place=place: self._clip(output, place))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def train(self, mode: bool = True) -> Clipped:
        """Stay in eval mode."""
        return super().train(False)

    def _clip(self, output: Tensor, place: int) -> Tensor:
        if self.bounds:
            return torch.minimum(output, self.bounds[place].to(output))
        self.outputs.append(output.relu())
        return output

    @torch.no_grad()
    def measure(self, parts: Parts, deviations: float) -> list[Tensor]:
        """Mean + `deviations` standard deviations of each output, after a ReLU, over images. Clips nothing."""
        self.bounds, total = [], 0
        sums: list[Tensor] = []
        for images, _ in parts:
            self.outputs = []
            self(images)
            own = [torch.stack([output.double().sum(0), output.double().square().sum(0)]) for output in self.outputs]
            sums = [one + new for one, new in zip(sums, own, strict=True)] if sums else own
            total += len(images)
        self.outputs = []
        means = [one / total for one in sums]
        return [(mean + deviations * (square - mean**2).clamp(min=0).sqrt()).float() for mean, square in means]


class UNIT(Choosing):
    """Clips activations at bounds as tight as clean images allow, and distils the clipped suspect into the student.

    Stage 1: bounds s of the outputs of all layers before the head, in each channel and position, start at mean +
    `deviations` std of the activations of clean images, and minimise L(g(x; s), y) + c sum_l mean(s_l) by Adam, where g
    is the suspect with outputs min(z, s), and c is adjusted so that g loses at most `tolerance` of the right
    predictions of the suspect on the selection images. A trigger works through activations that clean images do not
    reach, so g hardly reacts to it. Stage 2: the student minimises L(f(x), g(x)) + L(f(x + d), g(x + d)), where d in
    |d|_2 <= eps maximises L(f(x + d), y) - L(g(x + d), y) by steps eps / 2 along the gradient: the images on which the
    clipping matters most. The student stays in eval mode.

    Source: Cheng, Shen, Zhang, Tao, An, Guo, Ma, Zhang, "UNIT: Backdoor Mitigation via Automated Neural Distribution
    Tightening", ECCV 2024. **There the network keeps the bounds, and there is no stage 2.** Here the student has the
    suspect's layers, so that its file loads where the suspect's did; those layers cannot clip. Clipped are the outputs
    of norm layers, which for a ReLU behind them is the same, but before the shortcut of a residual block is added.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        deviations: Number of standard deviations of the initial bounds above the mean; the default is that of the
            authors' code, as are the following ones.
        bound_steps: Number of steps of the tightening, each on all (at most 2,048) images.
        bound_lr: Learning rate of Adam for the bounds.
        tolerance: Percent of the selection images on which clipping may change the prediction (with labels: lose the
            right one).
        lr: Learning rate of SGD for the student, which falls to 0 along a cosine; this and the following ones are this
            project's.
        momentum: Momentum of SGD.
        eps: Largest Euclidean norm of d, in pixel values, for images of 32 pixels; for others in proportion to their
            side.
        steps: Number of steps of the search for d.

    Raises:
        InputError: If the network has no layer before its head, or an option is out of range.
    """

    relative_time = 14.0
    epochs = 12
    freezes_batch_norm = True

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        deviations: float = 4.0,
        bound_steps: int = 300,
        bound_lr: float = 0.001,
        tolerance: float = 3.0,
        lr: float = 0.003,
        momentum: float = 0.9,
        eps: float = 3.0,
        steps: int = 3,
    ) -> None:
        super().__init__(suspect, supervision)
        for name, value in {"deviations": deviations, "bound_steps": bound_steps, "eps": eps, "steps": steps}.items():
            self.within(name, value, 0)
        for name, value in {"bound_lr": bound_lr, "lr": lr}.items():
            self.within(name, value, 0, above=True)
        self.within("tolerance", tolerance, 0, 100)
        self.deviations = deviations
        self.bound_steps = bound_steps
        self.bound_lr = bound_lr
        self.tolerance = tolerance
        self.lr = lr
        self.momentum = momentum
        self.eps = eps
        self.steps = steps
        self.layers = channels_of(suspect, type(self).__name__)
        names = [(channels.norm or channels.layer).replace("network.", "1.", 1) for channels in self.layers]
        self.clipped = Clipped(nn.Sequential(self.normalize, suspect.network), names)
        self.initial_bounds: list[Tensor] = []

    @torch.no_grad()
    def right(self, parts: Parts) -> float:
        """Percent of the images for which the clipped suspect predicts the class of the target."""
        hits = torch.stack([correct(self.clipped(images), classes_of(targets)).sum() for images, targets in parts])
        return 100 * float(hits.sum()) / max(1, sum(len(images) for images, _ in parts))

    def tighten(self, parts: Parts, chosen: Parts) -> list[Tensor]:
        """The smallest bounds, by their mean, that are within the tolerance on chosen images.

        Args:
            parts: The images on which the bounds are optimised.
            chosen: The selection images.
        """
        least = self.right(chosen) - self.tolerance
        raw = [one.requires_grad_() for one in self.clipped.measure(parts, self.deviations)]
        best = self.initial_bounds = [one.detach().clone() for one in raw]
        optimizer = torch.optim.Adam(raw, self.bound_lr, BETAS)
        total, smallest = sum(len(images) for images, _ in parts), float("inf")
        cost, streak = FIRST_COST, 0
        for _ in bar(range(self.bound_steps), "tightening"):
            optimizer.zero_grad()
            for images, targets in parts:
                self.clipped.bounds = [one.clamp(min=0) for one in raw]
                own = F.cross_entropy(self.clipped(images), targets)
                size = torch.stack([one.mean() for one in self.clipped.bounds]).sum()
                torch.autograd.backward((own + cost * size) * (len(images) / total))
            optimizer.step()
            self.clipped.bounds = [one.detach().clamp(min=0) for one in raw]
            within, sizes = self.right(chosen) >= least, sum(float(one.mean()) for one in self.clipped.bounds)
            if within and sizes < smallest:
                best, smallest = self.clipped.bounds, sizes
            # Positive: steps in a row within the tolerance; negative: not.
            streak = max(streak, 0) + 1 if within else min(streak, 0) - 1
            if abs(streak) == PATIENCE:
                cost, streak = min(MAX_COST, cost * (COST_FACTOR if within else COST_FACTOR**-1.5)), 0
        return best

    def prepare(self) -> None:
        found = self.tighten(first_batches(self.images(), SEARCH_IMAGES), list(self.images(choosing=True)))
        # All processes use one result, because of different rounding.
        found = self.trainer.strategy.broadcast([one.cpu() for one in found])
        self.clipped.bounds = [one.to(self.device) for one in found]

    def perturb(self, images: Tensor, classes: Tensor) -> Tensor:
        """The perturbation d of each image (N, C, H, W), which fools the student more than the clipped suspect."""
        bound = radius(self.eps, self.image_size)
        d = 0.3 * bound * unit_norm(torch.randn_like(images))
        for _ in range(self.steps):
            d.requires_grad_()
            losses = [F.cross_entropy(one(images + d), classes, reduction="sum") for one in (self, self.clipped)]
            (gradient,) = torch.autograd.grad(losses[0] - losses[1], d)
            d = (d.detach() + bound / 2 * unit_norm(gradient)).renorm(2, 0, bound)
            d = (images + d).clamp(0, 1) - images
        return d.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        both = torch.cat([images, images + self.perturb(images, classes_of(targets))])
        with torch.no_grad():
            wanted = self.clipped(both).softmax(1)
        loss = 2 * F.cross_entropy(self(both), wanted)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, 0.0, cosine)

    def describe(self) -> Description:
        if not self.clipped.bounds:
            return ()
        rows = (
            (channels.layer.removeprefix("network."), *(f"{float(one.mean()):.2f}" for one in pair))
            for channels, *pair in zip(self.layers, self.initial_bounds, self.clipped.bounds, strict=True)
        )
        return (Table(("layer", "mean bound at first", "mean bound"), tuple(rows)),)


def unit_norm(values: Tensor) -> Tensor:
    """(N, ...) values with a Euclidean norm of 1 for each of the N."""
    return values / values.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (values.ndim - 1))
