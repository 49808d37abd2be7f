"""Distillation under universal perturbations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.base import Cleanser, classes_of
from bdclean.cleansing.distill import kd_loss
from bdclean.modules import Classifier
from bdclean.modules.attack import cosine
from bdclean.modules.classifier import Batch
from bdclean.universal import CONTROLS, Change, add, ascend, draw_layers, overlay, radius, warp

TRIED_ON = 32
"""Images on which each random layer is tried."""


class UniversalDistill(Cleanser):
    """Lets the student learn the suspect's answers on clean images, while some images carry what a trigger might be.

    A trigger changes all images alike, whatever it looks like. So each epoch begins with a search for changes that, the
    same for all images, move the answers of the student as it now is, and of the suspect: perturbations that are added,
    warps, both by normalised gradient steps, and the best of random patches, waves and blended pictures. In each batch
    a share of the images carries one of them; all shall get what the suspect answers to the clean image. The changes
    become smaller from epoch to epoch, so that the student ends near the clean images. Nothing is re-initialised.

    Own work; universal perturbations: Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, CVPR 2017; training against them, with
    labels: Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022.

    Args:
        suspect: The network to cleanse.
        lr: Highest learning rate of SGD: it rises for the first 30 % of the steps, then falls to 0 along a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.
        share: Share of each batch that carries a change.
        norm: Euclidean norm of what is added in the first and in the last epoch, in pixel values, for images of 32
            pixels; on others it grows with their side.
        shift: How far warps shift, in the first and in the last epoch, root mean square, in pixels of 32.
        steps: Gradient steps of a search, each on another batch.
        layers: How many random patches, waves and pictures are tried for each network in each epoch.
        kept: How many of these are used.

    Raises:
        InputError: If an option is out of range.
    """

    epochs = 8

    def __init__(
        self,
        suspect: Classifier,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        share: float = 0.375,
        norm: tuple[float, float] = (4.5, 0.8),
        shift: tuple[float, float] = (2.0, 0.5),
        steps: int = 6,
        layers: int = 64,
        kept: int = 4,
    ) -> None:
        super().__init__(suspect)
        self.within("share", share, 0, 1)
        for name, bounds in (("norm", norm), ("shift", shift)):
            for bound in bounds:
                self.within(name, bound, 0, above=True)
        self.within("steps", steps, 1)
        self.within("layers", layers, 3)
        self.within("kept", kept, 1, layers)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.share = share
        self.norm = norm
        self.shift = shift
        self.steps = steps
        self.layers = layers
        self.kept = kept
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                # The suspect's answers are those without it.
                module.p = 0.0
        self.sample: list[tuple[Tensor, Tensor]] = []
        self.changes: list[tuple[Change, Tensor]] = []

    def prepare(self) -> None:
        batches = islice(self.images(), 4 * self.steps)
        self.sample = [(images, classes_of(answers)) for images, answers in batches]

    def on_train_epoch_start(self) -> None:
        """Search for changes, of the size that is due."""
        norm, shift = (first * (last / first) ** self.progress for first, last in (self.norm, self.shift))
        mode = self.network.training
        self.network.eval()
        self.changes = [
            change for network in (self.network, self.teacher) for change in self.search(network, norm, shift)
        ]
        self.network.train(mode)

    def search(self, network: nn.Module, norm: float, shift: float) -> list[tuple[Change, Tensor]]:
        """Changes that move a network's answers, of each kind.

        Args:
            network: In eval mode.
            norm: Of what is added, for images of 32 pixels.
            shift: Of warps, in pixels of 32.
        """
        side, device = self.image_size, self.device
        nothing = torch.zeros(1, 3, side, side, device=device)
        field = torch.randn(1, 2, CONTROLS, CONTROLS).to(device)
        # A root mean square of all shifts is a Euclidean norm.
        wide = shift / 32 * field.numel() ** 0.5
        return [
            (add, ascend(self.confusion(network, add), nothing, radius(norm, side), self.steps)),
            (warp, ascend(self.confusion(network, warp), field * (wide / 2 / field.norm()), wide, self.steps)),
            (overlay, self.best_layers(network, draw_layers(self.layers, side).to(device))),
        ]

    def confusion(self, network: nn.Module, change: Change) -> Callable[[Tensor], Tensor]:
        """How wrong a network is about changed images, each time on another batch."""
        batches = cycle([self.sample[number] for number in torch.randperm(len(self.sample)).tolist()])

        def objective(parameters: Tensor) -> Tensor:
            images, classes = next(batches)
            return F.cross_entropy(network(self.normalize(change(images, parameters))), classes)

        return objective

    @torch.no_grad()
    def best_layers(self, network: nn.Module, layers: Tensor) -> Tensor:
        """Those layers (n, 4, H, W) that move the most images to one class."""
        images, classes = (values[:TRIED_ON] for values in self.sample[0])
        moved = []
        for layer in layers:
            answers = network(self.normalize(overlay(images, layer[None]))).argmax(1)
            votes = F.one_hot(answers, self.num_classes) * (answers != classes)[:, None]
            moved.append(votes.sum(0).max())
        return layers[torch.stack(moved).topk(self.kept).indices]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert isinstance(batch, Tensor)
        loss = kd_loss(self(self.changed(batch)), self.teach(batch), 1.0)
        self.log_loss(loss, batch)
        return loss

    def changed(self, images: Tensor) -> Tensor:
        """A batch of which the first images carry a change, each a random one of its kind."""
        count = round(self.share * len(images))
        parts = []
        for part, (change, parameters) in zip(
            images[:count].tensor_split(len(self.changes)), self.changes, strict=True
        ):
            if len(part):
                chosen = torch.randint(len(parameters), (len(part),)).to(images.device)
                parts.append(change(part, parameters[chosen]))
        return torch.cat([*parts, images[count:]])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.sgd(self.lr, self.momentum, self.weight_decay, partial(cosine, warmup=0.3))
