"""What Lightning says that is no news here, and how the program says its own news."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only

logger = logging.getLogger(__name__)


class Notices(logging.Handler):
    """Prints what there is to say, and is no error, on standard output: the other one is for errors."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        print(record.getMessage())


NOTICES = Notices()


@contextmanager
def printed() -> Iterator[None]:
    """Within it the notices of this package are printed."""
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
    """Tell the user something of several lines, once for all processes."""
    logger.warning("%s", text)


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
