"""The default: scan the suspect, and distil a student that unlearns the triggers found."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bdclean.cleansing.scandistill import schedule
from bdclean.cleansing.scandistill.aims import Aim, BySource, all_to_one
from bdclean.cleansing.scandistill.description import comparison, scanned
from bdclean.cleansing.scandistill.interpolate import Path, retreat, settle
from bdclean.cleansing.scandistill.unlearning import Unlearning
from bdclean.data.notices import say
from bdclean.modules import Classifier
from bdclean.networks import duplicate, folded, frozen
from bdclean.scanning import Network, PatchInversion, SparseInversion
from bdclean.scanning.difference import differences, source_classes
from bdclean.tables import Description

COMPARISON_INVERSIONS = (SparseInversion((8.0, 5.6, 4.0, 2.8, 2.0), 4, 16), PatchInversion((5.6, 4.0, 2.8, 2.0), 4, 16))
"""Searches for perturbations that flip the suspect and not the re-initialised student, or the student alone."""
CHECKS = 10
"""Parts into which the first phase is divided; after each one in its first half the student's agreement is checked."""
MIN_STEPS = 100
"""Fewest steps before the first check."""
RUINED_AGREEMENT = 0.5
"""Agreement with the suspect below which the first phase starts again at half the rate."""


class ScanDistill(Unlearning):
    """Scans the suspect, then distils a student that unlearns the triggers found.

    **If the scan finds a class**, the student starts as a copy of the suspect. Every few steps the method searches both
    networks for universal perturbations that flip images to that class, of each kind (dense, sparse, patch, warp) for
    which the scan found the class. A share of each batch carries one of them; the targets are the suspect's logits on
    the clean images. The share grows with the ASR of the perturbations found in the student. If a square of one colour,
    about where a mask was found in the suspect, flips as many images as the mask, the student unlearns the square, too.
    Finally the weights are interpolated back towards the suspect as far as the recovered triggers remain ineffective,
    or extrapolated past the student if they still flip images. Nothing is re-initialised.

    **If the scan finds nothing**, the student is first trained as in StrongDistillCleanseModule, for longer and at a
    constant temperature; if the student then hardly agrees with the suspect, training starts again at half the rate.
    The result is a reference: a network with the suspect's classes and less of its backdoor. For each class the method
    searches for perturbations that flip its images in the suspect and not in the reference, and the other way round
    (`bdclean.scanning.difference`). If far more images flip in the suspect alone, the suspect has a backdoor for single
    source classes or with several target classes: the student starts again from the suspect and unlearns these
    perturbations on images of those classes, as above. Otherwise no backdoor was found, and the weights are
    interpolated back towards the suspect until the student is expected to lose at most 0.75 points of accuracy,
    estimated from the suspect's probabilities; `--when_clean` selects another result.

    A tenth of the images, at most 1,000, are held out from training; all of these decisions are made on them. Dropout
    is off. With about 400 images or more, the length of the training does not depend on their number.

    Source: this project. Training against universal perturbations, with labels: Zeng et al., "Adversarial Unlearning of
    Backdoors via Implicit Hypergradient", ICLR 2022; interpolation of weights: Wortsman et al., "Robust fine-tuning of
    zero-shot models", CVPR 2022, extrapolation: Ilharco et al., "Editing models with task arithmetic", ICLR 2023.

    Args:
        suspect: The network to cleanse.
        unlearning_lr: Highest learning rate of SGD while triggers are unlearned, for batches of 128 images or more; for
            smaller batches, the rate is in proportion. The rate rises for the first 30 % of the steps, then falls to 0
            along a cosine.
        share: Fraction of each batch that carries a recovered trigger: [if the triggers found in the student flip no
            image, if they flip all].
        temperature: Temperature of the logits after re-initialisation: [at the start, at the end]. Constant by default,
            because at 4 a student learns some backdoors again from the suspect's small probabilities.
        **options: Options of StrongDistillCleanseModule, for the training after re-initialisation; its learning rate is
            for batches of 64 images or more. Momentum and weight decay also apply while triggers are unlearned.

    Raises:
        InputError: If an option is out of range.
    """

    relative_time = 2.8
    scans = True

    def __init__(
        self,
        suspect: Classifier,
        unlearning_lr: float = 0.02,
        share: tuple[float, float] = (0.1, 0.4),
        temperature: tuple[float, float] = (1.0, 1.0),
        **options: Any,
    ) -> None:
        super().__init__(suspect, share, temperature=temperature, **options)
        # Only one of the two rates is used, but both are checked.
        self.within("unlearning_lr", unlearning_lr, 0, above=True)
        self.within("lr", self.lr, 0, above=True)
        self.unlearning_lr = unlearning_lr
        self.restarted = False
        """Whether the first phase has started again at half the rate."""
        self.left: float | None = None
        """Position between the suspect (0) and the re-initialised student (1), if no backdoor was found."""
        self.first_student: dict[str, Tensor] = {}
        """State of the re-initialised student, during the second phase."""

    @property
    def targeted(self) -> list[Aim]:
        """Triggers of the classes that the scan found; empty if it found none."""
        return all_to_one(self.found)

    @property
    def rate_option(self) -> str:
        return "unlearning_lr" if self.targeted else "lr"

    @property
    def first_phase(self) -> int:
        """Epochs after re-initialisation, if the scan found nothing; a second phase may follow."""
        epochs = (self.trainer.max_epochs or 0) - self.first_epoch
        return schedule.first_phase(epochs) if self.found else epochs

    @property
    def progress(self) -> float:
        return min(1.0, (self.current_epoch - self.first_epoch) / max(1, self.first_phase - 1))

    def epochs_of(self, images: int) -> int:
        untargeted, targeted = schedule.epochs(images)
        if self.targeted:
            return targeted
        return untargeted + targeted if self.found else untargeted

    def prepare(self) -> None:
        super().prepare()
        if aims := self.targeted:
            # The constructor re-initialised the network, before the scan.
            self.network.load_state_dict(self.teacher.state_dict())
            self.triggers = self.triggers_of(aims)

    def on_train_epoch_end(self) -> None:
        """Called by Lightning: check the agreement during the first phase, and end that phase."""
        super().on_train_epoch_end()
        if self.triggers:
            return
        done = self.current_epoch + 1 - self.first_epoch
        if not done:
            # Training has just started again.
            return
        if not self.restarted and not done % math.ceil(self.first_phase / CHECKS) and done <= self.first_phase // 2:
            self.check_agreement()
        elif done == self.first_phase and self.found:
            self.end_first_phase()

    def check_agreement(self) -> None:
        """Start again, once, at half the rate if the student hardly agrees with the suspect."""
        if self.trainer.global_step < MIN_STEPS:
            return
        with self.judged():
            ruined = self.kept() < RUINED_AGREEMENT
        if self.trainer.strategy.broadcast(ruined):
            self.restart(1 / 2)
            self.restarted = True

    def end_first_phase(self) -> None:
        """Compare suspect and student; start a second phase that unlearns the triggers of the suspect alone, or end."""
        reference = self.reference()
        self.compare(reference)
        sources = source_classes(self.differences)
        if not sources:
            self.trainer.fit_loop.max_epochs = self.current_epoch + 1
            return
        # One copy for all searches: images of some hundred pixels take gigabytes.
        members = {source: self.sample[self.pseudo_labels == source] for source in sources}
        # All searches unlearn all classes: the student would keep the part of a trigger that one search misses.
        aims: list[Aim] = [BySource(one.inversion, members, reference) for one in self.differences]
        self.triggers = self.triggers_of(aims)
        self.unlearned = True
        self.first_student = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.teacher.state_dict())
        for optimizer in self.trainer.optimizers:
            # The momentum belongs to the weights of the first phase.
            optimizer.state.clear()

    def compare(self, reference: Network) -> None:
        """Search for perturbations that flip the suspect and not the student, and the other way round."""
        with self.trainer.precision_plugin.forward_context():
            found = differences(self.teach_through, reference, self.sample, COMPARISON_INVERSIONS, self.num_classes)
        # All processes use one result, because of different rounding.
        self.differences = self.trainer.strategy.broadcast(found)

    def reference(self) -> Network:
        """A frozen copy of the student, from images in [0, 1] to logits."""
        whole = frozen(duplicate(nn.Sequential(self.normalize, self.network)))
        # Folded on the CPU: convolutions on a GPU round more than the check of folding allows.
        return folded(whole.cpu(), self.image_size).to(self.device)

    def on_divergence(self, loss: float) -> None:
        """Start again during the first phase; during the second keep the re-initialised student, and end."""
        if not self.first_student:
            super().on_divergence(loss)
            return
        where = f"The loss became {loss} in epoch {self.current_epoch}"
        say(f"{where}: training ends, and the re-initialised student is kept.")
        self.keep_the_first_phase()
        self.trainer.fit_loop.max_epochs = self.current_epoch + 1

    def keep_the_first_phase(self) -> None:
        """Undo the second phase."""
        self.network.load_state_dict(self.first_student)
        self.triggers = None
        self.unlearned = False

    def finish(self) -> None:
        if self.found and not self.triggers and not self.differences:
            # Training ended within the first phase.
            self.compare(self.reference())
        if self.triggers and self.first_student and not self.triggers.searches:
            # Training ended before the second phase searched for triggers.
            self.keep_the_first_phase()
        self.end()
        self.forget()
        self.first_student = {}

    def end(self) -> None:
        """Move the student along the line through the suspect and itself to a position that the guards allow."""
        found = bool(source_classes(self.differences))
        if not self.triggers and (not self.differences or found or self.when_clean == "strong"):
            return
        path = Path(self.teacher, self.network)
        with self.judged():
            if self.triggers:
                share = settle(path, self, spare=found)
            else:
                share = self.left = 0.0 if self.when_clean == "keep" else retreat(path, self)
        # Each process measures for itself.
        path.move(self.trainer.strategy.broadcast(share))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        images = min(self.defence.batch_size * self.trainer.accumulate_grad_batches, self.defence.trained_count)
        targeted = self.unlearning_lr * schedule.targeted_rate_factor(images)
        if self.targeted:
            return self.sgd(targeted, self.momentum, self.weight_decay, schedule.rising)
        untargeted = self.lr * schedule.untargeted_rate_factor(images)
        part = self.first_phase / (self.trainer.max_epochs or 1)
        return self.sgd(untargeted, self.momentum, self.weight_decay, schedule.two_phases(part, targeted / untargeted))

    def describe(self) -> Description:
        if not self.found:
            return ()
        found = scanned(self.found)
        if self.targeted:
            return found
        return (*found, *super().describe(), *comparison(self.differences, self.left))
