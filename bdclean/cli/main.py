"""Runs a command, and says in one line what is wrong with it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bdclean import __version__, printable
from bdclean.benchmark.work import Command
from bdclean.cli import early, instant, renamed
from bdclean.cli.configuration import LogConfig
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


def execute(words: Sequence[str]) -> Any:
    """Run a command.

    Args:
        words: Those of the command line after the program's name.

    Returns:
        The typed result of the command, if it has one.

    Raises:
        InputError: With one line, if the user can mend what is wrong.
    """
    quieten()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8, nor terminals: what cannot be written is written with a backslash.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        # How many steps Lightning's progress bars wait before they are drawn again: in a file, until they are full.
        os.environ.setdefault("TQDM_MINITERS", "1000000")
    with naming(flag):
        try:
            words = renamed.announced(words)
            early.check(words)
            words, notices = quiet(words)
            with notices:
                return CommandLine(
                    AttackModule,
                    PoisonDataModule,
                    trainer_class=Verbs,
                    seed_everything_default=0,
                    parser_kwargs={"version": __version__},
                    save_config_callback=LogConfig,
                    # Without a logger Lightning's own would land on a config.yaml in the current folder.
                    save_config_kwargs={"save_to_log_dir": False},
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,
                    args=["--help" if word == "--help-all" else word for word in words],
                    command=Command(execute, check),
                ).result
        except Exception as error:
            found = mistake(error)
            if found is None or found is error:
                raise
            raise found from error


def quiet(words: Sequence[str]) -> tuple[list[str], AbstractContextManager[None]]:
    """What `--quiet` does: no progress bars and no notices, results and errors alone.

    Returns:
        The other words, and the context in which notices are printed or not.
    """
    if QUIET not in words:
        return list(words), printed()
    os.environ["TQDM_DISABLE"] = "1"
    others = [word for word in words if word != QUIET]
    bars = ["--trainer.enable_progress_bar", "false"] if others and others[0] in TRAINED else []
    return [*others, *bars], nullcontext()


def check(words: Sequence[str]) -> None:
    """Refuse a command that certainly is wrong, without running it.

    Raises:
        InputError: If it is.
    """
    with naming(flag):
        words, _ = renamed.current(words)
        early.check(words)
        early.check_classes(words)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Its words after the program's name; by default those of the shell.

    Raises:
        SystemExit: With a code of `bdclean.exits`, after one line on standard error.
    """
    words = sys.argv[1:] if args is None else args
    if instant.answer(words):
        raise SystemExit(Exit.DONE)
    try:
        execute(words)
    except KeyboardInterrupt as error:
        _say(interruption(error))
        raise SystemExit(Exit.INTERRUPTED) from error
    except InputError as error:
        _say(f"bdclean: error: {printable(str(error))}")
        raise SystemExit(Exit.MISTAKE) from error


def _say(line: str) -> None:
    """Print a line on standard error, once for all processes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)
