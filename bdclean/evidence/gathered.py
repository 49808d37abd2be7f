"""All evidence about one network, or about a suspect and the cleansed network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdclean.evidence.attribution import Attribution
from bdclean.evidence.embedding import Embedding
from bdclean.evidence.layers import LayerChange
from bdclean.evidence.spectrum import Spectrum


@dataclass(frozen=True)
class Looks:
    """What a network sees in images.

    Attributes:
        clean: Attribution of the clean images; None without suitable feature maps.
        triggered: Attribution of the triggered images; None without suitable feature maps.
        embedding: Penultimate features; None without a linear or convolutional last layer.
    """

    clean: Attribution | None
    triggered: Attribution | None
    embedding: Embedding | None


@dataclass(frozen=True)
class Evidence:
    """Evidence about one network, or about a suspect and the cleansed network.

    Attributes:
        trigger: Name of the trigger, such as "the attack's trigger".
        clean: (N, 3, H, W) in [0, 1], the images of the attribution.
        triggered: The same images with the trigger.
        networks: What each network sees, by the network's name.
        layers: The layers of the networks.
        spectra: Spectra of clean images and of triggers.
        seconds: Time that the evidence took.
    """

    trigger: str
    clean: Tensor
    triggered: Tensor
    networks: Mapping[str, Looks]
    layers: tuple[LayerChange, ...]
    spectra: tuple[Spectrum, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        embeddings = {name: one.embedding for name, one in self.networks.items() if one.embedding is not None}
        kept = {name: {"triggered": one.kept, "clean": one.without} for name, one in embeddings.items()}
        rows = [
            {"layer": one.name, "channel": one.channel, "tac": one.change, "moved": one.moved} for one in self.layers
        ]
        low = {one.name: one.low for one in self.spectra}
        return {
            "trigger": self.trigger,
            "own_neighbours": kept,
            "layers": rows,
            "low_frequencies": low,
            "seconds": self.seconds,
        }
