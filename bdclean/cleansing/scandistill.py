"""Distillation that unlearns what a scan finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from bdclean.batching import batch_size, pieces
from bdclean.cleansing.base import classes_of
from bdclean.cleansing.distill import StrongDistillCleanseModule
from bdclean.distillation import kd_loss
from bdclean.modules import Classifier
from bdclean.modules.attack import cosine
from bdclean.modules.classifier import Batch
from bdclean.scanning import (
    DenseInversion,
    Finding,
    Inversion,
    PatchInversion,
    SparseInversion,
    WarpInversion,
    shown,
    stands_out,
)
from bdclean.universal import Change

AIMED_BATCH, BLIND_BATCH = 128, 64
"""Images a step that the rates are meant for, where a class stands out and where none does; with fewer they are lower,
in proportion, or as the root: steadier steps than that give a backdoor back, too, that nobody looks for."""
AIMED, BLIND, BETWEEN = 31_500, 45_000, 2_250
"""Images that it trains on, the same ones again and again, where a class stands out and where none does, and from one
search to the next."""
LONGEST = 100
"""Epochs, at most: few images are not seen for ever."""
SEARCHED, LOOKED_AT, AT_ONCE, JUDGED = 1024, 640, 32, 64
"""Images that searches draw from; that one search looks at; at once; by how many what it finds is judged."""
GONE = 0.05
"""How many of the images may still go over to say that what was found is unlearned."""
BACK, SLACK = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7), 0.003
"""How much of the way from the suspect to the student is left in the end if it is; how many more of the images may go
over for that."""
ON, LOST = (1.025, 1.05, 1.075, 1.1, 1.125, 1.15, 1.175, 1.2), 0.03
"""How much of it is gone if it is not; how many more of the images may lose the suspect's answer for that."""
TRIALS, EARLY, RUINED = 10, 100, 0.5
"""After which parts of its first half, and how many steps, training is looked at where no class stands out; which share
of the images must have the suspect's answer then."""
HUNTERS = (
    DenseInversion((2.8, 2.0, 1.4, 1.0, 0.7), 4, AT_ONCE),
    SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, AT_ONCE),
    PatchInversion((7.0, 5.6, 4.0, 2.8, 2.0), 4, AT_ONCE),
    WarpInversion((2.0, 1.5, 1.0, 0.7, 0.5), 4, AT_ONCE),
)
"""What looks for triggers of a class that was found, by sizes that triggers have."""


class ScanDistill(StrongDistillCleanseModule):
    """Scans the suspect, and lets the student unlearn what is found.

    Where a class stands out, changes are looked for every few steps, the same for all images, that take them to this
    class, of the kinds by which it is found: in the suspect, and in the student as it now is. In each batch a share of
    the images carries one of them; all shall get what the suspect answers to the clean image. If a square of one
    colour, about where a mask was found in the suspect, takes as many images there, it is among them. The share is the
    larger, the more images those found in the student take there. In the end, if what was found in the suspect takes
    hardly any images there any more, the weights go back towards the suspect's, as far as that stays so; if it takes
    more of them, the weights go on beyond the student's, as far as the answers stay much the same. Nothing is
    re-initialised. Where no class stands out it does what StrongDistillCleanseModule does, for longer and with a
    temperature that does not rise; if that takes the network apart, so that it hardly answers as the suspect any more,
    it begins once more, at half the rate. Dropout never acts.

    From some 400 images on, how long it trains does not depend on how many there are.

    Own work; training against universal perturbations, with labels: Zeng et al., "Adversarial Unlearning of Backdoors
    via Implicit Hypergradient", ICLR 2022; weights between two networks: Wortsman et al., "Robust fine-tuning of
    zero-shot models", CVPR 2022, and beyond one of them: Ilharco et al., "Editing models with task arithmetic", ICLR
    2023.

    Args:
        suspect: The network to cleanse.
        aimed_lr: Highest learning rate of SGD where a class stands out, for batches of 128 or more: it rises for the
            first 30 % of the steps, then falls to 0 along a cosine.
        share: Share of each batch that carries a change there: if what is found in the student takes over no image, and
            if it takes over all.
        temperature: As in DistillCleanseModule, where no class stands out; by default it does not rise: at 4 a student
            learns again some backdoors that are in the shares of the suspect's answers alone.
        **options: As in StrongDistillCleanseModule; its learning rate is for batches of 64 or more. Where a class
            stands out, momentum and weight decay alone are used of them.

    Raises:
        InputError: If an option is out of range.
    """

    scans = True
    # The suspect's answers are those without.
    drops = False

    def __init__(
        self,
        suspect: Classifier,
        aimed_lr: float = 0.02,
        share: tuple[float, float] = (0.1, 0.4),
        temperature: tuple[float, float] = (1.0, 1.0),
        **options: Any,
    ) -> None:
        super().__init__(suspect, temperature=temperature, **options)
        # Of the two one is used, and either is heard.
        self.within("aimed_lr", aimed_lr, 0, above=True)
        self.within("lr", self.lr, 0, above=True)
        for bound in share:
            self.within("share", bound, 0, 1)
        self.aimed_lr = aimed_lr
        self.share = share
        self.sample = torch.empty(0)
        self.own = torch.empty(0)
        self.changes: list[tuple[Change, Tensor]] = []
        self.plain: list[Tensor] = []
        self.danger = 1.0
        self.seen, self.searches = 0.0, 0
        self.looked_after = False
        """Whether it may still begin anew because the network was taken apart."""

    @property
    def aims(self) -> list[tuple[Inversion, int]]:
        """Which classes triggers are looked for of, and by what; none if no class stands out."""
        return aims(self.found)

    @property
    def stride(self) -> float:
        """How many images a batch has, over all processes: for each of them the same, though their shares differ."""
        loader: Any = self.trainer.train_dataloader
        return len(loader.dataset) / len(loader)

    def epochs_of(self, images: int) -> int:
        return min(LONGEST, math.ceil((AIMED if self.aims else BLIND) / images))

    def prepare(self) -> None:
        batches = []
        for images, answers in self.images():
            batches.append((images, classes_of(answers)))
            if sum(len(classes) for _, classes in batches) >= SEARCHED:
                break
        self.sample, self.own = (torch.cat(parts) for parts in zip(*batches, strict=True))
        if not self.aims:
            self.looked_after = True
            return
        # Re-initialised it was before anybody knew.
        self.network.load_state_dict(self.teacher.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.aims:
            return super().training_step(batch, batch_idx)
        assert isinstance(batch, Tensor)
        if self.seen >= self.searches * BETWEEN:
            self.search()
            self.searches += 1
        self.seen += self.stride
        answers = self.teach(batch)  # first, as in DistillCleanseModule
        loss = kd_loss(self(self.changed(batch)), answers, 1.0)
        self.log_loss(loss, batch)
        return loss

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: begin once more where no class stands out and the network was taken apart."""
        super().on_train_epoch_end()
        if not self.looked_after:
            return
        done, epochs = self.current_epoch + 1, self.trainer.max_epochs or 0
        if done % math.ceil(epochs / TRIALS) or done > epochs // 2 or self.trainer.global_step < EARLY:
            return
        self.network.eval()
        ruined = self.kept() < RUINED
        self.set_mode(True)
        if self.trainer.strategy.broadcast(ruined):
            self.begin_anew(1 / 2)
            self.looked_after = False

    def search(self) -> None:
        """Look for changes that take images to the classes that were found."""
        order = torch.randperm(len(self.sample))[:LOOKED_AT].to(self.device)
        images, own = self.sample[order], self.own[order]
        mode = self.network.training
        self.network.eval()
        student, suspect = (
            [
                (hunter.change, torch.cat([*hunter.shrink(network, images, own, torch.tensor([target]).to(own))]))
                for hunter, target in self.aims
            ]
            for network in (self, self.teach_through)
        )
        if not self.plain:
            self.plain = [
                hunter.simplify(self.teach_through, images, own, target, found[-1:])
                for (hunter, target), (_, found) in zip(self.aims, suspect, strict=True)
            ]
        # As often as those of all sizes together.
        suspect = [
            (change, torch.cat([found, *[plain] * len(found)]))
            for (change, found), plain in zip(suspect, self.plain, strict=True)
        ]
        self.changes = [*student, *suspect]
        danger = self.taken(student, images[:JUDGED], own[:JUDGED])
        self.danger = 1.0 if math.isnan(danger) else danger
        self.set_mode(mode)

    def finish(self) -> None:
        if self.aims:
            self.walk()
        self.sample, self.own, self.changes, self.plain = torch.empty(0), torch.empty(0), [], []

    def walk(self) -> None:
        """Take the weights back towards the suspect's, or on beyond the student's."""
        suspect = {name: value for name, value in self.teacher.state_dict().items() if value.is_floating_point()}
        student = {name: value.clone() for name, value in self.network.state_dict().items() if name in suspect}
        found, judged = self.changes[len(self.aims) :], (self.sample[: 8 * JUDGED], self.own[: 8 * JUDGED])

        def mix(share: float) -> None:
            mixed = {name: suspect[name].lerp(value, share) for name, value in student.items()}
            self.network.load_state_dict(mixed, strict=False)

        def along(shares: Sequence[float], holds: Callable[[], bool]) -> float:
            """The last of some shares, one after the other from 1, up to which it holds."""
            reached = 1.0
            for share in shares:
                mix(share)
                if not holds():
                    break
                reached = share
            return reached

        self.network.eval()
        least, chosen = self.taken(found, *judged), 1.0
        # Nothing is known if there are no images to judge by: then it is neither at most nor more than anything.
        if least <= GONE:
            chosen = along(BACK, lambda: self.taken(found, *judged) <= least + SLACK)
        elif least > GONE:
            kept = self.kept()
            # Where a variance falls below zero there is no answer.
            chosen = along(ON, lambda: self.kept() >= kept - LOST)
        # Processes search for themselves.
        mix(self.trainer.strategy.broadcast(chosen))

    @torch.no_grad()
    def taken(self, changes: Sequence[tuple[Change, Tensor]], images: Tensor, own: Tensor) -> float:
        """Which share of the images (N, 3, H, W) of other classes changes take to the classes aimed at, a mean.

        NaN if there are none.
        """
        parts = pieces(images, batch_size(images))
        shares = []
        for (change, parameters), (_, target) in zip(changes, self.aims, strict=True):
            others = own != target
            # The plain one is there several times.
            distinct, times = torch.unique(parameters, dim=0, return_counts=True)
            gone = [self.classes(change(part, one) for part in parts) == target for one in distinct[:, None]]
            shares.append(((torch.stack(gone) & others).sum(1) / others.sum()).repeat_interleave(times))
        return float(torch.cat(shares).nanmean())

    def kept(self) -> float:
        """Which share of the images that searches draw from have the suspect's answer."""
        parts = pieces(self.sample, batch_size(self.sample))
        return float((self.classes(parts) == self.own).float().mean())

    @torch.no_grad()
    def classes(self, parts: Iterable[Tensor]) -> Tensor:
        """What the student takes images for, (N,), given in parts (n, 3, H, W), in the precision of the training."""
        # Not one context for several calls: it keeps the weights as they were cast, and they change.
        with self.trainer.precision_plugin.forward_context():
            return torch.cat([self(part).argmax(1) for part in parts])

    def changed(self, images: Tensor) -> Tensor:
        """A batch of which the first images carry a change, each a random one of its kind."""
        least, most = self.share
        number = round((least + (most - least) * self.danger) * len(images))
        parts = []
        # In another order each time: small batches have room for a few of them.
        order = torch.randperm(len(self.changes)).tolist()
        for part, kind in zip(images[:number].tensor_split(len(order)), order, strict=True):
            if len(part):
                change, parameters = self.changes[kind]
                chosen = torch.randint(len(parameters), (len(part),), device=images.device)
                parts.append(change(part, parameters[chosen]))
        return torch.cat([*parts, images[number:]])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        images = min(data.batch_size * self.trainer.accumulate_grad_batches, data.trained_count)
        if not self.aims:
            smaller = min(1.0, math.sqrt(images / BLIND_BATCH))
            return self.sgd(self.lr * smaller, self.momentum, self.weight_decay, cosine)

        def schedule(done: float) -> float:
            # Not from 0, or a training of one step would do nothing.
            return cosine(max(done, 0.01), warmup=0.3)

        smaller = min(1.0, images / AIMED_BATCH)
        return self.sgd(self.aimed_lr * smaller, self.momentum, self.weight_decay, schedule)

    def describe(self) -> str:
        if not self.found:
            return ""
        rows = [f"| {one.detector} | {one.suspected} | {shown(one.p_value)} |" for one in self.found]
        table = "\n".join(["| scan of the suspect | class | p-value |", "|---|---|---|", *rows])
        return table if self.aims else f"{table}\n\n{super().describe()}"


def aims(findings: Sequence[Finding]) -> list[tuple[Inversion, int]]:
    """Which classes triggers are looked for of, and by what; none if no class stands out."""
    outstanding = [one for one in findings if stands_out(one, len(findings))]
    known = {type(hunter).__name__: hunter for hunter in HUNTERS}
    found: list[tuple[Inversion, int]] = []
    for target in dict.fromkeys(one.suspected for one in outstanding):
        finders = [one for one in outstanding if one.suspected == target and one.detector in known]
        # For each kind of change, what is surest of it.
        hunters: dict[object, Inversion] = {}
        for one in sorted(finders, key=lambda one: one.p_value):
            hunter = known[one.detector]
            hunters.setdefault(type(hunter).change, hunter)
        # What found no trigger says nothing of its kind.
        found += [(hunter, target) for hunter in hunters.values() or HUNTERS]
    return found
