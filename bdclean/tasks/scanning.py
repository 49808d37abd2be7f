"""Looking for a backdoor."""

from __future__ import annotations

import time

from bdclean import earlier, outputs, scanning, within
from bdclean.data import PoisonDataModule
from bdclean.engine.introduction import introduce
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.reporting import html
from bdclean.reporting.files import write_json
from bdclean.reporting.parts import Cost, Paths
from bdclean.reporting.results import Scan
from bdclean.reporting.scanning import page
from bdclean.reporting.scans import Verdict
from bdclean.scanning import ALPHA, FEWEST, MANY, Detector
from bdclean.scanning.difference import Difference
from bdclean.tasks.comparing import compare
from bdclean.tasks.looking import check_trains, look, recovered, scanned_images, scanned_network
from bdclean.tasks.watching import watched


def scan(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    detector: Detector | None = None,
    alpha: float = ALPHA,
    output: str | None = None,
    overwrite: bool = False,
) -> Scan:
    """Find out whether a network has a backdoor, and towards which class.

    Args:
        trainer: Where it is done.
        model: The network.
        datamodule: Unlabeled images.
        detector: By what; by default by each that there is.
        alpha: From this p-value down a backdoor is said to be found.
        output: Where the findings are written, as `.json`, with a page beside it; by default nowhere.
        overwrite: Whether these may replace files that are no scan of the same network.

    Raises:
        InputError: If the network cannot be scanned, or the files cannot be written.
    """
    within("--alpha", alpha, 0, 1)
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
    looking = detector is None or detector.uses_images or model.num_classes > MANY
    with trainer.writing(files):
        subject = look(trainer, model, datamodule)
        check_trains(model)
        started = time.perf_counter()
        images = scanned_images(trainer, datamodule, looking)
        detectors = None if detector is None else [detector]
        with watched(trainer, scanned_network(trainer, model, images)) as network:
            findings = scanning.scan(network, images, model.num_classes, detectors, network.begin)
        compared: tuple[Difference, ...] = ()
        if detector is None and model.num_classes < FEWEST:
            compared = compare(trainer, model, datamodule, findings)
        cost = Cost(round(time.perf_counter() - started, 1), trainer.device_name)
        verdict = Verdict(tuple(findings), alpha, subject.class_names, compared)
        shown = recovered(findings, images)
        result = Scan(verdict, subject, len(images) if looking else 0, cost, shown, paths)
        if files is not None and trainer.is_global_zero:
            write_json(files.result, result.to_json())
            html.write(files.reports[0], page(result))
    return result
