"""Print the version and the help without importing torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

from bdclean import __version__
from bdclean.cli.options import SUBCOMMANDS, descriptions, options
from bdclean.exits import table
from bdclean.registry import ALIASES

VERSION = ("--version", "-V", "-v", "version")
HELP = ("--help", "-h", "help")


def answer(words: Sequence[str]) -> bool:
    """Print the version or the help if the command line asks for it.

    Args:
        words: The command line, without the program's name.

    Returns:
        Whether it did.
    """
    if list(words) in ([word] for word in VERSION):
        print(__version__)
    elif list(words) in ([word] for word in HELP):
        print(usage())
    elif (page := _page(words)) is not None:
        print(page)
    else:
        return False
    return True


def _page(words: Sequence[str]) -> str | None:
    """The help of a command or of a class of this package; None if the command line asks for something else."""
    # Imported here, as it needs a package that parses docstrings.
    from bdclean.cli import help

    if len(words) == 2 and words[0] in HELP and words[1] in SUBCOMMANDS:
        return help.of_command(words[1])
    if not words or words[0] not in SUBCOMMANDS:
        return None
    # As with most programs, in whatever place it stands.
    if not {"--help", "-h"}.isdisjoint(words[1:]):
        return help.of_command(words[0])
    name, _, value = "=".join(words[1:]).partition("=")
    option = name.removeprefix("--").removesuffix(".help")
    known = name.endswith(".help") and option in options(words[0]).classes
    return help.of_class(option, ALIASES.get(option, {}).get(value, value)) if known else None


def usage() -> str:
    """The text of `bdclean --help`."""
    commands = "\n".join(f"  {name:<10} {text}" for name, text in descriptions().items())
    return (
        "usage: bdclean COMMAND [options]\n\n"
        "Find and remove backdoors in image classifiers with unlabeled images, and train backdoored\n"
        "ones to study them.\n\n"
        f"commands:\n{commands}\n\n"
        "A first try, on images that the program draws itself:\n"
        "  bdclean fit --config configs/badnet.yaml\n"
        "  bdclean cleanse --ckpt suspect.ckpt\n\n"
        "Your own network:\n"
        "  bdclean cleanse --ckpt suspect.pth --model.mean imagenet --data.unlabeled my_photos/\n\n"
        "`bdclean COMMAND --help` lists the options of a command, `bdclean --version` prints the version.\n\n"
        f"exit codes:\n{table()}"
    )
