"""Distillation under universal changes of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.base import Cleanser, classes_of
from bdclean.cleansing.distill import kd_loss
from bdclean.cleansing.reinitialise import Shares, run_seed
from bdclean.modules import Classifier
from bdclean.modules.attack import cosine
from bdclean.modules.classifier import Batch
from bdclean.scanning import (
    DETECTORS,
    DenseInversion,
    Finding,
    Inversion,
    SparseInversion,
    WarpInversion,
    shown,
    stands_out,
)
from bdclean.scanning.base import Network, rounds
from bdclean.universal import CONTROLS, Change, ascend, draw_layers, overlay, shift_radius, warp

TRIED_ON = 32
"""Images on which each random layer is tried."""
SEARCHED, BATCH = 1024, 32
"""Images that searches draw from; how many they see at once."""
HUNTERS = (
    DenseInversion((2.8, 2.0, 1.4, 1.0, 0.7), 4, BATCH),
    SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, BATCH),
    WarpInversion((2.0, 1.5, 1.0, 0.7, 0.5), 4, BATCH),
)
"""What looks for triggers of a class that was found, by sizes that triggers have."""


class UniversalDistill(Cleanser):
    """Lets the student learn the suspect's answers on clean images, while some images carry what a trigger might be.

    A trigger changes all images alike, whatever it looks like. First the suspect is scanned. Where a class stands out,
    each epoch begins with a search for changes that take images to this class, of the kind by which it was found: in
    the suspect, and in the student as it now is. In each batch a share of the images carries one of them; all shall get
    what the suspect answers to the clean image. Nothing is re-initialised.

    Where no class stands out, the changes are whatever moves answers: warps, found by gradient steps, and the best of
    random patches, waves and blended pictures; and a share of the weights is re-initialised, and learnt again faster.

    Own work; training against universal perturbations, with labels: Zeng et al., "Adversarial Unlearning of Backdoors
    via Implicit Hypergradient", ICLR 2022; re-initialisation: Pang, Sun, Ling, Chen, CVPR 2023.

    Args:
        suspect: The network to cleanse.
        lr: Highest learning rate of SGD: it rises for the first 30 % of the steps, then falls to 0 along a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.
        share: Share of each batch that carries a change.
        blind_lr: The learning rate where no class stands out.
        ratios: Share of the weights that are re-initialised there, as in DistillCleanseModule.
        shift: How far warps shift there in the first and in the last epoch, root mean square, in pixels of 32.
        steps: Gradient steps of a warp, each on another batch.
        layers: How many random patches, waves and pictures are tried for each network in each epoch.
        kept: How many of these are used.
        seed: Fixes which weights are re-initialised, and to what; by default that of the whole run.

    Raises:
        InputError: If an option is out of range.
    """

    epochs = 14

    def __init__(
        self,
        suspect: Classifier,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        share: float = 0.2,
        blind_lr: float = 0.1,
        ratios: float | Sequence[float] | None = 0.2,
        shift: tuple[float, float] = (2.0, 0.5),
        steps: int = 6,
        layers: int = 32,
        kept: int = 4,
        seed: int | None = None,
    ) -> None:
        super().__init__(suspect)
        self.within("share", share, 0, 1)
        self.within("blind_lr", blind_lr, 0, above=True)
        for bound in shift:
            self.within("shift", bound, 0, above=True)
        self.within("steps", steps, 1)
        self.within("layers", layers, 3)
        self.within("kept", kept, 1, layers)
        self.shares = Shares(suspect, suspect.image_size, ratios, type(self).__name__)
        self.ratios = self.shares.ratios
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.share = share
        self.blind_lr = blind_lr
        self.shift = shift
        self.steps = steps
        self.layers = layers
        self.kept = kept
        self.seed = run_seed(seed)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                # The suspect's answers are those without it.
                module.p = 0.0
        self.found: list[Finding] = []
        self.aims: list[tuple[Inversion, int]] = []
        self.sample = torch.empty(0)
        self.own = torch.empty(0)
        self.changes: list[tuple[Change, Tensor]] = []

    def prepare(self) -> None:
        batches = []
        for images, answers in self.images():
            batches.append((images, classes_of(answers)))
            if sum(len(classes) for _, classes in batches) >= SEARCHED:
                break
        self.sample, self.own = (torch.cat(parts) for parts in zip(*batches, strict=True))
        self.found = [kind().find(self.teach_through, self.sample, self.num_classes) for kind in DETECTORS]
        self.aims = aims(self.found)
        if not self.aims:
            self.shares.reinitialise(self, self.seed)

    def on_train_epoch_start(self) -> None:
        """Search for changes."""
        order = torch.randperm(len(self.sample)).to(self.device)
        images, own = self.sample[order], self.own[order]
        mode = self.network.training
        self.network.eval()
        self.changes = []
        for network in (self, self.teach_through):
            if self.aims:
                self.changes += [
                    (hunter.change, torch.cat([*hunter.shrink(network, images, own, torch.tensor([target]).to(own))]))
                    for hunter, target in self.aims
                ]
            else:
                self.changes += self.guess(network, images, own)
        self.network.train(mode)

    def guess(self, network: Network, images: Tensor, own: Tensor) -> list[tuple[Change, Tensor]]:
        """Changes that move a network's answers to any class.

        Args:
            network: In eval mode.
            images: (N, 3, H, W) in [0, 1].
            own: (N,) their classes.
        """
        first, last = self.shift
        wide = shift_radius(first * (last / first) ** self.progress)
        field = torch.randn(1, 2, CONTROLS, CONTROLS).to(images)
        warped = ascend(confusion(network, warp, images, own), field * (wide / 2 / field.norm()), wide, self.steps)
        layers = draw_layers(self.layers, self.image_size).to(images)
        return [(warp, warped), (overlay, self.best_layers(network, layers, images, own))]

    @torch.no_grad()
    def best_layers(self, network: Network, layers: Tensor, images: Tensor, own: Tensor) -> Tensor:
        """Those layers (n, 4, H, W) that move the most images to one class."""
        images, own = images[:TRIED_ON], own[:TRIED_ON]
        moved = []
        for layer in layers:
            answers = network(overlay(images, layer[None])).argmax(1)
            votes = F.one_hot(answers, self.num_classes) * (answers != own)[:, None]
            moved.append(votes.sum(0).max())
        return layers[torch.stack(moved).topk(self.kept).indices]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert isinstance(batch, Tensor)
        loss = kd_loss(self(self.changed(batch)), self.teach(batch), 1.0)
        self.log_loss(loss, batch)
        return loss

    def changed(self, images: Tensor) -> Tensor:
        """A batch of which the first images carry a change, each a random one of its kind."""
        number = round(self.share * len(images))
        parts = []
        for part, (change, parameters) in zip(
            images[:number].tensor_split(len(self.changes)), self.changes, strict=True
        ):
            if len(part):
                chosen = torch.randint(len(parameters), (len(part),)).to(images.device)
                parts.append(change(part, parameters[chosen]))
        return torch.cat([*parts, images[number:]])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        def schedule(done: float) -> float:
            # Called before the scan, too, when the warm-up makes it 0.
            return cosine(done, warmup=0.3) * (1 if self.aims else self.blind_lr / self.lr)

        return self.sgd(self.lr, self.momentum, self.weight_decay, schedule)

    def describe(self) -> str:
        if not self.found:
            return ""
        rows = [f"| {one.detector} | {one.suspected} | {shown(one.p_value)} |" for one in self.found]
        return "\n".join(["| scan of the suspect | class | p-value |", "|---|---|---|", *rows])


def aims(findings: Sequence[Finding]) -> list[tuple[Inversion, int]]:
    """Which classes triggers are looked for of, and of which kind; none if no class stands out."""
    found = []
    for finding in findings:
        if stands_out(finding, len(findings)):
            # Who found no trigger says nothing of its kind.
            kinds = [
                hunter for hunter in HUNTERS if finding.trigger is None or type(hunter).__name__ == finding.detector
            ]
            found += [(hunter, finding.suspected) for hunter in kinds]
    return list(dict.fromkeys(found))


def confusion(network: Network, change: Change, images: Tensor, own: Tensor) -> Callable[[Tensor], Tensor]:
    """How wrong a network is about changed images, each time about others. Arguments as in `UniversalDistill.guess`."""
    batches = rounds(images, own, 2 * BATCH)

    def objective(parameters: Tensor) -> Tensor:
        some, theirs = next(batches)
        return F.cross_entropy(network(change(some, parameters)), theirs)

    return objective
