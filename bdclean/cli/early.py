"""Find the most common mistakes without importing torch, which takes seconds.

The parser would refuse them too. Doubtful cases are left to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from bdclean import outputs
from bdclean.cli.messages import expected, no_class, no_option, no_value
from bdclean.cli.options import SUBCOMMANDS, Classes, Options, options, untrained
from bdclean.cli.values import is_word
from bdclean.cli.words import given_options
from bdclean.errors import InputError
from bdclean.registry import is_source, networks, no_network, no_source
from bdclean.suggestions import suggestion

DEFAULT_METHOD = "ScanDistill"
"""Default method of cleansing."""
LENGTHS = ("max_epochs", "max_steps", "max_time", "limit_train_batches")
"""Options of the Trainer with which training has no steps if they are 0."""
GLOBAL = ("help", "version", "config", "print_config")
"""Options that can precede the subcommand."""
FILES = ("ckpt", "cleansed", "ckpt_path", "config")
"""Options that name files to be read."""


def check(words: Sequence[str]) -> None:
    """Refuse subcommands, options and files that certainly do not exist.

    Args:
        words: The command line, without the program's name.

    Raises:
        InputError: If one does not exist; the message suggests a similar name.
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
        # A following option is not a value.
        if value is not None and not value.startswith("--"):
            _check_given(name, value, known, subcommand)
    if not _has_variables() and not {"config", "trainer"} & {name for name, _ in given}:
        _check_length(subcommand, last)


def check_classes(words: Sequence[str]) -> None:
    """Refuse classes, and options of classes, that are not in this package.

    Nothing is refused if configuration files, environment variables or a user's own classes could define it.

    Args:
        words: The command line, without the program's name, after `check`.

    Raises:
        InputError: If one does not exist; the message suggests a similar name.
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
    """Refuse a command without `--ckpt`, if no configuration file or environment variable can set it.

    Args:
        words: The command line, without the program's name, after `check` and `check_classes`.

    Raises:
        InputError: If `--ckpt` is required and missing.
    """
    if not words or words[0] not in SUBCOMMANDS or _asks_for_help(words) or _has_variables():
        return
    given = {name for name, _ in given_options(words[1:])}
    if "ckpt" in options(words[0]).names and not given & {"ckpt", "config", "print_config"}:
        raise InputError("ckpt", None, "required")


def _check_subcommand(name: str) -> None:
    """Refuse a subcommand that does not exist."""
    if name not in SUBCOMMANDS:
        advice = suggestion(name, SUBCOMMANDS) or f"; there are {', '.join(SUBCOMMANDS)}"
        raise InputError("", None, f"{name}: no such command{advice}")


def _check_given(name: str, value: str, known: Options, subcommand: str) -> None:
    """Refuse a value that is certainly wrong for its option."""
    if name in FILES and name in known.names:
        _check_file(name, value)
    elif name == "output" and name in known.names:
        outputs.check_name(subcommand, value)
    elif name in ("data.source", "data.unlabeled", "clean"):
        if is_word(value) and not is_source(value):
            raise no_source(name, value)
    elif name == "model.arch":
        if is_word(value) and "." not in value and "/" not in value and value not in (networks() or [value]):
            raise no_network(value, networks())
    else:
        _check_value(name, value, known)


def _check_start(words: Sequence[str]) -> None:
    """Refuse a command line without a subcommand, and options that must come after the subcommand."""
    if _has_variables() or _asks_for_help(words):
        return
    subcommand = next((word for word in words if word in SUBCOMMANDS), None)
    if subcommand is None:
        if "config" in {name for name, _ in given_options(words)}:
            # The file may name the subcommand.
            return
        raise InputError("", None, f"no command: there are {', '.join(SUBCOMMANDS)}; see bdclean --help")
    for name, value in given_options(words[: words.index(subcommand)]):
        if name not in GLOBAL:
            raise InputError(name, value or None, f"must come after the command {subcommand}")


def _check_help(option: str, given: Sequence[tuple[str, str | None]], classes: Classes) -> None:
    """Refuse `.help` for a class that does not exist."""
    for value in (value or "" for name, value in given if name == f"{option}.help"):
        # A following option is not a value.
        if value.isidentifier() and value not in classes.names:
            raise no_class(f"{option}.help", value, classes.usual)


def _check_named(option: str, named: Sequence[str], classes: Classes) -> None:
    """Refuse classes that an option does not accept."""
    for value in named:
        if value not in classes.names and value.lower() not in ("null", "none", "true", "false"):
            raise no_class(option, value, classes.usual)


def _check_inner(option: str, names: Sequence[str], classes: Classes) -> None:
    """Refuse options that none of the classes has."""
    if classes.parameters is None:
        return
    for name in (name for name in names if name.startswith(f"{option}.")):
        inner = name.removeprefix(f"{option}.").removeprefix("init_args.").partition(".")[0].rstrip("+")
        if inner not in {*classes.parameters, "class_path", "dict_kwargs"}:
            advice = suggestion(inner, classes.parameters, f"--{option}.")
            raise InputError(name, None, f"no such option{advice or f'; --{option}.help NAME lists those of a class'}")


def _has_variables() -> bool:
    """Whether environment variables may set options."""
    return any(name.startswith("BDCLEAN_") for name in os.environ)


def _asks_for_help(words: Sequence[str]) -> bool:
    """Whether the parser prints help and exits before it finds a mistake."""
    return any(word in ("-h", "--help", "--help-all") or word.partition("=")[0].endswith(".help") for word in words)


def _check_name(name: str, known: Options, subcommand: str) -> None:
    """Refuse an option that does not exist. A name may continue after a known option, with keys of its value."""
    group, *rest = name.split(".")
    grouped = any(other.startswith(f"{group}.") for other in known.names)
    wanted = f"{group}.{rest[0]}" if grouped and rest else group
    if group not in known.open and wanted.rstrip("+") not in known.names:
        raise no_option(name, known, f"; bdclean {subcommand} --help lists them")


def _check_file(name: str, value: str) -> None:
    """Refuse the name of a file that does not exist."""
    # The value may also be a configuration in YAML, a URL, or a following option.
    if not re.search(r"[:{\[\n]|^-", value) and value not in ("null", "None", "~") and not os.path.lexists(value):
        raise InputError(name, value, "no such file")


def _check_value(name: str, value: str, known: Options) -> None:
    """Refuse a word if the option accepts no words, or only other words."""
    # Refuse it only if every class does, as a checkpoint may decide which class is used.
    kinds = known.values.get(name.replace(".init_args.", "."), ())
    sure = [kind for kind in kinds if kind is not None and kind.refuses(value)]
    if sure and len(sure) == len(kinds):
        raise no_value(name, value, sure[0].choices, expected(sure[0].choices, sure[0].types))


def _check_length(subcommand: str, given: Mapping[str, str | None]) -> None:
    """Refuse options with which training has no steps, for commands that certainly train."""
    method = given.get("method", given.get("method.class_path")) or DEFAULT_METHOD
    trains = method in options("cleanse").classes["method"].names and method not in untrained()
    if subcommand != "fit" and not (subcommand == "cleanse" and trains):
        return
    for name in LENGTHS:
        value = given.get(f"trainer.{name}") or ""
        if re.fullmatch(r"[0:.]*0[0:.]*", value):
            why = "so the network would stay untrained" if subcommand == "fit" else f"but {method} trains"
            raise InputError(f"trainer.{name}", value, f"no training step, {why}")
