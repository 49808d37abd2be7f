"""The subcommands that have a network, as LightningCLI wants them: methods of a Trainer with their help."""

from __future__ import annotations

from collections.abc import Callable

from bdclean import tasks
from bdclean.cleansing import Cleanser, ScanDistill
from bdclean.cleansing.base import WhenClean
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.exits import Exit
from bdclean.modules import Classifier
from bdclean.reporting import cleansing, scanning, terminal, training
from bdclean.reporting.results import Cleansing, Scan, Training
from bdclean.scanning import ALPHA, Detector
from bdclean.tasks.cleansed_files import default_output


class Verbs(Trainer):
    """The Trainer of the command line: what it does, it prints."""

    def fit(  # type: ignore[override]  # two arguments of Lightning's are not passed on: ours come by keyword
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        ckpt_path: str | None = None,
        output: str = "suspect.ckpt",
        overwrite: bool = False,
    ) -> Training:
        """Train a backdoored network, and write suspect.ckpt.

        Args:
            model: The network, an AttackModule.
            datamodule: Its images.
            ckpt_path: A checkpoint of an interrupted run, to go on from there.
            output: Where the network is written when training has finished.
            overwrite: Whether `output` may replace a file that the same command did not write.
        """
        result = tasks.train(self, model, datamodule, output, overwrite, ckpt_path)
        self._print(terminal.render(training.page(result)))
        return result

    def cleanse(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        method: Callable[[Classifier], Cleanser] = ScanDistill,
        scan: bool = True,
        when_clean: WhenClean = "gentle",
        exit_code: bool = False,
        output: str | None = None,
        overwrite: bool = False,
    ) -> Cleansing:
        """Cleanse a suspect with unlabeled images, and write the network and its report.

        Labels and triggers, where there are any, serve the report alone.

        Args:
            model: The suspect.
            datamodule: Unlabeled images, and what the report is measured on.
            method: How it is cleansed.
            scan: Whether the report says what `scan` finds in both networks.
            when_clean: What to do if neither a scan nor a comparison with a re-initialised student finds a backdoor:
                `keep` leaves the network as it is; `gentle` takes the student's weights back towards the suspect's
                until the expected loss of accuracy is at most .75 points; `strong` keeps the re-initialised student,
                which loses more accuracy and more of what was not found. For methods that scan (ScanDistill).
            exit_code: Whether to end with exit code 1 if the cleansed network is not to be trusted, for scripts.
            output: Where the cleansed network is written: `.pt`, `.pth`, `.tar`, `.bin`, `.safetensors`, `.ckpt` or
                `.onnx`, or a name without a suffix, for a folder as the suspect's; by default `cleansed` with the
                suffix of the suspect's file, in the form that this has. The report lies beside it, under the same name
                with `.json` and `.html`.
            overwrite: Whether these may replace files that are no results of cleansing the same suspect.

        Raises:
            SystemExit: With 1 if the cleansed network is not to be trusted, if asked for.
        """
        output = default_output(model) if output is None else output
        _, result = tasks.cleanse(self, model, datamodule, method, when_clean, scan, output, overwrite)
        self._print(terminal.render(cleansing.page(result)))
        if exit_code and result.conclusion is not None and result.conclusion.trusted is False:
            raise SystemExit(Exit.FOUND)
        return result

    def scan(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        detector: Detector | None = None,
        alpha: float = ALPHA,
        exit_code: bool = False,
        output: str = "scan.json",
        overwrite: bool = False,
    ) -> Scan:
        """Say whether a network has a backdoor, and towards which class.

        Args:
            model: The network.
            datamodule: Unlabeled images.
            detector: By what; by default by each that there is.
            alpha: From this p-value down a backdoor is said to be found: the share of networks without one that may be
                accused, as far as their classes stand out normally.
            exit_code: Whether to end with exit code 1 if a backdoor is found, for scripts.
            output: Where the findings are written, as `.json`; a page with pictures lies beside it as `.html`.
            overwrite: Whether these may replace files that are no scan of the same network.

        Raises:
            SystemExit: With 1 if a backdoor is found, if asked for.
        """
        result = tasks.scan(self, model, datamodule, detector, alpha, output, overwrite)
        self._print(terminal.render(scanning.page(result)))
        if exit_code and result.verdict.backdoor:
            raise SystemExit(Exit.FOUND)
        return result

    def predict(  # type: ignore[override]  # as in fit
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        output: str = "predictions.csv",
        overwrite: bool = False,
    ) -> tasks.Predictions:
        """Write the class that each image gets, its name and its probability, to predictions.csv.

        Args:
            model: The network.
            datamodule: Its unlabeled images, if it was given a source of them, or its test images.
            output: Where the predictions are written, one row an image.
            overwrite: Whether they may replace a file.
        """
        return tasks.predict(self, model, datamodule, output, overwrite)

    def _print(self, text: str) -> None:
        if self.is_global_zero:
            print(text)
