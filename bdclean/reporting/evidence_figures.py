"""Figures of the evidence in a report. Kinds of points differ in their markers, too, for colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bdclean.evidence import Attribution, Embedding, Kind, LayerChange, Spectrum
from bdclean.reporting.figures import LONGEST, drawn

MARKERS = {
    Kind.CLEAN: ("clean", "#b8bec9", "o", 12),
    Kind.CLEAN_OF_TARGET: ("predicted as the target", "#2f5fb3", "s", 16),
    Kind.TRIGGERED: ("triggered", "#c8501e", "x", 20),
}
"""Label, colour, marker and size of each kind of image."""
NETWORKS = ("#c8501e", "#2f5fb3")
"""Colours of suspect and cleansed network."""
SHADE = 0.6
"""Opacity of a heat map over its image."""
DARKEST = 1e-6
"""Energy, relative to the largest, that is drawn black."""


def attribution_figure(images: Tensor, networks: Mapping[str, Attribution], names: Sequence[str] = ()) -> Tensor:
    """Draw images, and over them the regions that decide each network's prediction, which is written below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        networks: The attribution of the images by each network, by its name.
        names: Names of the classes; empty if unknown.

    Returns:
        One image, (3, height, width) uint8.
    """
    figure = Figure(figsize=(1.42 * len(images) + 0.4, 1.5 * (1 + len(networks))), layout="constrained")
    grid = figure.subplots(1 + len(networks), len(images), squeeze=False)
    for line, (label, found) in zip(grid, [("image", None), *networks.items()], strict=True):
        line[0].set_ylabel(label, fontsize=10)
        for index, axes in enumerate(line):
            axes.imshow(images[index].cpu().float().clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if found is not None:
                axes.imshow(found.maps[index].numpy(), cmap="inferno", vmin=0, vmax=1, alpha=SHADE)
                axes.set_xlabel(class_text(int(found.predicted[index]), names), fontsize=9, labelpad=2)
    return drawn(figure)


def class_text(number: int, names: Sequence[str]) -> str:
    """The shortened name of a class, or its number if the names are unknown."""
    name = names[number] if names else f"class {number}"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}\u2026"


def embedding_figure(embedding: Embedding) -> Figure:
    """Draw the features of a network's images in a plane."""
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for kind, (label, colour, marker, size) in MARKERS.items():
        points = embedding.points[embedding.kinds == kind].numpy()
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, marker=marker, label=label, linewidths=1)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=len(MARKERS), fontsize=8, frameon=False, handletextpad=0.2)
    return figure


def layers_figure(layers: Sequence[LayerChange], networks: Sequence[str]) -> Figure:
    """Draw the TAC of each layer's most activated channel, and with two networks the movement of weights.

    Args:
        layers: The layers, in the order of the forward pass.
        networks: Names of the networks.
    """
    panels = len(networks)
    figure = Figure(figsize=(5.6, 2.4 * panels), layout="constrained")
    grid: list[Axes] = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    active = [(number, one) for number, one in enumerate(layers, 1) if one.change]
    for index, (name, colour) in enumerate(zip(networks, NETWORKS, strict=False)):
        marker = "x" if index == 0 else "o"
        values = [one.change[index] for _, one in active]
        grid[0].plot([number for number, _ in active], values, marker=marker, ms=5, lw=1, c=colour, label=name)
    grid[0].set_ylabel("largest TAC", fontsize=9)
    grid[0].legend(fontsize=9, frameon=False)
    if panels > 1:
        moved = [(number, one.moved) for number, one in enumerate(layers, 1) if one.moved is not None]
        grid[1].bar([number for number, _ in moved], [value for _, value in moved], color="#6b7485")
        grid[1].set_ylabel("weights moved, %", fontsize=9)
    for axes in grid:
        axes.tick_params(labelsize=9)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    grid[-1].set_xlabel("layer, in the order of the forward pass", fontsize=9)
    grid[-1].xaxis.set_major_locator(MaxNLocator(12, integer=True))
    return figure


def spectrum_figure(spectrum: Spectrum) -> Figure:
    """Draw energy by frequency on a logarithmic scale."""
    figure = Figure(figsize=(2.7, 2.6), layout="constrained")
    axes = figure.subplots()
    shown = torch.log10(spectrum.energy / spectrum.energy.max().clamp(min=1e-12) + DARKEST)
    axes.imshow(shown.numpy(), cmap="inferno", extent=(-0.5, 0.5, -0.5, 0.5))
    axes.set_xlabel("cycles per pixel", fontsize=8)
    axes.set_xticks([-0.5, 0, 0.5])
    axes.set_yticks([-0.5, 0, 0.5])
    axes.tick_params(labelsize=8)
    return figure
