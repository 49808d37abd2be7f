"""What a benchmark is made of: suspects and the cells in which methods cleanse them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bdclean import __version__
from bdclean.errors import InputError, within

Options = Mapping[str, Any]
"""Options of a subcommand, as on the command line but without dashes, and their values."""
START = "start"
"""Option of a suspect beside those of `bdclean fit`: name of the suspect whose weights its training starts from."""
ONLY = "only"
"""Option of a suspect, method, network or of images beside those of the command: what it is combined with, by part."""


@dataclass(frozen=True)
class Suspect:
    """A network that `bdclean fit` trains.

    Attributes:
        name: What it is called in the table.
        network: What its architecture is called there.
        seed: Of everything.
        arguments: Of `bdclean fit`, all but `--output` and `--model.weights`.
        start: The suspect whose weights the training starts from, if there is one.
    """

    name: str
    network: str
    seed: int
    arguments: tuple[str, ...]
    start: Suspect | None = None

    @property
    def key(self) -> str:
        """Name of its files: the same only for the same arguments and the same start."""
        return f"{self.name}.{self.network}.{self.seed}.{_digest(self.words)}"

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that its training depends on."""
        return self.arguments if self.start is None else (*self.arguments, f"{START}={self.start.key}")

    @property
    def chain(self) -> tuple[Suspect, ...]:
        """The suspect that it starts from, if there is one, and itself: the order of their training."""
        return (self,) if self.start is None else (self.start, self)

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
        return f"{names}.{_digest((*suspect.words, *self.arguments))}"

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
        suspects: Name to options of `bdclean fit`, and `start`: the name of another suspect, of the same network and
            seed, whose weights the training starts from. In this and the next three, `only` maps other parts to some
            of their names: there are cells with these alone.
        methods: Name to options of `bdclean cleanse`; `method` is the name, if neither it nor `config` is among them.
        networks: Name to options of `bdclean fit` that come after those of a suspect, files after its file.
        images: Name to options of `bdclean cleanse` that come after those of a method, files after its file.
        seeds: Of everything.

    Raises:
        InputError: If there is nothing to do, something is named twice, or a name cannot be that of a file.
    """
    parts = {"suspects": suspects, "methods": methods, "networks": networks, "images": images, "seeds": seeds}
    for option, part in parts.items():
        if not part:
            raise InputError(option, None, "there are none")
        if len(set(part)) < len(part):
            raise InputError(option, list(part), "duplicate entries")
        for name in part:
            if not re.fullmatch(r"[\w+ ()-]{1,40}", str(name)):
                raise InputError(option, name, "names have up to 40 letters, digits, spaces and + - ( )")
    for seed in seeds:
        within("seeds", seed, 0, 2**32 - 1)
    optional = {"suspects": suspects, "methods": methods, "networks": networks, "images": images}
    limits = [limit for option, choices in optional.items() for limit in _limits(option, choices, parts)]
    suspects, methods, networks, images = (
        {name: {key: value for key, value in options.items() if key != ONLY} for name, options in choices.items()}
        for choices in optional.values()
    )
    cells = []
    for seed, network, name in itertools.product(seeds, networks, suspects):
        suspect = _suspect(name, suspects, network, networks[network], seed)
        for method, kind in itertools.product(methods, images):
            chosen = {"suspects": name, "methods": method, "networks": network, "images": kind, "seeds": seed}
            if any(chosen[part] == one and chosen[other] not in names for part, one, other, names in limits):
                continue
            # Curves on validation images would take as long as a cheap method, and a scan longer.
            own: dict[str, Any] = {"seed_everything": seed, "scan": False, "trainer.limit_val_batches": 0}
            if "config" not in methods[method]:
                own["method"] = method
            cells.append(Cell(suspect, method, kind, arguments(own, methods[method], images[kind])))
    if not cells:
        raise InputError("methods", None, "`only` leaves no cell")
    return cells


def _limits(
    option: str, choices: Mapping[str, Options], parts: Mapping[str, Iterable[Any]]
) -> Iterator[tuple[str, str, str, list[Any]]]:
    """Which names of other parts the choices of one part are combined with: (part, name, other part, its names)."""
    for name, options in choices.items():
        only = options.get(ONLY, {})
        if not isinstance(only, Mapping) or not all(isinstance(names, list) for names in only.values()):
            raise InputError(option, only, f"`only` of {name} is no mapping of lists, such as {{seeds: [0]}}")
        for other, names in only.items():
            if other not in parts or other == option:
                raise InputError(
                    option, other, f"`only` of {name} takes {', '.join(part for part in parts if part != option)}"
                )
            for one in names:
                if one not in parts[other]:
                    raise InputError(other, one, f"`only` of {name} names it, and there is none of that name")
            yield option, name, other, names


def _suspect(name: str, suspects: Mapping[str, Options], network: str, more: Options, seed: int) -> Suspect:
    """A suspect, and the suspects that it starts from."""
    options = dict(suspects[name])
    start = options.pop(START, None)
    if start is not None and start not in suspects:
        raise InputError("suspects", start, f"{name} starts from it, and there is no such suspect")
    if start is not None and suspects[start].get(START) is not None:
        raise InputError("suspects", start, f"{name} starts from it; it must itself start from random weights")
    seeded: dict[str, Any] = {"seed_everything": seed, "data.seed": seed}
    if _attacked(options) and _attacked(more):
        seeded["data.attack.seed"] = seed
    first = None if start is None else _suspect(start, suspects, network, more, seed)
    return Suspect(name, network, seed, arguments(seeded, options, more), first)


def files_of(options: Options) -> list[str]:
    """The configuration files that options name: one, or several of which later ones count more."""
    files = options.get("config") or []
    return [str(file) for file in (files if isinstance(files, list) else [files])]


def _attacked(options: Options) -> bool:
    """Whether options leave the attack as it is, or name one: an option of no attack would call up the default one."""
    if "data.attack" in options:
        return options["data.attack"] is not None
    attack: Any = ""
    for file in filter(os.path.isfile, files_of(options)):
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            attack = (content.get("data") or {}).get("attack", attack)
        except (yaml.YAMLError, ValueError, AttributeError) as error:
            raise InputError("suspects", None, f"{file} holds no options, name: value") from error
    return attack is not None


def arguments(*parts: Options) -> tuple[str, ...]:
    """Options as words of a command line: configuration files first, later parts after earlier ones."""
    configs = [f"--config={file}" for options in parts for file in files_of(options)]
    merged = {name: value for options in parts for name, value in options.items() if name != "config"}
    # As one word each: a value may begin with a dash.
    words = (f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in merged.items())
    return (*configs, *words)


def _digest(words: Sequence[str]) -> str:
    """The same for the same words, program and environment, and the same content of configuration files."""
    content = [
        __version__,
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("BDCLEAN_")),
    ]
    for word in words:
        path = Path(word.removeprefix("--config="))
        is_file = word.startswith("--config=") and path.is_file()
        content.append(path.read_text(encoding="utf-8") if is_file else word)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
