"""Scan a network for a backdoor."""

from __future__ import annotations

import time

from bdclean import earlier, outputs, scanning
from bdclean.data import PoisonDataModule
from bdclean.engine.estimate import seconds_of
from bdclean.engine.introduction import introduce
from bdclean.engine.trainer import Trainer
from bdclean.errors import within
from bdclean.modules import Classifier
from bdclean.reporting import html
from bdclean.reporting.files import write_json
from bdclean.reporting.parts import Cost, Paths
from bdclean.reporting.results import Scan
from bdclean.reporting.scanning import page
from bdclean.reporting.scans import Verdict
from bdclean.scanning import ALPHA, FEWEST, MANY, Detector, Finding
from bdclean.tasks import announcing
from bdclean.tasks.comparing import scan_student
from bdclean.tasks.evidence import gather
from bdclean.tasks.looking import check_trains, look, recovered, scanned_images, scanned_network


def scan(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    detector: Detector | None = None,
    alpha: float = ALPHA,
    output: str | None = None,
    overwrite: bool = False,
    budget: str | None = None,
    evidence: bool = True,
) -> Scan:
    """Scan a network for a backdoor and its target class.

    Args:
        trainer: The Trainer.
        model: The network.
        datamodule: Unlabeled images.
        detector: The detector; by default all of them.
        alpha: A backdoor is reported if the p-value over all detectors is at most this.
        output: JSON file for the findings, with an HTML page beside it; by default none is written.
        overwrite: Whether to replace files that are not scans of the same network.
        budget: A time limit such as `20m`; what does not fit is left out. The result names it.
        evidence: Whether to gather evidence for the page.

    Raises:
        InputError: If the network cannot be scanned, or the files cannot be written.
    """
    within("alpha", alpha, 0, 1)
    if budget is not None:
        seconds_of(budget)
    files, path = None, None if model.origin is None else model.origin.path
    paths = Paths(path)
    if output is not None:
        outputs.check_name("scan", output)
        files = outputs.plan(output, (".html",))
        origin = earlier.origin(files.result, path)
        earlier.refuse_others(files, overwrite, lambda found: earlier.scanned_alike(found, origin, model))
        paths = Paths(path, origin, output)
    introduce(model, datamodule, trainer)
    trainer.see_to_precision(model)
    uses_images = detector is None or detector.uses_images or model.num_classes > MANY
    with trainer.writing(files):
        limit = announcing.limit(trainer, model, budget)
        announcing.announce(announcing.of_scan(trainer, model, detector, uses_images, limit))
        subject = look(trainer, model, datamodule)
        check_trains(model)
        started = time.perf_counter()
        images = scanned_images(trainer, datamodule, uses_images)
        detectors = None if detector is None else [detector]
        network = scanned_network(trainer, model, images)
        findings = scanning.scan(network, images, model.num_classes, detectors, limit)
        reference: list[Finding] = []
        if detector is None and model.num_classes < FEWEST:
            reference = scan_student(trainer, model, datamodule, findings, limit)
        cost = Cost(round(time.perf_counter() - started, 1), trainer.device_name)
        verdict = Verdict(tuple(findings), alpha, subject.class_names, tuple(reference))
        shown = recovered(findings, images, alpha)
        shows = evidence and files is not None
        gathered = gather(trainer, [model], datamodule, verdict, limit) if shows else None
        left_out = () if limit is None else tuple(limit.left_out)
        result = Scan(verdict, subject, len(images) if uses_images else 0, cost, shown, paths, left_out, gathered)
        if files is not None and trainer.is_global_zero:
            write_json(files.result, result.to_json())
            html.write(files.reports[0], page(result))
    return result
