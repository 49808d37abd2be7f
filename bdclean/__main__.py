"""The program's start: the version at once, everything else after torch and lightning have been imported."""

import sys

from bdclean import __version__


def run() -> None:
    """What the shell's `bdclean` calls."""
    if sys.argv[1:] == ["--version"]:
        print(__version__)
        return
    from bdclean.cli import main

    main()


if __name__ == "__main__":
    run()
