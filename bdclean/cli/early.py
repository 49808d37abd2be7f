"""The commonest mistakes, found without torch, which takes seconds to import.

The parser would refuse them too; in doubt nothing is refused here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from bdclean import outputs
from bdclean.cli.asked import given_options
from bdclean.cli.messages import expected, no_class, no_option, no_value
from bdclean.cli.options import SUBCOMMANDS, Classes, Options, options, untrained
from bdclean.cli.values import is_word
from bdclean.errors import InputError
from bdclean.registry import is_source, networks, no_network, no_source
from bdclean.suggestions import suggestion

DEFAULT_METHOD = "ScanDistill"
"""Of cleansing."""
LENGTHS = ("max_epochs", "max_steps", "max_time", "limit_train_batches")
"""Options of the Trainer that leave no step of training if they are 0."""
GLOBAL = ("help", "version", "config", "print_config")
"""Options that may stand before the subcommand."""
FILES = ("ckpt", "ckpt_path", "config")
"""Options that name files to be read."""


def check(words: Sequence[str]) -> None:
    """Refuse a subcommand, an option or a file that certainly is not there.

    Args:
        words: Those of the command line after the program's name.

    Raises:
        InputError: With the name that was meant, perhaps.
    """
    if not words or words[0].startswith("-"):
        _check_start(words)
        return
    subcommand, *rest = words
    _check_subcommand(subcommand)
    if _asks_for_help(rest):
        return
    known = options(subcommand)
    given = given_options(rest)
    if rest and not rest[0].startswith("-") and "ckpt" in known.names and os.path.lexists(rest[0]):
        raise InputError("", None, f"{rest[0]}: not expected here; did you mean --ckpt {rest[0]}?")
    for name, _ in given:
        _check_name(name, known, subcommand)
    last = {name: value for name, value in given if name != "config"}
    for name, value in [*last.items(), *(pair for pair in given if pair[0] == "config")]:
        # An option that follows is no value.
        if value is not None and not value.startswith("--"):
            _check_given(name, value, known, subcommand)
    if not _has_variables() and not {"config", "trainer"} & {name for name, _ in given}:
        _check_length(subcommand, last)


def check_classes(words: Sequence[str]) -> None:
    """Refuse a class or an option of a class that is not in this package.

    Only where nothing else can be meant: before anything is imported, without configuration files, variables and
    classes of the user's own.

    Args:
        words: Those of the command line after the program's name, which `check` has let pass.

    Raises:
        InputError: With the name that was meant, perhaps.
    """
    if not words or words[0] not in SUBCOMMANDS or _has_variables():
        return
    given = given_options(words[1:])
    if {"config", "data", "trainer"} & {name for name, _ in given}:
        return
    known = options(words[0]).classes
    for option, classes in known.items():
        _check_help(option, given, classes)
    if _asks_for_help(words):
        return
    for option, classes in known.items():
        named = [value or "" for name, value in given if name in (option, f"{option}+", f"{option}.class_path")]
        if classes.names and all(map(str.isidentifier, named)):
            _check_named(option, named, classes)
            _check_inner(option, [name for name, _ in given], classes)


def check_required(words: Sequence[str]) -> None:
    """Refuse a command that lacks the file of a network, if nothing else can name one.

    Args:
        words: Those of the command line after the program's name, which `check` and `check_classes` have let pass.

    Raises:
        InputError: If it lacks one.
    """
    if not words or words[0] not in SUBCOMMANDS or _asks_for_help(words) or _has_variables():
        return
    given = {name for name, _ in given_options(words[1:])}
    if "ckpt" in options(words[0]).names and not given & {"ckpt", "config", "print_config"}:
        raise InputError("ckpt", None, "required")


def _check_subcommand(name: str) -> None:
    """Refuse a subcommand that is not there."""
    if name not in SUBCOMMANDS:
        advice = suggestion(name, SUBCOMMANDS) or f"; there are {', '.join(SUBCOMMANDS)}"
        raise InputError("", None, f"{name}: no such command{advice}")


def _check_given(name: str, value: str, known: Options, subcommand: str) -> None:
    """Refuse the value of an option that certainly is none."""
    if name in FILES and name in known.names:
        _check_file(name, value)
    elif name == "output" and name in known.names:
        outputs.check_name(subcommand, value)
    elif name in ("data.source", "data.unlabeled"):
        if is_word(value) and not is_source(value):
            raise no_source(name, value)
    elif name == "model.arch":
        if is_word(value) and "." not in value and "/" not in value and value not in (networks() or [value]):
            raise no_network(value, networks())
    else:
        _check_value(name, value, known)


def _check_start(words: Sequence[str]) -> None:
    """Refuse a command line without a subcommand, and options before it that belong behind it."""
    if _has_variables() or _asks_for_help(words):
        return
    subcommand = next((word for word in words if word in SUBCOMMANDS), None)
    if subcommand is None:
        if "config" in {name for name, _ in given_options(words)}:
            # The command may stand there.
            return
        raise InputError("", None, f"no command: there are {', '.join(SUBCOMMANDS)}; see bdclean --help")
    for name, value in given_options(words[: words.index(subcommand)]):
        if name not in GLOBAL:
            raise InputError(name, value or None, f"must come after the command {subcommand}")


def _check_help(option: str, given: Sequence[tuple[str, str | None]], classes: Classes) -> None:
    """Refuse to explain a class that is not there."""
    for value in (value or "" for name, value in given if name == f"{option}.help"):
        # An option that follows is no value.
        if value.isidentifier() and value not in classes.names:
            raise no_class(f"{option}.help", value, classes.usual)


def _check_named(option: str, named: Sequence[str], classes: Classes) -> None:
    """Refuse classes that an option does not take."""
    for value in named:
        if value not in classes.names and value.lower() not in ("null", "none", "true", "false"):
            raise no_class(option, value, classes.usual)


def _check_inner(option: str, names: Sequence[str], classes: Classes) -> None:
    """Refuse options of classes that none of them has."""
    if classes.parameters is None:
        return
    for name in (name for name in names if name.startswith(f"{option}.")):
        inner = name.removeprefix(f"{option}.").removeprefix("init_args.").partition(".")[0].rstrip("+")
        if inner not in {*classes.parameters, "class_path", "dict_kwargs"}:
            advice = suggestion(inner, classes.parameters, f"--{option}.")
            raise InputError(name, None, f"no such option{advice or f'; --{option}.help NAME lists those of a class'}")


def _has_variables() -> bool:
    """Whether options may stand in environment variables."""
    return any(name.startswith("BDCLEAN_") for name in os.environ)


def _asks_for_help(words: Sequence[str]) -> bool:
    """Whether the parser stops before it finds a mistake."""
    return any(word in ("-h", "--help", "--help-all") or word.partition("=")[0].endswith(".help") for word in words)


def _check_name(name: str, known: Options, subcommand: str) -> None:
    """Refuse an option that is not there; what follows the name of one belongs to its value."""
    group, *rest = name.split(".")
    grouped = any(other.startswith(f"{group}.") for other in known.names)
    wanted = f"{group}.{rest[0]}" if grouped and rest else group
    if group not in known.open and wanted.rstrip("+") not in known.names:
        raise no_option(name, known, f"; bdclean {subcommand} --help lists them")


def _check_file(name: str, value: str) -> None:
    """Refuse the name of a file that is not there."""
    # A configuration may stand there itself, an address is no file, and an option no value.
    if not re.search(r"[:{\[\n]|^-", value) and value not in ("null", "None", "~") and not os.path.lexists(value):
        raise InputError(name, value, "no such file")


def _check_value(name: str, value: str, known: Options) -> None:
    """Refuse a word where none, or only others, can stand."""
    # As one class takes it or another: which one is meant may stand in a checkpoint.
    kinds = known.values.get(name.replace(".init_args.", "."), ())
    sure = [kind for kind in kinds if kind is not None and kind.refuses(value)]
    if sure and len(sure) == len(kinds):
        raise no_value(name, value, sure[0].choices, expected(sure[0].choices, sure[0].types))


def _check_length(subcommand: str, given: Mapping[str, str | None]) -> None:
    """Refuse a training without a step, where nothing but a training can be meant."""
    method = given.get("method", given.get("method.class_path")) or DEFAULT_METHOD
    trains = method in options("cleanse").classes["method"].names and method not in untrained()
    if subcommand != "fit" and not (subcommand == "cleanse" and trains):
        return
    for name in LENGTHS:
        value = given.get(f"trainer.{name}") or ""
        if re.fullmatch(r"[0:.]*0[0:.]*", value):
            why = "so that the network would stay untrained" if subcommand == "fit" else f"but {method} trains"
            raise InputError(f"trainer.{name}", value, f"no step of training, {why}")
