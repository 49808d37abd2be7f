"""Cleansing a suspect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bdclean import scanning
from bdclean.cleansing import Cleanser, ScanDistill
from bdclean.cleansing.base import WhenClean
from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.engine.callbacks import History
from bdclean.engine.quiet import show
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.reporting.cleansing import page
from bdclean.reporting.conclusion import conclude
from bdclean.reporting.parts import ClassCount, Confusion, Cost, Counts, Paths
from bdclean.reporting.results import Cleansing
from bdclean.reporting.scans import Comparison, RecoveredASR, Verdict, class_name
from bdclean.scanning import ALPHA, Budget, detectors_of, scan_passes, trigger_asr
from bdclean.tables import Description, plain
from bdclean.tasks import announcing
from bdclean.tasks.cleansed_files import CleansedFiles
from bdclean.tasks.evaluation import confusions, evaluate, examples
from bdclean.tasks.evidence import gather
from bdclean.tasks.lengths import check_length, set_epochs
from bdclean.tasks.logs import log
from bdclean.tasks.looking import check_trains, class_names, look, recovered, scanned_images, scanned_network

SCAN_SHARE = 0.3
"""Share of a time limit that the scan of the suspect may take."""
SHOWN = 16
"""Number of unlabeled images in the report."""


def cleanse(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    method: Callable[[Classifier], Cleanser] = ScanDistill,
    when_clean: WhenClean = "gentle",
    scan: bool = True,
    output: str | None = None,
    overwrite: bool = False,
    budget: str | None = None,
    evidence: bool = True,
) -> tuple[Cleanser, Cleansing]:
    """Cleanse a suspect with unlabeled images.

    Args:
        trainer: The Trainer that runs the method.
        model: The suspect. It is not changed.
        datamodule: Unlabeled images, and the images that the result is measured on.
        method: Function that makes the cleanser of a suspect.
        when_clean: What to do if no backdoor is found.
        scan: Whether to scan both networks at the end.
        output: Path of the cleansed network, with its reports beside it; by default no files are written.
        overwrite: Whether to replace files that are not results of cleansing the same suspect.
        budget: A time limit such as `20m`; what does not fit is left out. The result names it.
        evidence: Whether to gather evidence for the page, after the scan at the end.

    Returns:
        The cleanser, whose `network` is the cleansed network, and the result.

    Raises:
        InputError: If the method cannot cleanse the suspect, or the files cannot be written.
    """
    files = None if output is None else CleansedFiles.plan(model, output, overwrite)
    paths = Paths(None if model.origin is None else model.origin.path) if files is None else files.paths
    with trainer.writing(None if files is None else files.files):
        limit = announcing.limit(trainer, model, budget)
        cleanser, result = _cleanse(trainer, model, datamodule, method, when_clean, paths, limit)
        if files is not None:
            # Save before the scan, which the user may interrupt.
            files.save(trainer, cleanser, result, datamodule.image_size)
        known = detectors_of(cleanser.found)
        # A suspect that the method has not scanned is scanned, too.
        passes = scan_passes(model.num_classes, model.image_size, known or None) * (1 if known else 2)
        if scan and (limit is None or limit.allows("the scan of the cleansed network", passes)):
            result = _scan_both(trainer, model, cleanser, datamodule, result)
        if evidence and files is not None and (scanned := result.scan) is not None:
            result = replace(result, evidence=gather(trainer, [model, cleanser], datamodule, scanned.suspect, limit))
        result = replace(result, conclusion=conclude(result), left_out=() if limit is None else tuple(limit.left_out))
        if files is not None and trainer.is_global_zero:
            files.report(result)
    return cleanser, result


def _cleanse(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    method: Callable[[Classifier], Cleanser],
    when_clean: WhenClean,
    paths: Paths,
    budget: Budget | None,
) -> tuple[Cleanser, Cleansing]:
    """Cleanse a suspect, and measure both networks."""
    launcher = trainer.strategy.launcher
    if launcher is not None and launcher.is_interactive_compatible and trainer.device.type == "cuda":
        # The scan initialises CUDA before training forks.
        raise InputError(
            "trainer.strategy",
            None,
            f"CUDA cannot be used in forked processes; use ddp, or {Given('trainer.devices', 1)}",
        )
    trainer.begin(model)
    subject = look(trainer, model, datamodule)
    # Set up in this process: forked processes cannot return what they set up.
    datamodule.setup("test")
    suspect = evaluate(trainer, model, datamodule)
    if trained_on := datamodule.trained_on({} if model.origin is None else model.origin.data):
        say(
            f"{trained_on} of the held-out images were in the suspect's training set, because of another "
            f"{Given('data.seed')}, {Given('data.num_val')} or {Given('data.num_held_out')}."
        )
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    started = time.perf_counter()
    cleanser = _make_cleanser(trainer, model, datamodule, method, when_clean, budget)
    curves = _train(trainer, cleanser, datamodule, budget)
    seconds = round(time.perf_counter() - started, 1)
    cleansed = evaluate(trainer, cleanser, datamodule)
    counts = Counts(
        len(datamodule.defender),
        len(datamodule.defender.own) if cleanser.uses_images else 0,
        len(datamodule.defender.agreement),
        len(datamodule.defender.unreadable),
    )
    result = Cleansing(
        type(cleanser).__name__,
        cleanser.options(),
        trainer.max_epochs,
        cleanser.describe(),
        subject,
        suspect,
        cleansed,
        "test images" if datamodule.labelled else "held-out unlabeled images",
        counts,
        Cost(seconds, trainer.device_name, trainer.peak_memory),
        attack=datamodule.poisoning,
        attack_options=datamodule.hparams["attack_options"],
        source=datamodule.hparams["source"],
        classes=_class_counts(cleanser, datamodule),
        harm=cleanser.harm,
        differences=tuple(cleanser.differences),
        unlearned=cleanser.unlearned,
        curves=curves,
        unlabeled=datamodule.unlabeled_examples(SHOWN),
        examples=examples(datamodule),
        confusions=_interleaved(confusions(model, "suspect"), confusions(cleanser, "cleansed")),
        paths=paths,
    )
    log(trainer, page(result), cleanser, datamodule, cleansed)
    return cleanser, result


def _make_cleanser(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    method: Callable[[Classifier], Cleanser],
    when_clean: WhenClean,
    budget: Budget | None,
) -> Cleanser:
    """Make the cleanser of a suspect, and scan the suspect if the method uses the findings."""
    cleanser = method(model)
    if when_clean != "gentle" and not cleanser.scans:
        raise InputError("when_clean", when_clean, f"{type(cleanser).__name__} does not scan for a backdoor")
    cleanser.when_clean = when_clean
    check_length(trainer, cleanser)
    announcing.announce(announcing.of_cleansing(trainer, cleanser, datamodule, budget))
    if cleanser.epochs:
        check_trains(model)
    if cleanser.scans:
        images = scanned_images(trainer, datamodule)
        part = None if budget is None else budget.part(SCAN_SHARE)
        found = scanning.scan(scanned_network(trainer, model, images), images, model.num_classes, None, part)
        # Floating-point differences between processes could make them take different branches.
        cleanser.found = trainer.strategy.broadcast(found)
    return cleanser


def _train(
    trainer: Trainer, cleanser: Cleanser, datamodule: PoisonDataModule, budget: Budget | None
) -> dict[str, list[tuple[int, float]]]:
    """Train the student, and print the method's description before and after.

    Returns:
        Epochs and values of each logged curve, by name.
    """
    plan = _print_description(cleanser, ())
    if cleanser.needs_selection_images and trainer.forgets:
        lost = f"{type(cleanser).__name__} keeps its selection in the memory of its processes, which is lost"
        raise InputError("trainer.strategy", None, f"{lost}; use {Given('trainer.strategy', 'ddp')}")
    history = History()
    trainer.callbacks.append(history)  # type: ignore[attr-defined]  # Lightning sets it
    try:
        defence = datamodule.defence(cleanser.supervision == "labels", cleanser.needs_selection_images)
        set_epochs(trainer, cleanser, defence, budget)
        cleanser.defence = defence
        trainer.train(cleanser, defence)
        if cleanser.epochs:
            trainer.check_trained()
    finally:
        trainer.callbacks.remove(history)  # type: ignore[attr-defined]  # as above
    _print_description(cleanser, plan)
    return history.curves


def _print_description(cleanser: Cleanser, printed: Description) -> Description:
    """Print the method's description if it differs from the one already printed."""
    description = cleanser.describe()
    if description and description != printed:
        show(plain(description))
    return description


def _scan_both(
    trainer: Trainer, suspect: Classifier, cleanser: Cleanser, datamodule: PoisonDataModule, result: Cleansing
) -> Cleansing:
    """Scan both networks, and add the findings to the result."""
    images, names = scanned_images(trainer, datamodule), result.subject.class_names
    networks = [scanned_network(trainer, model, images) for model in (suspect, cleanser)]
    before = cleanser.found or scanning.scan(networks[0], images, suspect.num_classes)
    after = scanning.scan(networks[1], images, suspect.num_classes, detectors_of(before))
    moved = tuple(RecoveredASR(*(trigger_asr(finding, network, images) for network in networks)) for finding in before)
    verdict = Verdict(tuple(before), ALPHA, names, tuple(after))
    return replace(result, scan=Comparison(verdict, moved), recovered=recovered(before, images))


def _class_counts(cleanser: Cleanser, datamodule: PoisonDataModule) -> tuple[ClassCount, ...]:
    """Predictions of each class before and after cleansing; empty if they were not counted."""
    matrix = cleanser.moved
    if matrix is None:
        return ()
    counts = zip(matrix.sum(1).tolist(), matrix.sum(0).tolist(), matrix.diagonal().tolist(), strict=True)
    names = class_names(cleanser, datamodule)
    return tuple(ClassCount(number, class_name(names, number), *count) for number, count in enumerate(counts))


def _interleaved(before: tuple[Confusion, ...], after: tuple[Confusion, ...]) -> tuple[Confusion, ...]:
    """Alternate the matrices of both networks, so that those of the same images are side by side."""
    return tuple(one for pair in zip(before, after, strict=True) for one in pair)
