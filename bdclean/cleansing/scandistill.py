"""Distillation that unlearns what a scan finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.aims import Aim, BySource, Changes, all_to_one
from bdclean.cleansing.base import classes_of
from bdclean.cleansing.distill import StrongDistillCleanseModule
from bdclean.cleansing.harm import find_harm
from bdclean.cleansing.path import Path
from bdclean.data.batch import Batch
from bdclean.models import duplicate, folded, frozen
from bdclean.modules import Classifier
from bdclean.scanning import Network, PatchInversion, SparseInversion, shown
from bdclean.scanning.difference import FEWEST, differences, source_classes
from bdclean.training import batch_size, cosine, kd_loss, pieces

AIMED_BATCH, BLIND_BATCH = 128, 64
"""Images a step that the rates are meant for, where a class stands out and where none does; with fewer they are lower,
in proportion, or as the root: steadier steps than that give a backdoor back, too, that nobody looks for."""
AIMED_GRADIENT = 1.0
"""Largest norm of a gradient where triggers are unlearned: at 5, a network for inputs of 0..255 lost 1.2 points more.
While a re-initialised student learns it is that of StrongDistillCleanseModule: at 1, more of a backdoor is left."""
AIMED, BLIND, BETWEEN = 31_500, 45_000, 2_250
"""Images that it trains on, the same ones again and again, where a class stands out and where none does, and from one
search to the next."""
LONGEST = 100
"""Epochs of a phase, at most: few images are not seen for ever."""
SEARCHED, LOOKED_AT, JUDGED = 1024, 640, 64
"""Images that searches draw from; that one search looks at; by how many what it finds is judged."""
COMPARED = 2048
"""Images by which the suspect and the re-initialised student are compared."""
COMPARERS = (SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, 16), PatchInversion((5.6, 4.0, 2.8, 2.0), 4, 16))
"""Searches for changes that flip the suspect and not the re-initialised student, or the other way round."""
GONE = 0.05
"""How many of the images may still go over to say that what was found is unlearned."""
BACK, SLACK = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7), 0.003
"""How much of the way from the suspect to the student is left in the end if it is; how many more of the images may go
over for that."""
BACK_OFF = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""How much further it goes back, as long as what was found is gone, if the student does harm otherwise."""
ON, LOST = (1.025, 1.05, 1.075, 1.1, 1.125, 1.15, 1.175, 1.2), 0.03
"""How much of it is gone if it is not; how many more of the images may lose the suspect's answer for that."""
RETREAT, ENOUGH = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0), 0.96
"""Where nothing was found: how much of the way is tried; which share of the images must have the suspect's class."""
TRIALS, EARLY, RUINED = 10, 100, 0.5
"""After which parts of its first half, and how many steps, training is looked at where no class stands out; which share
of the images must have the suspect's answer then."""


class ScanDistill(StrongDistillCleanseModule):
    """Scans the suspect, and trains the student to ignore the triggers that are found.

    **Where a class stands out**, every few steps it searches for universal perturbations that take images to that
    class, of the kinds by which the scan found it: in the suspect, and in the student as it is by then. A share of each
    batch carries one of them; the targets are the suspect's predictions on the clean images. If a square of one colour,
    about where a mask was found in the suspect, flips as many images, it is used as well. The share grows with the
    fraction of images that the student's own perturbations still flip. Finally the weights are interpolated back
    towards the suspect's as far as the perturbations stay without effect, or, if they still have some, extrapolated
    past the student's as long as it keeps its predictions. Nothing is re-initialised.

    **Where no class stands out** it first does what StrongDistillCleanseModule does, for longer and at a constant
    temperature; if that ruins the network, so that it hardly agrees with the suspect any more, it starts again at half
    the rate. That makes a reference: a network with the suspect's classes and less of its backdoor. For each class it
    then searches for perturbations that flip images in the suspect and not in the reference, and the other way round
    (`bdclean.scanning.difference`). If far more flip in the suspect alone, that is a backdoor of single classes, or
    one with many targets: it starts again from the suspect and unlearns these perturbations, on images of those
    classes, as above. If not, nothing was found, and the re-initialised student's weights are interpolated back
    towards the suspect's until both agree on 96 % of the images; `--when_clean` asks for another end.

    Dropout never acts. From some 400 images on, how long it trains does not depend on how many there are.

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
        self.changes: list[Changes] = []
        """What the last search found: in the student, an entry for each aim, then in the suspect."""
        self.searched: list[list[Changes]] = []
        """The same without what is plainer: for the student and the suspect, an entry for each aim."""
        self.plain: list[Changes] = []
        self.danger = 1.0
        self.seen, self.searches = 0.0, 0
        self.looked_after = False
        """Whether it may still begin anew because the network was taken apart."""
        self.by_source: list[Aim] = []
        self.left: float | None = None
        """In the end, if nothing was found: the share of the way from the suspect to the re-initialised student."""
        self.turned: dict[str, Tensor] = {}
        """The student after that phase, while there is a second one."""

    @property
    def targeted(self) -> list[Aim]:
        """Triggers to look for of the classes that stand out; none if no class does."""
        return all_to_one(self.found)

    @property
    def rate_option(self) -> str:
        return "aimed_lr" if self.targeted else "lr"

    @property
    def aims(self) -> list[Aim]:
        """Triggers that the student unlearns."""
        return [*self.targeted, *self.by_source]

    @property
    def largest_gradient(self) -> float:
        return AIMED_GRADIENT if self.aims else super().largest_gradient

    @property
    def stride(self) -> float:
        """How many images a batch has, over all processes: for each of them the same, though their shares differ."""
        loader: Any = self.trainer.train_dataloader
        return len(loader.dataset) / len(loader)

    @property
    def first_phase(self) -> int:
        """Epochs of re-initialisation and distillation, where no class stands out; a second phase may follow."""
        epochs = (self.trainer.max_epochs or 0) - self.first_epoch
        return max(1, round(epochs * BLIND / (BLIND + AIMED))) if self.found else epochs

    @property
    def progress(self) -> float:
        return min(1.0, (self.current_epoch - self.first_epoch) / max(1, self.first_phase - 1))

    def epochs_of(self, images: int) -> int:
        aimed, blind = (min(LONGEST, math.ceil(seen / images)) for seen in (AIMED, BLIND))
        if self.targeted:
            return aimed
        return blind + aimed if self.found else blind

    def prepare(self) -> None:
        batches = []
        for images, answers in self.images():
            batches.append((images, classes_of(answers)))
            if sum(len(classes) for _, classes in batches) >= COMPARED:
                break
        self.sample, self.own = (torch.cat(parts) for parts in zip(*batches, strict=True))
        if not self.targeted:
            self.looked_after = True
            return
        # Re-initialised it was before anybody knew.
        self.network.load_state_dict(self.teacher.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.aims:
            return super().training_step(batch, batch_idx)
        images = batch.images
        if self.seen >= self.searches * BETWEEN:
            self.search()
            self.searches += 1
        self.seen += self.stride
        answers = self.teach(images)  # first, as in DistillCleanseModule
        loss = kd_loss(self(self.changed(images, answers.argmax(1))), answers, 1.0)
        self.log_loss(loss, images)
        return loss

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: look after a training that no class stands out for, and end its first phase."""
        super().on_train_epoch_end()
        if self.aims:
            return
        done = self.current_epoch + 1 - self.first_epoch
        if not done:
            # It has just begun anew.
            return
        if self.looked_after and not done % math.ceil(self.first_phase / TRIALS) and done <= self.first_phase // 2:
            self.look_after()
        elif done == self.first_phase and self.found:
            self.turn()

    def look_after(self) -> None:
        """Begin once more, at half the rate, if the network was taken apart."""
        if self.trainer.global_step < EARLY:
            return
        self.network.eval()
        ruined = self.kept() < RUINED
        self.set_mode(True)
        if self.trainer.strategy.broadcast(ruined):
            self.begin_anew(1 / 2)
            self.looked_after = False

    def turn(self) -> None:
        """Compare the suspect with the student, and unlearn in a second phase what only the suspect has; or end."""
        reference = self.reference()
        self.compare(reference)
        sources = source_classes(self.differences)
        if not sources:
            self.trainer.fit_loop.max_epochs = self.current_epoch + 1
            return
        # Once for all searches: images of some hundred pixels take gigabytes.
        members = {source: self.sample[self.own == source] for source in sources}
        for one in self.differences:
            if one.sources:
                self.by_source.append(BySource(one.hunter, {own: members[own] for own in one.sources}, reference))
        self.unlearned = True
        self.turned = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.teacher.state_dict())
        for optimizer in self.trainer.optimizers:
            # The momentum belongs to other weights.
            optimizer.state.clear()

    def compare(self, reference: Network) -> None:
        """Look for what the suspect has and the student, as it is, does not."""
        with self.trainer.precision_plugin.forward_context():
            found = differences(self.teach_through, reference, self.sample, COMPARERS, self.num_classes)
        # Processes whose last bits differ would go on differently.
        self.differences = self.trainer.strategy.broadcast(found)

    def reference(self) -> Network:
        """The student as it is, frozen: from images in [0, 1] to logits."""
        whole = frozen(duplicate(nn.Sequential(self.normalize, self.network)))
        # Not on a GPU, whose convolutions round more than folding may change.
        return folded(whole.cpu(), self.image_size).to(self.device)

    def on_divergence(self, loss: float) -> None:
        """In the second phase go back to what the first one made, and end; in the first begin anew."""
        if not self.turned:
            super().on_divergence(loss)
            return
        if self.trainer.is_global_zero:
            print(
                f"The loss became {loss} in epoch {self.current_epoch}: training ends, and the re-initialised student "
                "is kept."
            )
        self.unlearned = False
        self.network.load_state_dict(self.turned)
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def search(self) -> None:
        """Look for changes that do what is to be unlearned."""
        order = torch.randperm(min(SEARCHED, len(self.sample)))[:LOOKED_AT].to(self.device)
        images, own = self.sample[order], self.own[order]
        mode = self.network.training
        self.network.eval()
        found = [[aim.search(network, images, own) for aim in self.aims] for network in (self, self.teach_through)]
        if self.searched:
            found = [
                [now.after(before) for now, before in zip(*parts, strict=True)]
                for parts in zip(found, self.searched, strict=True)
            ]
        self.searched = found
        student, suspect = found
        known: Sequence[Changes | None] = self.plain or [None] * len(suspect)
        self.plain = [
            aim.simplify(self.teach_through, images, own, one, plain)
            for aim, one, plain in zip(self.aims, suspect, known, strict=True)
        ]
        # As often as those of all sizes together.
        suspect = [
            one.with_(plain, len(aim.hunter.sizes))
            for aim, one, plain in zip(self.aims, suspect, self.plain, strict=True)
        ]
        self.changes = [*student, *suspect]
        danger = self.taken(student, images[:JUDGED], own[:JUDGED])
        self.danger = 1.0 if math.isnan(danger) else danger
        self.set_mode(mode)

    def finish(self) -> None:
        if self.found and not self.aims and not self.differences:
            # The training had fewer steps or less time than its first phase takes.
            self.compare(self.reference())
        if self.by_source and not self.searches:
            # The training ended with its first phase: there is no other network than that.
            self.network.load_state_dict(self.turned)
            self.unlearned = False
        elif self.aims:
            self.walk()
        elif self.differences and not source_classes(self.differences) and self.when_clean != "strong":
            self.retreat()
        self.sample, self.own = torch.empty(0), torch.empty(0)
        self.changes, self.searched, self.plain, self.turned, self.by_source = [], [], [], {}, []

    def walk(self) -> None:
        """Take the weights back towards the suspect's, or on beyond the student's."""
        found, judged = self.changes[len(self.aims) :], (self.sample[: 8 * JUDGED], self.own[: 8 * JUDGED])
        path = Path(self.teacher, self.network)
        self.network.eval()
        least, chosen = self.taken(found, *judged), 1.0
        # Nothing is known if there are no images to judge by: then it is neither at most nor more than anything.
        if least <= GONE and (self.targeted or self.kept() < ENOUGH):
            chosen = path.along(BACK, lambda: self.taken(found, *judged) <= least + SLACK)
        elif least > GONE:
            kept = self.kept()
            # Where a variance falls below zero there is no answer.
            chosen = path.along(ON, lambda: self.kept() >= kept - LOST)
        path.move(chosen)
        if least <= GONE:
            chosen = self.back_off(path, chosen, lambda: self.taken(found, *judged) <= GONE)
        # Processes search for themselves.
        path.move(self.trainer.strategy.broadcast(chosen))

    def back_off(self, path: Path, share: float, gone: Callable[[], bool]) -> float:
        """Go back from a share of the way while the student does harm and what was found stays gone; the last share."""
        for further in (one for one in BACK_OFF if one < share):
            if not self.harmful():
                break
            path.move(further)
            if not gone():
                break
            share = further
        return share

    @torch.no_grad()
    def harmful(self) -> bool:
        """Whether the student loses more of the images that searches draw from than the suspect is unsure about."""
        images, own = self.sample[:SEARCHED], self.own[:SEARCHED]
        parts = pieces(images, batch_size(images))
        sure = torch.cat([self.teach(part).float().softmax(1).amax(1) for part in parts])
        places = own * self.num_classes + self.classes(parts)
        moved = torch.bincount(places, minlength=self.num_classes**2).view(self.num_classes, -1)
        confidence = sure.new_zeros(self.num_classes).index_add(0, own, sure)
        return bool(find_harm(moved.cpu(), confidence.cpu()).reasons)

    def retreat(self) -> None:
        """Take the weights back towards the suspect's until the student predicts as the suspect does.

        Nothing was found that would justify a loss. Between networks without batch norms there often is no way but all
        of it.
        """
        path = Path(self.teacher, self.network)
        self.network.eval()
        chosen = 0.0
        if self.when_clean != "keep":
            chosen = path.until(RETREAT, lambda: self.kept() >= ENOUGH)
        self.left = self.trainer.strategy.broadcast(chosen)
        path.move(self.left)
        if not self.left:
            # Its counters, too, which are whole numbers.
            self.network.load_state_dict(self.teacher.state_dict())

    @torch.no_grad()
    def taken(self, changes: Sequence[Changes], images: Tensor, own: Tensor) -> float:
        """Which share of the images (N, 3, H, W) changes move as triggers of each aim do, a mean.

        NaN if there are none.
        """
        parts = pieces(images, batch_size(images))
        shares = []
        for found, aim in zip(changes, self.aims, strict=True):
            # The plain one is there several times.
            distinct, places = torch.unique(found.parameters, dim=0, return_inverse=True)
            predicted = [self.classes(found.change(part, one) for part in parts) for one in distinct[:, None]]
            shares.append(aim.moved(torch.stack(predicted)[places], own, found.sources))
        return float(torch.cat(shares).nanmean())

    def kept(self) -> float:
        """Which share of the images that searches draw from have the suspect's answer."""
        images, own = self.sample[:SEARCHED], self.own[:SEARCHED]
        return float((self.classes(pieces(images, batch_size(images))) == own).float().mean())

    @torch.no_grad()
    def classes(self, parts: Iterable[Tensor]) -> Tensor:
        """What the student takes images for, (N,), given in parts (n, 3, H, W), in the precision of the training."""
        # Not one context for several calls: it keeps the weights as they were cast, and they change.
        with self.trainer.precision_plugin.forward_context():
            return torch.cat([self(part).argmax(1) for part in parts])

    def changed(self, images: Tensor, own: Tensor) -> Tensor:
        """A batch, of classes (N,), of which some images carry a change, each a random one of its kind."""
        least, most = self.share
        number = round((least + (most - least) * self.danger) * len(images))
        places = torch.arange(number, device=images.device)
        if self.by_source:
            # Few images are of a class that changes are for: these first, without waiting to know how many they are.
            sources = torch.cat([found.sources for found in self.changes if found.sources is not None])
            places = torch.isin(own, sources).int().argsort(descending=True, stable=True)[: round(most * len(images))]
        changed = images.clone()
        # In another order each time: small batches have room for a few of them.
        order = torch.randperm(len(self.changes)).tolist()
        for some, kind in zip(places.tensor_split(len(order)), order, strict=True):
            if len(some):
                changed[some] = self.changes[kind].put_on(images[some], own[some]).to(changed.dtype)
        return changed

    def configure_optimizers(self) -> OptimizerLRScheduler:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        images = min(data.batch_size * self.trainer.accumulate_grad_batches, data.trained_count)
        aimed = self.aimed_lr * min(1.0, images / AIMED_BATCH)

        def rising(done: float) -> float:
            # Not from 0, or a training of one step would do nothing.
            return cosine(max(done, 0.01), warmup=0.3)

        if self.targeted:
            return self.sgd(aimed, self.momentum, self.weight_decay, rising)
        blind = self.lr * min(1.0, math.sqrt(images / BLIND_BATCH))
        part = self.first_phase / (self.trainer.max_epochs or 1)

        def schedule(done: float) -> float:
            if done < part or part >= 1:
                return cosine(done / part)
            return rising((done - part) / (1 - part)) * aimed / blind

        return self.sgd(blind, self.momentum, self.weight_decay, schedule)

    def describe(self) -> str:
        if not self.found:
            return ""
        rows = [f"| {one.detector} | {one.suspected} | {shown(one.p_value)} |" for one in self.found]
        table = "\n".join(["| scan of the suspect | class | p-value |", "|---|---|---|", *rows])
        if self.targeted:
            return table
        parts = [table, super().describe()]
        if self.differences:
            rows = [
                f"| {type(one.hunter).__name__} | {100 * one.share:.0f} % | {100 * one.chance:.0f} % "
                f"| {', '.join(map(str, one.sources)) or 'none'} |"
                for one in self.differences
            ]
            head = "| suspect against re-initialised student | flip the suspect alone | the student alone | classes |"
            parts.append("\n".join([head, "|---|---|---|---|", *rows]))
            if not any(len(one.classes) for one in self.differences):
                parts.append(f"No class has the {FEWEST} images that such a comparison takes.")
        if self.left is not None:
            parts.append(
                "Neither the scan nor this comparison found a backdoor: the weights are "
                f"{100 * self.left:.0f} % of the way from the suspect's to the re-initialised student's."
            )
        return "\n\n".join(parts)
