"""Names that options take, read from the source: to import it takes seconds, because of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bdclean.errors import InputError
from bdclean.source import PACKAGE, files_of, keys_of
from bdclean.suggestions import suggestion

ARRAY_SUFFIXES = (".npz", ".npy")
"""Of files of arrays."""
ABSTRACT = ("Cleanser", "Detector", "Finding", "Inversion", "Callback", "Logger", "LitLogger")
"""Classes beside those that options take: bases, and a logger for Lightning's own service."""
REGISTERED = r"(?m)^@register_model\(.*\n(?:.*\n)*?def (\w+)"
"""How torchvision says that a function makes a network."""
METHOD_ALIASES = {"BCU": "DistillCleanseModule"}
"""Short name of a method to the name of its class."""
RENAMED_ATTACK_OPTIONS = {"silent_share": "warmup_fraction"}
"""Old names of attacks' options, on command lines and in checkpoints, to the current ones."""
USUAL = ("preact_resnet18", "resnet18", "vgg11_bn")
"""Networks that are suggested where nothing is alike."""


def is_source(name: str) -> bool:
    """Whether there is a source of images of a name: a known one, a folder, or a file of arrays."""
    is_file = os.path.isfile(name) and Path(name).suffix in ARRAY_SUFFIXES
    return name in image_sets() or os.path.isdir(name) or is_file


def no_source(parameter: str, name: str) -> InputError:
    """The error that there is no source of images of a name.

    Args:
        parameter: The parameter that named it.
        name: What was given.
    """
    known = image_sets()
    close = suggestion(name, known)
    return InputError(
        parameter, name, f"neither a folder, nor an .npz or .npy file, nor one of {', '.join(known)}{close}"
    )


def no_network(name: str, known: Sequence[str]) -> InputError:
    """The error that there is no network of a name, given those that there are."""
    advice = suggestion(name, known) or f"; some that there are: {', '.join(USUAL)}"
    return InputError("model.arch", name, f"no such network{advice}")


@cache
def image_sets() -> tuple[str, ...]:
    """Sets of images that have names: those that the program draws first, then torchvision's."""
    paths = sorted((PACKAGE / "data" / "sources").glob("*.py"), key=lambda path: path.name, reverse=True)
    lists = [keys_of(path, "NAMES") for path in paths]
    return tuple(name for names in sorted(lists, key=len) for name in names)


@cache
def networks() -> tuple[str, ...]:
    """Networks of this package and of torchvision; none if torchvision's could not be found."""
    own = (name for table in ("FIXED", "NETWORKS") for name in keys_of(PACKAGE / "networks" / "cifar.py", table))
    files = files_of("torchvision", "models/*.py")
    # Its syntax trees take a second.
    theirs = [name for path in files for name in re.findall(REGISTERED, path.read_text(encoding="utf-8"))]
    return tuple(sorted([*own, *theirs])) if theirs else ()


@cache
def of_lightning(kind: str) -> tuple[str, ...]:
    """Lightning's `loggers` or `callbacks`, by the short names that options take; none if Lightning is elsewhere."""
    files = files_of("lightning", f"pytorch/{kind}/__init__.py")
    return tuple(name for path in files for name in keys_of(path, "__all__") if name not in ABSTRACT)
