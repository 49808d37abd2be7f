"""Components that several results share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdclean import __version__


@dataclass(frozen=True)
class Paths:
    """Paths of a result.

    Attributes:
        checkpoint: Checkpoint of the network; None if the network came from memory.
        origin: The checkpoint's path relative to the folder of the result.
        output: File that the result was written to.
    """

    checkpoint: str | None = None
    origin: str | None = None
    output: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Convert to plain values for JSON."""
        return {"checkpoint": self.checkpoint, "origin": self.origin, "output": self.output}


@dataclass(frozen=True)
class Subject:
    """The network that a result is about.

    Attributes:
        description: Hyperparameters of the network.
        outputs: Kind of its outputs, if they are not logits.
        class_names: Names of its classes; empty if unknown.
        warnings: Signs that its normalisation or the images are wrong.
    """

    description: Mapping[str, Any]
    outputs: str | None = None
    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "network": dict(self.description),
            "outputs": self.outputs,
            "warnings": list(self.warnings),
            "bdclean": __version__,
            "class_names": list(self.class_names),
        }


@dataclass(frozen=True)
class Cost:
    """Time and memory that a task took.

    Attributes:
        seconds: Time of the work alone, without reading and writing files.
        device: Name of the device.
        peak_memory: Peak memory in MiB; None if unknown.
    """

    seconds: float
    device: str
    peak_memory: int | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of unlabeled images.

    Attributes:
        unlabeled: All unlabeled images.
        used: Images that the method used.
        held_out: Images held out to measure the agreement.
        unreadable: Files that could not be read.
    """

    unlabeled: int
    used: int
    held_out: int
    unreadable: int


@dataclass(frozen=True)
class ClassCount:
    """Predictions of one class before and after cleansing.

    Attributes:
        number: The class.
        name: Name of the class, if known.
        suspect: Number of images that the suspect predicts as this class.
        cleansed: Number of images that the cleansed network predicts as this class.
        stayed: Number of images that both networks predict as this class.
    """

    number: int
    name: str | None
    suspect: int
    cleansed: int
    stayed: int

    @property
    def kept(self) -> float | None:
        """Share of the suspect's predictions of this class that the cleansed network kept, in percent."""
        return round(100 * self.stayed / self.suspect, 2) if self.suspect else None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        counts = {"suspect": self.suspect, "cleansed": self.cleansed, "kept": self.kept}
        return {"class": self.number, "name": self.name} | counts


@dataclass(frozen=True)
class Example:
    """Clean and triggered images.

    Attributes:
        title: Caption of the images.
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.
        significant: For a recovered trigger, whether the finding of its detector is significant.
    """

    title: str
    clean: Tensor
    triggered: Tensor
    significant: bool = True


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        network: Name of the network.
        part: Name of the test images.
        matrix: (C, C) counts: true classes in rows, predicted classes in columns.
    """

    network: str
    part: str
    matrix: Tensor
