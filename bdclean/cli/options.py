"""The options of each subcommand, read from the source, as importing torch takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bdclean.cli.values import Values, values_of
from bdclean.registry import ABSTRACT, of_lightning
from bdclean.source import PACKAGE, files_of, keys_of, module_tree

TRAINED = ("fit", "poison", "validate", "test", "predict", "cleanse", "scan", "filter")
"""Subcommands with a network, images and a trainer."""
FROM_SCRATCH = ("fit", "poison")
"""Those of them without a checkpoint, whose network is an AttackModule."""
SUBCOMMANDS = (*TRAINED, "benchmark")
GROUPS = ("model", "data", "trainer")
"""Groups of options of these subcommands."""
BENCHMARK = PACKAGE / "benchmark" / "run.py"
"""File of the subcommand without a network."""
QUIET = "--quiet"
"""The flag of all commands that disables progress bars and notices."""
ALWAYS = ("help", "help-all", "config", "print_config", "quiet")
"""Options of every command."""


@dataclass(frozen=True)
class Classes:
    """The classes that an option accepts.

    Attributes:
        names: Names of the classes of this package, or of Lightning.
        usual: Names of the classes for users.
        parameters: Arguments of the constructors of all these classes; None if they could not be read.
    """

    names: tuple[str, ...]
    usual: tuple[str, ...]
    parameters: frozenset[str] | None


@dataclass(frozen=True)
class Options:
    """The options of a subcommand.

    Attributes:
        names: Names of all options, without dashes, with their group: `data.source`.
        open: Groups whose options could not be read, so that any option is possible.
        classes: The accepted classes, by the option that names a class.
        values: The values of each option, one entry for each class that has it; None for any text.
    """

    names: frozenset[str]
    open: frozenset[str] = frozenset()
    classes: Mapping[str, Classes] = field(default_factory=dict)
    values: Mapping[str, tuple[Values | None, ...]] = field(default_factory=dict)

    @property
    def everything(self) -> set[str]:
        """All options, including options of classes."""
        inner = {f"{option}.{name}" for option, classes in self.classes.items() for name in classes.parameters or ()}
        return {*self.names, *inner}


@cache
def options(subcommand: str) -> Options:
    """The options of a subcommand; in doubt, more than its parser has."""
    trained = subcommand in TRAINED
    trainers = _trainers() if trained else []
    single = _single(subcommand, trainers) if trained else _parameters(BENCHMARK, "", subcommand)
    folders = {"data.attack": ("attacks", "Attack")} if trained else {}
    of_command = {
        "cleanse": {"method": ("cleansing", "Cleanser")},
        "scan": {"detector": ("scanning", "Detector")},
        "filter": {"score": ("filtering", "Score")},
        "benchmark": {"engine": ("benchmark/engines", "Engine")},
    }
    folders |= of_command.get(subcommand, {})
    values: dict[str, tuple[Values | None, ...]] = {name: (value,) for name, value in single.items()}
    classes = {}
    for option, (folder, root) in folders.items():
        members = {owner: _parameters(path, owner) for owner, path in _classes(folder, root).items()}
        inner = {name for taken in members.values() for name in taken}
        classes[option] = Classes(tuple(members), _usual(folder, root, members), frozenset(inner))
        values |= {f"{option}.{name}": tuple(one[name] for one in members.values() if name in one) for name in inner}
    if not trained:
        return Options(frozenset({*ALWAYS, "list", *single}), frozenset(), classes, values)
    for kind, option in (("loggers", "trainer.logger"), ("callbacks", "trainer.callbacks")):
        classes[option] = Classes(of_lightning(kind), of_lightning(kind), None)
    names = {*ALWAYS, "seed_everything", *GROUPS, *single, *(() if subcommand in FROM_SCRATCH else ("ckpt",))}
    return Options(frozenset(names), frozenset({"trainer"} if len(trainers) < 3 else ()), classes, values)


def _trainers() -> list[tuple[Path, str]]:
    """The bases of the command line's Trainer and their files; without Lightning's if Lightning is not installed."""
    found = [(path, "Trainer") for path in files_of("lightning", "pytorch/trainer/trainer.py")]
    return [*found, (PACKAGE / "engine" / "trainer.py", "Trainer"), (PACKAGE / "cli" / "verbs.py", "Verbs")]


def _single(subcommand: str, trainers: Sequence[tuple[Path, str]]) -> dict[str, Values | None]:
    """Options of a subcommand that are not options of a class."""
    module, name = ("attack.py", "AttackModule") if subcommand in FROM_SCRATCH else ("suspect.py", "Suspect")
    groups = {
        "model": _parameters(PACKAGE / "modules" / module, name),
        "data": _parameters(PACKAGE / "data" / "module.py", "PoisonDataModule"),
        "trainer": {name: value for path, kind in trainers for name, value in _parameters(path, kind).items()},
    }
    verbs = {name: value for path, kind in trainers for name, value in _parameters(path, kind, subcommand).items()}
    return verbs | {f"{group}.{name}": value for group, members in groups.items() for name, value in members.items()}


def _usual(folder: str, root: str, members: Collection[str]) -> tuple[str, ...]:
    """Names of the classes of a folder that are for users."""
    exported = keys_of(PACKAGE / folder / "__init__.py", "__all__")
    exported = tuple(sorted({*members} - {root})) if folder == "attacks" else exported
    return tuple(name for name in exported if name in members and name not in ABSTRACT)


@cache
def untrained() -> frozenset[str]:
    """Names of the cleansing methods that do not train."""
    bodies = {name: _body(path, name) for name, path in _classes("cleansing", "Cleanser").items()}
    return frozenset(name for name, body in bodies.items() if "epochs = 0" in map(ast.unparse, body))


def descriptions() -> dict[str, str]:
    """One line about each subcommand, by name."""
    places = {"engine/trainer.py": "Trainer", "cli/verbs.py": "Verbs", "benchmark/run.py": ""}
    ours = {name: found for path, kind in places.items() for name, found in _functions(PACKAGE / path, kind).items()}
    found = {name: ast.get_docstring(ours[name]) or "" for name in SUBCOMMANDS if name in ours}
    return {name: text.partition("\n")[0] for name, text in found.items()}


def _classes(folder: str, root: str) -> dict[str, Path]:
    """Files of a class and its subclasses in a folder of this package, by name."""
    paths = sorted((PACKAGE / folder).rglob("*.py"))
    nodes = [(node, path) for path in paths for node in module_tree(path).body if isinstance(node, ast.ClassDef)]
    bases = {node.name: {base.id for base in node.bases if isinstance(base, ast.Name)} for node, _ in nodes}

    def derived(name: str) -> bool:
        return name == root or any(map(derived, bases.get(name, ())))

    return {node.name: path for node, path in nodes if derived(node.name)}


def _parameters(path: Path, owner: str, function: str = "__init__") -> dict[str, Values | None]:
    """Values of the arguments of a function, by name; empty if there is no such function.

    Args:
        path: The file.
        owner: Class of the function; empty if it is not a method.
        function: Name of the function.
    """
    found = _functions(path, owner).get(function)
    arguments = () if found is None else (*found.args.args, *found.args.kwonlyargs)
    return {one.arg: values_of(one.annotation, path) for one in arguments if one.arg != "self"}


def _functions(path: Path, owner: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in _body(path, owner) if isinstance(node, ast.FunctionDef)}


def _body(path: Path, owner: str) -> list[ast.stmt]:
    """The statements of a class, or of the module if `owner` is empty."""
    body = module_tree(path).body
    if not owner:
        return body
    return next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner), [])
