"""Silence messages of Lightning that do not apply here, and print the program's own notices."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only

logger = logging.getLogger(__name__)


class Notices(logging.Handler):
    """Prints notices on standard output, as standard error is for errors."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        print(record.getMessage())


NOTICES = Notices()


@contextmanager
def printed() -> Iterator[None]:
    """Context in which the notices of this package are printed."""
    package = logging.getLogger("bdclean")
    new = NOTICES not in package.handlers
    package.addHandler(NOTICES)
    try:
        yield
    finally:
        if new:
            package.removeHandler(NOTICES)


@rank_zero_only
def show(text: str) -> None:
    """Print a notice of several lines, in the first process only."""
    logger.warning("%s", text)


def quieten() -> None:
    """Silence messages of Lightning that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It reports that it terminates the other processes after one has failed.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    for message in (
        "does not have many workers",  # images are in memory, where workers would only slow down reading
        "is smaller than the logging interval",  # figures are logged once per epoch
        "module\\(s\\) in eval mode at the start of training",  # the teacher, by design
        "Total length of",  # without labels there are no validation loaders
        "LeafSpec",  # a deprecation inside Lightning
        "this fit will run with no optimizer",  # methods that do not train
        "It is recommended to use `self.log",  # metrics are reduced by torchmetrics
        "is not supported by the model summary",  # it counts the weights of bf16-mixed correctly, as float32
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
