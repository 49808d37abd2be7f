"""The subcommands with a network, as LightningCLI needs them: methods of a Trainer, whose docstrings are the help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bdclean import printable, tasks
from bdclean.cleansing import Cleanser, ScanDistill
from bdclean.cleansing.base import WhenClean
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.exits import Exit
from bdclean.filtering import Score
from bdclean.modules import Classifier
from bdclean.outputs import REPORTS
from bdclean.reporting import cleansing, filtering, scanning, terminal, training
from bdclean.reporting.filters import Filtering
from bdclean.reporting.results import Cleansing, Scan, Training
from bdclean.scanning import ALPHA, Detector
from bdclean.tasks.cleansed_files import default_output


class Verbs(Trainer):
    """The Trainer of the command line, which prints results."""

    def fit(  # type: ignore[override]  # the options replace two arguments of Lightning, and are passed by keyword
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        ckpt_path: str | None = None,
        output: str = "suspect.ckpt",
        overwrite: bool = False,
    ) -> Training:
        """Train a backdoored network and write suspect.ckpt.

        Args:
            model: The network, an AttackModule.
            datamodule: The images.
            ckpt_path: Checkpoint of an interrupted training to resume; by default training starts from the beginning.
            output: File for the trained network.
            overwrite: Whether to replace a file that the same training did not write.
        """
        result = tasks.train(self, model, datamodule, output, overwrite, ckpt_path)
        self._print(terminal.render(training.page(result)))
        self._report_written(output)
        return result

    def poison(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        output: str = "poisoned.npz",
        overwrite: bool = False,
    ) -> tasks.PoisonedSet:
        """Write the poisoned training set of an attack to poisoned.npz, without training on it.

        The set holds all training images of the source, with the poisoned ones in their places, and the clean and the
        triggered test images. `bdclean fit --data.source poisoned.npz` trains on it. Attacks that act in each training
        step have no such set. If an expensive preparation is interrupted, the same command continues it.

        Args:
            model: A network, of whose kind some attacks train one to make their images.
            datamodule: The images and the attack.
            output: An `.npz` file, or a name without a suffix for a folder of PNG files.
            overwrite: Whether to replace a file that was made with other options.
        """
        result = tasks.poison(self, model, datamodule, output, overwrite)
        self._print(result.sentence)
        self._report_written(output)
        return result

    def cleanse(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        method: Callable[[Classifier], Cleanser] = ScanDistill,
        scan: bool = True,
        evidence: bool = True,
        when_clean: WhenClean = "gentle",
        exit_code: bool = False,
        output: str | None = None,
        overwrite: bool = False,
        budget: str | None = None,
    ) -> Cleansing:
        """Remove a backdoor with unlabeled images; write the cleansed network and a report.

        Labels and the trigger, if there are any, are used for the report only.

        Args:
            model: The suspect.
            datamodule: Unlabeled images, and the images that the report is measured on.
            method: Cleansing method; `--method.help NAME` describes one and its options.
            scan: Whether to scan suspect and cleansed network for the report. ScanDistill always scans the suspect.
            evidence: Whether the page shows where the networks look (Grad-CAM), features of triggered images, channels
                that the trigger activates and the trigger's frequencies; this needs the scan, and the attack's trigger
                or a recovered one.
            when_clean: Result if neither a scan nor a comparison with a re-initialised student finds a backdoor:
                `keep` is the suspect as it is; `gentle` interpolates the student's weights towards the suspect's until
                the expected loss of accuracy is at most 0.75 points; `strong` is the re-initialised student, which
                loses more accuracy, but also more of a backdoor that was not found. For ScanDistill only.
            exit_code: Whether to end with exit code 1 if the cleansed network is not to be trusted, for scripts.
            output: File that the cleansed network is written to: `.pt`, `.pth`, `.tar`, `.bin`, `.safetensors`,
                `.ckpt` or `.onnx`, or for a suspect that is a folder, a name without a suffix for a folder; by default
                `cleansed` with the suffix and the format of the suspect's file. The report is written beside it, with
                the suffixes `.json` and `.html`.
            overwrite: Whether to replace files that are not results of cleansing the same suspect.
            budget: Time limit such as `90s`, `20m` or `1h30m`. Detectors, epochs and the scan at the end are left out
                if they do not fit, and the report names them; one detector and one epoch are run in any case.
                By default no limit.

        Raises:
            SystemExit: With 1 if the cleansed network is not to be trusted and `exit_code` is set.
        """
        output = default_output(model) if output is None else output
        _, result = tasks.cleanse(
            self, model, datamodule, method, when_clean, scan, output, overwrite, budget, evidence
        )
        self._print(terminal.render(cleansing.page(result)))
        self._report_written(output, *(str(Path(output).with_suffix(suffix)) for suffix in REPORTS))
        if exit_code and result.conclusion is not None and result.conclusion.trusted is False:
            raise SystemExit(Exit.FOUND)
        return result

    def scan(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        detector: Detector | None = None,
        alpha: float = ALPHA,
        evidence: bool = True,
        exit_code: bool = False,
        output: str = "scan.json",
        overwrite: bool = False,
        budget: str | None = None,
    ) -> Scan:
        """Report whether a network has a backdoor, and towards which class.

        Args:
            model: The network.
            datamodule: Unlabeled images.
            detector: The detector; by default all of them. `--detector.help NAME` describes one and its options.
            alpha: Largest p-value over all detectors at which a backdoor is reported: the expected share of false
                alarms, if the scores of clean networks are normally distributed. Default: 0.01.
            evidence: Whether the page shows where the network looks (Grad-CAM), features of triggered images, channels
                that the trigger activates and the trigger's frequencies; this needs the attack's trigger or a recovered
                one.
            exit_code: Whether to end with exit code 1 if a backdoor is found, for scripts.
            output: JSON file for the findings; a page with pictures is written beside it, `.html`.
            overwrite: Whether to replace files that are not scans of the same network.
            budget: Time limit such as `90s`, `20m` or `1h30m`. Detectors that do not fit are left out, and the report
                names them; one is run in any case. By default no limit.

        Raises:
            SystemExit: With 1 if a backdoor is found and `exit_code` is set.
        """
        result = tasks.scan(self, model, datamodule, detector, alpha, output, overwrite, budget, evidence)
        self._print(terminal.render(scanning.page(result)))
        self._report_written(output, str(Path(output).with_suffix(".html")))
        if exit_code and result.verdict.backdoor:
            raise SystemExit(Exit.FOUND)
        return result

    def filter(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        cleansed: str | None = None,
        score: Score | None = None,
        clean: str | None = None,
        alpha: float = ALPHA,
        exit_code: bool = False,
        output: str = "filter.csv",
        overwrite: bool = False,
    ) -> Filtering:
        """Report which images are likely to carry a trigger.

        Args:
            model: The suspect.
            datamodule: The images: its unlabeled images if it has a source of them, else its test images, with and
                without the trigger if it has an attack, to measure the score.
            cleansed: File of the cleansed network, which `--score Disagreement` (the default score) requires.
            score: The score; by default Disagreement. `--score.help NAME` describes one and its options.
            clean: Images that are known to be clean, which set the threshold: any value of --data.unlabeled. By
                default validation images of the labelled source, or without a training part its test images.
            alpha: Share of false alarms among clean images. If no image is known to be clean, this share of the images
                is flagged, those with the highest scores, whether or not they carry a trigger. Default: 0.01.
            exit_code: Whether to end with exit code 1 if an image is flagged, for scripts; this needs images that are
                known to be clean.
            output: CSV file for the scores, one row per image; `.json` and a page with the most suspicious images,
                `.html`, are written beside it.
            overwrite: Whether to replace files that are not filterings with the same suspect.

        Raises:
            SystemExit: With 1 if an image is flagged and `exit_code` is set.
        """
        result = tasks.filter_images(
            self, model, datamodule, cleansed, score, clean, alpha, output, overwrite, require_clean=exit_code
        )
        self._print(terminal.render(filtering.page(result)))
        self._report_written(output, *(str(Path(output).with_suffix(suffix)) for suffix in REPORTS))
        if exit_code and result.flagged_count:
            raise SystemExit(Exit.FOUND)
        return result

    def predict(  # type: ignore[override]  # as in fit
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        output: str = "predictions.csv",
        overwrite: bool = False,
    ) -> tasks.Predictions:
        """Write the predicted class of each image and its probability to predictions.csv.

        Args:
            model: The network.
            datamodule: The images: its unlabeled images if it has a source of them, else its test images.
            output: CSV file for the predictions, one row per image.
            overwrite: Whether to replace an existing file.
        """
        result = tasks.predict(self, model, datamodule, output, overwrite)
        self._report_written(output)
        return result

    def _report_written(self, *paths: str) -> None:
        self._print(printable(f"Wrote {', '.join(paths)}"))

    def _print(self, text: str) -> None:
        if self.is_global_zero:
            print(text)
