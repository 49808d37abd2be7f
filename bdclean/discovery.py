"""Finding the classes in the files of a package, so that a new class needs no entry in a list."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from typing import Any


def find_classes(package: str, paths: Iterable[str], base: type) -> list[Any]:
    """The concrete subclasses of a class, sorted by name.

    Args:
        package: Name of the package, whose modules are all imported.
        paths: Its `__path__`.
        base: The base class.
    """
    modules = [importlib.import_module(info.name) for info in pkgutil.iter_modules(paths, f"{package}.")]
    classes = {one for module in modules for one in vars(module).values() if inspect.isclass(one)}
    found = {one for one in classes if one.__module__.startswith(f"{package}.") and issubclass(one, base)}
    return sorted((one for one in found if not inspect.isabstract(one)), key=lambda kind: kind.__name__)
