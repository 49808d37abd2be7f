"""Lightning's Trainer with the verbs of this field."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor, nn

from bdclean import InputError, __version__, checkpoint, earlier, escaped, outputs, report, scanning, traces, within
from bdclean.checkpoint.lightning_files import CheckedFiles
from bdclean.cleansing import Cleanser, ScanDistill
from bdclean.cleansing.base import WhenClean
from bdclean.conclusion import conclude
from bdclean.data import PoisonDataModule
from bdclean.exits import Exit, Interrupted, refusal
from bdclean.introduction import Introduction, introduce
from bdclean.models import check_finite, check_gradient, folded, frozen, noise, plain
from bdclean.modules import Classifier
from bdclean.modules.symptoms import LOOKED_AT, find_symptom, is_constant
from bdclean.scanning import ALPHA, SCANNED, Detector, Finding, shown, taken
from bdclean.training import batch_size, pieces

LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
    "val_check_interval": 0,
}
"""What options of Lightning's Trainer are at least, where Lightning does not look."""
FEWEST_PROCESSES = 4
"""Processes that any machine may be asked for, to try how several work together."""
MANY = 64
"""Classes up to which a cleansing scans: with more it would take many times as long as the rest."""


class History(pl.Callback):
    """Keeps what was logged, and after how many epochs.

    Attributes:
        curves: Name of each figure to its epochs and values.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.validated = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning."""
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning, which keeps the figures of the last validation until the next."""
        for name, value in trainer.callback_metrics.items():
            if self.validated or not name.startswith("val/"):
                self.curves.setdefault(name, []).append((trainer.current_epoch + 1, float(value)))
        self.validated = False


class Trainer(pl.Trainer):
    """Lightning's Trainer that also cleanses, and says what came of it. It trains once.

    Args:
        precision: As Lightning's; by default `bf16-mixed` where the device computes in it, else `32-true`.
        devices: As Lightning's; by default one: what comes of several differs, as each has batch norms of its own.
        **options: As Lightning's.
    """

    trained = False
    forked = False
    """Whether it trained in processes that say nothing of how far they came."""

    def __init__(
        self, *, precision: _PRECISION_INPUT | None = None, devices: list[int] | str | int = 1, **options: Any
    ) -> None:
        for name, least in LEAST.items():
            if isinstance(value := options.get(name), (int, float)):
                within(f"--trainer.{name}", value, least)
        if options.get("val_check_interval") == 0:
            raise InputError(
                "--trainer.val_check_interval 0: must be above 0; for no validation, --trainer.limit_val_batches 0"
            )
        # Its sampler would repeat images; each loader's own gives every process its share.
        options |= {"use_distributed_sampler": False}
        super().__init__(precision=precision, devices=devices, **options)
        self.callbacks.append(Introduction())  # type: ignore[attr-defined]  # Lightning sets it
        cores = os.cpu_count() or 1
        if self.strategy.root_device.type == "cpu" and self.num_devices > max(cores, FEWEST_PROCESSES):
            raise InputError(
                f"--trainer.devices {devices}: means as many processes on CPUs, each with a copy of everything, and "
                f"this machine has {cores} cores"
            )
        # Not before this is it known what was chosen. Strategies that cut up networks have precisions of their own, and
        # a GPU that is asked before processes are forked is lost to them.
        device = self.strategy.root_device
        free = precision is None and type(self.precision_plugin) is Precision
        whole = isinstance(self.strategy, SingleDeviceStrategy | DDPStrategy)
        asked = device.type == "cpu" or not self._forgets()
        self._bf16_by_default = free and whole and asked and computes_in_bf16(device)
        if self._bf16_by_default:
            self.strategy.precision_plugin = MixedPrecision("bf16-mixed", device.type)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = CheckedFiles()

    def fit(  # type: ignore[override]  # two arguments of Lightning's are not passed on: ours come by keyword
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        ckpt_path: str | None = None,
        output: str = "suspect.ckpt",
        overwrite: bool = False,
    ) -> dict[str, float | None]:
        """Train a backdoored network, and write suspect.ckpt.

        Args:
            model: The network, an AttackModule.
            datamodule: Its images.
            ckpt_path: A checkpoint of an interrupted run, to go on from there.
            output: Where the network is written when training has finished.
            overwrite: Whether `output` may replace a file that the same command did not write.

        Returns:
            ACC, ASR and RA on the test images, in percent; None where one cannot be known.
        """
        outputs.check_name("fit", output)
        if option := self._without_training():
            raise InputError(f"{option}: no step of training, so that the network would stay untrained")
        files = outputs.plan(output, size=_size(model))
        earlier.refuse_others(files, overwrite, lambda path: earlier.trained_alike(path, model, datamodule))
        if ckpt_path is not None:
            resumed = checkpoint.read(ckpt_path, "--ckpt_path")
            model.load(resumed, "--ckpt_path")
            if not resumed.resumable:
                raise InputError(f"--ckpt_path {ckpt_path}: holds a network, but not the state of its training")
        self._begin(model)
        attack = datamodule.attack
        if attack is not None and attack.learns and self._forgets():
            raise InputError(
                f"--trainer.strategy: {type(attack).__name__} learns along with the network, in processes whose memory "
                "would be lost: take ddp"
            )
        with self._writing(files):
            datamodule.prepare_attack(model.untrained, model.hparams, self.strategy.root_device, self.local_rank == 0)
            self._train(model, datamodule, ckpt_path)
            if self.global_step == 0 and not self._forgets():
                raise InputError("--trainer: ended before the first step of training, so that no network is written")
            # Where processes were forked, they were told of it, and this one was not.
            self.datamodule = datamodule
            self.save_checkpoint(files.result, weights_only=True)
            result = report.figures(self.test(model, datamodule=datamodule, verbose=False))
            self._log_pictures(model, datamodule, "suspect")
            for logger in self._tensorboards():
                if examples := datamodule.attacker.poisoned_examples(8):
                    logger.experiment.add_image("trigger/training images", report.trigger_picture(*examples), 0)
            self._log_hyperparameters(model, datamodule, result)
        if self.is_global_zero:
            lines = [
                report.table({escaped(output): result}),
                *report.wide_intervals({"": report.intervals(model.counted())}),
            ]
            print("\n".join([*lines, "All figures in percent, on the test images."]))
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
    ) -> dict[str, Any]:
        """Cleanse a suspect with unlabeled images, and write the network and its report.

        Labels and triggers, where there are any, serve the report alone.

        Args:
            model: The suspect.
            datamodule: Unlabeled images, and what the report is measured on.
            method: How it is cleansed.
            scan: Whether the report says what `scan` finds in both networks.
            when_clean: What to do if neither a scan nor a comparison with a re-initialised student finds a backdoor:
                `keep` leaves the network as it is; `gentle` takes the student's weights back towards the suspect's
                until both agree on 96 % of the images; `strong` keeps the re-initialised student, which loses more
                accuracy and more of what was not found. For methods that scan (ScanDistill). A network of so many
                classes that it is not scanned is always the re-initialised student.
            exit_code: Whether to end with exit code 1 if the cleansed network is not to be trusted, for scripts.
            output: Where the cleansed network is written: `.pt`, `.pth`, `.tar`, `.bin`, `.safetensors`, `.ckpt` or
                `.onnx`; by default `cleansed` with the suffix of the suspect's file, in the form that this has. The
                report lies beside it, under the same name with `.json` and `.html`.
            overwrite: Whether these may replace files that are no results of cleansing the same suspect.

        Returns:
            The report.

        Raises:
            SystemExit: With 1 if the cleansed network is not to be trusted, if asked for.
        """
        origin = model.origin
        suffix = Path(origin.path).suffix if origin else ".ckpt"
        if output is None:
            output = f"cleansed{suffix if suffix in outputs.SUFFIXES['cleanse'] else '.pt'}"
        outputs.check_name("cleanse", output)
        checkpoint.check(Path(output), f"--output {output}")
        files = outputs.plan(output, outputs.REPORTS, _size(model))
        if origin is not None and files.result.exists() and files.result.samefile(origin.path):
            raise InputError(f"--output {output}: that is the suspect itself")
        source = earlier.origin(files.result, None if origin is None else origin.path)
        earlier.refuse_others(files, overwrite, lambda path: earlier.cleansed_alike(path, files.result, source, model))
        with self._writing(files):
            cleanser, outcome, history = self.run(model, datamodule, method, when_clean)
            outcome |= {
                "checkpoint": None if origin is None else origin.path,
                "origin": source,
                "output": output,
                "scan": None,
                "conclusion": None,
            }
            if self.is_global_zero:
                files.forget_reports()
            # First: a scan may take longer than somebody waits.
            self._save(files.result, cleanser, datamodule)
            if self.is_global_zero:
                report.write_json(files.reports[0], outcome)
            scan = scan and self._scannable(model)
            outcome["scan"], triggers = self._compare(model, cleanser, datamodule) if scan else (None, [])
            agreement = outcome["intervals"]["cleansed"].get("agreement")
            conclusion = conclude(
                cleanser.harm,
                agreement,
                outcome["agreement_on"],
                outcome["scan"],
                outcome["warnings"],
                cleanser.differences,
                cleanser.unlearned,
            )
            outcome["conclusion"] = conclusion.plain()
            if self.is_global_zero:
                report.write_json(files.reports[0], outcome)
                pictures = self._pictures(model, cleanser, datamodule)
                report.write_html(files.reports[1], outcome, pictures, triggers, history, cleanser.describe())
                print(report.summary(outcome))
        if exit_code and conclusion.trusted is False:
            raise SystemExit(Exit.FOUND)
        return outcome

    def run(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        method: Callable[[Classifier], Cleanser],
        when_clean: WhenClean = "gentle",
    ) -> tuple[Cleanser, dict[str, Any], dict[str, list[tuple[int, float]]]]:
        """Cleanse a suspect and write nothing: as `cleanse`.

        Returns:
            The cleanser with the cleansed network, the report, and what was logged: name to epochs and values.
        """
        forked = self.strategy.launcher is not None and self.strategy.launcher.is_interactive_compatible
        if forked and self.strategy.root_device.type == "cuda":
            # A scan will have used it by then.
            raise InputError("--trainer.strategy: GPUs are lost to forked processes: take ddp, or --trainer.devices 1")
        self._begin(model)
        symptom = self._look(model, datamodule)
        # Here: what forked processes make for themselves is lost with them.
        datamodule.setup("test")
        suspect = report.figures(self.test(model, datamodule=datamodule, verbose=False))
        suspect_intervals = report.intervals(model.counted())
        trained_on = datamodule.trained_on({} if model.origin is None else model.origin.data)
        if trained_on and self.is_global_zero:
            print(
                f"{trained_on} of the held-out images are no such: the suspect was trained on them, with another "
                "--data.seed, --data.num_val or --data.num_held_out."
            )
        self._log_pictures(model, datamodule, "suspect")
        if self.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.strategy.root_device)
        started = time.perf_counter()
        cleanser = method(model)
        if when_clean != "gentle" and not cleanser.scans:
            raise InputError(f"--when_clean {when_clean}: {type(cleanser).__name__} does not look for a backdoor first")
        cleanser.when_clean = when_clean
        if cleanser.epochs:
            check_gradient(_whole(model).cpu(), noise(3, model.image_size))
        if cleanser.scans and self._scannable(model):
            images = self._scanned(datamodule, True)
            found = scanning.scan(self._as_scanned(model, images), images, model.num_classes)
            # Whose last bits differ would go on differently.
            cleanser.found = self.strategy.broadcast(found)
        plan = self._tell(cleanser, "")
        if cleanser.chooses and self._forgets():
            raise InputError(
                f"--trainer.strategy: {type(cleanser).__name__} chooses by what it learned, in processes whose memory "
                "would be lost: take ddp"
            )
        history = History()
        self.callbacks.append(history)  # type: ignore[attr-defined]  # Lightning sets it
        try:
            defence = datamodule.defence(cleanser.supervision == "labels", cleanser.chooses)
            self._set_epochs(cleanser, defence)
            self._train(cleanser, defence)
        finally:
            self.callbacks.remove(history)  # type: ignore[attr-defined]  # as above
        seconds = time.perf_counter() - started
        self._tell(cleanser, plan)

        cleansed = report.figures(self.test(cleanser, datamodule=datamodule, verbose=False), report.FIGURES)
        self._log_pictures(cleanser, datamodule, "cleansed")
        self._log_hyperparameters(cleanser, datamodule, cleansed)
        outcome = {
            "method": type(cleanser).__name__,
            "unlabeled_images": len(datamodule.defender),
            "seconds": round(seconds, 1),
            "device": self._device_name(),
            "suspect": suspect,
            "cleansed": cleansed,
            "agreement_on": "test images" if datamodule.labelled else "held-out unlabeled images",
            "options": cleanser.options(),
            "epochs": self.max_epochs,
            "peak_memory": self._peak_memory(),
            "attack": datamodule.poisoning,
            "method_images": len(datamodule.defender.own) if cleanser.uses_images else 0,
            "held_out_images": len(datamodule.defender.agreement),
            "unreadable_images": len(datamodule.defender.unreadable),
            "intervals": {"suspect": suspect_intervals, "cleansed": report.intervals(cleanser.counted())},
            "class_names": list(datamodule.class_names),
            "classes": [] if cleanser.moved is None else report.movements(cleanser.moved, datamodule.class_names),
            "compared": [one.plain() for one in cleanser.differences],
            "network": dict(cleanser.hparams),
            "outputs": model.outputs.describe() or None,
            "warnings": [] if symptom is None else [symptom],
            "bdclean": __version__,
        }
        return cleanser, outcome, history.curves

    def scan(
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        detector: Detector | None = None,
        alpha: float = ALPHA,
        exit_code: bool = False,
        output: str = "scan.json",
        overwrite: bool = False,
    ) -> dict[str, Any]:
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

        Returns:
            The findings.

        Raises:
            SystemExit: With 1 if a backdoor is found, if asked for.
        """
        within("--alpha", alpha, 0, 1)
        outputs.check_name("scan", output)
        files = outputs.plan(output, (".html",))
        path = None if model.origin is None else model.origin.path
        source = earlier.origin(files.result, path)
        earlier.refuse_others(files, overwrite, lambda path: earlier.scanned_alike(path, source, model))
        introduce(model, datamodule, self)
        self._see_to_precision(model)
        looking = detector is None or detector.uses_images
        with self._writing(files):
            symptom = self._look(model, datamodule)
            check_gradient(_whole(model).cpu(), noise(3, model.image_size))
            started = time.perf_counter()
            images = self._scanned(datamodule, looking)
            detectors = None if detector is None else [detector]
            findings = scanning.scan(self._as_scanned(model, images), images, model.num_classes, detectors)
            outcome: dict[str, Any] = {
                "checkpoint": path,
                "origin": source,
                "output": output,
                "images": len(images) if looking else 0,
                "seconds": round(time.perf_counter() - started, 1),
                "device": self._device_name(),
                "network": dict(model.hparams),
                "outputs": model.outputs.describe() or None,
                "warnings": [] if symptom is None else [symptom],
                "bdclean": __version__,
                "class_names": list(datamodule.class_names),
            } | report.found(findings, alpha, datamodule.class_names)
            if self.is_global_zero:
                report.write_json(files.result, outcome)
                report.write_scan(files.reports[0], outcome, _trigger_pictures(findings, images))
                print(f"{report.classes_table(outcome, datamodule.class_names)}\n{report.sentence(outcome)}.")
                for warning in report.warnings(outcome):
                    print(warning)
        if exit_code and outcome["backdoor"]:
            raise SystemExit(Exit.FOUND)
        return outcome

    def _look(self, model: Classifier, datamodule: PoisonDataModule) -> str | None:
        """What speaks against the network's normalisation, once it has been tried on some unlabeled images.

        Raises:
            InputError: If it outputs nan or inf for some of them, or the same for all.
        """
        if self.is_global_zero:
            datamodule.prepare_data()
        images = datamodule.unlabeled_examples(LOOKED_AT).to(self.strategy.root_device)
        network = _whole(model).to(images.device)
        what = "--model.arch" if model.origin is None else f"--ckpt {model.origin.path}"
        logits = [check_finite(network, part, what) for part in pieces(images, batch_size(images))]
        if is_constant(torch.cat(logits), images):
            raise InputError(
                f"{what}: the network is constant: it gives the same output for all of {len(images)} images, so there "
                "is nothing to find or to cleanse; its weights, its normalisation (--model.mean, --model.std) or the "
                "image size may be wrong"
            )
        symptom = find_symptom(torch.cat(logits))
        if symptom is not None and self.is_global_zero:
            print(f"WARNING: {symptom}.")
        return symptom

    def _scannable(self, model: Classifier) -> bool:
        """Whether a cleansing can afford a scan of such a network."""
        if model.num_classes > MANY and self.is_global_zero:
            print(f"No scan is made of a network of {model.num_classes} classes: it would take longer than all else.")
        return model.num_classes <= MANY

    def _scanned(self, datamodule: PoisonDataModule, wanted: bool) -> Tensor:
        """Images to scan with, (N, 3, H, W) in [0, 1]; a black one if none are wanted."""
        if not wanted:
            return torch.zeros(1, 3, datamodule.image_size, datamodule.image_size, device=self.strategy.root_device)
        if self.is_global_zero:
            datamodule.prepare_data()
        return datamodule.unlabeled_examples(SCANNED).to(self.strategy.root_device)

    def _compare(
        self, suspect: Classifier, cleansed: Cleanser, datamodule: PoisonDataModule
    ) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
        """What `scan` finds in both networks, and pictures of what was recovered in the suspect."""
        images = self._scanned(datamodule, True)
        networks = [self._as_scanned(model, images) for model in (suspect, cleansed)]
        after = scanning.scan(networks[1], images, suspect.num_classes)
        before = cleansed.found or scanning.scan(networks[0], images, suspect.num_classes)
        shares = [[taken(finding, network, images) for network in networks] for finding in before]
        return report.compared(before, after, shares, ALPHA, datamodule.class_names), _trigger_pictures(before, images)

    def _as_scanned(self, model: Classifier, images: Tensor) -> nn.Module:
        """What detectors take: faster than `_whole`, and in bf16 where training is in `bf16-mixed`."""
        # Before it is on a GPU, whose convolutions round more than what folding may change.
        network = folded(_whole(model).cpu(), model.image_size).to(images.device)
        return _InBf16(network) if self.precision == "bf16-mixed" else network

    def _tell(self, cleanser: Cleanser, told: str) -> str:
        """Say what the method does, if it is news."""
        description = cleanser.describe()
        if self.is_global_zero and description and description != told:
            print(description)
        return description

    def _set_epochs(self, cleanser: Cleanser, datamodule: PoisonDataModule) -> None:
        """Train as long as the method does by itself, where nothing else was said."""
        own = cleanser.epochs_of(datamodule.trained_count)
        if self.max_epochs is None:
            self.fit_loop.max_epochs = own
        elif bool(self.max_epochs) != bool(own):
            does = "does not train" if self.max_epochs else "trains"
            raise InputError(f"--trainer.max_epochs {self.max_epochs}: {type(cleanser).__name__} {does}")
        if own and (option := self._without_training()):
            raise InputError(f"{option}: {type(cleanser).__name__} trains")

    def _without_training(self) -> str | None:
        """The option that leaves no step of a training, if one does."""
        names = ("max_epochs", "max_steps", "limit_train_batches")
        return next((f"--trainer.{name} {value}" for name in names if (value := getattr(self, name)) == 0), None)

    def _save(self, target: Path, cleanser: Cleanser, datamodule: PoisonDataModule) -> None:
        """Write the network: our own checkpoint, or the form that the suspect's file has."""
        origin = cleanser.origin
        if target.suffix == ".ckpt" and (origin is None or origin.own or not origin.path.endswith(".ckpt")):
            # Lightning's strategies write together.
            self.save_checkpoint(target, weights_only=True)
        elif self.is_global_zero:
            size = datamodule.image_size
            image = cleanser.normalize(torch.zeros(1, 3, size, size, device=cleanser.device)).cpu()
            checkpoint.write(target, plain(frozen(cleanser.network)).cpu(), image, origin, cleanser.prefix)

    def predict(  # type: ignore[override]  # as in fit
        self,
        model: Classifier,
        datamodule: PoisonDataModule,
        output: str = "predictions.csv",
        overwrite: bool = False,
    ) -> Any:
        """Write the class that each image gets, its name and its probability, to predictions.csv.

        Args:
            model: The network.
            datamodule: Its unlabeled images, if it was given a source of them, or its test images.
            output: Where the predictions are written, one row an image.
            overwrite: Whether they may replace a file.

        Returns:
            Probabilities, one (n, classes) tensor a batch.
        """
        outputs.check_name("predict", output)
        if self.world_size > 1:
            raise InputError(f"--trainer.devices {self.world_size}: predictions are made by one process")
        files = outputs.plan(output)
        # Nothing in the file says whose predictions it holds.
        earlier.refuse_others(files, overwrite, lambda path: False)
        with self._writing(files):
            batches = cast(list[Tensor] | None, super().predict(model, datamodule=datamodule))
            if batches:
                probability, label = torch.cat(batches).max(1)
                shares = (f"{value:.4f}" for value in probability.tolist())
                known = datamodule.class_names
                names = (known[number] if known else "" for number in label.tolist())
                rows = zip(datamodule.predicted[1], label.tolist(), names, shares, strict=True)
                report.write_csv(files.result, ["image", "class", "name", "probability"], rows)
        return batches

    def _begin(self, model: Classifier) -> None:
        """Refuse a training without an end, and one that would begin where another ended."""
        if self.max_epochs is not None and self.max_epochs < 0:
            raise InputError(f"--trainer.max_epochs {self.max_epochs}: must be at least 0; max_time may end it before")
        if self.trained:
            raise InputError("this Trainer has trained already: make another for another training")
        self.trained = True
        self._see_to_precision(model)

    def _see_to_precision(self, model: Classifier) -> None:
        """Let a network that does not compute in bf16 do so in single precision, where nothing else was said."""
        if self._bf16_by_default and not _bears_bf16(model, self.strategy.root_device):
            self.strategy.precision_plugin = Precision()
            if self.is_global_zero:
                print("This network does not compute in bf16: it does in single precision.")

    def _train(self, model: Classifier, datamodule: PoisonDataModule, ckpt_path: str | None = None) -> None:
        # Lightning says so later: how large batches are depends on the number of processes.
        introduce(model, datamodule, self)
        if self.accumulate_grad_batches == 1:
            self.accumulate_grad_batches = datamodule.accumulate
        if self._forgets():
            self.forked = True
            # A forked process has no thread of this one: who waits there for the one that writes waits for ever.
            for logger in self._tensorboards():
                logger.experiment.close()
        with self._interruptible():
            super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)

    def test(self, *args: Any, **options: Any) -> Any:
        """Measure ACC, ASR and RA on the test images: as Lightning's."""
        with self._interruptible():
            return super().test(*args, **options)

    def validate(self, *args: Any, **options: Any) -> Any:
        """Measure ACC, ASR and RA on the validation images: as Lightning's."""
        with self._interruptible():
            return super().validate(*args, **options)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Pass an interruption on, of which Lightning makes exit code 1, and leave no process waiting for this one.

        No folder of logs stays behind if the run ends before there is anything in it to keep.
        """
        try:
            with ExitStack() as stack:
                for folder in self._log_folders():
                    stack.enter_context(traces.removed_if_empty(folder, partial(self._keeps_logs, folder)))
                yield
        except BaseException as error:
            if self.strategy.launcher is not None:
                with suppress(ProcessLookupError):
                    self.strategy.launcher.kill(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            if isinstance(error, SystemExit) and self.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from error
            raise

    @contextmanager
    def _writing(self, files: outputs.Outputs) -> Iterator[None]:
        """Let an interruption say what was written."""
        started = time.time()
        try:
            with self._interruptible():
                yield
        except KeyboardInterrupt as interruption:
            last = self._last_checkpoint(started)
            more = f"; the last checkpoint is {last}" if last else ""
            raise Interrupted(files.state() + more) from interruption

    def _log_folders(self) -> list[Path]:
        """Where loggers write files, in the process that does."""
        # Before they are set up all processes of Lightning's think that they are the first.
        first = self.is_global_zero and os.environ.get("LOCAL_RANK", "0") == "0"
        loggers = self.loggers if first else []
        return [Path(one.log_dir) for one in loggers if isinstance(one, TensorBoardLogger | CSVLogger)]

    def _keeps_logs(self, folder: Path, error: BaseException) -> bool:
        """Whether a run that ends in an error leaves its logs: those of an epoch of training, and checkpoints."""
        refused, checkpoints = refusal(error) is not None, any(folder.rglob("*.ckpt"))
        if self.forked:
            return checkpoints or not refused
        # A network that is refused in its first epoch has no checkpoint worth anything: its loss became nan.
        return self.fit_loop.epoch_progress.current.completed > 0 or (checkpoints and not refused)

    def _last_checkpoint(self, started: float) -> Path | None:
        """The newest checkpoint of the training, if there is one.

        Args:
            started: When the command began, in seconds since 1970: older checkpoints are another run's.
        """
        folders = [getattr(callback, "dirpath", None) for callback in self.checkpoint_callbacks]
        folders += [Path(logger.log_dir or "", "checkpoints") for logger in self.loggers if hasattr(logger, "log_dir")]
        found = [path for folder in folders if folder is not None for path in Path(folder).glob("*.ckpt")]
        times = {path: path.stat().st_mtime for path in found}
        return max((path for path, time in times.items() if time >= started), key=times.__getitem__, default=None)

    def _forgets(self) -> bool:
        """Whether training runs in processes that give back nothing but the network."""
        return isinstance(self.strategy.launcher, _MultiProcessingLauncher)

    def _device_name(self) -> str:
        device = self.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
        return f"{self.world_size} x {name}" if self.world_size > 1 else name

    def _peak_memory(self) -> int | None:
        """Of the GPU, where there is one, else of this process, in MiB; None where that cannot be known."""
        device = self.strategy.root_device
        return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else peak_memory()

    # TensorBoard

    def _pictures(
        self, suspect: Classifier, cleansed: Cleanser, datamodule: PoisonDataModule
    ) -> list[tuple[str, Tensor]]:
        """What the report shows."""
        pictures = [("Unlabeled images", report.image_grid(datamodule.unlabeled_examples(16), 8))]
        if examples := datamodule.attacker.examples(8):
            pictures.append(("Clean, triggered, difference", report.trigger_picture(*examples)))
        for part in suspect.confusions:
            for name, model in (("suspect", suspect), ("cleansed", cleansed)):
                pictures.append((f"{name}, {part} images", report.confusion_picture(model.confusions[part], name)))
        return pictures

    def _log_pictures(self, model: Classifier, datamodule: PoisonDataModule, name: str) -> None:
        for logger in self._tensorboards():
            writer = logger.experiment
            for part, matrix in model.confusions.items():
                picture = report.confusion_picture(matrix, f"{name}, {part} images")
                writer.add_image(f"confusion/{part} {name}", picture, self.global_step)
            if examples := datamodule.attacker.examples(8):
                writer.add_image("trigger/clean, triggered, difference", report.trigger_picture(*examples), 0)
            if isinstance(model, Cleanser) and (description := model.describe()):
                writer.add_text("method", description)

    def _log_hyperparameters(
        self, model: Classifier, datamodule: PoisonDataModule, result: Mapping[str, float | None]
    ) -> None:
        plain = {f"data/{key}": value for key, value in datamodule.hparams.items()}
        plain |= {f"data/{key}": getattr(datamodule, key) for key in ("batch_size", "num_unlabeled")}
        plain |= {f"model/{key}": value for key, value in (dict(model.hparams) | model.options()).items()}
        plain |= {"trainer/max_epochs": self.max_epochs, "module": type(model).__name__}
        if datamodule.unlabeled is not None:
            plain["data/unlabeled"] = datamodule.unlabeled.name
        metrics = {f"final/{name}": value for name, value in result.items() if value is not None}
        for logger in self._tensorboards():
            logger.log_hyperparams({key: escaped(str(value)) for key, value in plain.items()}, metrics)
            logger.save()

    def _tensorboards(self) -> list[TensorBoardLogger]:
        loggers = self.loggers if self.is_global_zero else []
        return [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has units for it: without them it would be slower than single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@torch.no_grad()
def _bears_bf16(model: Classifier, device: torch.device) -> bool:
    """Whether a network computes under autocast: some mix what this makes of an answer with what it leaves as it is."""
    image = torch.zeros(1, 3, model.image_size, model.image_size, device=device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            _whole(model).to(device)(image)
    except RuntimeError:
        return False
    return True


class _InBf16(nn.Module):
    """A network that computes in bf16, from images in single precision to logits in it.

    Its layers alone: what detectors count and compare would lose digits that matter.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return cast(Tensor, self.network(images)).to(images.dtype)


def _whole(model: Classifier) -> nn.Module:
    """A network with its normalisation, frozen: from images in [0, 1], in single precision, to logits."""
    return frozen(nn.Sequential(model.normalize, model.network)).float()


def _trigger_pictures(findings: Sequence[Finding], images: Tensor) -> list[tuple[str, Tensor]]:
    """What was recovered, on some images."""
    some = images[:8]
    return [
        (
            f"{finding.detector}, class {finding.suspected} (p {shown(finding.p_value)})",
            report.trigger_picture(some, finding.trigger(some)),
        )
        for finding in findings
        if finding.trigger is not None
    ]


def _size(model: Classifier) -> int:
    """Bytes that a network takes in a file."""
    return sum(value.nbytes for value in model.state_dict().values() if isinstance(value, Tensor))


def peak_memory() -> int | None:
    """Of this process, in MiB; None on Windows."""
    status = Path("/proc/self/status")
    # Not every sandbox says it.
    if status.exists() and (peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(peak[1]) // 2**10
    try:
        import resource
    except ImportError:
        return None
    # On Linux this counts the process that started this one, too.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def quieten() -> None:
    """Leave out what Lightning says that is no news here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # That it ends the other processes when one has failed.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    for message in (
        "does not have many workers",  # images are in memory, where workers would only be in the way
        "is smaller than the logging interval",  # what is logged is logged once an epoch
        "module\\(s\\) in eval mode at the start of training",  # the teacher, by design
        "Total length of",  # without labels there are no validation loaders
        "LeafSpec",  # Lightning's own use of torch
        "this fit will run with no optimizer",  # methods that do not train
        "It is recommended to use `self.log",  # metrics are reduced by torchmetrics
        "is not supported by the model summary",  # it counts bf16-mixed as what it keeps: single precision
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
