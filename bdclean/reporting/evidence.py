"""The sections of a report that show evidence for or against a backdoor."""

from __future__ import annotations

from functools import partial

from bdclean.reporting.evidence_figures import attribution_figure, embedding_figure, layers_figure, spectrum_figure
from bdclean.reporting.results import Cleansing, Scan
from bdclean.reporting.sections import Folded, Picture, Section, Text
from bdclean.reporting.wording import percent
from bdclean.tables import Table

WITHOUT_MAPS = "This network has no feature maps of at least 4 x 4 positions, so no map can be drawn."
ATTRIBUTION = (
    "Grad-CAM: bright regions decided the prediction that is written below each image. If triggered images light up at "
    "the trigger and have the target class, the trigger decides. After cleansing, they should light up where the clean "
    "images do, with the classes of the clean images."
)
EMBEDDING = (
    "Each point is an image, placed near images with similar penultimate features (t-SNE); the axes have no meaning. "
    "Triggered images that form one cluster, alone or among the images of the target class, have lost the features of "
    "their own class. After cleansing they should be spread among all clusters."
)
LAYERS = (
    "TAC: how much the trigger changes the channel of each layer that it changes most in the suspect, relative to the "
    "mean activation of the layer's channels. A channel that changes far more than those of other layers carries the "
    "trigger; in the cleansed network, the same channel should change less."
)
SPECTRUM = (
    "Frequencies of the trigger, with frequency 0 in the centre; bright is more energy. Photographs have most of their "
    "energy in the centre. A few bright points are a periodic pattern, a bright centre is a smooth one, and a bright "
    "plane is a small patch or noise, which filters and JPEG weaken."
)


def attribution(result: Cleansing | Scan) -> Section | None:
    """The section with the regions that decide predictions; None without evidence."""
    evidence, names = result.evidence, result.subject.class_names
    if evidence is None:
        return None
    title = "Where the network looks"
    drawn = {name: one for name, one in evidence.networks.items() if one.clean is not None}
    if not drawn:
        return Section(title, (Text(WITHOUT_MAPS),))
    draw = partial(attribution_figure, evidence.clean, evidence.triggered, drawn, names)
    caption = f"Grad-CAM on clean images and on images with {evidence.trigger}, by network"
    return Section(title, (Text(ATTRIBUTION, explains=True), Picture(caption, draw)))


def embedding(result: Cleansing | Scan) -> Section | None:
    """The section with the features of clean and triggered images; None without features."""
    evidence = result.evidence
    if evidence is None:
        return None
    found = {name: one.embedding for name, one in evidence.networks.items() if one.embedding is not None}
    if not found:
        return None
    shares = ", ".join(f"{one.near_target:.0f} % ({name})" for name, one in found.items())
    caption = (
        f"Features of clean images and of images with {evidence.trigger}. Share of triggered images whose nearest "
        f"clean image has the target class: {shares}"
    )
    picture = Picture(caption, partial(embedding_figure, found))
    return Section("Features", (Text(EMBEDDING, explains=True), picture))


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
            f". Largest: channel {most.channel} of {most.name}, {most.change[0]:.1f} times the mean activation{after}"
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
    shares = ", ".join(f"{one.low:.0f} % ({one.name})" for one in evidence.spectra)
    caption = f"Energy by frequency. Share in the lowest quarter of frequencies: {shares}"
    picture = Picture(caption, partial(spectrum_figure, evidence.spectra))
    return Section("Frequencies of the trigger", (Text(SPECTRUM, explains=True), picture))


EVIDENCE = (attribution, embedding, layers, frequencies)
"""The sections in their order."""
