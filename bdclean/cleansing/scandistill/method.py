"""Distillation that unlearns what a scan finds."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.scandistill import schedule
from bdclean.cleansing.scandistill.aims import Aim, BySource, all_to_one
from bdclean.cleansing.scandistill.description import compared, scanned
from bdclean.cleansing.scandistill.interpolate import Path, retreat, settle
from bdclean.cleansing.scandistill.unlearning import Unlearning
from bdclean.data.notices import say
from bdclean.models import duplicate, folded, frozen
from bdclean.modules import Classifier
from bdclean.scanning import Network, PatchInversion, SparseInversion
from bdclean.scanning.difference import differences, source_classes
from bdclean.tables import Description

COMPARERS = (SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, 16), PatchInversion((5.6, 4.0, 2.8, 2.0), 4, 16))
"""Searches for changes that flip the suspect and not the re-initialised student, or the other way round."""
TRIALS = 10
"""Parts of a re-initialised student's training after which it is looked at, in the first half."""
EARLY = 100
"""Steps before it is looked at."""
RUINED = 0.5
"""Share of the images that keep the suspect's prediction, below which it begins anew."""


class ScanDistill(Unlearning):
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
        aimed_lr: Highest learning rate of SGD if a class stands out, for batches of 128 or more: it rises for the first
            30 % of the steps, then falls to 0 along a cosine.
        share: Share of each batch that carries a perturbation if a class stands out: the first number if the student's
            own perturbations flip no image, the second if they flip all.
        temperature: Temperature of the distillation in the first and in the last epoch, if no class stands out. It does
            not rise by default: at 4 a student learns some backdoors again from the suspect's probabilities.
        **options: As in StrongDistillCleanseModule; its learning rate is for batches of 64 or more. Where a class
            stands out, momentum and weight decay alone are used of them.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 2.8
    scans = True

    def __init__(
        self,
        suspect: Classifier,
        aimed_lr: float = 0.02,
        share: tuple[float, float] = (0.1, 0.4),
        temperature: tuple[float, float] = (1.0, 1.0),
        **options: Any,
    ) -> None:
        super().__init__(suspect, share, temperature=temperature, **options)
        # Of the two one is used, and either is heard.
        self.within("aimed_lr", aimed_lr, 0, above=True)
        self.within("lr", self.lr, 0, above=True)
        self.aimed_lr = aimed_lr
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
    def first_phase(self) -> int:
        """Epochs of re-initialisation and distillation, where no class stands out; a second phase may follow."""
        epochs = (self.trainer.max_epochs or 0) - self.first_epoch
        return schedule.first_phase(epochs) if self.found else epochs

    @property
    def progress(self) -> float:
        return min(1.0, (self.current_epoch - self.first_epoch) / max(1, self.first_phase - 1))

    def epochs_of(self, images: int) -> int:
        blind, aimed = schedule.epochs(images)
        if self.targeted:
            return aimed
        return blind + aimed if self.found else blind

    def prepare(self) -> None:
        super().prepare()
        if aims := self.targeted:
            # The constructor re-initialised it, before a scan was known.
            self.network.load_state_dict(self.teacher.state_dict())
            self.triggers = self.triggers_of(aims)

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
        # What one search finds in a class another misses there, and the student would keep.
        aims: list[Aim] = [BySource(one.hunter, members, reference) for one in self.differences]
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
        where = f"The loss became {loss} in epoch {self.current_epoch}"
        say(f"{where}: training ends, and the re-initialised student is kept.")
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
        self.forget()
        self.turned = {}

    def end(self) -> None:
        """Give the student the weights that it is to have between the suspect's and its own, or beyond these."""
        found = bool(source_classes(self.differences))
        if not self.triggers and (not self.differences or found or self.when_clean == "strong"):
            return
        path = Path(self.teacher, self.network)
        with self.judged():
            if self.triggers:
                share = settle(path, self, spare=found)
            else:
                share = self.left = 0.0 if self.when_clean == "keep" else retreat(path, self)
        # Processes search for themselves.
        path.move(self.trainer.strategy.broadcast(share))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        images = min(data.batch_size * self.trainer.accumulate_grad_batches, data.trained_count)
        aimed = self.aimed_lr * schedule.aimed_factor(images)
        if self.targeted:
            return self.sgd(aimed, self.momentum, self.weight_decay, schedule.rising)
        blind = self.lr * schedule.blind_factor(images)
        part = self.first_phase / (self.trainer.max_epochs or 1)
        return self.sgd(blind, self.momentum, self.weight_decay, schedule.two_phases(part, aimed / blind))

    def describe(self) -> Description:
        if not self.found:
            return ()
        found = scanned(self.found)
        if self.targeted:
            return found
        return (*found, *super().describe(), *compared(self.differences, self.left))
