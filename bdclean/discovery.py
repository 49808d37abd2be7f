"""Classes that are found in the files of a package, so that a new one is nowhere else listed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from typing import Any


def find_classes(package: str, paths: Iterable[str], base: type) -> list[Any]:
    """The classes that inherit from one and can be made, in the order of their names.

    Args:
        package: The package, of which each module is imported.
        paths: Its `__path__`.
        base: What they inherit from.
    """
    modules = [importlib.import_module(found.name) for found in pkgutil.iter_modules(paths, f"{package}.")]
    classes = {one for module in modules for one in vars(module).values() if inspect.isclass(one)}
    own = {one for one in classes if one.__module__.startswith(f"{package}.") and issubclass(one, base)}
    return sorted((one for one in own if not inspect.isabstract(one)), key=lambda kind: kind.__name__)
