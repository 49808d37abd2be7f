"""Distillation that unlearns what a scan finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.batching import batch_size, pieces
from bdclean.cleansing.distill import StrongDistillCleanseModule
from bdclean.cleansing.scandistill.aims import Aim, BySource, all_to_one
from bdclean.cleansing.scandistill.interpolate import Path, retreat, settle
from bdclean.cleansing.scandistill.judging import Judge
from bdclean.cleansing.scandistill.triggers import Triggers
from bdclean.distillation import kd_loss
from bdclean.models import duplicate, folded, frozen
from bdclean.modules import Classifier
from bdclean.modules.attack import cosine
from bdclean.modules.classifier import Batch
from bdclean.scanning import Network, PatchInversion, SparseInversion, shown
from bdclean.scanning.difference import FEWEST, differences, source_classes
from bdclean.tables import Description, Table

AIMED_BATCH, BLIND_BATCH = 128, 64
"""Images a step that the rates are meant for, where a class stands out and where none does; with fewer they are lower,
in proportion, or as the root: steadier steps than that give a backdoor back, too, that nobody looks for."""
AIMED_GRADIENT = 1.0
"""Largest norm of a gradient where triggers are unlearned: at 5, a network for inputs of 0..255 lost 1.2 points more.
While a re-initialised student learns it is that of StrongDistillCleanseModule: at 1, more of a backdoor is left."""
AIMED = 31_500
"""Images that are trained on where triggers are unlearned, the same ones again and again."""
BLIND = 45_000
"""Images that a re-initialised student is trained on."""
LONGEST = 100
"""Epochs of a phase, at most: few images are not seen for ever."""
COMPARED = 2048
"""Images by which the suspect and the re-initialised student are compared."""
COMPARERS = (SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, 16), PatchInversion((5.6, 4.0, 2.8, 2.0), 4, 16))
"""Searches for changes that flip the suspect and not the re-initialised student, or the other way round."""
TRIALS = 10
"""Parts of a re-initialised student's training after which it is looked at, in its first half."""
EARLY = 100
"""Steps before it is looked at."""
RUINED = 0.5
"""Share of the images that keep the suspect's prediction, below which it begins anew."""


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
    towards the suspect's until the student is expected to lose at most .75 points of accuracy by the suspect's own
    probabilities; `--when_clean` asks for another end.

    A tenth of the images, at most 1,000, are not trained on: the end is judged by these.

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
    # A tenth, which its ends are judged by.
    chooses = 0.1
    # The suspect's answers are those without.
    drops = False
    triggers_type = Triggers

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
        self.sample, self.own = torch.empty(0), torch.empty(0)
        """Images that are searched and compared on, and the suspect's predictions."""
        self.judge: Judge | None = None
        """Images that the student is judged by: none of these is trained on."""
        self.triggers: Triggers | None = None
        """What the student unlearns; None as long as nothing is known."""
        self.looked_after = False
        """Whether the student was looked at, and need not be any more."""
        self.left: float | None = None
        """In the end, if nothing was found: the share of the way from the suspect to the re-initialised student."""
        self.turned: dict[str, Tensor] = {}
        """The student after the first phase, while there is a second one."""

    @property
    def targeted(self) -> list[Aim]:
        """Triggers to look for of the classes that stand out; none if no class does."""
        return all_to_one(self.found)

    @property
    def rate_option(self) -> str:
        return "aimed_lr" if self.targeted else "lr"

    @property
    def largest_gradient(self) -> float:
        return AIMED_GRADIENT if self.triggers else super().largest_gradient

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
        for images, _ in self.images():
            batches.append((images, self.teach(images).argmax(1)))
            if sum(len(classes) for _, classes in batches) >= COMPARED:
                break
        self.sample, self.own = (torch.cat(parts) for parts in zip(*batches, strict=True))
        held_out = [(images, self.teach(images).float().softmax(1)) for images, _ in self.images(choosing=True)]
        self.judge = Judge(*(torch.cat(parts) for parts in zip(*held_out, strict=True)))
        if aims := self.targeted:
            # The constructor re-initialised it, before a scan was known.
            self.network.load_state_dict(self.teacher.state_dict())
            self.triggers = self.triggers_of(aims)

    def triggers_of(self, aims: list[Aim]) -> Triggers:
        """What a student begins to unlearn."""
        return self.triggers_type(aims, self.teach_through, self, self.classes, self.sample, self.own, self.share)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self.triggers:
            return super().training_step(batch, batch_idx)
        assert isinstance(batch, Tensor)
        if self.triggers.due(self.stride):
            with self.judged():
                self.triggers.search()
        answers = self.teach(batch)  # first, as in DistillCleanseModule
        loss = kd_loss(self(self.triggers.put_on(batch, answers.argmax(1))), answers, 1.0)
        self.log_loss(loss, batch)
        return loss

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: look after a training that no class stands out for, and end its first phase."""
        super().on_train_epoch_end()
        if self.triggers:
            return
        done = self.current_epoch + 1 - self.first_epoch
        if not done:
            # It has just begun anew.
            return
        if not self.looked_after and not done % math.ceil(self.first_phase / TRIALS) and done <= self.first_phase // 2:
            self.look_after()
        elif done == self.first_phase and self.found:
            self.turn()

    def look_after(self) -> None:
        """Begin once more, at half the rate, if the network was taken apart."""
        if self.trainer.global_step < EARLY:
            return
        with self.judged():
            ruined = self.kept() < RUINED
        if self.trainer.strategy.broadcast(ruined):
            self.begin_anew(1 / 2)
            self.looked_after = True

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
        aims: list[Aim] = [
            BySource(one.hunter, {own: members[own] for own in one.sources}, reference)
            for one in self.differences
            if one.sources
        ]
        self.triggers = self.triggers_of(aims)
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
        self.keep_the_first_phase()
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def keep_the_first_phase(self) -> None:
        """Take the second phase back."""
        self.network.load_state_dict(self.turned)
        self.triggers = None
        self.unlearned = False

    def finish(self) -> None:
        if self.found and not self.triggers and not self.differences:
            # The training had fewer steps or less time than its first phase takes.
            self.compare(self.reference())
        if self.triggers and self.turned and not self.triggers.searches:
            # The training ended with its first phase.
            self.keep_the_first_phase()
        self.end()
        self.sample, self.own = torch.empty(0), torch.empty(0)
        self.judge, self.triggers, self.turned = None, None, {}

    def end(self) -> None:
        """Give the student the weights that it is to have between the suspect's and its own, or beyond these."""
        path = Path(self.teacher, self.network)
        found = bool(source_classes(self.differences))
        with self.judged():
            if self.triggers:
                share = settle(path, self, spare=found)
            elif not self.differences or found or self.when_clean == "strong":
                return
            else:
                share = self.left = 0.0 if self.when_clean == "keep" else retreat(path, self)
        # Processes search for themselves.
        share = self.trainer.strategy.broadcast(share)
        path.move(share)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Within it, the student is in eval mode."""
        mode = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.set_mode(mode)

    def predicted(self) -> tuple[Judge, Tensor]:
        """The images to judge the student by, and its predictions for them."""
        assert self.judge is not None
        return self.judge, self.classes(pieces(self.judge.images, batch_size(self.judge.images)))

    def effect(self) -> float:
        assert self.triggers is not None
        return self.triggers.effect()

    def kept(self) -> float:
        judge, predicted = self.predicted()
        return judge.kept(predicted)

    def expected_loss(self) -> float:
        judge, predicted = self.predicted()
        return judge.expected_loss(predicted)

    def harmful(self) -> bool:
        judge, predicted = self.predicted()
        return bool(judge.harm(predicted).reasons)

    @torch.no_grad()
    def classes(self, parts: Iterable[Tensor]) -> Tensor:
        """What the student takes images for, (N,), given in parts (n, 3, H, W), in the precision of the training."""
        # Not one context for several calls: it keeps the weights as they were cast, and they change.
        with self.trainer.precision_plugin.forward_context():
            return torch.cat([self(part).argmax(1) for part in parts])

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

    def describe(self) -> Description:
        if not self.found:
            return ()
        rows = tuple((one.detector, str(one.suspected), shown(one.p_value)) for one in self.found)
        table = Table(("scan of the suspect", "class", "p-value"), rows)
        if self.targeted:
            return (table,)
        parts: list[Table | str] = [table, *super().describe()]
        if self.differences:
            compared = tuple(
                (
                    type(one.hunter).__name__,
                    f"{100 * one.share:.0f} %",
                    f"{100 * one.chance:.0f} %",
                    ", ".join(map(str, one.sources)) or "none",
                )
                for one in self.differences
            )
            head = ("suspect against re-initialised student", "flip the suspect alone", "the student alone", "classes")
            parts.append(Table(head, compared))
            if not any(len(one.classes) for one in self.differences):
                parts.append(f"No class has the {FEWEST} images that such a comparison takes.")
        if self.left is not None:
            parts.append(
                "Neither the scan nor this comparison found a backdoor: the weights are "
                f"{100 * self.left:.0f} % of the way from the suspect's to the re-initialised student's."
            )
        return tuple(parts)
