"""Draws docs/images/headline.png: images and what the suspect and the cleansed network predict for them.

Run `bdclean fit --config configs/badnet.yaml` and `bdclean cleanse --ckpt suspect.ckpt` first, then
`python docs/_site/headline.py suspect.ckpt cleansed.ckpt docs/images/headline.png`.
"""

from __future__ import annotations

import sys

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import bdclean

COLUMNS = 5
"""Images in each row, all of different classes."""
RIGHT, WRONG = "#13795b", "#b42318"


def draw(suspect_path: str, cleansed_path: str) -> Figure:
    """Two rows of test images, clean and triggered, each with the predictions of both networks below it."""
    suspect, data = bdclean.load(suspect_path)
    cleansed, _ = bdclean.load(cleansed_path)
    clean, triggered = data.attacker.test
    labels = clean.images.labels
    targets = data.attack.target_labels(labels, data.num_classes)
    victims = (targets != labels).nonzero().squeeze(1)
    # Triggered images are in the order of the victims.
    positions = torch.tensor([int((labels[victims] == number).nonzero()[0]) for number in labels[victims].unique()])
    positions = positions[:COLUMNS]
    figure = Figure(figsize=(1.55 * COLUMNS, 4.3), layout="constrained", facecolor="white")
    grid = figure.subplots(2, COLUMNS)
    rows = {"clean": clean[victims[positions]].images, "with trigger": triggered[positions].images}
    names, truth = data.class_names, labels[victims[positions]].tolist()
    for axes_row, (title, images) in zip(grid, rows.items(), strict=True):
        predictions = {"before": predict(suspect, images), "after": predict(cleansed, images)}
        axes_row[0].set_ylabel(title, fontsize=11)
        for column, axes in enumerate(axes_row):
            axes.imshow(images[column].permute(1, 2, 0).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
            for line, (when, found) in enumerate(predictions.items()):
                caption(axes, line, when, names[found[column]], found[column] == truth[column])
    return figure


@torch.no_grad()
def predict(network: bdclean.modules.Classifier, images: Tensor) -> list[int]:
    """The predicted class of each image, (N, 3, H, W) in [0, 1]."""
    return network.eval()(images).argmax(1).tolist()


def caption(axes: Axes, line: int, when: str, name: str, right: bool) -> None:
    """Write a prediction below an image, green if it is the image's class."""
    colour = RIGHT if right else WRONG
    axes.text(
        0.5,
        -0.06 - 0.15 * line,
        f"{when}: {name}",
        color=colour,
        fontsize=10,
        ha="center",
        va="top",
        transform=axes.transAxes,
    )


if __name__ == "__main__":
    draw(*sys.argv[1:3]).savefig(sys.argv[3], dpi=100)
