"""Draw pictures of results."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

ENLARGED = 96
"""Minimum side of a drawn image, in pixels; smaller images are enlarged by an integer factor."""
NUMBERED = 26
"""Maximum number of classes of a confusion matrix whose cells show their values."""
DPI = 110
"""Resolution of drawn figures, in dots per inch."""
COLUMNS = 4
"""Maximum number of images in a figure of a trigger."""
SMALLEST = 6
"""Minimum side of the enlarged crop of an image, in pixels."""
MOSTLY = 0.7
"""A changed square with at least this share of the image's side is not drawn enlarged."""
LONGEST = 14
"""Maximum length of a class name on the axes of a confusion matrix, in characters."""


def trigger_figure(clean: Tensor, triggered: Tensor) -> Tensor:
    """Draw few clean images, the same with the trigger, and their difference, labelled and enlarged around the mask.

    Args:
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.

    Returns:
        One image, (3, height, width) uint8.
    """
    clean, triggered = clean[:COLUMNS].cpu().float(), triggered[:COLUMNS].cpu().float()
    difference = triggered - clean
    stretched = amplified(difference)
    rows = {"original": clean, "with trigger": triggered, "difference": stretched}
    top, bottom, left, right = changed_square(difference)
    if bottom - top < clean.shape[-2] * MOSTLY:
        rows["difference,\nenlarged"] = stretched[..., top:bottom, left:right]
    figure = Figure(figsize=(1.45 * len(clean) + 0.4, 1.45 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(clean), squeeze=False)
    for line, (label, images) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(label, fontsize=9)
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
    return drawn(figure)


def amplified(difference: Tensor) -> Tensor:
    """Centre differences of images (any shape) on grey, and scale the largest to black or white."""
    return 0.5 + difference / (2 * difference.abs().amax().clamp(min=1e-6))


def changed_square(difference: Tensor) -> tuple[int, int, int, int]:
    """The smallest square that contains all changed pixels: top, bottom, left and right, ends excluded.

    Args:
        difference: (N, C, H, W); a pixel counts as changed if its difference in any image exceeds a tenth of the
            largest difference.
    """
    size = difference.abs().amax((0, 1))
    changed = (size > 0.1 * size.max()).nonzero()
    if not len(changed):
        return 0, size.shape[0], 0, size.shape[1]
    (top, left), (bottom, right) = changed.amin(0).tolist(), (changed.amax(0) + 1).tolist()
    side = min(*size.shape, max(SMALLEST, bottom - top, right - left))
    top, left = (max(0, min(first, end - side)) for first, end in zip((top, left), size.shape, strict=True))
    return top, top + side, left, left + side


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Arrange images in a grid, small images enlarged: (N, C, H, W) in [0, 1] to (3, height, width) in [0, 1]."""
    grid = make_grid(images.cpu().clamp(0, 1), nrow=columns, pad_value=1.0)
    enlarge = max(1, ENLARGED // images.shape[-1])
    return grid.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)


def confusion_figure(matrix: Tensor, title: str, names: Sequence[str] = ()) -> Figure:
    """Draw a confusion matrix: true classes in rows, predicted classes in columns, percentages of each row.

    Args:
        matrix: (C, C) counts.
        title: Heading of the figure.
        names: Names of the classes; empty if unknown.
    """
    classes = len(matrix)
    shares = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    side = max(2.6, min(7.0, 1.2 + 0.29 * classes))
    figure = Figure(figsize=(max(3.6, side), side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    axes.set_title(f"{title}, % of each row", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)
    axes.tick_params(labelsize=7)
    if names and classes <= NUMBERED:
        shortened = [name if len(name) <= LONGEST else f"{name[:LONGEST]}\u2026" for name in names]
        axes.set_xticks(range(classes), shortened, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), shortened)
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(min(classes, NUMBERED), integer=True))
    if classes <= NUMBERED:
        for row, column in (shares.round() >= 1).nonzero().tolist():
            share = float(shares[row, column])
            colour = "white" if share > 60 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    return figure


def curve_figure(curves: Mapping[str, Sequence[tuple[int, float]]], unit: str) -> Figure:
    """Draw curves over epochs, which count from 1.

    Args:
        curves: Epochs and values of each curve, by name.
        unit: Label of the vertical axis.
    """
    figure = Figure(figsize=(4.6, 2.6), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(*zip(*values, strict=True), marker="." if len(values) == 1 else None, label=name)
    axes.set_xlim(0.5, max(values[-1][0] for values in curves.values()) + 0.5)
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    return figure


def drawn(figure: Figure) -> Tensor:
    """Render a figure as an image, (3, height, width) uint8."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]  # as above
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def svg(figure: Figure) -> str:
    """Encode a figure as SVG in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return base64.b64encode(file.getvalue()).decode()


def png(image: Tensor) -> str:
    """Encode an image, (3, height, width) uint8 or in [0, 1], as PNG in base64."""
    file = io.BytesIO()
    to_pil_image(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
