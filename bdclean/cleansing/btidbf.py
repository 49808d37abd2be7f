"""Trigger inversion by decoupling benign features, and unlearning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdclean.attacks.generators import Generator
from bdclean.cleansing.base import Cleanser, Supervision
from bdclean.cleansing.steps import first_batches
from bdclean.data.batch import Batch
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.networks import find_stages
from bdclean.progress import bar

SEARCH_IMAGES = 2048
"""Maximum number of images of an inversion."""

Parts = Sequence[tuple[Tensor, Tensor]]
"""Batches of images (n, C, H, W) and targets."""


class BTIDBF(Cleanser):
    """Finds the features that clean images need, inverts a trigger from the others, and unlearns it; in rounds.

    z is the input of the head. Each round: (1) Decoupling: a mask m in [0, 1] of the features minimises L(h(m z), y) -
    L(h((1 - m) z), y), with the head h; m marks the benign features. (2) Inversion: a generator G minimises 0.01
    |m (z - z')|^2 - |(1 - m) (z - z')|^2 over images x and x' = G(x), or |x - x'|^2 where that is above `bound`; all
    are mean squares. From the second round on it also minimises L(f(x'), t), with the class t that f predicts for most
    x' after the first. (3) Unlearning: the student minimises L(f(x'), y) + features |z - z'|^2, with x' for a share of
    the images and x for the others.

    Source: Xu, Huang, Li, Qin, Ren, "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling Benign
    Features", ICLR 2024: its BTI-DBF (U). There G is a U-Net of four levels that is pretrained for 50 epochs to
    reproduce images; here it has two levels, group norms, and adds its output to the image, which needs no
    pretraining. The authors' bound on the benign features is left out. In both, the weight 0.01 is a constant.

    Args:
        suspect: The network to cleanse. It is not changed.
        supervision: Targets y: `teacher`, the suspect's predicted probabilities; `labels`, the true labels.
        lr: Learning rate of Adam in unlearning; the default is that of the authors' code.
        rounds: Number of rounds, at equal distances over the epochs; the default is that of the authors' code.
        mask_epochs: Passes over at most 2,048 images to find the mask; the default is that of the authors' code.
        mask_lr: Learning rate of Adam for the mask; the default is that of the authors' code.
        generator_epochs: Passes over at most 2,048 images to train the generator; the default is that of the authors'
            code.
        generator_lr: Learning rate of Adam for the generator; the default is probably the authors'.
        bound: Largest mean square of the change of an image, in the units of normalised images; the default is the
            authors' number, whose units are our reading of their code.
        share: Share of the images of a batch that carry the generated trigger, at least one image; the default is that
            of the authors' code.
        features: Weight of the distance of features in unlearning; the default is that of the authors' code.

    Raises:
        InputError: If the network has no separate head, or an option is out of range.
    """

    relative_time = 15.0
    epochs = 150

    def __init__(
        self,
        suspect: Classifier,
        supervision: Supervision = "teacher",
        lr: float = 1e-4,
        rounds: int = 5,
        mask_epochs: int = 20,
        mask_lr: float = 0.01,
        generator_epochs: int = 30,
        generator_lr: float = 1e-3,
        bound: float = 0.3,
        share: float = 0.1,
        features: float = 1.0,
    ) -> None:
        super().__init__(suspect, supervision)
        for name, value in {"lr": lr, "mask_lr": mask_lr, "generator_lr": generator_lr}.items():
            self.within(name, value, 0, above=True)
        for name, count in {"rounds": rounds, "mask_epochs": mask_epochs, "generator_epochs": generator_epochs}.items():
            self.within(name, count, 1)
        self.within("bound", bound, 0)
        self.within("share", share, 0, 1)
        self.within("features", features, 0)
        self.lr = lr
        self.rounds = rounds
        self.mask_epochs = mask_epochs
        self.mask_lr = mask_lr
        self.generator_epochs = generator_epochs
        self.generator_lr = generator_lr
        self.bound = bound
        self.share = share
        self.features = features
        layers = find_stages(suspect, suspect.image_size)
        if not layers:
            raise InputError("method", "BTIDBF", "the network has no separate head")
        self.head = layers[-1].name
        self.generator = Generator(3, 3).requires_grad_(False)
        self.target: int | None = None
        """The class that the first generator flips most images to; None before."""

    def through(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of images in [0, 1], and the input of the head, which is multiplied by a mask if there is one."""
        found: list[Tensor] = []

        def watch(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            found.append(inputs[0])
            return inputs if mask is None else (mask * inputs[0], *inputs[1:])

        with self.get_submodule(self.head).register_forward_pre_hook(watch):
            logits = self(images)
        return logits, found[-1].to(images.dtype)

    def trigger(self, images: Tensor) -> Tensor:
        """G(x) of images in [0, 1], (N, 3, H, W), clipped to [0, 1]."""
        changed: Tensor = images + self.generator(images)
        return changed.clamp(0, 1)

    def decouple(self, parts: Parts) -> Tensor:
        """The mask of benign features, of the shape of an image's features."""
        with torch.no_grad():
            _, features = self.through(parts[0][0][:1])
        raw = torch.randn_like(features[0]).requires_grad_()
        optimizer = torch.optim.Adam([raw], self.mask_lr)
        for _ in range(self.mask_epochs):
            for images, targets in parts:
                mask = (raw.tanh() + 1) / 2
                kept, left = (self.through(images, one)[0] for one in (mask, 1 - mask))
                loss = F.cross_entropy(kept, targets) - F.cross_entropy(left, targets)
                (raw.grad,) = torch.autograd.grad(loss, raw)
                optimizer.step()
        return ((raw.tanh() + 1) / 2).detach()

    def inversion_loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """The loss of the generator on a batch (N, C, H, W)."""
        changed = self.trigger(images)
        logits, features = self.through(changed)
        with torch.no_grad():
            _, clean = self.through(images)
        distance = F.mse_loss(self.normalize(changed), self.normalize(images))
        benign, other = (F.mse_loss(one * features, one * clean) for one in (mask, 1 - mask))
        loss = distance if distance > self.bound else 0.01 * benign - other
        if self.target is None:
            return loss
        return loss + F.cross_entropy(logits, torch.full_like(logits[:, 0], self.target, dtype=torch.long))

    def invert(self, parts: Parts) -> None:
        """Train the generator on the present student."""
        mask = self.decouple(parts)
        weights = list(self.generator.requires_grad_(True).parameters())
        optimizer = torch.optim.Adam(weights, self.generator_lr)
        for _ in bar(range(self.generator_epochs), "inversion"):
            for images, _targets in parts:
                found = torch.autograd.grad(self.inversion_loss(images, mask), weights)
                for weight, gradient in zip(weights, found, strict=True):
                    weight.grad = gradient
                optimizer.step()
        optimizer.zero_grad()
        self.generator.requires_grad_(False)
        if self.target is None:
            with torch.no_grad():
                predicted = torch.cat([self(self.trigger(images)).argmax(1) for images, _ in parts])
            self.target = int(predicted.bincount().argmax())

    def on_train_epoch_start(self) -> None:
        """Called by Lightning: invert a trigger if a round begins, the same one in each process."""
        epochs = (self.trainer.max_epochs or 0) - self.first_epoch
        begins = {number * epochs // self.rounds for number in range(self.rounds)}
        if self.current_epoch - self.first_epoch not in begins:
            return
        self.network.eval()
        self.invert(first_batches(self.images(), SEARCH_IMAGES))
        self.set_mode(True)
        state = {name: value.cpu() for name, value in self.generator.state_dict().items()}
        state, self.target = self.trainer.strategy.broadcast((state, self.target))
        self.generator.load_state_dict(state)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.supervise(batch)
        changed = images.clone()
        count = int(self.share * len(images) + 1)
        changed[:count] = self.trigger(images[:count])
        logits, features = self.through(changed)
        _, clean = self.through(images)
        loss = F.cross_entropy(logits, targets) + self.features * F.mse_loss(features, clean)
        self.log_loss(loss, images)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.lr)
