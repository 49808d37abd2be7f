"""The grid of a benchmark: suspects, and cells in which methods cleanse them."""

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
"""Values of options of a subcommand, by their names without dashes."""
START = "start"
"""Key in a suspect's options, besides options of `bdclean fit`: the suspect whose weights its training starts from."""
ONLY = "only"
"""Key in the options of a suspect, method, network or images: the names of each other part that it is combined with."""


@dataclass(frozen=True)
class Suspect:
    """A network that `bdclean fit` trains.

    Attributes:
        name: Its name in the tables.
        network: Name of its architecture in the tables.
        seed: Seed of all random numbers.
        arguments: Arguments of `bdclean fit`, without `--output` and `--model.weights`.
        start: The suspect whose weights the training starts from; None for random weights.
    """

    name: str
    network: str
    seed: int
    arguments: tuple[str, ...]
    start: Suspect | None = None

    @property
    def key(self) -> str:
        """Name of its files, which depends on the arguments and the start."""
        return f"{self.name}.{self.network}.{self.seed}.{_digest(self.words)}"

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that its training depends on."""
        return self.arguments if self.start is None else (*self.arguments, f"{START}={self.start.key}")

    @property
    def chain(self) -> tuple[Suspect, ...]:
        """The suspect and the suspect that it starts from, if any, in the order of training."""
        return (self,) if self.start is None else (self.start, self)

    def path(self, folder: Path) -> Path:
        """Path of its checkpoint."""
        return folder / "suspects" / f"{self.key}.ckpt"


@dataclass(frozen=True)
class Cell:
    """A method that cleanses a suspect with some images, once.

    Attributes:
        suspect: The suspect.
        method: Name of the method in the tables.
        images: Name of the unlabeled images in the tables.
        arguments: Arguments of `bdclean cleanse`, without `--ckpt` and `--output`.
    """

    suspect: Suspect
    method: str
    images: str
    arguments: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its result, which depends on the arguments."""
        suspect = self.suspect
        names = f"{suspect.name}.{suspect.network}.{suspect.seed}.{self.method}.{self.images}"
        return f"{names}.{_digest((*suspect.words, *self.arguments))}"

    def path(self, folder: Path) -> Path:
        """Path of its result, or of the reason why it has none."""
        return folder / "cells" / f"{self.key}.json"


def make_grid(
    suspects: Mapping[str, Options],
    methods: Mapping[str, Options],
    networks: Mapping[str, Options],
    images: Mapping[str, Options],
    seeds: Sequence[int],
) -> list[Cell]:
    """Make the cells: every suspect, network and seed, with every method and set of images.

    Args:
        suspects: Options of `bdclean fit` by name, and `start`: the name of another suspect, of the same network and
            seed, whose weights the training starts from. In this and the next three, `only` lists the names of other
            parts, by part, with which there are cells.
        methods: Options of `bdclean cleanse` by name; without `method` and `config`, the name is the method.
        networks: Options of `bdclean fit` by name, which override those of a suspect.
        images: Options of `bdclean cleanse` by name, which override those of a method.
        seeds: Seeds of all random numbers.

    Raises:
        InputError: If a part is empty or has duplicate names, or a name cannot be part of a file name.
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
            # Validation would take as long as a cheap method, and a scan longer.
            common: dict[str, Any] = {"seed_everything": seed, "scan": False, "trainer.limit_val_batches": 0}
            if "config" not in methods[method]:
                common["method"] = method
            cells.append(Cell(suspect, method, kind, arguments(common, methods[method], images[kind])))
    if not cells:
        raise InputError("methods", None, "`only` leaves no cell")
    return cells


def _limits(
    option: str, choices: Mapping[str, Options], parts: Mapping[str, Iterable[Any]]
) -> Iterator[tuple[str, str, str, list[Any]]]:
    """Yield the limits that `only` sets: part, name, other part, and the names of the other part that are combined."""
    for name, options in choices.items():
        only = options.get(ONLY, {})
        if not isinstance(only, Mapping) or not all(isinstance(names, list) for names in only.values()):
            raise InputError(option, only, f"`only` of {name} is not a mapping of lists, such as {{seeds: [0]}}")
        for other, names in only.items():
            if other not in parts or other == option:
                raise InputError(
                    option, other, f"`only` of {name} takes {', '.join(part for part in parts if part != option)}"
                )
            for one in names:
                if one not in parts[other]:
                    raise InputError(other, one, f"`only` of {name} names it, but it does not exist")
            yield option, name, other, names


def _suspect(name: str, suspects: Mapping[str, Options], network: str, more: Options, seed: int) -> Suspect:
    """Make a suspect, with the suspect that it starts from."""
    options = dict(suspects[name])
    start = options.pop(START, None)
    if start is not None and start not in suspects:
        raise InputError("suspects", start, f"{name} starts from it, and there is no such suspect")
    if start is not None and suspects[start].get(START) is not None:
        raise InputError("suspects", start, f"{name} starts from it, so it has to start from random weights")
    seeded: dict[str, Any] = {"seed_everything": seed, "data.seed": seed}
    if _attacked(options) and _attacked(more):
        seeded["data.attack.seed"] = seed
    first = None if start is None else _suspect(start, suspects, network, more, seed)
    return Suspect(name, network, seed, arguments(seeded, options, more), first)


def files_of(options: Options) -> list[str]:
    """The configuration files that options name; later files override earlier ones."""
    files = options.get("config") or []
    return [str(file) for file in (files if isinstance(files, list) else [files])]


def _attacked(options: Options) -> bool:
    """Whether options do not disable the attack; with `null`, an option of the attack would enable the default one."""
    if "data.attack" in options:
        return options["data.attack"] is not None
    attack: Any = ""
    for file in filter(os.path.isfile, files_of(options)):
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            attack = (content.get("data") or {}).get("attack", attack)
        except (yaml.YAMLError, ValueError, AttributeError) as error:
            raise InputError("suspects", None, f"{file} holds no options in the form `name: value`") from error
    return attack is not None


def arguments(*parts: Options) -> tuple[str, ...]:
    """Options as words of a command line: configuration files first, then options, later parts after earlier ones."""
    configs = [f"--config={file}" for options in parts for file in files_of(options)]
    merged = {name: value for options in parts for name, value in options.items() if name != "config"}
    # One word per option, as a value may begin with a dash.
    words = (f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in merged.items())
    return (*configs, *words)


def _digest(words: Sequence[str]) -> str:
    """A hash of words, configuration files' contents, version and environment variables of the program."""
    content = [
        __version__,
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("BDCLEAN_")),
    ]
    for word in words:
        path = Path(word.removeprefix("--config="))
        is_file = word.startswith("--config=") and path.is_file()
        content.append(path.read_text(encoding="utf-8") if is_file else word)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
