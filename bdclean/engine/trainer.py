"""Lightning's Trainer with a default precision, readable errors and handling of interruptions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor

from bdclean.checkpoint.lightning_files import CheckedFiles
from bdclean.data import PoisonDataModule
from bdclean.data.notices import say
from bdclean.engine.anomaly import located
from bdclean.engine.checks import check_options
from bdclean.engine.interruption import interruptible, reporting_written_files
from bdclean.engine.introduction import Introduction, introduce
from bdclean.engine.precision import bears_bf16, computes_in_bf16, whole
from bdclean.engine.process import keep_memory, peak_memory
from bdclean.engine.progress import counted_from_one
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.outputs import Outputs

FEWEST_PROCESSES = 4
"""Number of CPU processes that is allowed on any machine, to test multi-process training."""


class Trainer(pl.Trainer):
    """Lightning's Trainer with the precision of the device, and interruptions that report which files were written.

    The functions of `bdclean.tasks` use it. A Trainer can train once.

    Args:
        precision: Precision of training: `bf16-mixed`, `32-true` or another precision of Lightning; by default
            `bf16-mixed` if the device supports it, else `32-true`.
        devices: Number of devices, or a list of them; by default one, as results differ with several devices, which
            have separate batch norms.
        **options: Any other option of Lightning's Trainer.
    """

    trained = False
    forked = False
    """Whether it trained in forked processes, which do not report their progress."""

    def __init__(
        self, *, precision: _PRECISION_INPUT | None = None, devices: list[int] | str | int = 1, **options: Any
    ) -> None:
        check_options(options)
        # Lightning's sampler would repeat images; `BatchSampler` divides them among processes itself.
        options |= {"use_distributed_sampler": False}
        keep_memory()
        super().__init__(precision=precision, devices=devices, **options)
        self.callbacks[:] = counted_from_one(self.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        self.callbacks.append(Introduction())  # type: ignore[attr-defined]  # as above
        cores = os.cpu_count() or 1
        if self.strategy.root_device.type == "cpu" and self.num_devices > max(cores, FEWEST_PROCESSES):
            raise InputError(
                "trainer.devices",
                devices,
                f"starts as many processes on CPUs, and this machine has {cores} cores",
            )
        # Sharding strategies have precision plugins of their own, and querying a GPU before processes are forked would
        # make CUDA unusable in them.
        device = self.strategy.root_device
        default = precision is None and type(self.precision_plugin) is Precision
        unsharded = isinstance(self.strategy, SingleDeviceStrategy | DDPStrategy)
        can_query = device.type == "cpu" or not self.forgets
        self._bf16_by_default = default and unsharded and can_query and computes_in_bf16(device)
        if self._bf16_by_default:
            self.strategy.precision_plugin = MixedPrecision("bf16-mixed", device.type)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = CheckedFiles()

    # Properties

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.strategy.root_device

    @property
    def forgets(self) -> bool:
        """Whether training runs in other processes that return only the network's weights."""
        return isinstance(self.strategy.launcher, _MultiProcessingLauncher)

    @property
    def device_name(self) -> str:
        """Number and name of the devices, for output."""
        kind = self.device.type
        name = torch.cuda.get_device_name(self.device) if kind == "cuda" else f"{kind} ({platform.machine()})"
        return f"{self.world_size} x {name}" if self.world_size > 1 else name

    @property
    def peak_memory(self) -> int | None:
        """Peak memory in MiB, of the GPU if there is one, else of this process; None if unknown."""
        return torch.cuda.max_memory_allocated(self.device) // 2**20 if self.device.type == "cuda" else peak_memory()

    @property
    def tensorboards(self) -> list[TensorBoardLogger]:
        """TensorBoard loggers, in the process that logs; empty in all others."""
        loggers = self.loggers if self.is_global_zero else []
        return [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]

    @property
    def without_training(self) -> Given | None:
        """The parameter with which training has no steps; None if it has."""
        names = ("max_epochs", "max_steps", "limit_train_batches")
        found = [Given(f"trainer.{name}", value) for name in names if (value := getattr(self, name)) == 0]
        timers = [one.time_remaining() for one in self.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]  # Lightning sets it
        found += [Given("trainer.max_time", "00:00:00:00") for left in timers if left is not None and left <= 0]
        return next(iter(found), None)

    # Tasks

    def begin(self, model: Classifier) -> None:
        """Check the limits of the training, and that this Trainer has not trained before."""
        if self.max_epochs is not None and self.max_epochs < 0:
            raise InputError("trainer.max_epochs", self.max_epochs, "must be at least 0; max_time limits the time")
        if self.trained:
            raise InputError("", None, "this Trainer has trained already; make a new one")
        self.trained = True
        self.see_to_precision(model)

    def see_to_precision(self, model: Classifier) -> None:
        """Fall back to float32 if the default is bf16 and the network does not support it."""
        if not self._bf16_by_default:
            return
        image = torch.zeros(1, 3, model.image_size, model.image_size, device=self.device)
        if not bears_bf16(whole(model).to(self.device), image):
            self.strategy.precision_plugin = Precision()
            say("The network does not support bf16 autocast; falling back to float32.")

    def train(self, model: Classifier, datamodule: PoisonDataModule, ckpt_path: str | None = None) -> None:
        """Train a network, or resume its training from a checkpoint."""
        # Connect them before `fit`: gradient accumulation depends on the number of processes.
        introduce(model, datamodule, self)
        if self.accumulate_grad_batches == 1:
            self.accumulate_grad_batches = datamodule.accumulate
        if self.forgets:
            self.forked = True
            # Close the event files: their writer thread does not exist in forked processes, which would wait for it
            # forever.
            for logger in self.tensorboards:
                logger.experiment.close()
        with self._interruptible(), located():
            super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)

    def check_trained(self) -> None:
        """Raise an InputError if no step was trained, as far as this process knows."""
        if self.global_step == 0 and not self.forgets:
            raise InputError("trainer", None, "ended before the first step of training, so that no network is written")

    def test(self, *args: Any, **options: Any) -> Any:
        """Measure ACC, ASR and RA on the test images."""
        with self._interruptible():
            return super().test(*args, **options)

    def validate(self, *args: Any, **options: Any) -> Any:
        """Measure ACC, ASR and RA on the validation images."""
        with self._interruptible():
            return super().validate(*args, **options)

    def probabilities(self, model: Classifier, datamodule: PoisonDataModule) -> list[Tensor]:
        """Predicted probabilities, one (n, classes) tensor per batch."""
        return cast(list[Tensor] | None, super().predict(model, datamodule=datamodule)) or []

    @contextmanager
    def writing(self, files: Outputs | None) -> Iterator[None]:
        """Context in which an interruption reports which of the files were written."""
        reporting = nullcontext() if files is None else reporting_written_files(self, files)
        with reporting, self._interruptible():
            yield

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        with interruptible(self, lambda: self.forked):
            yield
