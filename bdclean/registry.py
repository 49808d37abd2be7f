"""Allowed values of options, read from the source code, because importing torch takes seconds."""

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
"""Suffixes of files of arrays."""
ARCHIVE_SUFFIX = ".tar"
"""Suffix of archives of image files."""
ABSTRACT = (
    "Cleanser",
    "Detector",
    "Engine",
    "Finding",
    "Inversion",
    "Score",
    "ImageScore",
    "PoolScore",
    "Callback",
    "Logger",
    "LitLogger",
)
"""Classes that options do not accept: base classes, and a logger for Lightning's own service."""
REGISTERED = r"(?m)^@register_model\(.*\n(?:.*\n)*?def (\w+)"
"""Matches a function of torchvision that makes a network."""
METHOD_ALIASES = {"BCU": "DistillCleanseModule"}
"""Maps the short name of a method to the name of its class."""
ENGINE_ALIASES = {"local": "Local", "slurm": "Slurm", "ray": "Ray"}
"""Maps the name of an engine in lower case to the name of its class."""
ALIASES = {"method": METHOD_ALIASES, "engine": ENGINE_ALIASES}
"""Other names of classes, by the option that names the class."""
RENAMED_ATTACK_OPTIONS = {
    "silent_share": "warmup_fraction",
    "learning_share": "trigger_training_fraction",
    "kept": "kept_fraction",
    "ghost_share": "ghost_fraction",
    "tested": "test_trigger",
}
"""Maps old names of attack options, on command lines and in checkpoints, to the current names."""
USUAL = ("preact_resnet18", "resnet18", "vgg11_bn")
"""Networks to suggest if no name is similar."""


def is_source(name: str) -> bool:
    """Whether a name is a source of images: a known one, a folder, or a file of arrays or of images."""
    is_file = os.path.isfile(name) and Path(name).suffix in (*ARRAY_SUFFIXES, ARCHIVE_SUFFIX)
    return name in image_sets() or os.path.isdir(name) or is_file


def no_source(parameter: str, name: str) -> InputError:
    """The error for an unknown source of images.

    Args:
        parameter: The parameter that names the source.
        name: Its value.
    """
    known = image_sets()
    close = suggestion(name, known)
    return InputError(
        parameter, name, f"neither a folder, nor an .npz, .npy or .tar file, nor one of {', '.join(known)}{close}"
    )


def no_network(name: str, known: Sequence[str]) -> InputError:
    """The error for an unknown network.

    Args:
        name: The unknown name.
        known: All known names.
    """
    advice = suggestion(name, known) or f"; some that there are: {', '.join(USUAL)}"
    return InputError("model.arch", name, f"no such network{advice}")


@cache
def image_sets() -> tuple[str, ...]:
    """Names of image sets: first the sets that the program generates, then torchvision's."""
    paths = sorted((PACKAGE / "data" / "sources").glob("*.py"), key=lambda path: path.name, reverse=True)
    lists = [keys_of(path, "NAMES") for path in paths]
    return tuple(name for names in sorted(lists, key=len) for name in names)


@cache
def networks() -> tuple[str, ...]:
    """Names of the networks of this package and of torchvision; empty if torchvision's source is not found."""
    own = (name for table in ("FIXED", "NETWORKS") for name in keys_of(PACKAGE / "networks" / "cifar.py", table))
    files = files_of("torchvision", "models/*.py")
    # Parsing the syntax trees would take a second.
    torchvision = [name for path in files for name in re.findall(REGISTERED, path.read_text(encoding="utf-8"))]
    return tuple(sorted([*own, *torchvision])) if torchvision else ()


@cache
def of_lightning(kind: str) -> tuple[str, ...]:
    """Short names of Lightning's `loggers` or `callbacks`; empty if its source is not found."""
    files = files_of("lightning", f"pytorch/{kind}/__init__.py")
    return tuple(name for path in files for name in keys_of(path, "__all__") if name not in ABSTRACT)
