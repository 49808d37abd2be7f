"""What several results are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdclean import __version__


@dataclass(frozen=True)
class Paths:
    """Files of a result.

    Attributes:
        checkpoint: The network that the result is about; None if it came from memory.
        origin: The same as a path from the folder of the result.
        output: Where the result was written.
    """

    checkpoint: str | None = None
    origin: str | None = None
    output: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """As plain values."""
        return {"checkpoint": self.checkpoint, "origin": self.origin, "output": self.output}


@dataclass(frozen=True)
class Subject:
    """The network that a result is about.

    Attributes:
        description: What it is, as its checkpoint says it.
        outputs: What it outputs, if not logits.
        class_names: What its classes are called; empty if that is not known.
        warnings: What speaks against its normalisation or the images.
    """

    description: Mapping[str, Any]
    outputs: str | None = None
    class_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "network": dict(self.description),
            "outputs": self.outputs,
            "warnings": list(self.warnings),
            "bdclean": __version__,
            "class_names": list(self.class_names),
        }


@dataclass(frozen=True)
class Cost:
    """What a task took.

    Attributes:
        seconds: Of the work alone.
        device: Where it was done.
        peak_memory: In MiB; None if it is not known.
    """

    seconds: float
    device: str
    peak_memory: int | None = None


@dataclass(frozen=True)
class Counts:
    """Unlabeled images.

    Attributes:
        unlabeled: All of them.
        used: Those that the method had.
        held_out: Those held out for the agreement.
        unreadable: Files that were left out.
    """

    unlabeled: int
    used: int
    held_out: int
    unreadable: int


@dataclass(frozen=True)
class ClassCount:
    """How far the predictions of a class moved.

    Attributes:
        number: The class.
        name: What it is called, if that is known.
        suspect: How many images the suspect put into it.
        cleansed: How many images the cleansed network put into it.
        stayed: How many of the suspect's stayed.
    """

    number: int
    name: str | None
    suspect: int
    cleansed: int
    stayed: int

    @property
    def kept(self) -> float | None:
        """How many of the suspect's stayed, in percent; None where it had none."""
        return round(100 * self.stayed / self.suspect, 2) if self.suspect else None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        counts = {"suspect": self.suspect, "cleansed": self.cleansed, "kept": self.kept}
        return {"class": self.number, "name": self.name} | counts


@dataclass(frozen=True)
class Example:
    """Images without and with a trigger.

    Attributes:
        title: What they show.
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images.
        stands_out: Whether the trigger is a finding; of a detector's recovered trigger.
    """

    title: str
    clean: Tensor
    triggered: Tensor
    stands_out: bool = True


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        network: Whose.
        part: Of which test images.
        matrix: (C, C) counts: rows true classes, columns predicted ones.
    """

    network: str
    part: str
    matrix: Tensor
