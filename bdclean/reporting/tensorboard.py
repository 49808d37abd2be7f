"""Log reports to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from bdclean.reporting.figures import drawn
from bdclean.reporting.sections import Page, Picture, Text
from bdclean.tables import Table, markdown

LAYOUT = {
    "Training": {
        "loss": ["Multiline", ["train/loss"]],
        "ACC, ASR and RA on validation images": ["Multiline", ["val/acc", "val/asr", "val/ra"]],
        "agreement with the suspect": ["Multiline", ["val/agreement"]],
    }
}
"""Charts of the tab "Custom scalars": kind and tags by title."""


def log(writer: SummaryWriter, page: Page, step: int) -> None:
    """Log the parts of a report that have a tag.

    Args:
        writer: Writer of a TensorBoard logger.
        page: The report.
        step: Training step.
    """
    writer.add_custom_scalars(LAYOUT)
    for section in page.sections:
        if section.tag:
            texts = (part for part in section.parts if isinstance(part, Text | Table))
            words = tuple(part.text if isinstance(part, Text) else part for part in texts)
            writer.add_text(section.tag, markdown(words), step)
        for part in section.parts:
            if isinstance(part, Picture) and part.tag:
                drawing = part.draw()
                writer.add_image(part.tag, drawing if isinstance(drawing, Tensor) else drawn(drawing), step)


def log_hparams(writer: SummaryWriter, options: Mapping[str, str], metrics: Sequence[str]) -> None:
    """Log options for TensorBoard's HParams, with metrics that are scalars of the same run.

    `SummaryWriter.add_hparams` would log the metrics as further scalars, each a curve of one point.

    Args:
        writer: Writer of a TensorBoard logger.
        options: Values by name.
        metrics: Tags of the scalars, whose last values HParams shows.
    """
    file = writer._get_file_writer()  # type: ignore[no-untyped-call]  # torch's
    for summary in hparams(dict(options), dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]  # torch's
        file.add_summary(summary)
