"""What a benchmark is made of: suspects and the cells in which methods cleanse them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdclean import InputError

Options = Mapping[str, Any]
"""Options of a subcommand, as on the command line but without dashes, and their values."""


@dataclass(frozen=True)
class Suspect:
    """A network that `bdclean fit` trains.

    Attributes:
        name: What it is called in the table.
        network: What its architecture is called there.
        seed: Of everything.
        arguments: Of `bdclean fit`, all but `--output`.
    """

    name: str
    network: str
    seed: int
    arguments: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its files: the same only for the same arguments."""
        return f"{self.name}.{self.network}.{self.seed}.{_digest(self.arguments)}"

    def path(self, folder: Path) -> Path:
        """Where it is kept."""
        return folder / "suspects" / f"{self.key}.ckpt"


@dataclass(frozen=True)
class Cell:
    """A method that cleanses a suspect with some images, once.

    Attributes:
        suspect: What is cleansed.
        method: What the method is called in the table.
        images: What the images are called there.
        arguments: Of `bdclean cleanse`, all but `--ckpt` and `--output`.
    """

    suspect: Suspect
    method: str
    images: str
    arguments: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its result: the same only for the same arguments."""
        suspect = self.suspect
        names = f"{suspect.name}.{suspect.network}.{suspect.seed}.{self.method}.{self.images}"
        return f"{names}.{_digest((*suspect.arguments, *self.arguments))}"

    def path(self, folder: Path) -> Path:
        """Where its result is kept, or the reason why there is none."""
        return folder / "cells" / f"{self.key}.json"


def make_grid(
    suspects: Mapping[str, Options],
    methods: Mapping[str, Options],
    networks: Mapping[str, Options],
    images: Mapping[str, Options],
    seeds: Sequence[int],
) -> list[Cell]:
    """Every suspect of every network and seed, with every method and all images.

    Args:
        suspects: Name to options of `bdclean fit`.
        methods: Name to options of `bdclean cleanse`; `method` is the name, if that is not among them.
        networks: Name to options of `bdclean fit` that come after those of a suspect.
        images: Name to options of `bdclean cleanse` that come after those of a method.
        seeds: Of everything.

    Raises:
        InputError: If there is nothing to do, or a name cannot be that of a file.
    """
    parts = {"suspects": suspects, "methods": methods, "networks": networks, "images": images, "seeds": seeds}
    for option, part in parts.items():
        if not part:
            raise InputError(f"--{option}: there are none")
        for name in part:
            if not re.fullmatch(r"[\w+ ()-]+", str(name)):
                raise InputError(f"--{option} {name}: names have letters, digits, spaces and + - ( ) alone")
    cells = []
    for seed, (name, options), (network, more) in itertools.product(seeds, suspects.items(), networks.items()):
        own = {"config": options.get("config"), "seed_everything": seed, "data.seed": seed, "data.attack.seed": seed}
        suspect = Suspect(name, network, seed, arguments({**own, **options, **more}))
        for (method, choice), (kind, where) in itertools.product(methods.items(), images.items()):
            options_ = {"config": choice.get("config"), "method": method, "seed_everything": seed, **choice, **where}
            cells.append(Cell(suspect, method, kind, arguments(options_)))
    return cells


def arguments(options: Options) -> tuple[str, ...]:
    """Options as words of a command line."""
    words = []
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return tuple(words)


def _digest(words: Sequence[str]) -> str:
    """The same for the same words, and the same content of configuration files among them."""
    content = []
    for option, value in itertools.pairwise(["", *words]):
        is_file = option == "--config" and Path(value).is_file()
        content.append(Path(value).read_text(encoding="utf-8") if is_file else value)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
