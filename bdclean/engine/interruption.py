"""Handle interrupted and failed commands: their files, their logs and their training processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus

from bdclean import outputs, traces
from bdclean.engine.failures import of_a_run
from bdclean.errors import InputError
from bdclean.exits import Interrupted, refusal


@contextmanager
def interruptible(trainer: pl.Trainer, forked: Callable[[], bool]) -> Iterator[None]:
    """Re-raise an interruption, which Lightning turns into exit code 1, and kill all other training processes.

    Errors of callbacks, loggers and other processes that the user can fix become an `InputError`. The folder of logs is
    removed if the run ends before it has anything worth keeping.

    Args:
        trainer: The Trainer.
        forked: Whether it trained in forked processes, which do not report their progress.
    """
    try:
        with ExitStack() as stack:
            for folder in _log_folders(trainer):
                stack.enter_context(traces.removed_if_empty(folder, partial(_keeps_logs, trainer, forked, folder)))
            yield
    except BaseException as error:
        if trainer.strategy.launcher is not None:
            with suppress(ProcessLookupError):
                trainer.strategy.launcher.kill(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        if isinstance(error, SystemExit) and trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from error
        if not isinstance(error, Exception) or isinstance(error, InputError):
            raise
        parts = {"callbacks": trainer.callbacks, "logger": trainer.loggers, "profiler": [trainer.profiler]}  # type: ignore[attr-defined]  # Lightning sets them
        if (refused := of_a_run(error, parts)) is None:
            raise
        raise refused from error


@contextmanager
def reporting_written_files(trainer: pl.Trainer, files: outputs.Outputs) -> Iterator[None]:
    """Add the files that were written, and the last checkpoint, to the message of an interruption."""
    started = time.time()
    try:
        yield
    except KeyboardInterrupt as interruption:
        last = _last_checkpoint(trainer, started)
        more = f"; the last checkpoint is {last}" if last else ""
        raise Interrupted(files.state() + more) from interruption


def _log_folders(trainer: pl.Trainer) -> list[Path]:
    """Folders of the loggers, in the process that writes logs."""
    # Until the strategy is set up, `is_global_zero` is True in every process.
    first = trainer.is_global_zero and os.environ.get("LOCAL_RANK", "0") == "0"
    loggers = trainer.loggers if first else []
    return [Path(one.log_dir) for one in loggers if isinstance(one, TensorBoardLogger | CSVLogger)]


def _keeps_logs(trainer: pl.Trainer, forked: Callable[[], bool], folder: Path, error: BaseException) -> bool:
    """Whether to keep the logs of a run that ends in an error: after an epoch of training, or with checkpoints."""
    refused, checkpoints = refusal(error) is not None, any(folder.rglob("*.ckpt"))
    if forked():
        return checkpoints or not refused
    # A checkpoint from a first epoch that ends in an InputError is worthless: the loss became nan.
    return trainer.fit_loop.epoch_progress.current.completed > 0 or (checkpoints and not refused)


def _last_checkpoint(trainer: pl.Trainer, started: float) -> Path | None:
    """The newest checkpoint of a training; None without one.

    Args:
        trainer: The Trainer.
        started: Start of the command, in seconds since 1970; older checkpoints belong to other runs.
    """
    folders = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    folders += [Path(logger.log_dir or "", "checkpoints") for logger in trainer.loggers if hasattr(logger, "log_dir")]
    found = [path for folder in folders if folder is not None for path in Path(folder).glob("*.ckpt")]
    times = {path: path.stat().st_mtime for path in found}
    return max((path for path, time in times.items() if time >= started), key=times.__getitem__, default=None)
