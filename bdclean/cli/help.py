"""Help of commands and classes, read from the docstrings in the source, as importing the code takes seconds."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docstring_parser

from bdclean.cli.options import FROM_SCRATCH
from bdclean.registry import ABSTRACT
from bdclean.source import PACKAGE, keys_of, module_tree

WIDEST = 100
"""Maximum width of a page, in columns."""
INDENT = 26
"""Columns before the text of an option or a class."""
VERBS = PACKAGE / "cli" / "verbs.py"
TRAINER = PACKAGE / "engine" / "trainer.py"
GENERAL = {
    "--config FILE": "File of options in YAML; several are merged, and options on the command line come last.",
    "--print_config": "Print all options with their values, as a file for --config, and exit.",
    "--quiet": "Print results and errors only.",
}
SEED = {"--seed_everything N": "Seed of all random numbers. Default: 0."}
SOURCE = " Default: shapes, if the network was trained on them."
NETWORK = {"--ckpt FILE": "File of the network. Required."}
TRAINING = {
    "--trainer.max_epochs N": "Number of epochs. Default: the method's own; 10 for fit.",
    "--trainer.accelerator NAME": "Kind of device: auto, cpu, gpu or mps. Default: auto.",
    "--trainer.devices N": "Number of devices; needs --trainer.strategy ddp if there are several. Default: 1.",
    "--trainer.precision NAME": "Number format, such as 32-true or bf16-mixed. Default: bf16-mixed if the "
    "device supports bf16, else 32-true.",
    "--trainer.logger NAME": "Logger of the figures: TensorBoardLogger, CSVLogger, WandbLogger, MLFlowLogger, "
    "CometLogger, or false for none. Default: TensorBoardLogger.",
}
"""Options of the Trainer that a page lists; the others are behind --help-all."""
INTERNAL = ("self", "suspect", "model", "datamodule", "command", "cell")
"""Arguments that are not options."""
NAMED = ("method", "attack", "detector", "score", "engine", "arch")
"""Arguments whose value is the name of a class."""
ROOTS = {"Attack", "Detector", "Score"}
"""Base classes of the classes that are found by their bases."""


@dataclass(frozen=True)
class Group:
    """Classes that an option names.

    Attributes:
        option: The option, without dashes.
        folder: The folder of the package with the classes.
        title: Title of the list of the classes.
        table: Name of the list of the classes in the folder's `__init__.py`; empty to find the classes in its files.
    """

    option: str
    folder: str
    title: str
    table: str = ""

    def names(self) -> tuple[str, ...]:
        """Names of the classes for users."""
        listed = keys_of(PACKAGE / self.folder / "__init__.py", self.table) if self.table else ()
        if self.table == "__all__":
            return tuple(name for name in listed if name not in ABSTRACT)
        # Without a list of names, find the classes by their bases.
        return tuple(sorted(name for name in classes(self.folder) if name not in ABSTRACT and self._is_derived(name)))

    def _is_derived(self, name: str) -> bool:
        known = classes(self.folder)
        bases = {base.id for base in known[name].bases if isinstance(base, ast.Name)}
        return bool(bases & ROOTS) or any(base in known and self._is_derived(base) for base in bases)


GROUPS: Mapping[str, Group] = {
    "data.attack": Group("data.attack", "attacks", "attacks"),
    "method": Group("method", "cleansing", "methods", "__all__"),
    "detector": Group("detector", "scanning", "detectors"),
    "score": Group("score", "filtering", "scores"),
    "engine": Group("engine", "benchmark/engines", "engines", "__all__"),
}
OF_COMMAND = {
    "fit": "data.attack",
    "poison": "data.attack",
    "cleanse": "method",
    "scan": "detector",
    "filter": "score",
    "benchmark": "engine",
}
"""The option whose classes the help of a command lists."""


def of_command(command: str) -> str:
    """The help of a command."""
    path, owner = (PACKAGE / "benchmark" / "run.py", "") if command == "benchmark" else _place(command)
    function = _functions(path, owner)[command]
    trained = command != "benchmark"
    required = "" if not trained or command in FROM_SCRATCH else " --ckpt FILE"
    text = docstring_parser.parse(ast.get_docstring(function) or "")
    parts = [f"usage: bdclean {command}{required} [options]", _filled(text.short_description or "")]
    if text.long_description:
        parts += [_filled(part) for part in text.long_description.split("\n\n")]
    options = dict(_options(function, ast.get_docstring(function) or "", ""))
    parts.append(_section(f"options of {command}", (NETWORK if required else {}) | options))
    if trained:
        model = ("attack.py", "AttackModule") if command in FROM_SCRATCH else ("suspect.py", "Suspect")
        images = _of_class(PACKAGE / "data" / "module.py", "PoisonDataModule", "data.")
        if command not in FROM_SCRATCH:
            # Here the default source depends on the checkpoint.
            images = {name: text.replace(" Default: shapes.", SOURCE) for name, text in images.items()}
        parts.append(_section("images", images))
        parts.append(_section("network", _of_class(PACKAGE / "modules" / model[0], model[1], "model.")))
        parts.append(_section("device and training", TRAINING))
    parts.append(_section("general", GENERAL | (SEED if trained else {})))
    if command in OF_COMMAND:
        group = GROUPS[OF_COMMAND[command]]
        listed = {name: _summary(group.folder, name) for name in group.names()}
        parts.append(_section(f"{group.title} (--{group.option}.help NAME lists the options of one)", listed))
    if trained:
        more = f"`bdclean {command} --help-all` also lists Lightning's options, and the environment variable"
        parts.append(_filled(f"{more} of each option."))
    return "\n\n".join(parts)


def of_class(option: str, name: str) -> str | None:
    """The help of a class that an option names; None if this package has no such class."""
    group = GROUPS.get(option)
    if group is None or name not in group.names():
        return None
    text = docstring_parser.parse(ast.get_docstring(classes(group.folder)[name]) or "")
    parts = [f"--{option} {name}", _filled(text.short_description or "")]
    for part in (text.long_description or "").split("\n\n"):
        # Keep the line breaks of indented text and lists.
        parts.append(part if part.startswith((" ", "- ")) else _filled(part))
    parts.append(_section("options", dict(inherited(group.folder, name, f"{option}."))))
    return "\n\n".join(filter(None, parts))


def classes(folder: str) -> dict[str, ast.ClassDef]:
    """The classes of a folder of this package."""
    trees = (module_tree(path) for path in sorted((PACKAGE / folder).rglob("*.py")))
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def inherited(folder: str, name: str, prefix: str) -> Iterator[tuple[str, str]]:
    """The options of a class, and the options that its constructor passes to its base."""
    node = classes(folder).get(name)
    if node is None:
        return
    constructor = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    seen = set()
    if constructor is not None:
        for option, text in _options(constructor, ast.get_docstring(node) or "", prefix):
            seen.add(option.split()[0])
            yield option, text
    if constructor is None or constructor.args.kwarg is not None:
        for base in (one.id for one in node.bases if isinstance(one, ast.Name)):
            yield from (pair for pair in inherited(folder, base, prefix) if pair[0].split()[0] not in seen)


def _place(command: str) -> tuple[Path, str]:
    return (VERBS, "Verbs") if command in _functions(VERBS, "Verbs") else (TRAINER, "Trainer")


def _of_class(path: Path, name: str, prefix: str) -> dict[str, str]:
    constructor, text = _functions(path, name)["__init__"], _docstring(path, name)
    return dict(_options(constructor, text, prefix))


def _functions(path: Path, owner: str) -> dict[str, ast.FunctionDef]:
    body: Sequence[ast.stmt] = module_tree(path).body
    if owner:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def _docstring(path: Path, name: str) -> str:
    nodes = (node for node in module_tree(path).body if isinstance(node, ast.ClassDef) and node.name == name)
    return next((ast.get_docstring(node) or "" for node in nodes), "")


def _summary(folder: str, name: str) -> str:
    return docstring_parser.parse(ast.get_docstring(classes(folder)[name]) or "").short_description or ""


def _options(function: ast.FunctionDef, docstring: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each option with a placeholder for its value, and its text with the default."""
    texts = {one.arg_name: one.description or "" for one in docstring_parser.parse(docstring).params}
    arguments = [*function.args.args, *function.args.kwonlyargs]
    missing = len(function.args.args) - len(function.args.defaults)
    defaults: list[ast.expr | None] = [*[None] * missing, *function.args.defaults, *function.args.kw_defaults]
    for argument, default in zip(arguments, defaults, strict=True):
        if argument.arg in INTERNAL or argument.arg not in texts:
            continue
        text, written = " ".join(texts[argument.arg].split()), "" if default is None else ast.unparse(default)
        shown = written.strip("'\"") not in ("None", "") and not written.isupper() and argument.arg != "list"
        ending = f" Default: {_plain(written)}." if shown else ""
        yield f"--{prefix}{argument.arg} {_value(argument)}".rstrip(), f"{text}{ending}"


def _value(argument: ast.arg) -> str:
    """The placeholder for the value of an option."""
    if argument.arg in NAMED:
        return "NAME"
    kinds = {"int": "N", "float": "X", "bool": "{true,false}", "str": "TEXT"}
    annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
    if argument.arg == "list":
        return ""
    return kinds.get(annotation.removesuffix(" | None"), "VALUE")


def _plain(default: str) -> str:
    """A default as it is typed in a shell."""
    return {"True": "true", "False": "false"}.get(default, default.strip("'\""))


def _section(title: str, entries: Mapping[str, str]) -> str:
    return "\n".join([f"{title}:", *_entries(entries.items())]) if entries else ""


def _entries(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in entries:
        lines = textwrap.wrap(text, _width() - INDENT, break_on_hyphens=False)
        if len(name) + 4 > INDENT:
            yield f"  {name}"
        else:
            lines = [f"  {name}".ljust(INDENT) + (lines[0] if lines else ""), *lines[1:]]
            yield lines.pop(0)
        yield from (" " * INDENT + line for line in lines)


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _width(), break_on_hyphens=False)


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
