"""Run a command, and report errors in one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bdclean import __version__, printable
from bdclean.benchmark.work import Command, Estimate
from bdclean.cli import early, instant, renamed
from bdclean.cli.configuration import LogConfig
from bdclean.cli.estimating import EstimatingCommandLine
from bdclean.cli.flags import flag
from bdclean.cli.mistakes import mistake
from bdclean.cli.options import QUIET, TRAINED
from bdclean.cli.parser import CommandLine
from bdclean.cli.verbs import Verbs
from bdclean.data import PoisonDataModule
from bdclean.engine.quiet import printed, quieten
from bdclean.errors import InputError, naming
from bdclean.exits import Exit, interruption
from bdclean.modules import AttackModule


def execute(words: Sequence[str], kind: type[CommandLine] = CommandLine) -> Any:
    """Run a command.

    Args:
        words: The command line, without the program's name.
        kind: The command line that parses and runs it.

    Returns:
        The typed result of the command, if it has one.

    Raises:
        InputError: If the user can fix the error, with a message of one line.
    """
    quieten()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names and terminals may not be UTF-8: escape characters that cannot be printed.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        # Without a terminal, draw Lightning's progress bars only when they are full.
        os.environ.setdefault("TQDM_MINITERS", "1000000")
    with naming(flag):
        try:
            words = renamed.announced(words)
            early.check(words)
            words, notices = quiet(words)
            with notices:
                return kind(
                    AttackModule,
                    PoisonDataModule,
                    trainer_class=Verbs,
                    seed_everything_default=0,
                    parser_kwargs={"version": __version__},
                    save_config_callback=LogConfig,
                    # Without a logger, Lightning would write config.yaml to the current folder.
                    save_config_kwargs={"save_to_log_dir": False},
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,
                    args=["--help" if word == "--help-all" else word for word in words],
                    command=Command(execute, check, estimate),
                ).result
        except Exception as error:
            found = mistake(error)
            if found is None or found is error:
                raise
            raise found from error


def quiet(words: Sequence[str]) -> tuple[list[str], AbstractContextManager[None]]:
    """Apply `--quiet`, which disables progress bars and notices.

    Returns:
        The command line without `--quiet`, and the context that prints notices or does not.
    """
    if QUIET not in words:
        return list(words), printed()
    os.environ["TQDM_DISABLE"] = "1"
    others = [word for word in words if word != QUIET]
    bars = ["--trainer.enable_progress_bar", "false"] if others and others[0] in TRAINED else []
    return [*others, *bars], nullcontext()


def check(words: Sequence[str]) -> None:
    """Check a command for certain mistakes, without running it.

    Raises:
        InputError: If it has one.
    """
    with naming(flag):
        words, _ = renamed.current(words)
        early.check(words)
        early.check_classes(words)


def estimate(words: Sequence[str]) -> Estimate:
    """Estimate the duration of `fit` or `cleanse`, without running it.

    Raises:
        InputError: If the command is wrong.
    """
    result: Estimate = execute(words, EstimatingCommandLine)
    return result


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: The command line, without the program's name; by default that of this process.

    Raises:
        SystemExit: With an exit code of `bdclean.exits`, after one line on standard error if it is an error.
    """
    words = sys.argv[1:] if args is None else args
    if instant.answer(words):
        raise SystemExit(Exit.DONE)
    try:
        execute(words)
    except KeyboardInterrupt as error:
        _print_error(interruption(error))
        raise SystemExit(Exit.INTERRUPTED) from error
    except InputError as error:
        _print_error(f"bdclean: error: {printable(str(error))}")
        raise SystemExit(Exit.MISTAKE) from error


def _print_error(line: str) -> None:
    """Print a line on standard error, in the first process only."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)
