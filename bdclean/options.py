"""The options of each subcommand, read from the source: to import it takes seconds, because of torch."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
TRAINED = ("fit", "validate", "test", "predict", "cleanse", "scan")
"""Subcommands with a network, images and a trainer."""
SUBCOMMANDS = (*TRAINED, "benchmark")
ALWAYS = ("help", "config", "print_config")
"""Options that parsers have by themselves."""
CLOSE = 0.7
"""How alike two names are, in [0, 1], of which one may be a slip for the other."""
MOST_SUGGESTED = 2
"""Names that are suggested where several are equally close."""


@dataclass(frozen=True)
class Classes:
    """What an option takes that names a class.

    Attributes:
        names: The classes of this package.
        parameters: Arguments of the constructors of any of them.
    """

    names: tuple[str, ...]
    parameters: frozenset[str]


@dataclass(frozen=True)
class Options:
    """The options of a subcommand.

    Attributes:
        names: All of them, without leading dashes, those of a group after its name and a dot: `data.source`.
        open: Groups whose options could not be read: they may have any.
        classes: Options that name a class, and what they take.
    """

    names: frozenset[str]
    open: frozenset[str] = frozenset()
    classes: Mapping[str, Classes] = field(default_factory=dict)

    @property
    def everything(self) -> set[str]:
        """All options, those of classes among them."""
        inner = {f"{option}.{name}" for option, classes in self.classes.items() for name in classes.parameters}
        return {*self.names, *inner}


@cache
def options(subcommand: str) -> Options:
    """The options of a subcommand: rather more than its parser has, than fewer."""
    if subcommand == "benchmark":
        return Options(frozenset({*ALWAYS, "list", *_parameters(PACKAGE / "benchmark" / "run.py", "", "benchmark")}))
    trainers = [PACKAGE / "trainer.py", *_lightning()]
    module, name = ("attack.py", "AttackModule") if subcommand == "fit" else ("suspect.py", "Suspect")
    groups = {
        "model": _parameters(PACKAGE / "modules" / module, name),
        "data": _parameters(PACKAGE / "data" / "module.py", "PoisonDataModule"),
        "trainer": {name for path in trainers for name in _parameters(path, "Trainer")},
    }
    names = {*ALWAYS, "seed_everything", *groups, *(() if subcommand == "fit" else ("ckpt",))}
    names |= {name for path in trainers for name in _parameters(path, "Trainer", subcommand)}
    names |= {f"{group}.{name}" for group, members in groups.items() for name in members}
    folders = {"data.attack": "attacks"}
    folders |= {"cleanse": {"method": "cleansing"}, "scan": {"detector": "scanning"}}.get(subcommand, {})
    unknown = frozenset({"trainer"} if len(trainers) < 2 else ())
    return Options(frozenset(names), unknown, {option: _classes(folder) for option, folder in folders.items()})


def descriptions() -> dict[str, str]:
    """Each subcommand and what it does, in a line."""
    ours = _functions(PACKAGE / "trainer.py", "Trainer") | _functions(PACKAGE / "benchmark" / "run.py", "")
    found = {name: ast.get_docstring(ours[name]) or "" for name in SUBCOMMANDS if name in ours}
    return {name: text.partition("\n")[0] for name, text in found.items()}


def suggestion(wrong: str, known: Iterable[str], dashes: str = "") -> str:
    """The question whether a known name was meant; empty if none is like it.

    Args:
        wrong: What was given.
        known: Names that exist.
        dashes: What stands before them on the command line.
    """
    # Those of few groups first.
    names = sorted({*known} - {wrong}, key=lambda name: (name.count("."), name))
    whole = {name: name.lower() for name in names}
    # Many leave out the group: `max_epochs` for `trainer.max_epochs`.
    last = {name: short.rpartition(".")[2] for name, short in whole.items()}
    for short, table in ((wrong.lower(), whole), (wrong.rpartition(".")[2].lower(), last)):
        likeness = {name: difflib.SequenceMatcher(None, short, other).ratio() for name, other in table.items()}
        best = max(likeness.values(), default=0)
        if best >= CLOSE:
            close = [f"{dashes}{name}" for name in names if likeness[name] == best][:MOST_SUGGESTED]
            return f"; did you mean {' or '.join(close)}?"
    return ""


def _classes(folder: str) -> Classes:
    """The classes of a folder of this package."""
    paths = sorted((PACKAGE / folder).glob("*.py"))
    found = {node.name: path for path in paths for node in _tree(path).body if isinstance(node, ast.ClassDef)}
    return Classes(tuple(found), frozenset(name for owner, path in found.items() for name in _parameters(path, owner)))


def _parameters(path: Path, owner: str, function: str = "__init__") -> frozenset[str]:
    """Names of the arguments of a function; none if there is no such function.

    Args:
        path: The file that it is in.
        owner: Its class; empty if it has none.
        function: Its name.
    """
    found = _functions(path, owner).get(function)
    if found is None:
        return frozenset()
    return frozenset(argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)) - {"self"}


def _functions(path: Path, owner: str) -> dict[str, ast.FunctionDef]:
    body: list[ast.stmt] = _tree(path).body
    if owner:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner), [])
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _lightning() -> list[Path]:
    """The source of Lightning's Trainer, if it is where it was."""
    # Of the top-level package alone: to find what is in it would import it.
    found = importlib.util.find_spec("lightning")
    places = () if found is None else found.submodule_search_locations or ()
    paths = (Path(place, "pytorch", "trainer", "trainer.py") for place in places)
    return [path for path in paths if path.is_file()][:1]
