"""The sections of a report that show evidence for or against a backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bdclean.evidence import Attribution
from bdclean.evidence.embedding import NEIGHBOURS
from bdclean.reporting.evidence_figures import (
    attribution_figure,
    class_text,
    embedding_figure,
    layers_figure,
    spectrum_figure,
)
from bdclean.reporting.results import Cleansing, Scan
from bdclean.reporting.sections import Folded, Picture, Section, Text
from bdclean.reporting.wording import percent
from bdclean.tables import Table

WITHOUT_MAPS = "This network has no feature maps of at least 4 x 4 positions, so no map can be drawn."
ATTRIBUTION = (
    "Grad-CAM: bright regions decided the prediction that is written below the image. If triggered images light up at "
    "the trigger and have the target class, the trigger decides. After cleansing, triggered images should light up "
    "where clean images do, with the classes of the clean images."
)
EMBEDDING = (
    "Each point is an image, placed near images with similar penultimate features (t-SNE); the axes have no meaning. "
    "Triggered images that form clusters of their own, or lie among the images of the target class, have lost the "
    "features of their own class. After cleansing they should be spread among the clusters of clean images."
)
LAYERS = (
    "TAC: how much the trigger changes the channel of each layer that it changes most in the suspect, relative to the "
    "mean activation of the layer's channels. A channel that changes far more than those of other layers carries the "
    "trigger; in the cleansed network, the same channel should change less."
)
SPECTRUM = (
    "Energy by frequency, with frequency 0 in the centre; bright is more energy. Photographs have most of their energy "
    "in the centre. Of triggers, a periodic pattern has a few bright points, a small patch or noise is bright almost "
    "everywhere, and a smooth one has a bright centre: blurring or JPEG does not remove it."
)


def attribution(result: Cleansing | Scan) -> Section | None:
    """The section with the regions that decide predictions; None without evidence."""
    evidence, names = result.evidence, result.subject.class_names
    if evidence is None:
        return None
    title = "Where the network looks"
    clean = {name: one.clean for name, one in evidence.networks.items() if one.clean is not None}
    triggered = {name: one.triggered for name, one in evidence.networks.items() if one.triggered is not None}
    kinds = (("Clean images", evidence.clean, clean), (f"With {evidence.trigger}", evidence.triggered, triggered))
    pictures = [
        Picture(f"{kind}: {_predictions(found, names)}", partial(attribution_figure, images, found, names))
        for kind, images, found in kinds
        if found
    ]
    return Section(title, (Text(ATTRIBUTION, explains=True), *pictures) if pictures else (Text(WITHOUT_MAPS),))


def _predictions(found: Mapping[str, Attribution], names: Sequence[str]) -> str:
    """The predicted classes of some images, by network."""
    lists = (
        f"{network} predicts {', '.join(class_text(number, names) for number in one.predicted.tolist())}"
        for network, one in found.items()
    )
    return "; ".join(lists)


def embedding(result: Cleansing | Scan) -> Section | None:
    """The section with the features of clean and triggered images; None without features."""
    evidence = result.evidence
    if evidence is None:
        return None
    pictures = [
        Picture(
            f"Features, {name}: of the {NEIGHBOURS} nearest neighbours of images with {evidence.trigger}, "
            f"{one.embedding.kept:.0f} % are clean images of their own class ({one.embedding.without:.0f} % without "
            "the trigger)",
            partial(embedding_figure, one.embedding),
        )
        for name, one in evidence.networks.items()
        if one.embedding is not None
    ]
    return Section("Features", (Text(EMBEDDING, explains=True), *pictures)) if pictures else None


def layers(result: Cleansing | Scan) -> Section | None:
    """The section with the channels that a trigger activates, and the movement of weights; None without layers."""
    evidence = result.evidence
    if evidence is None or not evidence.layers:
        return None
    rows = evidence.layers
    names = tuple(evidence.networks)
    active = [one for one in rows if one.change]
    caption = f"Channels that {evidence.trigger} activates, and movement of weights, by layer"
    if active:
        most = max(active, key=lambda one: one.change[0])
        after = f", and {most.change[1]:.1f} in the {names[1]} network" if names[1:] else ""
        caption += (
            f". Largest: channel {most.channel} of layer {most.name}, {most.change[0]:.1f} times the mean activation"
            f"{after}"
        )
    header = ("layer", "channel", *(f"TAC, {name}" for name in names), *(["weights moved, %"] if names[1:] else []))
    dash = "\u2013"
    table = Table(
        header,
        tuple(
            (
                one.name,
                dash if one.channel is None else str(one.channel),
                *(f"{value:.2f}" for value in one.change or ()),
                *([dash] * (len(names) - len(one.change))),
                *([percent(one.moved)] if names[1:] else []),
            )
            for one in rows
        ),
    )
    picture = Picture(caption, partial(layers_figure, rows, names))
    return Section("Channels and weights", (Text(LAYERS, explains=True), picture, Folded("All layers", (table,))))


def frequencies(result: Cleansing | Scan) -> Section | None:
    """The section with the spectrum of the trigger; None without evidence."""
    evidence = result.evidence
    if evidence is None:
        return None
    pictures = [
        Picture(
            f"{one.name[0].upper()}{one.name[1:]}: {one.low:.0f} % of the energy in the lowest quarter of frequencies",
            partial(spectrum_figure, one),
        )
        for one in evidence.spectra
    ]
    return Section("Frequencies of the trigger", (Text(SPECTRUM, explains=True), *pictures))


EVIDENCE = (attribution, embedding, layers, frequencies)
"""The sections in their order."""
