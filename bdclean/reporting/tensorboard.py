"""Log reports to TensorBoard."""

from __future__ import annotations

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

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
