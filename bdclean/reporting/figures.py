"""Pictures of results, drawn only where something shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

ENLARGED = 96
"""Pixels of an image's side, at least: smaller ones are enlarged by a whole number."""
NUMBERED = 26
"""Classes up to which each cell of a confusion matrix holds its number."""
DPI = 110
"""Dots per inch of drawn figures."""


def trigger_picture(clean: Tensor, triggered: Tensor) -> Tensor:
    """Three rows of images: clean, triggered, and their difference, amplified and centred on grey.

    Args:
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.

    Returns:
        One image, (3, height, width) in [0, 1].
    """
    difference = triggered - clean
    amplified = 0.5 + difference / (2 * difference.abs().amax().clamp(min=1e-6))
    return image_grid(torch.cat([clean, triggered, amplified]), len(clean))


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Images side by side, small ones enlarged: (N, C, H, W) in [0, 1] to (3, height, width) in [0, 1]."""
    grid = make_grid(images.cpu().clamp(0, 1), nrow=columns, pad_value=1.0)
    enlarge = max(1, ENLARGED // images.shape[-1])
    return grid.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)


def confusion_figure(matrix: Tensor, title: str) -> Figure:
    """A confusion matrix: rows true classes, columns predicted ones, each row in percent.

    Args:
        matrix: (C, C) counts.
        title: What stands above it.
    """
    classes = len(matrix)
    shares = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    side = max(2.6, min(7.0, 1.2 + 0.29 * classes))
    figure = Figure(figsize=(max(3.6, side), side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    axes.set_title(f"{title}: % of each true class (rows)\nby prediction (columns)", fontsize=8)
    axes.tick_params(labelsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(min(classes, NUMBERED), integer=True))
    if classes <= NUMBERED:
        for row, column in (shares >= 0.5).nonzero().tolist():
            share = float(shares[row, column])
            colour = "white" if share > 60 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    return figure


def curve_figure(values: Sequence[tuple[int, float]]) -> Figure:
    """What was logged: values over epochs, from 1 on."""
    figure = Figure(figsize=(3.2, 2.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*values, strict=True), marker="." if len(values) == 1 else None, color="#2f5fb3")
    axes.set_xlim(0.5, values[-1][0] + 0.5)
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure


def drawn(figure: Figure) -> Tensor:
    """A figure as an image, (3, height, width) uint8."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]  # as above
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def png(image: Tensor) -> str:
    """An image, (3, height, width) uint8 or in [0, 1], as the text of a PNG in base 64."""
    file = io.BytesIO()
    to_pil_image(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
